"""How large a packet the path to a client takes (RFC 8899, DPLPMTUD; RFC 9000, section 14.3).

Starts at 1200 bytes, which QUIC may rely on, and asks upwards with probes: packets of PING and PADDING that
may get lost without harm. When several larger packets in a row are lost and none arrives, the path has
become narrower (a black hole), and the size falls back. Or it was an outage, in which packets of any size are
lost: so what was possible before is asked for first, and again in case that the outage lasts.
"""

from __future__ import annotations

from typing import Final

BASE: Final = 1200
"""Bytes of UDP payload that every QUIC path takes (RFC 9000, 14)."""
NEVER = float("inf")
CEILING: Final = 1452
"""What Ethernet's 1500 bytes leave of an IPv6 packet; more is rare, and a jumbo path loses little."""
LARGEST_PACKET: Final = 2048
"""Bytes of a packet that the relay takes, as it announces: few paths carry more than 1500, and one of 65507
bytes, which comes in fragments, has room for frames that take a third of a second."""
STEP: Final = 16
"""The search ends when it is this close: fewer bytes are not worth a probe."""
TRIES: Final = 3
"""Probes of one size that must be lost before it counts as too large (RFC 8899, MAX_PROBES)."""
RETRY_AFTER: Final = 0.5
"""Seconds between a lost probe and the next: losses of one burst say little."""
RAISE_AFTER: Final = 600.0
"""Seconds until a finished search is tried again upwards (RFC 8899, PMTU_RAISE_TIMER)."""
BLACK_HOLE_LOSSES: Final = 6
"""Larger packets lost in a row, none arriving, after which the path is taken to have narrowed."""


class PathMtu:
    """The search for one path. Sizes are bytes of UDP payload; times are seconds."""

    __slots__ = ("_candidate", "_ceiling", "_losses", "_too_large", "_tries", "next_at", "size")

    def __init__(self, limit: int = CEILING) -> None:
        """``limit``: what the other side takes at most (``max_udp_payload_size``), BASE at least."""
        self.size = BASE
        """What packets may have at present."""
        self._ceiling = min(limit, CEILING)
        self.next_at = 0.0 if self._ceiling > BASE else NEVER
        """When the next probe may be sent."""
        self._candidate = self._ceiling
        self._too_large = self._ceiling + 1
        self._tries = 0
        self._losses = 0

    def probe(self, now: float) -> int:
        """Return the size of a probe that is to be sent now; the next one waits for this one's fate."""
        self.next_at = now + RAISE_AFTER
        return self._candidate

    def probe_acknowledged(self, size: int, now: float) -> None:
        """Take ``size`` as possible."""
        self.size = max(self.size, size)
        self._losses = 0
        self._search_on(now)

    def probe_lost(self, size: int, now: float) -> None:
        """Try ``size`` again, or take it as too large."""
        self._tries += 1
        self.next_at = now + RETRY_AFTER
        if self._tries >= TRIES:
            self._too_large = min(self._too_large, size)
            self._search_on(now)

    def probe_unanswered(self, now: float) -> None:
        """Try the same size again: nothing at all comes through, which says nothing about sizes."""
        self.next_at = now + RETRY_AFTER

    def _search_on(self, now: float) -> None:
        self._tries = 0
        if self._too_large - self.size > STEP:
            self._candidate = (self.size + self._too_large) // 2
            self.next_at = now + RETRY_AFTER
        else:
            self._candidate, self._too_large = self._ceiling, self._ceiling + 1
            self.next_at = now + RAISE_AFTER

    def packets_acknowledged(self, largest: int) -> None:
        """Take note that packets arrived, the largest of them of ``largest`` bytes."""
        if largest > BASE:
            self._losses = 0

    def packet_lost(self, size: int, now: float) -> bool:
        """Take note of a lost packet; return whether that shows the path to be narrower: BASE again."""
        if size <= BASE or self.size == BASE:
            return False
        self._losses += 1
        if self._losses < BLACK_HOLE_LOSSES:
            return False
        self._candidate, self._too_large = self.size, self.size + 1
        self.size, self._losses = BASE, 0
        self._tries = TRIES - 2
        self.next_at = now + RETRY_AFTER
        return True
