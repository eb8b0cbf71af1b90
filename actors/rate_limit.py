"""How many bits and packets a session may send, or be sent, per second: two token buckets each way.

Both are asked once per batch. A frame costs its bytes, and what is taken beyond the tokens is a debt. TCP
connections of the gateway ask first how much they may send (``line``), so they slow down, and are
served in debt too; frames of all others are dropped where there are no tokens for them.
"""

from __future__ import annotations

from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6
from netstack.tcp_segment import PROTOCOL_TCP

BURST = 0.1
"""Seconds' worth of tokens: what a round trip over a long way brings at once."""

MIN_BURST_BYTES = 64 * 1024
"""The largest frame, and some turns of TCP connections (``actors.line.TURN_BYTES``)."""

MIN_BURST_PACKETS = 16

_OFF = 0
_UNLIMITED = float("inf")
_PROTOCOL_AT = {ETHERTYPE_IPV4: 23, ETHERTYPE_IPV6: 20}


class RateLimit:
    """One direction of one session."""

    __slots__ = ("_burst", "_byte_rate", "_bytes", "_packet_burst", "_packet_rate", "_packets", "_updated")

    def __init__(self, bits_per_second: int, packets_per_second: int, now: float) -> None:
        """Start full; a rate of 0 is none."""
        self._byte_rate = bits_per_second / 8 if bits_per_second != _OFF else _UNLIMITED
        self._packet_rate = packets_per_second if packets_per_second != _OFF else _UNLIMITED
        self._burst = self._bytes = max(self._byte_rate * BURST, MIN_BURST_BYTES)
        self._packet_burst = self._packets = max(self._packet_rate * BURST, MIN_BURST_PACKETS)
        self._updated = now

    def room(self, now: float) -> int:
        """Bytes that may be sent at present; none where there are no packets left."""
        self._refill(now)
        if self._packets < 1 or self._bytes <= 0:
            return 0
        return int(min(self._bytes, self._burst, 1 << 30))

    def seconds_until(self, size: int, now: float) -> float:
        """Tell how long it takes until there is room for ``size`` bytes (at most the burst), and a packet."""
        self._refill(now)
        of_bytes = (min(size, self._burst) - self._bytes) / self._byte_rate if self._bytes < size else 0.0
        of_packets = (1 - self._packets) / self._packet_rate if self._packets < 1 else 0.0
        return max(of_bytes, of_packets, 0.0)

    def take(self, frames: list[bytes], now: float, asked_first: bytes = b"") -> list[bytes]:
        """Pay for frames; return those that may pass, in their order.

        TCP segments whose source MAC is ``asked_first`` always may.
        """
        self._refill(now)
        size, count = sum(map(len, frames)), len(frames)
        if size <= self._bytes and count <= self._packets:
            self._bytes -= size
            self._packets -= count
            return frames
        return [frame for frame in frames if self._takes(frame, asked_first)]

    def _takes(self, frame: bytes, asked_first: bytes) -> bool:
        may_pass = self._bytes >= len(frame) and self._packets >= 1
        if may_pass or (frame[6:12] == asked_first and is_tcp(frame)):
            self._bytes -= len(frame)
            self._packets -= 1
            return True
        return False

    def _refill(self, now: float) -> None:
        passed = now - self._updated
        if passed > 0:
            self._updated = now
            self._bytes = min(self._burst, self._bytes + passed * self._byte_rate)
            self._packets = min(self._packet_burst, self._packets + passed * self._packet_rate)


def is_tcp(frame: bytes) -> bool:
    """Whether a frame's packet is TCP's; one with IPv6 extension headers is not said to be."""
    at = _PROTOCOL_AT.get(frame[12:14], len(frame))
    return at < len(frame) and frame[at] == PROTOCOL_TCP
