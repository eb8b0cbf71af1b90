"""When a client that lost its session tries again: at once, a few times soon, then ever less often.

A relay that was restarted tells its clients at once (stateless resets), and a client whose path was lost may
find another one at once too; a relay that is being restarted is back within seconds.
"""

from __future__ import annotations

import random

FIRST_WITHIN = 0.1
"""Seconds within which the first attempt is made: many clients of one relay spread over them."""
SOON = 0.25
"""Seconds between the attempts after it."""
SOON_ATTEMPTS = 40
"""Attempts that are so close, for ten seconds; each further one waits twice as long."""
LAST = 30.0
"""Seconds that attempts are apart at most."""
MOST_DOUBLINGS = 16
"""More than lead to the longest delay."""


class RetryDelays:
    """Tells the delay before each attempt, in seconds."""

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Begin with the shortest: the session that was lost had lasted."""
        self._attempts = 0
        self._unhurried = 0

    def next(self, *, soon: bool = True) -> float:
        """Return the delay before the next attempt.

        Without ``soon`` it is twice the latest one of that kind, unless this is the first of all.
        """
        attempt, self._attempts = self._attempts, self._attempts + 1
        if attempt == 0:
            return random.uniform(0, FIRST_WITHIN)  # noqa: S311 - no secret
        if soon:
            doublings = max(0, attempt - SOON_ATTEMPTS)
        else:
            # By themselves: a relay that was away and is back is not to wait for how often it was sought.
            doublings, self._unhurried = self._unhurried, self._unhurried + 1
        nominal = min(SOON * (1 << min(doublings, MOST_DOUBLINGS)), LAST)
        # Spread by a quarter, so that a restarted relay does not see all its clients at once.
        return nominal * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
