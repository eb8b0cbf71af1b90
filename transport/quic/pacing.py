"""When the next packets may leave: a token bucket whose tokens are bytes, filled at the pacing rate.

Packets leave in bursts of about a millisecond of the rate, which one GSO write sends (RFC 9002, 7.7;
draft-ietf-ccwg-bbr, 5.6.3). Timers of an event loop fire late, by milliseconds on a busy machine: while data
waits, what the rate allowed in the meantime is not lost, so a late timer costs no throughput.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

BURST_SECONDS: Final = 0.001
"""Seconds of the rate that leave together; timers cannot do much better."""
SMALLEST_BURST: Final = 2 * 1500
LARGEST_BURST: Final = 64 * 1024
"""What one write with GSO takes."""
FIRST_BURST: Final = 12_000
"""Bytes that may leave together after silence: an initial window (RFC 9002, 7.7)."""
LATENESS: Final = 0.010
"""Seconds by which a timer may be late without costing throughput."""
SHORTEST_WAIT: Final = 0.0001
"""Seconds: what is missing by rounding must not make a timer fire over and over at the same time."""
NEVER = float("inf")
UNLIMITED: Final = 1e12
"""A rate, in bytes per second, that holds nothing back."""
SLOWEST: Final = float(SMALLEST_BURST)
"""The least, in bytes per second: a burst a second. On a slower path the congestion window holds back."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Pacer:
    """The bucket of one connection."""

    def __init__(self) -> None:
        self.rate = UNLIMITED
        """Bytes per second."""
        self.burst = LARGEST_BURST
        """Bytes that leave together."""
        self.waiting = False
        """Whether data is held back: then the bucket also takes what a late timer would have missed."""
        self._tokens = float(LARGEST_BURST)
        self._filled_at = 0.0

    def set_rate(self, rate: float) -> None:
        """Go on at ``rate`` bytes per second, not slower than SLOWEST."""
        rate = self.rate = max(rate, SLOWEST)
        self.burst = int(min(max(rate * BURST_SECONDS, SMALLEST_BURST), LARGEST_BURST))

    def allowance(self, now: float) -> int:
        """Return how many bytes may leave now."""
        tokens = self._tokens
        if now > self._filled_at:
            tokens += (now - self._filled_at) * self.rate
            self._filled_at = now
        most = max(self.burst, FIRST_BURST)
        if self.waiting:
            most += int(self.rate * LATENESS)
        self._tokens = min(tokens, float(most))
        return int(self._tokens)

    def spend(self, size: int) -> None:
        """Take ``size`` bytes as sent."""
        self._tokens -= size

    def ready_at(self, now: float, waiting: int) -> float:
        """Return when a burst of the ``waiting`` bytes may leave; NEVER if it is not pacing that holds it.

        ``allowance`` was asked ``now``.
        """
        missing = min(self.burst, waiting) + 1 - self._tokens
        return now + max(missing / self.rate, SHORTEST_WAIT) if missing > 0 else NEVER
