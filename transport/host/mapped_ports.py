"""Which UDP ports of this machine are flows of a room's guests, at any worker: a table that all of them map.

A guest may write to the relay's own machine only where a port leads to a guest of the same room (RFC 4787
REQ-9, hairpinning), which may be another worker's. The table has a number for each port, of IPv4 and of IPv6:
the room's, and the worker's, or 0. Each worker writes its own entries only, and clears them when it starts,
so that nothing is left of one that was killed. An entry is read and written at once: 8 bytes, aligned.
"""

from __future__ import annotations

import mmap
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PORTS = 1 << 16
_FAMILIES = 2
_ENTRY = 8
_WORKER_BITS = 16


class MappedPorts:
    """The table, as one worker sees it."""

    def __init__(self, path: Path, worker: int) -> None:
        """Map the table, which the first worker makes; ``worker`` has no entries yet. Raises OSError."""
        size = _FAMILIES * PORTS * _ENTRY
        with path.open("ab") as file:
            # All of it, and now: a page for which there is no room once it is written to ends the process.
            file.write(bytes(max(0, size - file.tell())))
        path.chmod(0o600)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._entries = memoryview(self._map).cast("Q")
        self._worker = worker + 1
        mask = (1 << _WORKER_BITS) - 1
        for index, entry in enumerate(self._entries):
            if entry & mask == self._worker:
                self._entries[index] = 0

    def of_room(self, room: str) -> RoomPorts:
        """Give the part of one room."""
        bits = 64 - _WORKER_BITS
        number = int.from_bytes(blake2b(room.encode(), digest_size=8).digest()) >> (64 - bits)
        return RoomPorts(self._entries, number << _WORKER_BITS | self._worker)

    def close(self) -> None:
        """Unmap the table; rooms ask nothing any more."""
        self._entries.release()
        self._map.close()


class RoomPorts:
    """The ports of one room."""

    def __init__(self, entries: memoryview, own: int) -> None:
        """``own`` is the entry that this worker writes."""
        self._entries = entries
        self._own = own

    def add(self, port: int, *, ipv6: bool) -> None:
        """Note that a port is a flow's here."""
        self._entries[port + PORTS * ipv6] = self._own

    def discard(self, port: int, *, ipv6: bool) -> None:
        """Note that it is no more."""
        if self._entries[port + PORTS * ipv6] == self._own:
            self._entries[port + PORTS * ipv6] = 0

    def has(self, port: int, *, ipv6: bool) -> bool:
        """Whether a port is a flow's of this room, at any worker."""
        return self._entries[port + PORTS * ipv6] >> _WORKER_BITS == self._own >> _WORKER_BITS
