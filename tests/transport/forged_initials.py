"""Initial packets of any content, as anyone can write them (RFC 9001, 5.2): their keys are no secret."""

from __future__ import annotations

import os

from aioquic.buffer import encode_uint_var
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

SMALLEST_DATAGRAM = 1200


def crypto_frame(offset, data):
    return b"\6" + encode_uint_var(offset) + encode_uint_var(len(data)) + data


class ForgedInitials:
    """A client that says what it likes in its first flight."""

    def __init__(self, destination=None):
        """``destination``: the connection ID that it makes up for the relay."""
        self.destination = os.urandom(8) if destination is None else destination
        self.source = os.urandom(8)
        self._crypto = CryptoPair()
        self._crypto.setup_initial(
            cid=self.destination, is_client=True, version=QuicProtocolVersion.VERSION_1
        )
        self._number = 0

    def _head(self, source):
        """The header of an Initial packet up to its token, which is empty."""
        head = b"\xc3" + int(QuicProtocolVersion.VERSION_1).to_bytes(4, "big")
        for connection_id in (self.destination, source):
            head += bytes((len(connection_id),)) + connection_id
        return head + b"\0"

    def junk(self, content=b""):
        """Return an Initial packet that cannot be decrypted, for a datagram of many (RFC 9000, 12.2)."""
        return self._head(b"") + encode_uint_var(len(content)) + content

    def packet(self, frames):
        """Return a datagram of 1200 bytes with an Initial packet."""
        head = self._head(self.source)
        number = self._number.to_bytes(4, "big")
        plain = frames.ljust(SMALLEST_DATAGRAM - len(head) - 2 - 4 - 16, b"\0")
        head += (0x4000 | 4 + len(plain) + 16).to_bytes(2, "big") + number
        self._number += 1
        return self._crypto.encrypt_packet(head, plain, self._number - 1)

    def pieces(self, count, *, start=2, room=1150):
        """CRYPTO frames of one byte with gaps between them: as many datagrams as ``count`` of them fill."""
        frames = b""
        for number in range(count):
            frames += crypto_frame(start + 2 * number, b"x")
            if len(frames) > room - 8:
                yield self.packet(frames)
                frames = b""
        if frames:
            yield self.packet(frames)
