"""TLS 1.3's key schedule (RFC 8446, section 7.1) and QUIC's packet protection keys, with hashlib's hashes.

aioquic makes each of the some thirty keys of a handshake with several objects of the cryptography package,
which costs more than the hashes themselves. ``aioquic_hot_spots`` puts this in its place.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite, cipher_suite_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.hashes import HashAlgorithm

_AES_128: Final = CipherSuite.AES_128_GCM_SHA256
_VERSION_2: Final = QuicProtocolVersion.VERSION_2

_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
"""What HMAC makes of each byte of a key, for the hash within and the one around it (RFC 2104, section 2)."""

_HASHES: Final[dict[str, tuple[Callable[..., hashlib._Hash], int, bytes]]] = {
    "sha256": (hashlib.sha256, 64, hashlib.sha256().digest()),
    "sha384": (hashlib.sha384, 128, hashlib.sha384().digest()),
}
"""By name: the hash, the bytes of its block, and what it is of nothing."""


def hmac_digest(name: str, key: bytes, message: bytes) -> bytes:
    """Return the HMAC of a message, ``name`` being a hash's; a key of TLS is never longer than a block."""
    new, block, _ = _HASHES[name]
    padded = key.ljust(block, b"\0")
    within = new(padded.translate(_INNER))
    within.update(message)
    around = new(padded.translate(_OUTER))
    around.update(within.digest())
    return around.digest()


@cache
def _label(label: bytes, length: int) -> bytes:
    """Return the start of an HkdfLabel, up to the context; there are some twenty."""
    return length.to_bytes(2) + bytes([6 + len(label)]) + b"tls13 " + label


def _expand_label(name: str, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    # One round of HKDF-Expand (RFC 5869, section 2.3): TLS asks for no more bytes than the hash has.
    info = b"%b%c%b\x01" % (_label(label, length), len(context), context)
    return hmac_digest(name, secret, info)[:length]


def hkdf_expand_label(
    algorithm: HashAlgorithm, secret: bytes, label: bytes, hash_value: bytes, length: int
) -> bytes:
    """Return HKDF-Expand-Label: ``length`` bytes, at most as many as the hash has."""
    return _expand_label(algorithm.name, secret, label, hash_value, length)


def hkdf_extract(algorithm: HashAlgorithm, salt: bytes, key_material: bytes) -> bytes:
    """Return HKDF-Extract (RFC 5869, section 2.2)."""
    return hmac_digest(algorithm.name, salt, key_material)


def derive_key_iv_hp(*, cipher_suite: CipherSuite, secret: bytes, version: int) -> tuple[bytes, bytes, bytes]:
    """Return a direction's key, IV and key of header protection (RFC 9001, 5.1; RFC 9369, 3.3.2)."""
    name = cipher_suite_hash(cipher_suite).name
    size = 16 if cipher_suite == _AES_128 else 32
    quic = b"quicv2 " if version == _VERSION_2 else b"quic "
    return (
        _expand_label(name, secret, quic + b"key", b"", size),
        _expand_label(name, secret, quic + b"iv", b"", 12),
        _expand_label(name, secret, quic + b"hp", b"", size),
    )


class KeySchedule:
    """Secrets of one handshake, as far as it has come, and the hash of its messages; as aioquic uses it."""

    def __init__(self, cipher_suite: CipherSuite) -> None:
        self.cipher_suite = cipher_suite
        self.algorithm: Any = cipher_suite_hash(cipher_suite)
        """One of the cryptography package's, for those who ask for its size."""
        self.generation = 0
        """How often something went into the secret: 1 early, 2 handshake, 3 master."""
        self._name: str = self.algorithm.name
        new, _, self._hash_of_nothing = _HASHES[self._name]
        self._messages = new()
        self._size: int = self.algorithm.digest_size
        self.secret = bytes(self._size)

    def certificate_verify_data(self, context_string: bytes) -> bytes:
        """Return what a CertificateVerify signs (RFC 8446, section 4.4.3)."""
        return b" " * 64 + context_string + b"\0" + self._messages.digest()

    def finished_verify_data(self, secret: bytes) -> bytes:
        """Return what a Finished has (RFC 8446, section 4.4.4)."""
        key = _expand_label(self._name, secret, b"finished", b"", self._size)
        return hmac_digest(self._name, key, self._messages.digest())

    def derive_secret(self, label: bytes) -> bytes:
        """Return Derive-Secret of the messages so far."""
        return _expand_label(self._name, self.secret, label, self._messages.digest(), self._size)

    def extract(self, key_material: bytes | None = None) -> None:
        """Go on to the next secret; without key material, zeros."""
        salt = self.secret
        if self.generation:
            salt = _expand_label(self._name, salt, b"derived", self._hash_of_nothing, self._size)
        self.generation += 1
        self.secret = hmac_digest(
            self._name, salt, bytes(self._size) if key_material is None else key_material
        )

    def update_hash(self, data: bytes) -> None:
        """Take a handshake message."""
        self._messages.update(data)
