"""Connections that their clients have closed, of which the connection IDs are left (RFC 9000, 10.2.2).

Packets that come late must not be answered, nor begin a connection anew, for three probe timeouts. That takes
no more than the IDs. The rest of a connection is some 100 kB, which goes at once: the next one finds the same
memory in the processor's caches, and a crowd that leaves makes room for the one that comes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netstack.counters import Counters

MOST_DRAINING = 8192
"""Connections; with more the oldest are forgotten, and their late packets treated as anybody's."""


class Draining:
    """The connection IDs of connections that drain."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._until: dict[bytes, float] = {}
        self._waiting: deque[tuple[float, tuple[bytes, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection_ids: Iterable[bytes], until: float, now: float) -> None:
        """Keep the IDs of a connection, until a time in seconds."""
        self._forget(now)
        if len(self._waiting) >= MOST_DRAINING:
            self._counters.add("endpoint.draining_cut_short")
            self._forget_oldest()
        ids = tuple(connection_ids)
        self._waiting.append((until, ids))
        self._until.update(dict.fromkeys(ids, until))

    def has(self, connection_id: bytes, now: float) -> bool:
        """Whether a packet with this ID is one of a connection that drains."""
        return self._until.get(connection_id, now) > now

    def _forget(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, ids = self._waiting.popleft()
        for connection_id in ids:
            self._until.pop(connection_id, None)
