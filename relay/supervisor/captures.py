"""Makes one capture of those of several workers: the same pcapng blocks, with interfaces renumbered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack.pcapng import (
    BLOCK_HEAD,
    INTERFACE,
    MAX_BLOCK,
    MIN_BLOCK,
    PACKET,
    interface_of,
    with_interface,
)
from relay.capture import MAX_INTERFACES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.supervisor.asking import Stream


class Interfaces:
    """Numbers of interfaces that are the whole capture's."""

    def __init__(self) -> None:
        self._count = 0
        self._numbers: dict[tuple[int, int], int] = {}
        self._of_worker: dict[int, int] = {}

    def begin(self, worker: int) -> None:
        """Have what comes from a worker be a new capture: its interfaces are counted anew."""
        count = self._of_worker.pop(worker, 0)
        for its in range(max(0, count - MAX_INTERFACES), count):
            del self._numbers[worker, its]

    def renumber(self, worker: int, block: bytes) -> bytes:
        """Return a worker's block as it is in the whole; nothing for one that the whole has once."""
        kind, _ = BLOCK_HEAD.unpack_from(block)
        if kind == INTERFACE:
            its = self._of_worker.get(worker, 0)
            self._of_worker[worker] = its + 1
            self._numbers[worker, its] = self._count
            self._numbers.pop((worker, its - MAX_INTERFACES), None)  # of which it says no more
            self._count += 1
            return block
        if kind != PACKET:
            return b""
        return with_interface(block, self._numbers[worker, interface_of(block)])


async def blocks(stream: Stream) -> AsyncIterator[bytes]:
    """Read block by block, until the end, or what is no block."""
    while head := await stream.read_exactly(BLOCK_HEAD.size):
        _, length = BLOCK_HEAD.unpack(head)
        if not MIN_BLOCK <= length <= MAX_BLOCK:
            return
        rest = await stream.read_exactly(length - BLOCK_HEAD.size)
        if not rest:
            return
        yield head + rest
