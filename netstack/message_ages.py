"""How old messages are by their stamps, though nobody has compared the senders' clocks with one's own.

A stamp and the time of arrival differ by what the clocks differ, and by how long the message was under way.
The smallest difference of the last minutes is that of a message that came at once; what exceeds it is age.
So clocks may tell any time, and drift, as long as they run at about one pace.
"""

from __future__ import annotations

from typing import Final

from netstack.room_wire import STAMPS

WINDOW: Final = 30_000
"""Milliseconds after which the smallest difference is looked for anew; the one before holds as long again."""

MAX_SENDERS: Final = 512


class _Sender:
    __slots__ = ("before", "least", "since")

    def __init__(self, difference: int, now: int) -> None:
        self.before = self.least = difference
        self.since = now


class MessageAges:
    """Keeps the smallest difference of each sender."""

    def __init__(self) -> None:
        self._senders: dict[tuple[int, int], _Sender] = {}

    def age(self, sender: tuple[int, int], stamp: int, now: int) -> int:
        """Tell for how many milliseconds longer than others a message was under way.

        ``sender`` is a process, of which each has one clock; ``stamp`` and ``now`` are milliseconds, by its
        clock and by ours, both modulo ``STAMPS``.
        """
        difference = (now - stamp) % STAMPS
        known = self._senders.get(sender)
        if known is None:
            if len(self._senders) >= MAX_SENDERS:
                del self._senders[next(iter(self._senders))]
            self._senders[sender] = _Sender(difference, now)
            return 0
        if (now - known.since) % STAMPS >= WINDOW:
            known.before, known.least, known.since = known.least, difference, now
        elif _exceeds(known.least, difference) > 0:
            known.least = difference
        return max(0, _exceeds(difference, known.before), _exceeds(difference, known.least))


def _exceeds(one: int, other: int) -> int:
    """Tell by how much a number modulo ``STAMPS`` is larger than another; negative where it is smaller."""
    return (one - other + STAMPS // 2) % STAMPS - STAMPS // 2
