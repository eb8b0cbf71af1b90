"""What the datagram path shares with the pinned aioquic of a connection's 1-RTT packets, compiled by mypyc.

Of aioquic's private names these are the ones that every packet comes by; the others are in
``aioquic_internals``, and ``tests/transport/test_aioquic_internals.py`` names what moved.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES
from aioquic.tls import Epoch
from mypy_extensions import mypyc_attr

from transport.quic.congestion import Congestion, congestion_of
from transport.quic.frames import Ack, write_ack
from transport.quic.packet_keys import PacketKeys

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress, QuicConnection
    from aioquic.quic.crypto import CryptoContext

    from transport.quic.delivery_rate import Flight
    from transport.quic.ledger import Acknowledged, SentPacket

MIN_ROUND_TRIP: Final = 0.001
"""Seconds: aioquic's floor for a round-trip sample."""
IDLE_REFRESH: Final = 1.0
"""Seconds between two settings of the idle timer: setting it costs more than it says."""
IDLE_IMPRECISION: Final = 0.05
"""Part of the idle timeout that may lie between them at most."""


def keys_of(context: CryptoContext, *, seals: bool) -> PacketKeys:
    """Return the keys of a direction, with aioquic's own ciphers. Raises ValueError where it has none."""
    aead, protection = context.aead, context.hp
    if aead is None or protection is None or context.secret is None:
        raise ValueError("there are no keys")
    crypt = aead._aead.encrypt if seals else aead._aead.decrypt
    return PacketKeys(context.secret, crypt, aead._iv, protection._encryptor.update)


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class OneRttState:
    """What the datagram path shares with aioquic of a connection's 1-RTT packets: one truth for both.

    Packet numbers, acknowledgement queue, duplicate filter, round-trip time, congestion control and timers
    stay aioquic's; this class reads and advances them for packets that aioquic does not see.
    """

    __slots__ = (
        "_congestion",
        "_idle_refresh_at",
        "_pair",
        "_quic",
        "_ranges",
        "_recovery",
        "_space",
        "_unfiltered",
        "datagram_limit",
        "packet_limit",
    )

    def __init__(self, quic: QuicConnection, packet_limit: int, datagram_limit: int) -> None:
        """``packet_limit``: bytes of UDP payload that the other side takes at most.

        ``datagram_limit``: bytes of a DATAGRAM frame, with its type and length, that it takes.
        """
        self.packet_limit = packet_limit
        self.datagram_limit = datagram_limit
        self._quic = quic
        self._space = quic._spaces[Epoch.ONE_RTT]
        # Any: they are handed SentPacket, which has what they read of aioquic's QuicSentPacket.
        self._recovery: Any = quic._loss
        self._congestion = congestion_of(quic._loss._cc)
        self._pair = quic._cryptos[Epoch.ONE_RTT]
        self._ranges: list[range] = vars(self._space.ack_queue)["_RangeSet__ranges"]
        self._unfiltered = self._space.largest_received_packet + 1
        self._idle_refresh_at = 0.0

    # -- what holds at present --------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether the connection is alive, on a validated path, and not amid a key update of its own."""
        quic = self._quic
        return (
            quic._state == QuicConnectionState.CONNECTED
            and not quic._close_pending
            and quic._network_paths[0].is_validated
            and not self._pair._update_key_requested
        )

    @property
    def address(self) -> NetworkAddress:
        """The other side's address on the active path."""
        return self._quic._network_paths[0].addr

    @property
    def own_cid(self) -> bytes:
        """The connection ID that the other side puts into its packets."""
        return bytes(self._quic.host_cid)

    @property
    def peer_cid(self) -> bytes:
        """The connection ID that goes into our packets."""
        return bytes(self._quic._peer_cid.cid)

    @property
    def key_phase(self) -> int:
        """Key phase bit of both directions, 0 or 1."""
        return int(self._pair.recv.key_phase)

    @property
    def receive_secret(self) -> bytes:
        """What the keys of packets from the other side are derived from; another one after a key update."""
        return self._pair.recv.secret or b""

    @property
    def send_secret(self) -> bytes:
        """What the keys of packets to the other side are derived from."""
        return self._pair.send.secret or b""

    def receive_keys(self) -> PacketKeys:
        """Return aioquic's keys of packets from the other side. Raises ValueError when they are gone."""
        return keys_of(self._pair.recv, seals=False)

    def send_keys(self) -> PacketKeys:
        """Return the keys of packets to the other side. Raises ValueError when they are gone."""
        return keys_of(self._pair.send, seals=True)

    # -- receiving --------------------------------------------------------------------------------

    @property
    def largest_received(self) -> int:
        """The largest packet number received so far, -1 before the first."""
        return self._space.largest_received_packet

    @property
    def expected_number(self) -> int:
        """What truncated packet numbers are completed against."""
        return self._space.expected_packet_number

    @property
    def largest_received_at(self) -> float:
        """When the packet with the largest number arrived."""
        return self._space.largest_received_time or 0.0

    def was_received(self, number: int) -> bool:
        """Whether the packet is a duplicate (or too old to tell)."""
        self.complete_duplicate_filter()
        return number in self._space.received_packets

    def note_received(self, numbers: list[int], *, in_order: bool, now: float) -> None:
        """Enter packets, none of them a duplicate; ``in_order``: each number is the one before plus one."""
        space, ranges = self._space, self._ranges
        if in_order and ranges and ranges[-1].stop == numbers[0]:
            largest = numbers[-1]
            ranges[-1] = range(ranges[-1].start, largest + 1)
        else:
            largest = max(numbers)
            self._note_disorder(numbers)
        if largest > space.largest_received_packet:
            space.largest_received_packet = largest
            space.largest_received_time = now
        if largest >= space.expected_packet_number:
            space.expected_packet_number = largest + 1
        quic = self._quic
        if quic._ack_eliciting_sent_since_receipt or now >= self._idle_refresh_at:
            self._refresh_idle_timer(now)
            quic._ack_eliciting_sent_since_receipt = False

    def _note_disorder(self, numbers: list[int]) -> None:
        self.complete_duplicate_filter()
        queue, window = self._space.ack_queue, self._space.received_packets
        for number in numbers:
            queue.add(number)
            window.add(number)
        while len(queue) > MAX_ACK_RANGES:
            queue.shift()

    def complete_duplicate_filter(self) -> None:
        """Enter the packets that came in order since the last time into aioquic's duplicate filter.

        Numbers that follow one another need no filter, so entering each as it comes would nearly always be
        work for nothing. They are all in the newest range: to be called before that may be cut or left.
        """
        stop = self._space.largest_received_packet + 1
        if self._unfiltered < stop and self._ranges:
            window, newest = self._space.received_packets, self._ranges[-1]
            for number in range(max(self._unfiltered, newest.start, stop - window._size), newest.stop):
                window.add(number)
        self._unfiltered = stop

    def _refresh_idle_timer(self, now: float) -> None:
        if now >= self._idle_refresh_at:
            timeout = self._quic._idle_timeout()
            self._idle_refresh_at = now + min(IDLE_REFRESH, IDLE_IMPRECISION * timeout)
            self._quic._close_at = now + timeout

    # -- acknowledging ----------------------------------------------------------------------------

    @property
    def ack_at(self) -> float | None:
        """When an acknowledgement is due; None when none is."""
        return self._space.ack_at

    def ack_within(self, delay: float, now: float) -> None:
        """Have an acknowledgement due in ``delay`` seconds at the latest."""
        if self._space.ack_at is None or self._space.ack_at > now + delay:
            self._space.ack_at = now + delay

    def write_ack(self, now: float) -> bytes:
        """Encode the acknowledgement of all that was received, and take it as sent."""
        delay = max(0, int((now - self.largest_received_at) * 1_000_000))
        self._space.ack_at = None
        return write_ack(self._ranges, delay >> self._quic._local_ack_delay_exponent)

    @property
    def ack_range_count(self) -> int:
        """Ranges that an acknowledgement carries; more than one where packets are missing."""
        return len(self._ranges)

    def ack_was_received(self, largest: int) -> None:
        """Stop acknowledging up to ``largest``: the peer has seen an ACK that did (RFC 9000, 13.2.4)."""
        self.complete_duplicate_filter()
        self._space.ack_queue.subtract(0, largest + 1)

    # -- sending ----------------------------------------------------------------------------------

    @property
    def congestion(self) -> Congestion:
        """What decides how much may be on its way, and how fast it leaves."""
        return self._congestion

    @property
    def next_number(self) -> int:
        """The number of the next packet."""
        return self._quic._packet_number

    def note_sent(self, count: int, size: int) -> None:
        """Take the next ``count`` packet numbers; the packets have ``size`` bytes together."""
        self._quic._packet_number += count
        self._quic._network_paths[0].bytes_sent += size

    def note_in_flight(self, count: int, size: int, flight: Flight, now: float) -> None:
        """Count the newest ack-eliciting packets, ``size`` bytes together, as on their way."""
        quic = self._quic
        self._space.ack_eliciting_in_flight += count
        self._recovery._time_of_last_sent_ack_eliciting_packet = now
        self._congestion.sent(flight, quic._packet_number - 1, size)
        if not quic._ack_eliciting_sent_since_receipt:
            self._refresh_idle_timer(now)
            quic._ack_eliciting_sent_since_receipt = True

    # -- acknowledged and lost --------------------------------------------------------------------

    def forward_ack(self, ack: Ack, now: float) -> bool:
        """Give an ACK frame to aioquic if it has packets of its own outstanding; tell whether it has."""
        if not self._space.sent_packets:
            return False
        self.complete_duplicate_filter()
        ranges = RangeSet()
        for low, high in reversed(ack.ranges):
            ranges.add(low, high + 1)
        self._recovery.on_ack_received(
            ack_rangeset=ranges, ack_delay=self._delay(ack), now=now, space=self._space
        )
        return True

    def note_acknowledged(self, acknowledged: Acknowledged, ack: Ack, now: float) -> None:
        """Take packets of ours as arrived: round-trip time, congestion window, timers (RFC 9002, A.7)."""
        recovery, space = self._recovery, self._space
        space.ack_eliciting_in_flight -= acknowledged.packets
        space.largest_acked_packet = max(space.largest_acked_packet, acknowledged.newest.packet_number)
        self._congestion.acknowledged(acknowledged.newest, now)
        if acknowledged.is_largest:
            self._sample_round_trip(now - acknowledged.newest.sent_time, self._delay(ack), now)
        recovery._pto_count = 0
        if space.sent_packets:
            recovery._detect_loss(now=now, space=space)

    def _sample_round_trip(self, latest: float, ack_delay: float, now: float) -> None:
        """RFC 9002, 5.3, with aioquic's floor; written without calls, for every ACK comes by here."""
        recovery = self._recovery
        adjusted = max(MIN_ROUND_TRIP, latest)
        minimum = recovery._rtt_min
        if adjusted < minimum:
            minimum = recovery._rtt_min = adjusted
        ack_delay = min(ack_delay, recovery.max_ack_delay)
        if adjusted > minimum + ack_delay:
            adjusted -= ack_delay
        recovery._rtt_latest = adjusted
        if recovery._rtt_initialized:
            recovery._rtt_variance += (abs(minimum - adjusted) - recovery._rtt_variance) / 4
            recovery._rtt_smoothed += (adjusted - recovery._rtt_smoothed) / 8
        else:
            recovery._rtt_initialized = True
            recovery._rtt_first_sample_time = now
            recovery._rtt_variance = latest / 2
            recovery._rtt_smoothed = latest
        self._congestion.sample_round_trip(latest, now)

    def note_lost(self, packets: list[SentPacket], now: float) -> None:
        """Take packets of ours as lost: off the bytes in flight, and a congestion event (RFC 9002, 7.3)."""
        recovery = self._recovery
        self._space.ack_eliciting_in_flight -= len(packets)
        self._congestion.packets_lost(packets, now)
        if recovery._in_persistent_congestion(packets=packets):
            self._congestion.persistent_congestion()

    def note_expired(self, packet: SentPacket) -> None:
        """Take a packet off the bytes in flight whose loss is no congestion (RFC 9000, 14.4)."""
        self._space.ack_eliciting_in_flight -= 1
        self._congestion.expired(packet)

    def update_pacer(self) -> None:
        """Tell aioquic's pacer what has changed; only needed before aioquic itself sends."""
        if self._recovery._rtt_initialized:
            self._recovery._pacer.update_rate(
                congestion_window=self._recovery._cc.congestion_window,
                smoothed_rtt=self._recovery._rtt_smoothed,
            )

    def _delay(self, ack: Ack) -> float:
        return float(ack.delay << self._quic._remote_ack_delay_exponent) / 1_000_000

    def begin_path(self) -> None:
        """Forget round trips and congestion of the former path (RFC 9000, 9.4).

        Of the packets that are on their way only aioquic's own are counted still.
        """
        recovery = self._recovery
        recovery._rtt_initialized = False
        recovery._rtt_min = math.inf
        recovery._rtt_latest = recovery._rtt_smoothed = recovery._rtt_variance = 0.0
        recovery._pto_count = 0
        former = recovery._cc
        recovery._cc = type(former)(max_datagram_size=self._quic._max_datagram_size)
        recovery._cc.bytes_in_flight = former.bytes_in_flight
        self._congestion = congestion_of(recovery._cc)

    # -- time -------------------------------------------------------------------------------------

    @property
    def round_trip(self) -> float:
        """The larger of the latest and the smoothed round-trip time, in seconds (RFC 9002, 6.1.2)."""
        recovery = self._recovery
        if not recovery._rtt_initialized:
            return float(recovery._rtt_initial)
        return float(max(recovery._rtt_latest, recovery._rtt_smoothed))

    @property
    def smoothed_round_trip(self) -> float | None:
        """The smoothed round-trip time in seconds (RFC 9002, 5.3); None before it was measured."""
        recovery = self._recovery
        return float(recovery._rtt_smoothed) if recovery._rtt_initialized else None

    @property
    def probe_at(self) -> float:
        """When a probe is due if nothing is acknowledged before, with back-off (RFC 9002, 6.2.1)."""
        recovery = self._recovery
        timeout = recovery.get_probe_timeout() * 2**recovery._pto_count
        return float(recovery._time_of_last_sent_ack_eliciting_packet + timeout)
