"""Makes one capture of those of several workers: the same pcapng blocks, with interfaces renumbered."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.supervisor.asking import Stream

_INTERFACE, _PACKET = 1, 6
_HEAD = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
MAX_BLOCK = 1 << 20
"""Bytes of a block; a relay's have a frame and a comment at most."""


class Interfaces:
    """Numbers of interfaces that are the whole capture's."""

    def __init__(self) -> None:
        self._count = 0
        self._numbers: dict[tuple[int, int], int] = {}
        self._of_worker: dict[int, int] = {}

    def begin(self, worker: int) -> None:
        """Have what comes from a worker be a new capture: its interfaces are counted anew."""
        for its in range(self._of_worker.pop(worker, 0)):
            del self._numbers[worker, its]

    def renumber(self, worker: int, block: bytes) -> bytes:
        """Return a worker's block as it is in the whole; nothing for one that the whole has once."""
        kind, _ = _HEAD.unpack_from(block)
        if kind == _INTERFACE:
            its = self._of_worker.get(worker, 0)
            self._of_worker[worker] = its + 1
            self._numbers[worker, its] = self._count
            self._count += 1
            return block
        if kind != _PACKET:
            return b""
        [its] = _NUMBER.unpack_from(block, _HEAD.size)
        return block[: _HEAD.size] + _NUMBER.pack(self._numbers[worker, its]) + block[_HEAD.size + 4 :]


async def blocks(stream: Stream) -> AsyncIterator[bytes]:
    """Read block by block, until the end, or what is no block."""
    while head := await stream.read_exactly(_HEAD.size):
        _, length = _HEAD.unpack(head)
        if not _HEAD.size + 4 <= length <= MAX_BLOCK:
            return
        rest = await stream.read_exactly(length - _HEAD.size)
        if not rest:
            return
        yield head + rest
