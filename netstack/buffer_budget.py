"""Memory for what has no fixed size: a total, and perhaps a share of it for each session.

The buffers of TCP connections have it, by session, and the caches of the LANs' name servers.

A connection may hold as much as its session and all sessions together have free: a threshold that moves
(Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). One busy
connection so gets half of its session's budget, n of them one part each of n + 1; as memory is taken all
limits become smaller, and nobody has to be told. What is held counts, not what may be: idle connections
cost nothing.

LEAST is everybody's, however little is left, so that each connection moves on.
"""

from __future__ import annotations

LEAST = 64 * 1024
"""Bytes that each connection, or cache, may hold always: the largest window that TCP has without scaling."""

TOTAL = 256 * 1024 * 1024
"""Bytes of all sessions' connections, unless the operator says otherwise."""


class BufferBudget:
    """Bytes that are held of ``size``; those of a share count for the whole too."""

    __slots__ = ("_size", "_whole", "used")

    def __init__(self, size: int, whole: BufferBudget | None = None) -> None:
        self._size = size
        self._whole = whole
        self.used = 0

    @property
    def free(self) -> int:
        """Bytes that are left, 0 at least."""
        left = self._size - self.used
        if self._whole is not None:
            left = min(left, self._whole.free)
        return max(left, 0)

    def limit(self, most: int) -> int:
        """Give the bytes that one who never gets more than ``most`` may hold at present."""
        return min(most, max(self.free, LEAST))

    def add(self, size: int) -> None:
        """Note that ``size`` bytes more are held; or less, where it is negative."""
        self.used += size
        if self._whole is not None:
            self._whole.add(size)
