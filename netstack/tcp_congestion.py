"""How fast a TCP sender may go: round-trip time (RFC 6298), congestion window (RFC 5681, 6582), pacing."""

from __future__ import annotations

INITIAL_RTO = 1.0
"""Seconds, before any round trip was measured (RFC 6298 section 2.1)."""

MIN_RTO = 0.2
"""Seconds; RFC 6298 recommends 1, all large stacks use 0.2: a guest delays its ACK by no more than that,
and behind a lossy link every second counts."""

MAX_RTO = 60.0
"""Seconds (RFC 6298 section 2.5)."""

CLOCK_GRANULARITY = 0.001
"""Seconds between the event loop's timers, the G of RFC 6298."""

INITIAL_SEGMENTS = 10
"""RFC 6928."""

MIN_BURST_SEGMENTS = 8
"""Segments that may always leave back to back: small emulated NICs have eight or more buffers."""

BURST_SECONDS = 0.002
"""What a fast connection may send at once, as time: two ticks of the loop's timers."""

SLOW_START_GAIN = 2.0
AVOIDANCE_GAIN = 1.25
"""Pacing must not be what holds the window back: twice its rate while it doubles, a quarter over else."""

GUESSED_ROUND_TRIP = 0.05
"""Seconds, where the handshake gave no sample."""

NO_THRESHOLD = 1 << 62
"""Bytes, before the first loss: as high as can be (RFC 5681 section 3.1)."""

LOSS_FACTOR = 0.7
"""What is left of the window after a loss, as in CUBIC (RFC 9438 section 4.6)."""


class RoundTrip:
    """Smoothed round-trip time and the retransmission timeout from it."""

    __slots__ = ("backoff", "latest", "shortest", "smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.latest = 0.0
        self.shortest = 0.0
        """Of all; 0 before the first."""
        self.variation = 0.0
        self.backoff = 0
        """Time-outs in a row; each doubles the next (section 5.5)."""

    @property
    def timeout(self) -> float:
        """Seconds until what was sent now is taken as lost."""
        if self.smoothed is None:
            base = INITIAL_RTO
        else:
            base = self.smoothed + max(MIN_RTO, CLOCK_GRANULARITY, 4 * self.variation)
        return min(base * (1 << min(self.backoff, 16)), MAX_RTO)

    def sample(self, seconds: float) -> None:
        """Take a measurement of a segment that was sent once (Karn)."""
        self.latest = seconds
        if self.smoothed is None:
            self.smoothed, self.variation = seconds, seconds / 2
            self.shortest = seconds
            return
        self.shortest = min(self.shortest, seconds)
        self.variation += (abs(self.smoothed - seconds) - self.variation) / 4
        self.smoothed += (seconds - self.smoothed) / 8


class NewReno:
    """The congestion window in bytes."""

    __slots__ = ("_before", "_growth", "ceiling", "mss", "threshold", "window")

    def __init__(self, mss: int, ceiling: int) -> None:
        """``ceiling`` is what the sender can hold: growing beyond it would mean nothing."""
        self.mss = mss
        self.ceiling = ceiling
        self.window = INITIAL_SEGMENTS * mss
        self.threshold = NO_THRESHOLD
        self._growth = 0
        self._before = (self.window, self.threshold)
        """Window and threshold before the last loss."""

    @property
    def slow_start(self) -> bool:
        """Whether the window doubles each round trip."""
        return self.window < self.threshold

    def acknowledged(self, size: int) -> None:
        """Grow for ``size`` bytes that arrived, counted as bytes (RFC 3465)."""
        if self.window >= self.ceiling:
            return
        if self.window < self.threshold:
            self.window += size
        else:
            self._growth += size
            if self._growth < self.window:
                return
            self._growth -= self.window
            self.window += self.mss
        self.window = min(self.window, self.ceiling)

    def lost(self, in_flight: int) -> None:
        """Give way: something was lost, and the receiver's acknowledgements said so.

        Of ``in_flight`` much may have arrived, behind gaps: the window does not grow by it.
        """
        self._before = (self.window, self.threshold)
        self.threshold = max(min(int(in_flight * LOSS_FACTOR), self.window), 2 * self.mss)
        self.window = self.threshold
        self._growth = 0

    def undo(self) -> None:
        """Take back what the last loss has cost: it was no sign of congestion that is ours to answer."""
        window, threshold = self._before
        self.window = max(self.window, window)
        self.threshold = max(self.threshold, threshold)

    def timed_out(self, in_flight: int, *, again: bool) -> None:
        """Start over from one segment; ``again`` for a repeated time-out, which lowers nothing more."""
        if not again:
            self.threshold = max(in_flight // 2, 2 * self.mss)
        self.window = self.mss
        self._growth = 0


class Pacer:
    """Spreads the window over the round trip: a bucket of bytes, filled at the pace, emptied by sending."""

    __slots__ = ("_bytes", "_rate", "_size", "_when")

    def __init__(self, mss: int, now: float) -> None:
        self._rate = 0.0
        self._size = float(MIN_BURST_SEGMENTS * mss)
        self._bytes = self._size
        self._when = now

    def allowance(self, congestion: NewReno, round_trip: float | None, now: float) -> int:
        """Bytes that may leave now."""
        gain = SLOW_START_GAIN if congestion.slow_start else AVOIDANCE_GAIN
        # Timers and the guest's own turns are coarser than a round trip on one machine.
        seconds = max(GUESSED_ROUND_TRIP if round_trip is None else round_trip, CLOCK_GRANULARITY)
        self._rate = rate = gain * congestion.window / seconds
        self._size = size = max(MIN_BURST_SEGMENTS * congestion.mss, rate * BURST_SECONDS)
        self._bytes = min(self._bytes + (now - self._when) * rate, size)
        self._when = now
        return int(self._bytes)

    def sent(self, size: int) -> None:
        """Take ``size`` bytes out."""
        self._bytes -= size

    def ready_at(self, size: int) -> float:
        """Tell when ``size`` bytes may leave, after :meth:`allowance` said that fewer may."""
        return self._when + max(size - self._bytes, 0.0) / self._rate
