"""HelloRetryRequest (RFC 8446, section 4.1.4): a client is asked for a key of a group that both sides know.

Clients send keys of the groups that they expect their server to know, post-quantum ones first, and some no
other. aioquic refuses those that it has no use for, even where the client knows a group that it has. Here
such a client is asked once, which costs it a round trip. All others are served as they were.
"""

from __future__ import annotations

from typing import Final

from aioquic.buffer import Buffer
from aioquic.tls import (
    AlertHandshakeFailure,
    CipherSuite,
    Context,
    ExtensionType,
    HandshakeType,
    ServerHello,
    cipher_suite_hash,
    negotiate,
    pull_client_hello,
    push_server_hello,
)
from cryptography.hazmat.primitives.hashes import Hash

RETRY_RANDOM: Final = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
"""What tells the request from any other ServerHello (RFC 8446, section 4.1.3)."""
TLS_1_3: Final = 0x0304
_SESSION_ID_AT: Final = 4 + 2 + 32
"""Behind the message's head, the version and the random of a ClientHello."""


class AskingContext(Context):
    """aioquic's server side of TLS, which asks for another key before it gives up."""

    asked = b""
    """The handshake so far, as it is hashed, once the client was asked."""

    @classmethod
    def take_over(cls, context: Context) -> None:
        """Make it of aioquic's own, which has received nothing yet."""
        context.__class__ = cls

    def _server_handle_hello(self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer) -> None:
        message = input_buf.data_slice(0, input_buf.capacity)
        if self.asked:
            # What was said before goes into the hash too: there aioquic takes all that is in the buffer.
            both = Buffer(data=self.asked + message)
            both.seek(len(self.asked))
            super()._server_handle_hello(both, initial_buf, handshake_buf)
            input_buf.seek(both.tell() - len(self.asked))
            return
        sent = groups_with_keys(message)
        if sent is None or any(group in self._supported_groups for group in sent):
            super()._server_handle_hello(input_buf, initial_buf, handshake_buf)
            return
        hello = pull_client_hello(input_buf)
        group = negotiate(
            self._supported_groups, hello.supported_groups, AlertHandshakeFailure("No supported group")
        )
        suite = negotiate(
            self._cipher_suites, hello.cipher_suites, AlertHandshakeFailure("No supported cipher suite")
        )
        start = initial_buf.tell()
        push_server_hello(
            initial_buf,
            ServerHello(
                random=RETRY_RANDOM,
                legacy_session_id=hello.legacy_session_id,
                cipher_suite=suite,
                compression_method=0,
                supported_version=TLS_1_3,
                other_extensions=[(ExtensionType.KEY_SHARE, group.to_bytes(2, "big"))],
            ),
        )
        self.asked = message_hash(suite, message) + initial_buf.data_slice(start, initial_buf.tell())


def groups_with_keys(hello: bytes) -> list[int] | None:
    """Return the groups of which a ClientHello has keys; None where there is no list of these to be read.

    No objects are made of all the rest: nearly always there is a key that can be used.
    """
    try:
        at = _SESSION_ID_AT + 1 + hello[_SESSION_ID_AT]
        at += 2 + _number(hello, at)  # cipher suites
        at += 1 + hello[at] + 2  # compression methods, the length of all extensions
    except IndexError:
        return None
    while at + 4 <= len(hello):
        kind, end = _number(hello, at), at + 4 + _number(hello, at + 2)
        if kind != ExtensionType.KEY_SHARE:
            at = end
            continue
        groups = []
        at += 6
        while at + 4 <= min(end, len(hello)):
            groups.append(_number(hello, at))
            at += 4 + _number(hello, at + 2)
        return groups
    return None


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def message_hash(suite: CipherSuite, message: bytes) -> bytes:
    """Return what stands for the first ClientHello in the handshake's hash (RFC 8446, section 4.4.1)."""
    digest = Hash(cipher_suite_hash(suite))
    digest.update(message)
    hashed = digest.finalize()
    return bytes((HandshakeType.MESSAGE_HASH, 0, 0, len(hashed))) + hashed
