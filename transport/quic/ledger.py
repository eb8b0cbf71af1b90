"""Packets that the datagram path has sent: what was acknowledged, what is lost (RFC 9002).

Datagrams are never sent again, so a sent packet is only a size and, with all that left at the same time, what
congestion control noted then. aioquic's recovery keeps the
packets that it sends itself; round-trip time, congestion window and bytes in flight are its for both.

How far and for how long packets may be overtaken before they count as lost follows what the path shows
(``reordering``): radio links and bundles of lines deliver late what they do not lose.
"""

from __future__ import annotations

from itertools import count, repeat
from typing import TYPE_CHECKING, NamedTuple

from transport.quic.reordering import Reordering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transport.quic.delivery_rate import Flight


class SentPacket(NamedTuple):
    """A packet, or several as one, in the shape that aioquic's congestion control and recovery read."""

    packet_number: int
    sent_bytes: int
    sent_time: float
    flight: Flight | None = None
    """What held when it was sent; aioquic's recovery has no such thing."""
    is_ack_eliciting: bool = True


class Acknowledged(NamedTuple):
    """What an ACK frame took off the ledger."""

    packets: int
    newest: SentPacket
    """Its number and time are the newest packet's, its size is that of all of them."""
    largest_size: int
    """Bytes of the largest of them."""
    is_largest: bool
    """Whether the newest is what the frame names as largest: then it is a sample of the round-trip time."""


class Ledger:
    """Sent, not yet acknowledged packets, by number, in the order of sending."""

    __slots__ = ("largest_acked", "reordering", "sent")

    def __init__(self) -> None:
        self.sent: dict[int, tuple[Flight, int]] = {}
        self.largest_acked = -1
        self.reordering = Reordering()

    def add(self, first: int, packets: Sequence[bytes], flight: Flight) -> int:
        """Enter packets ``first``, ``first + 1``, …, all of one flight; return their bytes."""
        sizes = list(map(len, packets))
        self.sent.update(zip(count(first), zip(repeat(flight), sizes, strict=False), strict=False))
        return sum(sizes)

    def acknowledge(self, ranges: Sequence[tuple[int, int]]) -> Acknowledged | None:
        """Take off what ``ranges`` (lowest, highest; highest first) acknowledge; None when nothing new."""
        sent = self.sent
        largest, before = ranges[0][1], self.largest_acked
        self.largest_acked = max(before, largest)
        if self.reordering.written_off:
            self.reordering.acknowledged(ranges, before)
        if not sent:
            return None
        oldest = next(iter(sent))
        newest = next(reversed(sent))
        packets = total = largest_size = 0
        newest_acked, oldest_acked = -1, before
        newest_flight: Flight | None = None
        oldest_flight: Flight | None = None
        for low, high in ranges:
            if high < oldest:
                break
            # The peer chooses the ranges: only what was sent is looked at.
            for number in range(max(low, oldest), min(high, newest) + 1):
                entry = sent.pop(number, None)
                if entry is not None:
                    packets += 1
                    size = entry[1]
                    total += size
                    if size > largest_size:
                        largest_size = size
                    if number > newest_acked:
                        newest_acked, newest_flight = number, entry[0]
                    if number < oldest_acked:
                        oldest_acked, oldest_flight = number, entry[0]
        if newest_flight is None:
            return None
        if oldest_flight is not None:
            self.reordering.came_late(before - oldest_acked, oldest_flight.sent_at)
        newest_packet = SentPacket(newest_acked, total, newest_flight.sent_at, newest_flight)
        return Acknowledged(packets, newest_packet, largest_size, newest_acked == largest)

    def write_off_oldest(self) -> SentPacket:
        """Take off the oldest packet, whatever has become of it. Raises StopIteration when there is none."""
        number = next(iter(self.sent))
        flight, size = self.sent.pop(number)
        return SentPacket(number, size, flight.sent_at, flight)

    def write_off_all(self) -> list[SentPacket]:
        """Take off all packets, whatever has become of them, and forget what their path was like."""
        packets = [
            SentPacket(number, size, flight.sent_at, flight) for number, (flight, size) in self.sent.items()
        ]
        self.sent.clear()
        self.reordering = Reordering()
        return packets

    def detect_lost(self, now: float, round_trip: float) -> tuple[list[SentPacket], float | None]:
        """Take off what is lost; return it, and when the next packet would count as lost by time."""
        lost: list[SentPacket] = []
        reordering = self.reordering
        loss_delay = reordering.patience(now, round_trip)
        overtaken = self.largest_acked - reordering.packets
        sent_before = now - loss_delay
        next_loss = None
        for number, (flight, size) in self.sent.items():
            if number > self.largest_acked:
                break
            sent_time = flight.sent_at
            if number <= overtaken or sent_time <= sent_before:
                lost.append(SentPacket(number, size, sent_time, flight))
            else:
                next_loss = sent_time + loss_delay
                break
        for packet in lost:
            del self.sent[packet.packet_number]
            reordering.write_off(packet.packet_number, packet.sent_time)
        return lost, next_loss
