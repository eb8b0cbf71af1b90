"""Connections in TIME-WAIT (RFC 9293 section 3.6.1): a few numbers each, neither flow nor socket.

The relay is done with such a connection, and only the guest may not know: when our last ACK got lost it
repeats its FIN and must be answered. A guest that takes the same ports again is let in where its SYN cannot
be an old one: its number is beyond all that were used before (RFC 6191 without timestamps, which are not
offered), and ours will be too. Another SYN is answered with where we were, so that the guest resets what is
left (RFC 5961 section 4).

Bounded: when the table is full the oldest entry makes room; a FIN that still comes for it gets a RST.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from netstack.tcp_segment import ACK, FIN, RST, SYN, sequence_length

if TYPE_CHECKING:
    from netstack.tcp_segment import Segment

_Key = TypeVar("_Key")

TIME_WAIT = 10.0
"""Seconds, twice what a segment can live: there is no router between relay and guest, and the session's
queue drops what has waited for 1 s (RFC 9293 section 3.4.1 leaves the lifetime to the network)."""

MAX_TIME_WAITS = 1024
"""Entries of one session, of some 300 bytes: what ends in TIME_WAIT at 100 connections per second."""

NEW_START = 0x1_0000
"""How far beyond the last number of a connection the next one of the same ports begins at least."""

_HALF = 0x8000_0000
_WORD = 0xFFFF_FFFF


class TimeWait(NamedTuple):
    """What is kept of a connection: numbers as on the wire."""

    expected: int
    """The guest's next number, which its FIN was the last before."""
    sent: int
    """The relay's next number."""
    answer: bytes
    """A frame that acknowledges everything."""


class Reaction(Enum):
    """What to do about a segment."""

    ANSWER = auto()
    """Send the entry's answer."""
    IGNORE = auto()
    OPEN = auto()
    """The entry is gone: the segment, a SYN, opens a connection, from a number beyond ``sent`` on."""


class TimeWaits(Generic[_Key]):
    """The table of one session, by the names of its connections."""

    def __init__(self, limit: int = MAX_TIME_WAITS) -> None:
        self._limit = limit
        self._entries: dict[_Key, tuple[float, TimeWait]] = {}
        """With the time at which each ends, soonest first."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def add(self, key: _Key, entry: TimeWait, now: float) -> bool:
        """Keep a connection; return whether another one had to make room before its time."""
        entries = self._entries
        entries.pop(key, None)
        self._expire(now)
        evicted = len(entries) >= self._limit
        if evicted:
            del entries[next(iter(entries))]
        entries[key] = (now + TIME_WAIT, entry)
        return evicted

    def find(self, key: _Key, now: float) -> TimeWait | None:
        """Find a connection whose time is not over."""
        self._expire(now)
        found = self._entries.get(key)
        return None if found is None else found[1]

    def _expire(self, now: float) -> None:
        entries = self._entries
        while entries:
            key = next(iter(entries))
            if entries[key][0] > now:
                break
            del entries[key]

    def react(self, key: _Key, entry: TimeWait, segment: Segment, now: float) -> Reaction:
        """Tell what to do about a segment of the connection ``key``, which :meth:`find` has found."""
        flags = segment.flags
        ahead = ((segment.sequence - entry.expected + _HALF) & _WORD) - _HALF
        if flags & RST:
            if ahead == 0:
                del self._entries[key]
            return Reaction.IGNORE
        if flags & (SYN | ACK) == SYN and ahead >= 0:
            del self._entries[key]
            return Reaction.OPEN
        if flags & FIN:
            del self._entries[key]
            self._entries[key] = (now + TIME_WAIT, entry)
        return Reaction.ANSWER if sequence_length(segment) or ahead != 0 else Reaction.IGNORE
