"""Which rooms have series of their own in the metrics, whose number is bounded.

Prometheus takes a counter that falls for one that begins anew, and all of what it shows then for an increase.
So a room has one label for its life, and what those without one of their own have counted stays where it was
told when they end. What a room with a label of its own has counted ends with its series.
"""

from __future__ import annotations

from netstack.counters import Counters

MAX_ROOMS = 50
"""Rooms that have labels of their own."""

OTHER = "other"
"""Label under which all others are summed up; that of a room of this name, too."""


class RoomLabels:
    """Labels of the rooms that there are."""

    def __init__(self) -> None:
        self._own: set[str] = set()
        self.of_others = Counters()
        """What rooms without a label of their own had counted that have ended."""

    def begin(self, room: str) -> None:
        """Give a room its label, one of its own while there are few enough."""
        if len(self._own) < MAX_ROOMS and room != OTHER:
            self._own.add(room)

    def end(self, room: str, counters: Counters) -> None:
        """Take a room's label back; ``counters`` are what it has counted."""
        if room in self._own:
            self._own.remove(room)
            return
        for name, count in counters.items():
            self.of_others.add(name, count)

    def of(self, room: str) -> str:
        """Tell a room's label."""
        return room if room in self._own else OTHER
