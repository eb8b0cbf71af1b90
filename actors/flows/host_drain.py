"""What a guest sent before its RST, and how long the host's system may take to deliver it."""

from __future__ import annotations

from actors.runtime import NEVER

DRAIN_TIMEOUT = 30.0
"""Seconds that the host's system may take to deliver what a guest sent before its RST."""

DRAIN_PATIENCE = 2.0
"""Seconds of these without any progress: the far end does not read, and is reset."""

FIRST_LOOK, LAST_LOOK = 0.005, 0.5
"""Seconds between looks at how much is left; each look doubles them."""


class HostDrain:
    """Says when to look how much is left, and when to give up."""

    __slots__ = ("_end", "_give_up_at", "_left", "_pause")

    def __init__(self, now: float) -> None:
        self._end = now + DRAIN_TIMEOUT
        self._give_up_at = now + DRAIN_PATIENCE
        self._left = 0
        self._pause = FIRST_LOOK

    def look(self, left: int, now: float) -> float:
        """Take note that ``left`` bytes are left; return when to look again, NEVER to end this."""
        if left < self._left:
            self._give_up_at = now + DRAIN_PATIENCE
        self._left = left
        until = min(self._give_up_at, self._end)
        if not left or now >= until:
            return NEVER
        again = min(now + self._pause, until)
        self._pause = min(2 * self._pause, LAST_LOOK)
        return again
