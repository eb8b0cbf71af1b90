"""What aioquic does most often while a connection opens, done the same way for less; for clients as well.

Importing this module replaces it in aioquic. ``tests/transport/test_aioquic_hot_spots.py`` compares both.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from aioquic import tls
from aioquic.quic import connection as aioquic_connection
from aioquic.tls import AlertDecodeError, Epoch

if TYPE_CHECKING:
    from aioquic.buffer import Buffer


class PulledBlock:
    """``with PulledBlock(buf, capacity) as length``: a block with its length before it, to be read whole.

    Raises AlertDecodeError when it was read only in part, or beyond its end. aioquic's own is a generator,
    which costs twice as much; a handshake has some forty blocks.
    """

    __slots__ = ("_buf", "_end", "_length")

    def __init__(self, buf: Buffer, capacity: int) -> None:
        """Read the length, ``capacity`` bytes."""
        self._buf = buf
        self._length = int.from_bytes(buf.pull_bytes(capacity))
        self._end = buf.tell() + self._length

    def __enter__(self) -> int:
        return self._length

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        if kind is None and self._buf.tell() != self._end:
            raise AlertDecodeError("extra bytes at the end of a block")


class PushedBlock:
    """``with PushedBlock(buf, capacity)``: what is written inside gets its length before it."""

    __slots__ = ("_buf", "_capacity", "_start")

    def __init__(self, buf: Buffer, capacity: int) -> None:
        """Leave ``capacity`` bytes for the length."""
        self._buf = buf
        self._capacity = capacity
        self._start = buf.tell() + capacity
        buf.seek(self._start)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        if kind is None:
            buf, end = self._buf, self._buf.tell()
            buf.seek(self._start - self._capacity)
            buf.push_bytes((end - self._start).to_bytes(self._capacity))
            buf.seek(end)


def push_extension(buf: Buffer, extension_type: int) -> PushedBlock:
    """Begin an extension: its type, then a block."""
    buf.push_uint16(extension_type)
    return PushedBlock(buf, 2)


vars(tls).update(pull_block=PulledBlock, push_block=PushedBlock, push_extension=push_extension)

# A connection asks for the same thirty sets of encryption levels as the one before.
vars(aioquic_connection)["EPOCHS"] = cache(aioquic_connection.EPOCHS)

# There is one object for each level. Enum's own hash is a function in Python, called with each look-up.
type.__setattr__(Epoch, "__hash__", object.__hash__)
