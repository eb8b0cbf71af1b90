"""How old messages are by their stamps, though nobody has compared the senders' clocks with one's own.

A stamp and the time of arrival differ by what the clocks differ, and by how long the message was under way.
The smallest difference of the last minutes is that of a message that came at once; what exceeds it is age.
So clocks may tell any time, and drift, as long as they run at about one pace. A machine that was paused has a
clock that is behind by as much from then on: when all that comes is late by the same for a while, the
difference is taken for the clock's. What waits in queues is late by more and more, or by less and less.
"""

from __future__ import annotations

from typing import Final

from netstack.room_wire import STAMPS

WINDOW: Final = 30_000
"""Milliseconds after which the smallest difference is looked for anew; the one before holds as long again."""

STEP: Final = 500
"""Milliseconds by which all that comes is late after a step of a clock, at least."""
STEADY: Final = 100
"""Milliseconds by which the lateness differs meanwhile, at most."""
STEP_SEEN: Final = 2_000
"""Milliseconds for which that has to be so."""

MAX_SENDERS: Final = 512


class _Sender:
    __slots__ = ("before", "highest", "is_late", "late_since", "least", "lowest", "since")

    def __init__(self, difference: int, now: int) -> None:
        self.restart(difference, now)

    def restart(self, difference: int, now: int) -> None:
        """Know nothing but this difference."""
        self.before = self.least = difference
        self.since = now
        self.is_late = False
        self.be_late(difference, now)

    def be_late(self, difference: int, now: int) -> None:
        """Look from now on whether all is late by the same."""
        self.lowest = self.highest = difference
        self.late_since = now

    def has_stepped(self, difference: int, now: int) -> bool:
        """Whether all has been late by the same for long enough, this one among them."""
        if not self.is_late:
            self.is_late = True
            self.be_late(difference, now)
        if _exceeds(difference, self.highest) > 0:
            self.highest = difference
        if _exceeds(self.lowest, difference) > 0:
            self.lowest = difference
        if _exceeds(self.highest, self.lowest) > STEADY:
            self.be_late(difference, now)
        return (now - self.late_since) % STAMPS >= STEP_SEEN


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
        age = max(0, _exceeds(difference, known.before), _exceeds(difference, known.least))
        if age < STEP:
            known.is_late = False
        elif known.has_stepped(difference, now):
            known.restart(known.lowest, now)
            age = _exceeds(difference, known.lowest)
        return age


def _exceeds(one: int, other: int) -> int:
    """Tell by how much a number modulo ``STAMPS`` is larger than another; negative where it is smaller."""
    return (one - other + STAMPS // 2) % STAMPS - STAMPS // 2
