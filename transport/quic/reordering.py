"""How far packets overtake each other on a path, so that what comes late is not taken for lost.

RFC 9002, 6.1 has two thresholds, of packets and of time, and lets both adapt to what the path shows, as RFC
8985 does for TCP. A packet that is acknowledged after later ones were has been overtaken: by how many, and
how much longer than a round trip it took, is what both must allow for. That a packet came late is also known
of those that were taken for lost already, of which the latest are remembered. What has not been seen again
for some seconds is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKET_THRESHOLD: Final = 3
"""Packets by which one may be overtaken before it counts as lost (RFC 9002, 6.1.1)."""
TIME_THRESHOLD: Final = 9 / 8
"""Round-trip times after which an overtaken packet counts as lost (RFC 9002, 6.1.2)."""
GRANULARITY: Final = 0.001
"""Seconds that timers may be off (RFC 9002, 6.1.2)."""
MEMORY: Final = 10.0
"""Seconds for which what was seen holds, and up to as many more."""
MOST_WRITTEN_OFF: Final = 256
"""Packets taken for lost that are remembered, for WRITTEN_OFF_ROUNDS at most."""
WRITTEN_OFF_ROUNDS: Final = 2.0
"""Round trips after its loss was noticed in which a packet may turn out to have been late only."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Reordering:
    """What one path has shown of late."""

    def __init__(self) -> None:
        self.packets = PACKET_THRESHOLD
        """Packets by which one may be overtaken before it counts as lost."""
        self.written_off: dict[int, float] = {}
        """The latest packets that were taken for lost, by number, ascending, with the times of sending."""
        self._distance = self._distance_before = 0
        self._lateness = self._lateness_before = 0.0
        self._turns_at = 0.0
        self._late_since = 0.0
        """When the packet was sent that came late with the last acknowledgement; 0 where none did."""

    def came_late(self, distance: int, sent_at: float) -> None:
        """Take note of a packet that ``distance`` later ones have overtaken."""
        if distance > self._distance:
            self._distance = distance
            # Somewhat more: what comes latest of few is not yet the latest of many.
            self.packets = max(self.packets, distance + distance // 2 + 1)
        self._late_since = min(self._late_since, sent_at) if self._late_since else sent_at

    def acknowledged(self, ranges: Sequence[tuple[int, int]], largest: int) -> None:
        """See which of those that were taken for lost have come; ``largest`` is what had come before."""
        index = len(ranges) - 1
        came = []
        for number in self.written_off:
            while index >= 0 and ranges[index][1] < number:
                index -= 1
            if index < 0:
                break
            if ranges[index][0] <= number:
                came.append(number)
        for number in came:
            self.came_late(largest - number, self.written_off.pop(number))

    def write_off(self, number: int, sent_at: float) -> None:
        """Remember a packet that counts as lost; those come in the order of their numbers."""
        written_off = self.written_off
        written_off[number] = sent_at
        if len(written_off) > MOST_WRITTEN_OFF:
            del written_off[next(iter(written_off))]

    def patience(self, now: float, round_trip: float) -> float:
        """Return after how many seconds an overtaken packet counts as lost.

        ``round_trip`` is the larger of the latest and the smoothed one, with the last acknowledgement.
        """
        if self._late_since:
            lateness = now - self._late_since - round_trip
            self._late_since = 0.0
            self._lateness = max(self._lateness, lateness)
        if now >= self._turns_at:
            self._forget(now)
        oldest = now - (1 + WRITTEN_OFF_ROUNDS) * round_trip
        while self.written_off:
            number = next(iter(self.written_off))
            if self.written_off[number] >= oldest:
                break
            del self.written_off[number]
        # Twice a round trip at most, as RFC 8985 bounds its window for reordering.
        allowed = min(max(self._lateness, self._lateness_before) * TIME_THRESHOLD, round_trip)
        return max(TIME_THRESHOLD * round_trip, round_trip + allowed, GRANULARITY)

    def _forget(self, now: float) -> None:
        self._turns_at = now + MEMORY
        self._distance_before, self._distance = self._distance, 0
        self._lateness_before, self._lateness = self._lateness, 0.0
        distance = self._distance_before
        self.packets = max(PACKET_THRESHOLD, distance + distance // 2 + 1)
