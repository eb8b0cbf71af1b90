"""What the relay uses of the pinned aioquic that aioquic keeps private; its limits are in ``aioquic_limits``.

``tests/transport/test_aioquic_internals.py`` names what moved when a new version of aioquic breaks this.
"""

from __future__ import annotations

import os
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import FrameType, encode_frame
from aioquic.quic import connection as aioquic_connection
from aioquic.quic.connection import (
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
)
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, pull_ack_frame
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.tls import AlertUnexpectedMessage, Context, Epoch

from transport.quic.aioquic_limits import BoundedH3Connection, BoundedQuicConnection
from transport.quic.congestion import Congestion, congestion_of
from transport.quic.frames import Ack, write_ack
from transport.quic.packet_keys import AES_SUITES, PacketKeys
from transport.quic.stateless_reset import TOKEN_LENGTH
from transport.quic.webtransport import WEBTRANSPORT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import NetworkAddress, QuicReceiveContext
    from aioquic.quic.crypto import CryptoContext
    from aioquic.quic.events import ConnectionTerminated

    from transport.quic.delivery_rate import Flight
    from transport.quic.ledger import Acknowledged, SentPacket

CONNECTION_ID_LENGTH = 8
WORKER = 0
"""First byte of every connection ID, so that packets can be steered between processes later."""

CONNECTION_IDS = 8
"""Connection IDs that a client may have at a time, if it wants as many: one in use, the others to migrate to
and to probe paths with. Each that it retires is replaced (RFC 9000, 5.1.1)."""

MAX_UDP_PAYLOAD_SIZE = 0x03
"""Transport parameter: the largest packet that the client takes (RFC 9000, 18.2)."""
LARGEST_UDP_PAYLOAD = 65527
"""What holds for a client that does not say."""
RESET_STREAM_AT = 0x24
"""Frame type (draft-ietf-quic-reliable-stream-reset)."""
RESET_STREAM_AT_PARAMETERS = (0x1D, 0x17F7586D2CB571)
"""Transport parameters that offer to receive that frame: of draft 09, and of drafts 03 to 08. Clients of
WebTransport over HTTP/3 refuse servers without the one that they know."""

MIN_ROUND_TRIP = 0.001
"""Seconds: aioquic's floor for a round-trip sample."""
IDLE_REFRESH = 1.0
"""Seconds between two settings of the idle timer: setting it costs more than it says."""
IDLE_IMPRECISION = 0.05
"""Part of the idle timeout that may lie between them at most."""

_FRAME_HANDLERS = "_QuicConnection__frame_handlers"

# A connection asks for the same thirty sets of encryption levels as the one before.
vars(aioquic_connection)["EPOCHS"] = cache(aioquic_connection.EPOCHS)


def new_connection_id() -> bytes:
    """Return a connection ID of 8 bytes: the worker's number, then random."""
    return bytes((WORKER,)) + os.urandom(CONNECTION_ID_LENGTH - 1)


def _random_token(_connection_id: bytes) -> bytes:
    return os.urandom(TOKEN_LENGTH)


def transport_parameters(data: bytes) -> dict[int, bytes]:
    """Return the values by parameter (RFC 9000, 18) of what aioquic has been through: it is whole."""
    values: dict[int, bytes] = {}
    buf = Buffer(data=data)
    while not buf.eof():
        parameter, length = buf.pull_uint_var(), buf.pull_uint_var()
        values[parameter] = buf.pull_bytes(length)
    return values


class OpenQuicConnection(QuicConnection):
    """aioquic's connection with what both sides need to see of its state, the datagram path above all."""

    peer_packet_limit = LARGEST_UDP_PAYLOAD
    """Bytes of UDP payload that the other side takes at most; known once its first packets are read."""

    on_ack: Callable[[Ack, float], None] | None = None
    """Told of ACK frames in 1-RTT packets that aioquic itself handles."""

    @property
    def datagrams_waiting(self) -> int:
        """DATAGRAM frames that aioquic has accepted but not sent; it sets no limit itself."""
        return len(self._datagrams_pending)

    @property
    def stream_bytes(self) -> int:
        """Stream bytes that flow control has counted: up to the highest offset of every stream there was."""
        return self._local_max_data.used

    @property
    def ended(self) -> ConnectionTerminated | None:
        """How the connection ended, as soon as that is known; the event itself comes after draining."""
        return self._close_event

    @property
    def ended_by_peer(self) -> bool:
        """Whether that was the other side's doing."""
        return self._state is QuicConnectionState.DRAINING

    @property
    def peer_datagram_limit(self) -> int:
        """Largest DATAGRAM frame that the other side accepts; 0 where it accepts none."""
        return self._remote_max_datagram_frame_size or 0

    @property
    def last_received_at(self) -> float:
        """Time of the newest authentic 1-RTT packet; 0 before the first."""
        if Epoch.ONE_RTT not in self._spaces:
            return 0.0
        return self._spaces[Epoch.ONE_RTT].largest_received_time or 0.0

    def one_rtt(self) -> OneRttState | None:
        """Return the state of 1-RTT packets, once the handshake is confirmed and if the cipher is AES."""
        if not self._handshake_confirmed:
            return None
        if self._cryptos[Epoch.ONE_RTT].recv.cipher_suite not in AES_SUITES:
            return None
        return OneRttState(self)

    def dissolve(self) -> None:
        """Cut what leads from its parts back to the connection, which has ended.

        So it goes with its last user, instead of waiting with all others for the garbage collector.
        """
        self.on_ack = None
        self.tls = _TLS_DONE
        self._cryptos = dict.fromkeys(self._cryptos, _NO_KEYS)
        self._loss._send_probe = _do_nothing
        vars(self)[_FRAME_HANDLERS] = {}

    def _handle_padding_frame(self, _context: QuicReceiveContext, _frame_type: int, buf: Buffer) -> None:
        # Nearly always to the end of the packet: one step instead of a thousand.
        rest = buf.data_slice(buf.tell(), buf.capacity).lstrip(b"\0")
        buf.seek(buf.capacity - len(rest))

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        super()._handle_ack_frame(context, frame_type, buf)
        if self.on_ack is not None and context.epoch == Epoch.ONE_RTT:
            end = buf.tell()
            buf.seek(start)
            ranges, delay = pull_ack_frame(buf)
            buf.seek(end)
            self.on_ack(
                Ack([(block.start, block.stop - 1) for block in reversed(ranges)], delay), context.time
            )

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        largest = transport_parameters(data).get(MAX_UDP_PAYLOAD_SIZE)
        if largest is not None:
            self.peer_packet_limit = Buffer(data=largest).pull_uint_var()


class RelayQuicConnection(OpenQuicConnection, BoundedQuicConnection):
    """aioquic's connection with the relay's own connection IDs."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        original_cid: bytes,
        retry_source_cid: bytes | None = None,
        token_of: Callable[[bytes], bytes] = _random_token,
    ) -> None:
        """``token_of`` makes the stateless reset token of a connection ID."""
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_cid,
            retry_source_connection_id=retry_source_cid,
        )
        handlers = vars(self)[_FRAME_HANDLERS]
        if not _HANDLERS:
            _HANDLERS.update((kind, (method.__func__, epochs)) for kind, (method, epochs) in handlers.items())
            _HANDLERS[RESET_STREAM_AT] = _HANDLERS[QuicFrameType.RESET_STREAM]
        vars(self)[_FRAME_HANDLERS] = _FrameHandlers(self)
        first = self._host_cids[0]
        first.cid = new_connection_id()
        first.stateless_reset_token = token_of(first.cid)
        self._token_of = token_of
        self.host_cid = first.cid
        self._local_initial_source_connection_id = first.cid

        self.partial_resets: dict[int, PartialReset] = {}
        """By stream: resets that wait for data; no more than there may be streams."""

    def release_handshake(self) -> None:
        """Give back what only the handshake needed, 20 KB of each connection, once it is confirmed.

        What aioquic may still look at stands for it: keys that open nothing, and a TLS that takes nothing.
        """
        application = self._spaces[Epoch.ONE_RTT]
        self._spaces = {Epoch.INITIAL: _DISCARDED, Epoch.HANDSHAKE: _DISCARDED, Epoch.ONE_RTT: application}
        self._loss.spaces = [application]
        self._cryptos_initial = dict.fromkeys(self._cryptos_initial, _NO_KEYS)
        self._cryptos.update(dict.fromkeys((Epoch.INITIAL, Epoch.ZERO_RTT, Epoch.HANDSHAKE), _NO_KEYS))
        self._crypto_buffers = {}
        self._crypto_streams = {Epoch.ONE_RTT: self._crypto_streams[Epoch.ONE_RTT]}
        self.tls = _TLS_DONE

    # -- transport parameters ---------------------------------------------------------------------

    def _serialize_transport_parameters(self) -> bytes:
        offers = [encode_uint_var(parameter) + b"\0" for parameter in RESET_STREAM_AT_PARAMETERS]
        return b"".join((super()._serialize_transport_parameters(), *offers))

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        values = transport_parameters(data)
        if any(values.get(parameter) for parameter in RESET_STREAM_AT_PARAMETERS):
            raise QuicConnectionError(
                QuicErrorCode.TRANSPORT_PARAMETER_ERROR,
                QuicFrameType.CRYPTO,
                "reset_stream_at must be empty",
            )

    # -- resets with partial delivery -------------------------------------------------------------

    def _handle_reset_stream_frame(self, _context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        """RESET_STREAM and RESET_STREAM_AT: the former is the latter with nothing to be delivered before.

        The stream ends with a reset once its data up to the reliable size are there; the final size counts
        for flow control at once (RFC 9000, 4.5).
        """
        stream_id, error_code, final_size = buf.pull_uint_var(), buf.pull_uint_var(), buf.pull_uint_var()
        reliable_size = buf.pull_uint_var() if frame_type == RESET_STREAM_AT else 0

        def violation(code: QuicErrorCode, reason: str) -> QuicConnectionError:
            return QuicConnectionError(code, frame_type, reason)

        if reliable_size > final_size:
            raise violation(QuicErrorCode.FRAME_ENCODING_ERROR, "Reliable Size is larger than Final Size")
        self._assert_stream_can_receive(frame_type, stream_id)
        stream = self._get_or_create_stream(frame_type, stream_id)
        receiver = stream.receiver
        earlier = self.partial_resets.get(stream_id)
        if earlier is not None and error_code != earlier.error_code:
            raise violation(QuicErrorCode.STREAM_STATE_ERROR, "Cannot change the error code of a reset")
        known_size = receiver._final_size if earlier is None else earlier.final_size
        if final_size < receiver.highest_offset or known_size not in (None, final_size):
            raise violation(QuicErrorCode.FINAL_SIZE_ERROR, "Cannot change final size")
        newly_received = final_size - receiver.highest_offset
        limit = self._local_max_data
        if final_size > stream.max_stream_data_local or limit.used + newly_received > limit.value:
            raise violation(QuicErrorCode.FLOW_CONTROL_ERROR, "Final size is over a data limit")
        limit.used += newly_received
        receiver.highest_offset = final_size
        if earlier is None or reliable_size < earlier.reliable_size:
            self.partial_resets[stream_id] = PartialReset(error_code, final_size, reliable_size)
            self._reset_if_delivered(stream_id)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        super()._handle_stream_frame(context, frame_type, buf)
        if self.partial_resets:
            end = buf.tell()
            buf.seek(start)
            stream_id = buf.pull_uint_var()
            buf.seek(end)
            reset = self.partial_resets.get(stream_id)
            if reset is not None:
                if self._streams[stream_id].receiver.highest_offset > reset.final_size:
                    raise QuicConnectionError(
                        QuicErrorCode.FINAL_SIZE_ERROR, frame_type, "Data received beyond final size"
                    )
                self._reset_if_delivered(stream_id)

    def _reset_if_delivered(self, stream_id: int) -> None:
        """Take the reset into effect once the data that it promised have been handed on."""
        reset, receiver = self.partial_resets[stream_id], self._streams[stream_id].receiver
        if receiver.is_finished or receiver.starting_offset() >= reset.reliable_size:
            del self.partial_resets[stream_id]
            event = receiver.handle_reset(final_size=reset.final_size, error_code=reset.error_code)
            if event is not None:
                self._events.append(event)

    # ---------------------------------------------------------------------------------------------

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(CONNECTION_IDS, self._remote_active_connection_id_limit):
            cid = new_connection_id()
            self._host_cids.append(
                QuicConnectionId(
                    cid=cid,
                    sequence_number=self._host_cid_seq,
                    stateless_reset_token=self._token_of(cid),
                )
            )
            self._host_cid_seq += 1


class PartialReset(NamedTuple):
    """A RESET_STREAM_AT whose stream still owes data."""

    error_code: int
    final_size: int
    reliable_size: int


_HANDLERS: dict[int, tuple[Callable[..., None], frozenset[Epoch]]] = {}
"""Who handles a frame of which kind, and at which encryption levels it may come."""


class _FrameHandlers:
    """aioquic's table of frame handlers, bound as they are looked up: its own would be 7 KB a connection."""

    __slots__ = ("_quic",)

    def __init__(self, quic: RelayQuicConnection) -> None:
        self._quic = quic

    def __getitem__(self, kind: int) -> tuple[Callable[..., None], frozenset[Epoch]]:
        handler, epochs = _HANDLERS[kind]
        self._quic.frames_left -= 1
        if self._quic.frames_left < 0:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, kind, "too many frames in a packet")
        return MethodType(handler, self._quic), epochs


class _TlsDone(Context):
    """TLS of a connection whose handshake is over: a server has nothing more to be told (RFC 8446, 4.6)."""

    def __init__(self) -> None:
        """Not as aioquic's, which prepares a handshake."""

    def handle_message(self, _input_data: bytes, _output_buf: dict[Epoch, Buffer]) -> None:
        """Refuse, as aioquic's does in this state."""
        raise AlertUnexpectedMessage


def _do_nothing() -> None:
    pass


_TLS_DONE = _TlsDone()
_NO_KEYS = CryptoPair()
_DISCARDED = QuicPacketSpace()
_DISCARDED.discarded = True


def keys_of(context: CryptoContext, *, seals: bool) -> PacketKeys:
    """Return the keys of a direction, with aioquic's own ciphers. Raises ValueError where it has none."""
    aead, protection = context.aead, context.hp
    if aead is None or protection is None or context.secret is None:
        raise ValueError("there are no keys")
    crypt = aead._aead.encrypt if seals else aead._aead.decrypt
    return PacketKeys(context.secret, crypt, aead._iv, protection._encryptor.update)


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
    )

    def __init__(self, quic: OpenQuicConnection) -> None:
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
    def packet_limit(self) -> int:
        """Bytes of UDP payload that the other side takes at most."""
        return self._quic.peer_packet_limit

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


class RelayH3Connection(BoundedH3Connection):
    """aioquic's HTTP/3 with the settings of every WebTransport dialect."""

    def _get_local_settings(self) -> dict[int, int]:
        return super()._get_local_settings() | WEBTRANSPORT_SETTINGS

    def send_goaway(self, first_refused: int) -> None:
        """Say that requests on streams from ``first_refused`` on are not answered (RFC 9114, 5.2)."""
        if self._local_control_stream_id is not None:
            frame = encode_frame(FrameType.GOAWAY, encode_uint_var(first_refused))
            self._quic.send_stream_data(self._local_control_stream_id, frame)
