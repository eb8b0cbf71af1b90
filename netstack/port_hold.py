"""Ports that were given back and are not to be given out again for a while (RFC 6888 REQ-8).

What a remote host sends to a mapping that has ended must not reach the guest that gets its port next. That
is for UDP with endpoint-independent filtering. Where only addresses that the guest wrote to may answer, ports
may be used again at once (exception C), so a held one is used when there is no other. TCP ports are not held
at all (exception A): the system keeps connections apart.
"""

from __future__ import annotations

from collections import deque


class PortHold:
    """Released ports with the time until which each is held, at most ``limit`` of them."""

    def __init__(self, seconds: float, limit: int) -> None:
        """Hold a port for ``seconds``; of more than ``limit`` ports, those held for longest are let go."""
        self._seconds = seconds
        self._limit = limit
        self._held: dict[int, float] = {}
        self._queue: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def release(self, port: int, now: float) -> None:
        """Begin to hold ``port``, which nobody uses any more."""
        if self._limit == 0 or self._seconds == 0:
            return
        until = now + self._seconds
        self._held[port] = until
        self._queue.append((until, port))
        while len(self._queue) > self._limit:
            self._let_go()

    def holds(self, port: int, now: float) -> bool:
        """Whether ``port`` is held at time ``now``."""
        while self._queue and self._queue[0][0] <= now:
            self._let_go()
        return port in self._held

    def _let_go(self) -> None:
        until, port = self._queue.popleft()
        if self._held.get(port) == until:  # else it was used and released again since
            del self._held[port]
