"""What the relay uses of the pinned aioquic that aioquic keeps private.

Its limits are in ``aioquic_limits``, and what every packet comes by is in ``aioquic_one_rtt``.

``tests/transport/test_aioquic_internals.py`` names what moved when a new version of aioquic breaks this.
"""

from __future__ import annotations

import os
from types import MethodType
from typing import TYPE_CHECKING, NamedTuple

from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import FrameType, encode_frame
from aioquic.quic.connection import (
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicConnectionState,
)
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, pull_ack_frame
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.tls import AlertUnexpectedMessage, Context, Epoch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import transport.quic.aioquic_hot_spots  # noqa: F401
from transport.quic.aioquic_limits import BoundedH3Connection, BoundedQuicConnection
from transport.quic.aioquic_one_rtt import OneRttState
from transport.quic.frames import Ack, padding, transport_parameters
from transport.quic.packet_keys import AES_SUITES
from transport.quic.path_mtu import LARGEST_PACKET
from transport.quic.stateless_reset import TOKEN_LENGTH
from transport.quic.webtransport import WEBTRANSPORT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.connection import QuicReceiveContext
    from aioquic.quic.events import ConnectionTerminated


CONNECTION_ID_LENGTH = 8
WORKER = 0
"""First byte of every connection ID of a relay that is one process; with several it says which of them."""

CONNECTION_IDS = 8
"""Connection IDs that a client may have at a time, if it wants as many: one in use, the others to migrate to
and to probe paths with. Each that it retires is replaced (RFC 9000, 5.1.1)."""

PEER_CONNECTION_IDS = 4
"""Connection IDs that a client may give at a time: one in use, the others for when it migrates. Most clients
give as many as they may at once (aioquic would take 8), and replace each that is retired."""

MAX_UDP_PAYLOAD_SIZE = 0x03
"""Transport parameter: the largest packet that an endpoint takes (RFC 9000, 18.2)."""
ACK_DELAY_EXPONENT = 0x0A
"""Transport parameter: the power of two by which the delays in its ACK frames are to be multiplied."""
LARGEST_UDP_PAYLOAD = 65527
"""What holds for one that does not say."""
RESET_STREAM_AT = 0x24
"""Frame type (draft-ietf-quic-reliable-stream-reset)."""
RESET_STREAM_AT_PARAMETERS = (0x1D, 0x17F7586D2CB571)
"""Transport parameters that offer to receive that frame: of draft 09, and of drafts 03 to 08. Clients of
WebTransport over HTTP/3 refuse servers without the one that they know."""

LONGEST_PROBE_WAIT = 2.0
"""Seconds between two probes at most, or a probe timeout where that is longer.

RFC 9002, 6.2.1 has the timeout double each time: what comes back after an outage (a tunnel, a NAT box that
restarts) stays dead for up to as long again, both ways. A packet in two seconds is no burden for any path.
"""

_FRAME_HANDLERS = "_QuicConnection__frame_handlers"


def new_connection_id() -> bytes:
    """Return a connection ID of 8 bytes: the worker's number, then random."""
    return bytes((WORKER,)) + os.urandom(CONNECTION_ID_LENGTH - 1)


def _random_token(_connection_id: bytes) -> bytes:
    return os.urandom(TOKEN_LENGTH)


class RetryTokens(QuicRetryTokenHandler):
    """aioquic's Retry tokens, which all who have the same key take from each other."""

    def __init__(self, key: bytes) -> None:
        """``key`` has 32 bytes, or is empty for a random one."""
        super().__init__()
        if key:
            self._aead = AESGCM(key)


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
    def over_at(self) -> float:
        """When a connection that has ended is over: three probe timeouts later (RFC 9000, 10.2)."""
        return self._close_at or 0.0

    @property
    def peer_datagram_limit(self) -> int:
        """Largest DATAGRAM frame that the other side accepts; 0 where it accepts none."""
        return self._remote_max_datagram_frame_size or 0

    @property
    def idle_timeout(self) -> float:
        """Seconds of silence after which a side gives the connection up (RFC 9000, 10.1)."""
        return self._idle_timeout()

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
        return OneRttState(self, self.peer_packet_limit, self.peer_datagram_limit)

    def handle_timer(self, now: float) -> None:
        """Do what is due; established, it is LONGEST_PROBE_WAIT at most until the next probe."""
        super().handle_timer(now)
        if self._handshake_confirmed:
            recovery = self._loss
            timeout = recovery.get_probe_timeout()
            while recovery._pto_count and timeout * 2**recovery._pto_count > LONGEST_PROBE_WAIT:
                recovery._pto_count -= 1

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
        plain = buf.data_slice(buf.tell(), buf.capacity)
        buf.seek(buf.capacity - len(plain) + padding(plain))

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
        self._take_transport_parameters(transport_parameters(data))

    def _take_transport_parameters(self, values: dict[int, bytes]) -> None:
        """Look at what aioquic does not; raises QuicConnectionError."""
        largest = values.get(MAX_UDP_PAYLOAD_SIZE)
        if largest is not None:
            self.peer_packet_limit = Buffer(data=largest).pull_uint_var()
        exponent = values.get(ACK_DELAY_EXPONENT)
        if exponent is not None:
            self._remote_ack_delay_exponent = Buffer(data=exponent).pull_uint_var()
        if not self._remote_max_idle_timeout:
            self._remote_max_idle_timeout = None  # 0 is as good as none: it waits for ever (RFC 9000, 10.1)


class RelayQuicConnection(OpenQuicConnection, BoundedQuicConnection):
    """aioquic's connection with the relay's own connection IDs."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        original_cid: bytes,
        retry_source_cid: bytes | None = None,
        token_of: Callable[[bytes], bytes] = _random_token,
        new_id: Callable[[], bytes] = new_connection_id,
    ) -> None:
        """``token_of`` makes the stateless reset token of a connection ID, ``new_id`` such an ID."""
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
        first.cid = new_id()
        first.stateless_reset_token = token_of(first.cid)
        self._token_of = token_of
        self._new_id = new_id
        self.host_cid = first.cid
        self._local_initial_source_connection_id = first.cid
        self._local_active_connection_id_limit = PEER_CONNECTION_IDS

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

    def may_answer(self, stream_id: int) -> bool:
        """Whether nothing was sent on a stream yet, and the peer has not said that it would not take it."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        sender = stream.sender
        return sender._buffer_stop == 0 and sender._reset_error_code is None

    # -- transport parameters ---------------------------------------------------------------------

    def _serialize_transport_parameters(self) -> bytes:
        offers = [encode_uint_var(parameter) + b"\0" for parameter in RESET_STREAM_AT_PARAMETERS]
        largest = encode_uint_var(LARGEST_PACKET)
        limit = encode_uint_var(MAX_UDP_PAYLOAD_SIZE) + encode_uint_var(len(largest)) + largest
        return b"".join((super()._serialize_transport_parameters(), limit, *offers))

    def _take_transport_parameters(self, values: dict[int, bytes]) -> None:
        super()._take_transport_parameters(values)
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
            cid = self._new_id()
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


class RelayH3Connection(BoundedH3Connection):
    """aioquic's HTTP/3 with the settings of every WebTransport dialect."""

    def _get_local_settings(self) -> dict[int, int]:
        return super()._get_local_settings() | WEBTRANSPORT_SETTINGS

    def send_goaway(self, first_refused: int) -> None:
        """Say that requests on streams from ``first_refused`` on are not answered (RFC 9114, 5.2)."""
        if self._local_control_stream_id is not None:
            frame = encode_frame(FrameType.GOAWAY, encode_uint_var(first_refused))
            self._quic.send_stream_data(self._local_control_stream_id, frame)
