"""How much a session may send per second, where TCP is to be slowed and not dropped.

A guest's TCP segments to the gateway pass, and are owed: what is not paid yet is as a queue that they stand
in, though they have arrived. Connections acknowledge no more than has left it (``actors.upload``), so
guests send at the rate. Of what is earned a half pays for these, the other is for frames of all others, which
are dropped where there are no tokens for them; what either has no use for is the other's. So neither shuts
the other out. Beyond MOST_OWED segments are dropped too: their guest does not care for its windows.

TCP segments to other guests, whose acknowledgements are not the relay's to pace, wait in a queue of
HELD_SECONDS of the rate and leave it at the rate (a shaper, where all others meet a policer: RFC 2475,
section 2.3.3): a policer drops whole bursts, after which TCP stands still until its timeout; of a queue it
loses some segments, and slows down. While there are any, half of what frames of others would get is kept for
them, and half a burst is kept for those.

Liveness: who holds a limit asks it when the next segment may leave (``wake_at``), and sets a timer.
"""

from __future__ import annotations

from collections import deque

from actors.rate_limit import (
    BURST,
    HELD_SECONDS,
    LEAST_HELD_BYTES,
    MIN_BURST_BYTES,
    MIN_BURST_PACKETS,
    MOST_HELD,
    MOST_HELD_BYTES,
    SOONEST,
    is_tcp,
)

MOST_OWED = 1.0
"""Seconds' worth of segments that may be owed: five times what windows allow (``actors.upload``)."""

LEAST_OWED_BYTES = 256 * 1024
LEAST_OWED_PACKETS = 256
"""What may be owed in any case: the first windows of some connections."""

OVER_THE_RATE, QUEUE_FULL = "peer.drop.rate_from_client", "peer.drop.rate_queue_full"

_UNLIMITED = float("inf")
_SMOOTHING = 0.1
"""Weight of a batch in the average size of segments."""


class _Meter:
    """Bytes, or packets: what there is for frames of others, what is owed, and kept for what waits."""

    __slots__ = ("burst", "kept", "most_owed", "owed", "rate", "tokens")

    def __init__(self, rate: float, least_burst: float, least_owed: float) -> None:
        """Start with a burst; a ``rate`` of 0 is none."""
        self.owed = self.kept = 0.0
        self.tokens = _UNLIMITED
        self.change(rate, least_burst, least_owed)

    def change(self, rate: float, least_burst: float, least_owed: float) -> None:
        """Go on at another rate, with the tokens and debts that there are as far as it allows as many."""
        self.rate = rate
        self.burst = max(rate * BURST, least_burst) if rate else _UNLIMITED
        self.most_owed = max(rate * MOST_OWED, least_owed) if rate else _UNLIMITED
        self.tokens = min(self.tokens, self.burst) if rate else _UNLIMITED
        self.owed = min(self.owed, self.most_owed) if rate else 0.0

    def earn(self, seconds: float, *, held: bool) -> None:
        """Gain what some time is worth; ``held``: whether segments wait."""
        if not self.rate:
            return
        earned = seconds * self.rate
        share = min(self.owed, earned / 2)
        self.owed -= share
        earned -= share
        if held:
            share = max(0.0, min(earned / 2, self.burst / 2 - self.kept))
            self.kept += share
            earned -= share
        else:
            earned += self.kept
            self.kept = 0.0
        self.tokens += earned
        self.pay()
        self.tokens = min(self.burst, self.tokens)

    def pay(self) -> None:
        """Pay with tokens that others leave; half a burst is kept for their next frames."""
        spare = max(0.0, min(self.owed, self.tokens - self.burst / 2))
        self.owed -= spare
        self.tokens -= spare

    @property
    def room(self) -> float:
        """What there is for a segment that waits."""
        return self.kept + max(0.0, self.tokens - self.burst / 2) if self.rate else _UNLIMITED

    def spend(self, amount: float) -> None:
        """Pay for a segment that waited."""
        if self.rate:
            kept = min(self.kept, amount)
            self.kept -= kept
            self.tokens -= amount - kept

    def seconds_until(self, amount: float) -> float:
        """Tell how long it takes at least until there is room."""
        return (amount - self.room) / self.rate if self.rate else 0.0

    def may_owe(self, amount: float) -> bool:
        return self.owed + amount <= self.most_owed

    def owe(self, amount: float) -> None:
        if self.rate:
            self.owed += amount


class UploadLimit:
    """What one session may send."""

    __slots__ = ("_bytes", "_held", "_held_bytes", "_packets", "_size", "_updated", "dropped")

    def __init__(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Start with a burst; a rate of 0 is none."""
        self._bytes = _Meter(bits_per_second / 8, MIN_BURST_BYTES, LEAST_OWED_BYTES)
        self._packets = _Meter(packets_per_second, MIN_BURST_PACKETS, LEAST_OWED_PACKETS)
        self._size = 1000.0
        """Bytes of a segment, on average."""
        self._updated = now
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self.dropped: dict[str, int] = {}
        """Frames of the last batch that were dropped, by counter."""

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
        """Pay for frames; return those that may pass, behind those that have waited for it.

        They keep their order, but for TCP segments to other guests, which wait for later and let others pass.
        """
        passing = self.release(now)
        size = count = 0
        self.dropped = {}
        for frame in frames:
            length = len(frame)
            if not is_tcp(frame):
                if self._bytes.tokens < length or self._packets.tokens < 1:
                    self._drop(OVER_THE_RATE)
                    continue
                self._bytes.tokens -= length
                self._packets.tokens -= 1
            elif frame[:6] == gateway_mac:
                if not (self._bytes.may_owe(length) and self._packets.may_owe(1)):
                    self._drop(OVER_THE_RATE)
                    continue
                self._bytes.owe(length)
                self._packets.owe(1)
                size += length
                count += 1
            elif self._held or not self._pay_for(length):
                self._hold(frame)
                continue
            passing.append(frame)
        if count:
            for meter in (self._bytes, self._packets):
                if meter.owed:
                    meter.pay()
            self._size += (size / count - self._size) * _SMOOTHING
        return passing

    def release(self, now: float) -> list[bytes]:
        """Give the segments that have waited for long enough."""
        self._earn(now)
        released: list[bytes] = []
        held = self._held
        while held and self._pay_for(len(held[0])):
            frame = held.popleft()
            self._held_bytes -= len(frame)
            released.append(frame)
        return released

    def wake_at(self, now: float) -> float:
        """Tell when the next segment that waits may leave, at the soonest; infinite while there is none."""
        if not self._held:
            return _UNLIMITED
        wait = max(self._bytes.seconds_until(len(self._held[0])), self._packets.seconds_until(1))
        return now + max(wait, SOONEST)

    def give_up(self) -> list[bytes]:
        """Give all segments that wait, for which nobody is to be limited any more."""
        held = list(self._held)
        self._held.clear()
        self._held_bytes = 0
        return held

    def _pay_for(self, size: int) -> bool:
        if self._bytes.room < size or self._packets.room < 1:
            return False
        self._bytes.spend(size)
        self._packets.spend(1)
        return True

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _hold(self, frame: bytes) -> None:
        most = min(max(self._bytes.rate * HELD_SECONDS, LEAST_HELD_BYTES), MOST_HELD_BYTES)
        if self._held_bytes + len(frame) > most or len(self._held) >= MOST_HELD:
            self._drop(QUEUE_FULL)
        else:
            self._held.append(frame)
            self._held_bytes += len(frame)

    def _earn(self, now: float) -> None:
        passed = now - self._updated
        if passed > 0:
            self._updated = now
            held = bool(self._held)
            self._bytes.earn(passed, held=held)
            self._packets.earn(passed, held=held)
