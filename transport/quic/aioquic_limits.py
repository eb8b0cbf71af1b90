"""Limits at the edges of the pinned aioquic that it leaves open; what they are is told in docs/aioquic.md.

Beside ``aioquic_internals`` and ``aioquic_hello_retry`` the only module that uses names which aioquic keeps
private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pylsqpack
from aioquic.buffer import UINT_VAR_MAX
from aioquic.h3.connection import (
    ClosedCriticalStream,
    DatagramError,
    ErrorCode,
    FrameError,
    FrameType,
    H3Connection,
    HeadersState,
    QpackDecompressionFailed,
    Setting,
)
from aioquic.h3.events import DatagramReceived, H3Event
from aioquic.quic.connection import QuicConnection, QuicConnectionError
from aioquic.quic.events import StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.stream import FinalSizeError, QuicStreamReceiver
from aioquic.tls import AlertDescription, Epoch

from transport.quic.aioquic_hello_retry import AskingContext
from transport.quic.qpack import field_section_size
from transport.quic.reassembly import Reassembly, TooFragmentedError
from transport.quic.webtransport import MAX_FIELD_SECTION_SIZE

if TYPE_CHECKING:
    from aioquic.buffer import Buffer
    from aioquic.h3.connection import Headers
    from aioquic.quic.connection import NetworkAddress, QuicConnectionId, QuicReceiveContext
    from aioquic.quic.events import QuicEvent
    from aioquic.quic.packet import QuicStreamFrame
    from aioquic.quic.stream import QuicStream

MAX_CRYPTO_BYTES = 64 * 1024
"""Bytes of TLS from a client at an encryption level; a ClientHello with post-quantum keys has 2 KB."""
MAX_ENCODED_FIELDS = 2 * MAX_FIELD_SECTION_SIZE
"""Bytes of a frame on a request or control stream that are collected; between that and what is announced a
request is answered 431."""
AMPLIFICATION = 3
"""How many times what came from an address may go there before it is validated (RFC 9000, 8.1)."""
MAX_STREAMS = 16
"""Streams of each kind that a client may have open, and another for each that ends: one is the session's and
three are HTTP/3's. Whoever uses one opens all below it (RFC 9000, 2.1), at 1 KB each."""
MAX_REASON = 256
"""Bytes of the reason that a closing packet has room for in any case."""
MAX_FRAMES = 256
"""Frames in one packet that aioquic reads; a handful is usual, and each takes some microseconds."""


class BoundedReceiver(QuicStreamReceiver):
    """aioquic's receiving part of a stream, with a reassembly that has limits."""

    _reassembly: Reassembly

    @classmethod
    def take_over(cls, receiver: QuicStreamReceiver) -> None:
        """Make it of aioquic's own, which has received nothing yet."""
        receiver.__class__ = cls
        vars(receiver)["_reassembly"] = Reassembly()

    @property
    def bytes_waiting(self) -> int:
        """Bytes that wait for what comes before them."""
        return self._reassembly.waiting

    def handle_frame(self, frame: QuicStreamFrame) -> StreamDataReceived | None:
        """Take a frame; return what is in order now. Raises FinalSizeError and TooFragmentedError."""
        end = frame.offset + len(frame.data)
        final = self._final_size
        if final is not None and (end > final or (frame.fin and end != final)):
            raise FinalSizeError("Data received beyond final size")
        if frame.fin:
            if end < self.highest_offset:
                raise FinalSizeError("Data received beyond final size")
            self._final_size = end
        self.highest_offset = max(self.highest_offset, end)
        if self.is_finished:
            return None
        data = self._reassembly.add(frame.offset, frame.data)
        self._buffer_start = self._reassembly.start
        ends = self._buffer_start == self._final_size
        if ends:
            self.is_finished = True
        if not data and not ends:
            return None
        # None for CRYPTO, whose event aioquic makes no other use of than to take its data.
        stream_id: Any = self._stream_id
        return StreamDataReceived(data=data, end_stream=ends, stream_id=stream_id)

    def handle_reset(
        self, *, final_size: int, error_code: int = QuicErrorCode.NO_ERROR
    ) -> StreamReset | None:
        """End the stream; what waited is nobody's any more."""
        event = super().handle_reset(final_size=final_size, error_code=error_code)
        self._reassembly.clear()
        return event


class BoundedQuicConnection(QuicConnection):
    """aioquic's connection as a server that no peer makes keep, work or send more than its share."""

    frames_left = MAX_FRAMES
    """How many more the packet may have that is being read; counted by whoever looks up their handlers."""
    freed_after = -1
    """The number of the peer's latest connection ID when one was last given back to get another."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As aioquic's."""
        super().__init__(*arguments, **options)
        for limit in (self._local_max_streams_bidi, self._local_max_streams_uni):
            limit.value = limit.sent = MAX_STREAMS

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        """Close the connection; of a long reason, which may quote what was sent, the beginning is told."""
        reason = reason_phrase.encode()[:MAX_REASON].decode(errors="ignore")
        super().close(error_code, frame_type, reason)

    def _consume_peer_cid(self) -> None:
        if not self._peer_cid_available:
            # It has retired the one in use, and others are reserved for paths that it probes.
            raise QuicConnectionError(
                QuicErrorCode.CONNECTION_ID_LIMIT_ERROR,
                QuicFrameType.NEW_CONNECTION_ID,
                "no connection ID is left",
            )
        super()._consume_peer_cid()

    def _retire_peer_cid(self, connection_id: QuicConnectionId) -> None:
        if connection_id.cid:
            super()._retire_peer_cid(connection_id)

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self.frames_left = MAX_FRAMES
        return super()._payload_received(context, plain, crypto_frame_required)

    def _initialize(self, peer_cid: bytes) -> None:
        if self._cryptos_initial:
            # Once: the first packet's connection ID makes the keys of all (RFC 9001, 5.2), and aioquic would
            # begin anew with each that it cannot decrypt.
            return
        super()._initialize(peer_cid)
        AskingContext.take_over(self.tls)
        for stream in self._crypto_streams.values():
            BoundedReceiver.take_over(stream.receiver)

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        stream = super()._get_or_create_stream(frame_type, stream_id)
        if not isinstance(stream.receiver, BoundedReceiver):
            BoundedReceiver.take_over(stream.receiver)
        return stream

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        try:
            super()._handle_stream_frame(context, frame_type, buf)
        except TooFragmentedError:
            # QUIC has no code for it; without a frame type this is a close of the application.
            raise QuicConnectionError(
                ErrorCode.H3_EXCESSIVE_LOAD,
                None,  # type: ignore[arg-type]  # as aioquic itself does
                "too many gaps in a stream",
            ) from None

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        if buf.pull_uint_var() >= self._packet_number:
            # Who acknowledges ahead has the relay send faster than any path delivers (RFC 9000, 21.4).
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "acknowledgement of a packet that was not sent"
            )
        buf.seek(start)
        super()._handle_ack_frame(context, frame_type, buf)

    def _handle_new_connection_id_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        number, retire_prior_to = buf.pull_uint_var(), buf.pull_uint_var()
        if retire_prior_to > number:
            raise QuicConnectionError(
                QuicErrorCode.FRAME_ENCODING_ERROR, frame_type, "Retire Prior To is over the Sequence Number"
            )
        buf.seek(start)
        super()._handle_new_connection_id_frame(context, frame_type, buf)

    def _give_up_oldest_probe(self) -> None:
        """Where a path waits for an answer and no connection ID is left, give back one of another path's.

        That is the one probed longest ago. A client that gets its ID back issues another (RFC 9000, 5.1.1);
        one that does not is asked only once.
        """
        probed = self._network_paths[1:]
        waits = any(path.peer_cid is None and path.remote_challenges for path in probed)
        oldest = next((path for path in probed if path.peer_cid is not None), None)
        latest = max(self._peer_cid_sequence_numbers)
        if waits and oldest is not None and oldest.peer_cid is not None and latest > self.freed_after:
            self.freed_after = latest
            self._network_paths.remove(oldest)
            self._retire_peer_cid(oldest.peer_cid)

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        offset, length = buf.pull_uint_var(), buf.pull_uint_var()
        if offset + length > MAX_CRYPTO_BYTES:
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too much crypto buffering"
            )
        if length and context.epoch == Epoch.ONE_RTT:
            # Clients have nothing to say to TLS after their Finished (RFC 9001, 4.4 and 6).
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_ERROR + AlertDescription.unexpected_message,
                frame_type,
                "TLS message after the handshake",
            )
        buf.seek(start)
        try:
            super()._handle_crypto_frame(context, frame_type, buf)
        except TooFragmentedError:
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too many gaps in crypto data"
            ) from None

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Return what is to be sent, where; a close too must keep to what an unproven address may be sent."""
        if not self._peer_cid.cid:
            # A client without connection IDs of its own has this one on every path that it probes.
            for probed in self._network_paths[1:]:
                probed.peer_cid = self._peer_cid
        elif not self._peer_cid_available and len(self._network_paths) > 1:
            self._give_up_oldest_probe()
        path = self._network_paths[0] if self._network_paths else None
        limited = self._close_pending and path is not None and not path.is_validated
        packets = super().datagrams_to_send(now)
        if limited and path is not None and path.bytes_sent > AMPLIFICATION * path.bytes_received:
            return []
        return packets


class FieldsTooLarge(H3Event):
    """A request's header fields are more than is announced, and were not decoded."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id


class TooMuchData(H3Event):
    """A frame is larger than anything that is read: the connection is to be closed."""


class _FieldsTooLargeError(Exception):
    """Leaves aioquic's parser."""


class _TooMuchDataError(Exception):
    """Leaves aioquic's parser."""


class _StaticEncoder:
    """QPACK's encoder with nothing but the static table, whatever the client offers to remember."""

    def __init__(self) -> None:
        self._encoder = pylsqpack.Encoder()

    def apply_settings(self, **_offered: int) -> bytes:
        """Use none of what the client offers; nothing is told to its decoder."""
        return b""

    def encode(self, stream_id: int, headers: Headers) -> tuple[bytes, bytes]:
        """Return what goes to the encoder stream, which is nothing, and the field section."""
        return self._encoder.encode(stream_id, headers)

    def feed_decoder(self, data: bytes) -> None:
        """Read the client's decoder stream. Raises pylsqpack.DecoderStreamError."""
        self._encoder.feed_decoder(data)


class BoundedH3Connection(H3Connection):
    """aioquic's HTTP/3 as a server without a dynamic table, that measures fields before it decodes them."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic, enable_webtransport=True)
        self._decoder = pylsqpack.Decoder(0, 0)
        encoder: Any = _StaticEncoder()
        self._encoder = encoder
        self._refused: set[int] = set()
        """Streams of requests that were too large: what else they bring is passed over."""

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        return settings | {Setting.QPACK_MAX_TABLE_CAPACITY: 0, Setting.QPACK_BLOCKED_STREAMS: 0}

    def handle_event(self, event: QuicEvent) -> list[H3Event]:
        """Handle a QUIC event; also gives FieldsTooLarge and TooMuchData."""
        if not isinstance(event, StreamDataReceived):
            if isinstance(event, StreamReset):
                self._refused.discard(event.stream_id)
            return super().handle_event(event)
        stream_id = event.stream_id
        if stream_id in self._refused:
            if event.end_stream:
                self._forget_refused(stream_id)
            return []
        try:
            return super().handle_event(event)
        except _FieldsTooLargeError:
            if not event.end_stream:
                self._refused.add(stream_id)
            self._stream[stream_id].buffer = b""
            return [FieldsTooLarge(stream_id)]
        except _TooMuchDataError:
            return [TooMuchData()]

    def _forget_refused(self, stream_id: int) -> None:
        """Keep nothing of a request that was refused once its client has ended it."""
        self._refused.discard(stream_id)
        stream = self._stream.get(stream_id)
        if stream is not None:
            stream.receiving_ended = True
            if stream.is_ended():
                del self._stream[stream_id]

    def _receive_stream_data(self, event: StreamDataReceived) -> list[H3Event]:
        events = super()._receive_stream_data(event)
        stream = self._stream.get(event.stream_id)
        if stream is not None and stream.buffer:
            announced = stream.frame_size or 0
            if len(stream.buffer) > MAX_ENCODED_FIELDS or announced > MAX_ENCODED_FIELDS:
                raise _TooMuchDataError
        qpack = {self._peer_encoder_stream_id, self._peer_decoder_stream_id}
        if event.end_stream and event.stream_id in qpack:
            raise ClosedCriticalStream("Closing QPACK streams is not allowed")
        return events

    def _receive_datagram(self, data: bytes) -> list[H3Event]:
        events = super()._receive_datagram(data)
        if any(isinstance(each, DatagramReceived) and each.stream_id > UINT_VAR_MAX for each in events):
            raise DatagramError("There is no such stream")
        return events

    def _check_request_or_push_frame_type(self, frame_type: int, stream: Any) -> None:
        super()._check_request_or_push_frame_type(frame_type, stream)
        if frame_type == FrameType.WEBTRANSPORT_STREAM and stream.headers_recv_state != HeadersState.INITIAL:
            # It would take all that follows along: the session's end, too.
            raise FrameError("A request's stream is no WebTransport stream")
        if frame_type == FrameType.HEADERS and stream.frame_size > MAX_ENCODED_FIELDS:
            raise _TooMuchDataError

    def _decode_headers(self, stream_id: int, frame_data: bytes | None) -> Headers:
        try:
            size = field_section_size(frame_data or b"", MAX_FIELD_SECTION_SIZE)
        except ValueError as error:
            raise QpackDecompressionFailed(str(error)) from None
        if size > MAX_FIELD_SECTION_SIZE:
            if self._stream[stream_id].headers_recv_state != HeadersState.INITIAL:
                raise _TooMuchDataError
            raise _FieldsTooLargeError
        return super()._decode_headers(stream_id, frame_data)
