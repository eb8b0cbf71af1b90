"""Parts of TLS messages that have their length before them (RFC 8446, section 3.4), read and written.

``aioquic_hot_spots`` puts these in the place of aioquic's own, most of which are generators and cost twice as
much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioquic.tls import AlertDecodeError

if TYPE_CHECKING:
    from aioquic.buffer import Buffer


class PulledBlock:
    """``with PulledBlock(buf, capacity) as length``: a block with its length before it, to be read whole.

    Raises AlertDecodeError when it was read only in part, or beyond its end. A handshake has some
    forty blocks.
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


def pull_opaque(buf: Buffer, capacity: int) -> bytes:
    """Read bytes with their length before them, ``capacity`` bytes."""
    return buf.pull_bytes(int.from_bytes(buf.pull_bytes(capacity)))


def push_opaque(buf: Buffer, capacity: int, value: bytes) -> None:
    """Write bytes with their length before them."""
    buf.push_bytes(len(value).to_bytes(capacity) + value)


class PushedMessage:
    """``with PushedMessage(schedule, buf)``: what is written inside is part of the handshake's hash."""

    __slots__ = ("_buf", "_schedule", "_start")

    def __init__(self, schedule: Any, buf: Buffer) -> None:
        """Begin a handshake message."""
        self._schedule = schedule
        self._buf = buf
        self._start = buf.tell()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        if kind is None:
            self._schedule.update_hash(self._buf.data_slice(self._start, self._buf.tell()))
