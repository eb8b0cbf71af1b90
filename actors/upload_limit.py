"""How much a session may send per second, where TCP is to be slowed and not dropped.

A guest's TCP segments to the gateway pass, and are owed: what is not paid yet is as a queue that they stand
in, though they have arrived. Connections acknowledge no more than has left it (``actors.upload``), so
guests send at the rate. Of what is earned a half pays for these, the other is for frames of all others, which
are dropped where there are no tokens for them; what either has no use for is the other's. So neither shuts
the other out. Beyond MOST_OWED segments are dropped too: their guest does not care for its windows.
"""

from __future__ import annotations

from actors.rate_limit import BURST, MIN_BURST_BYTES, MIN_BURST_PACKETS, is_tcp

MOST_OWED = 1.0
"""Seconds' worth of segments that may be owed: five times what windows allow (``actors.upload``)."""

LEAST_OWED_BYTES = 256 * 1024
LEAST_OWED_PACKETS = 256
"""What may be owed in any case: the first windows of some connections."""

_UNLIMITED = float("inf")
_SMOOTHING = 0.1
"""Weight of a batch in the average size of segments."""


class _Meter:
    """Bytes, or packets: what there is for frames of others, and what is owed for segments."""

    __slots__ = ("burst", "most_owed", "owed", "rate", "tokens")

    def __init__(self, rate: float, least_burst: float, least_owed: float) -> None:
        """Start with a burst; a ``rate`` of 0 is none."""
        self.owed = 0.0
        self.tokens = _UNLIMITED
        self.change(rate, least_burst, least_owed)

    def change(self, rate: float, least_burst: float, least_owed: float) -> None:
        """Go on at another rate, with the tokens and debts that there are as far as it allows as many."""
        self.rate = rate
        self.burst = max(rate * BURST, least_burst) if rate else _UNLIMITED
        self.most_owed = max(rate * MOST_OWED, least_owed) if rate else _UNLIMITED
        self.tokens = min(self.tokens, self.burst) if rate else _UNLIMITED
        self.owed = min(self.owed, self.most_owed) if rate else 0.0

    def earn(self, seconds: float) -> None:
        if not self.rate:
            return
        earned = seconds * self.rate
        share = min(self.owed, earned / 2)
        self.owed -= share
        self.tokens += earned - share
        self.pay()
        self.tokens = min(self.burst, self.tokens)

    def pay(self) -> None:
        """Pay with tokens that others leave; half a burst is kept for their next frames."""
        spare = max(0.0, min(self.owed, self.tokens - self.burst / 2))
        self.owed -= spare
        self.tokens -= spare

    def may_owe(self, amount: float) -> bool:
        return self.owed + amount <= self.most_owed

    def owe(self, amount: float) -> None:
        if self.rate:
            self.owed += amount


class UploadLimit:
    """What one session may send."""

    __slots__ = ("_bytes", "_packets", "_size", "_updated")

    def __init__(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Start with a burst; a rate of 0 is none."""
        self._bytes = _Meter(bits_per_second / 8, MIN_BURST_BYTES, LEAST_OWED_BYTES)
        self._packets = _Meter(packets_per_second, MIN_BURST_PACKETS, LEAST_OWED_PACKETS)
        self._size = 1000.0
        """Bytes of a segment, on average."""
        self._updated = now

    def change(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Go on at other rates, of which one is a limit."""
        self._earn(now)
        self._bytes.change(bits_per_second / 8, MIN_BURST_BYTES, LEAST_OWED_BYTES)
        self._packets.change(packets_per_second, MIN_BURST_PACKETS, LEAST_OWED_PACKETS)

    @property
    def rate(self) -> float:
        """Bytes per second that segments of the present size may have."""
        rates = (self._bytes.rate, self._packets.rate * self._size)
        return min(rate for rate in rates if rate)

    def owed(self, now: float) -> float:
        """Bytes of segments that are not paid for yet."""
        self._earn(now)
        return max(self._bytes.owed, self._packets.owed * self._size)

    def take(self, frames: list[bytes], now: float, gateway_mac: bytes) -> list[bytes]:
        """Pay for frames; return those that may pass, in their order."""
        self._earn(now)
        passing = []
        size = count = 0
        for frame in frames:
            if frame[:6] == gateway_mac and is_tcp(frame):
                if self._bytes.may_owe(len(frame)) and self._packets.may_owe(1):
                    self._bytes.owe(len(frame))
                    self._packets.owe(1)
                    passing.append(frame)
                    size += len(frame)
                    count += 1
            elif self._bytes.tokens >= len(frame) and self._packets.tokens >= 1:
                self._bytes.tokens -= len(frame)
                self._packets.tokens -= 1
                passing.append(frame)
        if count:
            for meter in (self._bytes, self._packets):
                if meter.owed:
                    meter.pay()
            self._size += (size / count - self._size) * _SMOOTHING
        return passing

    def _earn(self, now: float) -> None:
        passed = now - self._updated
        if passed > 0:
            self._updated = now
            self._bytes.earn(passed)
            self._packets.earn(passed)
