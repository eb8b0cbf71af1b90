"""How many bits and packets a session may send, or be sent, per second: two token buckets each way.

Both are asked once per batch. A frame costs its bytes, and what is taken beyond the tokens is a debt. TCP
connections of the gateway ask first how much they may send (``line``), so they slow down, and are
served in debt too. TCP segments of other guests, whose acknowledgements are not the relay's to pace, wait for
tokens, each sender's as long as the others' (``segment_queue``; why they are not dropped says
``upload_limit``). Frames of all others are dropped where there are no tokens for them.

While a connection waits half of what is earned is kept for them, so that a flood of others does not shut them
out; and of what others get a half for segments that wait.

Liveness: who holds a limit asks it when the next segment may leave (``wake_at``), and sets a timer.
"""

from __future__ import annotations

from actors.segment_queue import SegmentQueue
from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.vlan import TAGS, without_priority_tags

BURST = 0.1
"""Seconds' worth of tokens: what a round trip over a long way brings at once."""

MIN_BURST_BYTES = 64 * 1024
"""The largest frame, and some turns of TCP connections (``actors.line.TURN_BYTES``)."""

MIN_BURST_PACKETS = 16

HELD_SECONDS = 0.1
"""Seconds' worth of segments of other guests that wait: what TCP needs to fill a path over land and sea."""

LEAST_HELD_BYTES, MOST_HELD_BYTES = 64 * 1024, 256 * 1024
MOST_HELD = 1024
"""Segments that wait, however small."""

SOONEST = 0.002
"""Seconds between two looks at them: it is some frames that leave then, and not one."""

_OFF = 0
_UNLIMITED = float("inf")
_PROTOCOL_AT = {ETHERTYPE_IPV4: 23, ETHERTYPE_IPV6: 20}


class _Bucket:
    """Tokens, of bytes or packets: for all, kept for those who asked first, kept for segments that wait."""

    __slots__ = ("burst", "kept", "kept_for_held", "rate", "tokens")

    def __init__(self, rate: float, least_burst: float) -> None:
        """Start full; a ``rate`` of 0 is none."""
        self.rate = rate if rate != _OFF else _UNLIMITED
        self.burst = self.tokens = max(self.rate * BURST, least_burst)
        self.kept = self.kept_for_held = 0.0

    def change(self, rate: float, least_burst: float) -> None:
        """Go on at another rate, with the tokens that there are as far as it allows as many."""
        self.rate = rate if rate != _OFF else _UNLIMITED
        self.burst = max(self.rate * BURST, least_burst)
        self.tokens = min(self.tokens, self.burst) if rate != _OFF else _UNLIMITED
        self.kept = min(self.kept, self.burst / 2) if rate != _OFF else 0.0
        self.kept_for_held = min(self.kept_for_held, self.burst / 2) if rate != _OFF else 0.0

    @property
    def room(self) -> float:
        """Tokens for those who wait; those for all may be a debt."""
        return min(self.tokens + self.kept, self.burst)

    def seconds_until(self, amount: float) -> float:
        """Tell how long it takes until there is room for ``amount``, or for a burst."""
        if self.rate == _UNLIMITED:
            return 0.0
        return (min(amount, self.burst) - self.room) / self.rate

    @property
    def room_for_held(self) -> float:
        """Tokens for segments that wait: half a burst is left for frames of others."""
        if self.rate == _UNLIMITED:
            return _UNLIMITED
        return self.kept_for_held + max(0.0, self.tokens - self.burst / 2)

    def earn(self, seconds: float, *, awaited: bool, held: bool) -> None:
        """Gain the tokens of some time; without anybody who waits none are kept."""
        earned = seconds * self.rate
        if not awaited:
            earned, self.kept = earned + self.kept, 0.0
        elif self.rate != _UNLIMITED:
            share = min(earned / 2, self.burst / 2 - self.kept)
            self.kept += share
            earned -= share
        if not held:
            earned, self.kept_for_held = earned + self.kept_for_held, 0.0
        elif self.rate != _UNLIMITED:
            share = max(0.0, min(earned / 2, self.burst / 2 - self.kept_for_held))
            self.kept_for_held += share
            earned -= share
        self.tokens = min(self.burst, self.tokens + earned)

    def spend(self, amount: float) -> None:
        """Pay for those who waited, with what was kept for them first."""
        kept = min(self.kept, amount)
        self.kept -= kept
        self.tokens -= amount - kept

    def spend_for_held(self, amount: float) -> None:
        """Pay for a segment that waited."""
        kept = min(self.kept_for_held, amount)
        self.kept_for_held -= kept
        self.tokens -= amount - kept

    def seconds_until_held(self, amount: float) -> float:
        """Tell how long it takes at least until there is room for a segment that waits."""
        return (amount - self.room_for_held) / self.rate if self.rate != _UNLIMITED else 0.0


class RateLimit:
    """One direction of one session."""

    __slots__ = ("_bytes", "_held", "_packets", "_updated", "dropped", "is_awaited", "queue_full")

    def __init__(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Start full; a rate of 0 is none."""
        self._bytes = _Bucket(bits_per_second / 8, MIN_BURST_BYTES)
        self._packets = _Bucket(packets_per_second, MIN_BURST_PACKETS)
        self._updated = now
        self._held = SegmentQueue()
        self.dropped = self.queue_full = 0
        """Frames of the last batch that were dropped, for want of tokens or of room to wait in."""
        self.is_awaited = False
        """Whether somebody who asked first waits: half of what is earned is kept for such then."""

    def change(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Go on at other rates."""
        self._earn(now)
        self._bytes.change(bits_per_second / 8, MIN_BURST_BYTES)
        self._packets.change(packets_per_second, MIN_BURST_PACKETS)

    def room(self, now: float) -> int:
        """Bytes that may be sent at present by who asks; none where there are no packets left."""
        self._earn(now)
        room = self._bytes.room
        if self._packets.room < 1 or room <= 0:
            return 0
        return int(min(room, 1 << 30))

    def seconds_until(self, size: int, now: float) -> float:
        """Tell how long it takes until there is room for ``size`` bytes (at most the burst), and a packet.

        Longer, where others spend what is not kept.
        """
        self._earn(now)
        return max(self._bytes.seconds_until(size), self._packets.seconds_until(1), 0.0)

    def take(self, frames: list[bytes], now: float, asked_first: bytes = b"") -> list[bytes]:
        """Pay for frames; return those that may pass, in their order.

        TCP segments whose source MAC is ``asked_first`` always may; those of others may have to wait.
        """
        self._earn(now)
        self.dropped = self.queue_full = 0
        size, count = sum(map(len, frames)), len(frames)
        first, second = self._bytes, self._packets
        if size <= first.tokens and count <= second.tokens and not first.kept and not self._held:
            first.tokens -= size
            second.tokens -= count
            return frames
        passing = self._released()
        for frame in frames:
            length = len(frame)
            if is_tcp(frame):
                if frame[6:12] == asked_first:
                    first.spend(length)
                    second.spend(1)
                    passing.append(frame)
                    continue
                if self._held or first.tokens < length or second.tokens < 1:
                    most = min(max(first.rate * HELD_SECONDS, LEAST_HELD_BYTES), MOST_HELD_BYTES)
                    self.queue_full += not self._held.put(frame, most, MOST_HELD)
                    continue
            elif first.tokens < length or second.tokens < 1:
                self.dropped += 1
                continue
            first.tokens -= length
            second.tokens -= 1
            passing.append(frame)
        return passing

    def release(self, now: float) -> list[bytes]:
        """Give the segments that have waited for long enough."""
        self._earn(now)
        return self._released()

    def wake_at(self, now: float) -> float:
        """Tell when the next segment that waits may leave, at the soonest; infinite while there is none."""
        if not self._held:
            return _UNLIMITED
        size = self._held.next_size()
        wait = max(self._bytes.seconds_until_held(size), self._packets.seconds_until_held(1))
        return now + max(wait, SOONEST)

    def give_up(self) -> list[bytes]:
        """Give all segments that wait, for which nobody is to be limited any more."""
        return self._held.take_all()

    def _released(self) -> list[bytes]:
        released: list[bytes] = []
        held = self._held
        while held:
            size = held.next_size()
            if self._bytes.room_for_held < size or self._packets.room_for_held < 1:
                break
            self._bytes.spend_for_held(size)
            self._packets.spend_for_held(1)
            released.append(held.take())
        return released

    def _earn(self, now: float) -> None:
        passed = now - self._updated
        if passed > 0:
            self._updated = now
            held = bool(self._held)
            self._bytes.earn(passed, awaited=self.is_awaited, held=held)
            self._packets.earn(passed, awaited=self.is_awaited, held=held)


def is_tcp(frame: bytes) -> bool:
    """Whether a frame's packet is TCP's, behind priority tags too; not where IPv6 has extension headers."""
    if frame[12:14] in TAGS:
        frame = without_priority_tags(frame)
    at = _PROTOCOL_AT.get(frame[12:14], len(frame))
    return at < len(frame) and frame[at] == PROTOCOL_TCP
