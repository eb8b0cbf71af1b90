"""How many bits and packets a session may send, or be sent, per second: two token buckets each way.

Both are asked once per batch. A frame costs its bytes, and what is taken beyond the tokens is a debt. TCP
connections of the gateway ask first how much they may send (``line``), so they slow down, and are
served in debt too; frames of all others are dropped where there are no tokens for them. While a connection
waits half of what is earned is kept for them, so that a flood of others does not shut them out.
"""

from __future__ import annotations

from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.vlan import TAGS, without_priority_tags

BURST = 0.1
"""Seconds' worth of tokens: what a round trip over a long way brings at once."""

MIN_BURST_BYTES = 64 * 1024
"""The largest frame, and some turns of TCP connections (``actors.line.TURN_BYTES``)."""

MIN_BURST_PACKETS = 16

_OFF = 0
_UNLIMITED = float("inf")
_PROTOCOL_AT = {ETHERTYPE_IPV4: 23, ETHERTYPE_IPV6: 20}


class _Bucket:
    """Tokens, of bytes or packets: some for all, and some that are kept for those who wait."""

    __slots__ = ("burst", "kept", "rate", "tokens")

    def __init__(self, rate: float, least_burst: float) -> None:
        """Start full; a ``rate`` of 0 is none."""
        self.rate = rate if rate != _OFF else _UNLIMITED
        self.burst = self.tokens = max(self.rate * BURST, least_burst)
        self.kept = 0.0

    def change(self, rate: float, least_burst: float) -> None:
        """Go on at another rate, with the tokens that there are as far as it allows as many."""
        self.rate = rate if rate != _OFF else _UNLIMITED
        self.burst = max(self.rate * BURST, least_burst)
        self.tokens = min(self.tokens, self.burst) if rate != _OFF else _UNLIMITED
        self.kept = min(self.kept, self.burst / 2) if rate != _OFF else 0.0

    @property
    def room(self) -> float:
        """Tokens for those who wait; those for all may be a debt."""
        return min(self.tokens + self.kept, self.burst)

    def seconds_until(self, amount: float) -> float:
        """Tell how long it takes until there is room for ``amount``, or for a burst."""
        if self.rate == _UNLIMITED:
            return 0.0
        return (min(amount, self.burst) - self.room) / self.rate

    def earn(self, seconds: float, *, awaited: bool) -> None:
        """Gain the tokens of some time; without anybody who waits none are kept."""
        earned = seconds * self.rate
        if not awaited:
            earned, self.kept = earned + self.kept, 0.0
        elif self.rate != _UNLIMITED:
            share = min(earned / 2, self.burst / 2 - self.kept)
            self.kept += share
            earned -= share
        self.tokens = min(self.burst, self.tokens + earned)

    def spend(self, amount: float) -> None:
        """Pay for those who waited, with what was kept for them first."""
        kept = min(self.kept, amount)
        self.kept -= kept
        self.tokens -= amount - kept


class RateLimit:
    """One direction of one session."""

    __slots__ = ("_bytes", "_packets", "_updated", "is_awaited")

    def __init__(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Start full; a rate of 0 is none."""
        self._bytes = _Bucket(bits_per_second / 8, MIN_BURST_BYTES)
        self._packets = _Bucket(packets_per_second, MIN_BURST_PACKETS)
        self._updated = now
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

        TCP segments whose source MAC is ``asked_first`` always may.
        """
        self._earn(now)
        size, count = sum(map(len, frames)), len(frames)
        if size <= self._bytes.tokens and count <= self._packets.tokens and not self._bytes.kept:
            self._bytes.tokens -= size
            self._packets.tokens -= count
            return frames
        return [frame for frame in frames if self._takes(frame, asked_first)]

    def _takes(self, frame: bytes, asked_first: bytes) -> bool:
        if frame[6:12] == asked_first and is_tcp(frame):
            self._bytes.spend(len(frame))
            self._packets.spend(1)
            return True
        if self._bytes.tokens >= len(frame) and self._packets.tokens >= 1:
            self._bytes.tokens -= len(frame)
            self._packets.tokens -= 1
            return True
        return False

    def _earn(self, now: float) -> None:
        passed = now - self._updated
        if passed > 0:
            self._updated = now
            self._bytes.earn(passed, awaited=self.is_awaited)
            self._packets.earn(passed, awaited=self.is_awaited)


def is_tcp(frame: bytes) -> bool:
    """Whether a frame's packet is TCP's, behind priority tags too; not where IPv6 has extension headers."""
    if frame[12:14] in TAGS:
        frame = without_priority_tags(frame)
    at = _PROTOCOL_AT.get(frame[12:14], len(frame))
    return at < len(frame) and frame[at] == PROTOCOL_TCP
