"""Clients on blocking sockets, which read nothing that they are not told to."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path

from aioquic.tls import CipherSuite, cipher_suite_hash, hkdf_expand_label
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
KEY_UPDATE = 24
SUITES = {
    "TLS_AES_128_GCM_SHA256": (CipherSuite.AES_128_GCM_SHA256, 16),
    "TLS_AES_256_GCM_SHA384": (CipherSuite.AES_256_GCM_SHA384, 32),
}
"""With the bytes of their keys."""
PATIENCE = 20.0


class RawTcp:
    """A connection to a port of this host."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, content):
        self.socket.sendall(content)

    def end(self):
        """Send nothing more."""
        self.socket.shutdown(socket.SHUT_WR)

    def read_to_end(self):
        """Return all that comes, as it comes."""
        return b"".join(iter(lambda: self.socket.recv(65536), b""))


class RawTls(RawTcp):
    """Shakes hands for TLS 1.3; from then on it makes its records itself (RFC 8446, sections 5.2 and 7)."""

    def __init__(self, port):
        super().__init__(port)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "secrets")
            context.keylog_filename = str(log)
            cipher = self._shake_hands(context)
            secrets = [line.split() for line in log.read_text().splitlines()]
        suite, self._key_size = SUITES[cipher]
        self._hash = cipher_suite_hash(suite)
        self._use(next(bytes.fromhex(words[2]) for words in secrets if words[0] == "CLIENT_TRAFFIC_SECRET_0"))

    def send(self, content):
        """Send a record."""
        self.socket.sendall(self.record(content))

    def record(self, content, kind=APPLICATION_DATA):
        """The next record of at most 16 KB."""
        plain = content + bytes([kind])
        head = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._aead.encrypt(nonce, plain, head)

    def key_update(self, *, update_requested=True):
        """The next record: those behind it have a new key, and the server may be asked for one, too."""
        record = self.record(bytes([KEY_UPDATE, 0, 0, 1, update_requested]), HANDSHAKE)
        size = self._hash.digest_size
        self._use(hkdf_expand_label(self._hash, self._secret, b"traffic upd", b"", size))
        return record

    def close_notify(self):
        """The record that says that no others follow."""
        return self.record(b"\x01\x00", ALERT)

    def _shake_hands(self, context):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(outgoing.read())
                incoming.write(self.socket.recv(65536))
            else:
                self.socket.sendall(outgoing.read())
                return tls.cipher()[0]

    def _use(self, secret):
        self._secret, self._number = secret, 0
        self._aead = AESGCM(hkdf_expand_label(self._hash, secret, b"key", b"", self._key_size))
        self._iv = int.from_bytes(hkdf_expand_label(self._hash, secret, b"iv", b"", 12), "big")
