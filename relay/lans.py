"""The LANs of a relay, by name: made when they are wanted, ended some time after the last session left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from actors.close_codes import CloseCode
from netstack.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from relay.lan import Lan

DEFAULT = "default"
"""The LAN of all who name none. It is there from the start to the end."""

IDLE_TIME = 60.0
"""Seconds without a session after which a LAN ends: clients that lost theirs are back by then."""

FAILED = "the room failed; connect again for a fresh one"
"""What clients are told."""


class Lans:
    """Makes LANs, and ends them."""

    def __init__(self, make: Callable[[str], Lan], counters: Counters, idle_time: float = IDLE_TIME) -> None:
        """Make the default LAN. ``counters`` are the relay's own, and take in those of LANs that end.

        Raises what ``make`` raises.
        """
        self._make = make
        self._counters = counters
        self._idle_time = idle_time
        self._lans: dict[str, Lan] = {}
        self._empty_since: dict[str, float] = {}
        """Those that had no session at the last look."""
        self.default = self.get(DEFAULT)

    def __iter__(self) -> Iterator[Lan]:
        return iter(self._lans.values())

    def __len__(self) -> int:
        return len(self._lans)

    def find(self, name: str) -> Lan | None:
        """Find a LAN that there is."""
        return self._lans.get(name)

    def get(self, name: str) -> Lan:
        """Find a LAN, or make it."""
        lan = self._lans.get(name)
        if lan is None:
            lan = self._lans[name] = self._make(name)
        self._empty_since.pop(name, None)
        return lan

    def look(self, now: float) -> None:
        """End LANs that failed or were empty for long; to be called every second or so."""
        for name, lan in list(self._lans.items()):
            if lan is self.default:
                continue
            if not lan.is_alive:
                logger.error("the LAN of room {} failed and ends", name)
                lan.close_sessions(CloseCode.INTERNAL, FAILED)
                self._end(name)
            elif not lan.is_empty:
                self._empty_since.pop(name, None)
            elif now - self._empty_since.setdefault(name, now) >= self._idle_time:
                logger.info("room {} ends: nobody is in it", name)
                self._end(name)

    def _end(self, name: str) -> None:
        lan = self._lans.pop(name)
        self._empty_since.pop(name, None)
        lan.stop()
        for counter, count in lan.counters.items():
            self._counters.add(counter, count)

    def totals(self) -> Counters:
        """Add up the relay's own counters and those of all its LANs."""
        totals = Counters(self._counters)
        for lan in self:
            for counter, count in lan.counters.items():
                totals.add(counter, count)
        return totals

    def close_sessions(self, code: CloseCode, reason: str) -> None:
        """Tell every client why its session ends."""
        for lan in self:
            lan.close_sessions(code, reason)

    def stop(self) -> None:
        """End all LANs."""
        for name in list(self._lans):
            self._end(name)
