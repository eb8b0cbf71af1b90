"""Two signals of BBR's: acknowledgements come aggregated, and the rate has stopped growing."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

WINDOW_ROUNDS = 5
"""Round trips of one half of the window over which the aggregation is measured."""
GROWTH = 1.25
FULL_ROUNDS = 3
"""Round trips without such growth after which the path is taken to be full."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class AckAggregation:
    """How many bytes more than the rate explains are acknowledged together (draft-ietf-ccwg-bbr, 5.5.9).

    So much more has to be on its way that the sender does not run dry between two of such acknowledgements.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._delivered = 0
        self._largest = self._largest_before = 0
        self._rounds = 0

    @property
    def extra(self) -> int:
        """The largest excess of late, in bytes."""
        return max(self._largest, self._largest_before)

    def restart(self, now: float) -> None:
        """Begin anew after silence."""
        self._since, self._delivered = now, 0

    def acknowledged(self, size: int, rate: float, limit: int, now: float) -> None:
        """Take ``size`` bytes as acknowledged at a path of ``rate``; more than ``limit`` is not believed."""
        expected = rate * (now - self._since)
        if self._delivered <= expected:
            self.restart(now)
            expected = 0.0
        self._delivered += size
        self._largest = max(self._largest, min(int(self._delivered - expected), limit))

    def round_ended(self, *, growing: bool) -> None:
        """Forget what is old; at once while the rate is still ``growing``."""
        self._rounds += 1
        if growing or self._rounds >= WINDOW_ROUNDS:
            self._rounds = 0
            self._largest_before, self._largest = self._largest, 0


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class FullPath:
    """Whether the delivery rate has stopped growing (draft-ietf-ccwg-bbr, 5.3.1.2)."""

    def __init__(self) -> None:
        self.now = False
        """Since it was last looked for."""
        self.ever = False
        self._rate = 0.0
        self._rounds = 0

    def look_again(self, rate: float) -> None:
        """Look for growth beyond ``rate`` from here on."""
        self._rate, self._rounds, self.now = rate, 0, False

    def sample(self, rate: float, *, round_start: bool) -> None:
        """Take a sample that is not the application's rate; 0 is none."""
        if self.now:
            return
        if rate > 0 and rate >= self._rate * GROWTH:
            self._rate, self._rounds = rate, 0
        elif round_start:
            self._rounds += 1
            if self._rounds >= FULL_ROUNDS:
                self.now = self.ever = True
