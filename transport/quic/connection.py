"""One client's connection: QUIC and HTTP/3 below, at most one WebTransport session above.

The relay's side of a :class:`carrier.Carrier`, whose host is the endpoint. Datagrams of the session
collect until ``deliver`` tells them to the session's actor in one batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic import events as quic_events
from loguru import logger
from mypy_extensions import mypyc_attr

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient, DatagramsLost, SessionClosed
from transport.admission import Refusal, refused, without_secrets
from transport.quic import webtransport
from transport.quic.aioquic_internals import RelayH3Connection, RelayQuicConnection
from transport.quic.aioquic_limits import FieldsTooLarge, TooMuchData
from transport.quic.carrier import SHARE, Carrier, CarrierHost
from transport.quic.session import WebTransportSession
from transport.tls_alerts import CRYPTO_ERRORS
from transport.work_shares import EXCESSIVE, GENEROUS, MOST_OVERRUNS, OVERRUN_PERIOD, OWN_SHARE

if TYPE_CHECKING:
    import asyncio

    from aioquic.h3.events import H3Event

    from actors.runtime import Mailbox
    from transport.admission import ClientRequest, Grant
    from transport.quic.datagram_path import DatagramPath
    from transport.quic.udp import Address
    from transport.work_shares import Allowance

SESSION_DEADLINE = 10.0
"""Seconds from the first packet until a session must stand; browsers need well under one."""
KEEP_ALIVE = 15.0
"""Seconds of silence after which a PING asks whether the client is still there."""
CLOSE_LINGER = 1.0
"""Seconds that a client has to read the closing capsule before the connection is closed under it; or to say
why, where it has stopped reading."""
NO_SESSION: Final = "no session"
CLOSING: Final = "closing"
STOPPED: Final = "stopped"
"""Names of deadlines: no session was opened; the client had time to read why its session was closed; or to
say why it does not read the session's stream any more."""
MAX_REQUEST_BYTES = 64 * 1024
"""Stream bytes that a client may send before its session stands: settings, QPACK and one request."""
MAX_STREAM_BYTES = 1024 * 1024
"""Stream bytes in the life of a connection that are no capsules of its session: VM clients use datagrams.
Whether they arrived or wait for what was lost before them, none is ever taken off the count."""


class Host(CarrierHost, Protocol):
    """What a connection needs of its endpoint."""

    def admit(self, request: ClientRequest) -> Grant | Refusal:
        """Decide about a request for a session, which has to follow at once."""

    def add_connection_id(self, connection_id: bytes, connection: Connection) -> None:
        """Route packets with this connection ID to the connection."""

    def remove_connection_id(self, connection_id: bytes) -> None:
        """Stop routing this connection ID."""

    def want_flush(self, connection: Connection, /) -> None:
        """Call the connection's ``flush`` at the end of this turn."""

    def handshake_ended(self, connection: Connection) -> None:
        """Take note that the connection no longer counts as a handshake in progress."""

    def handshake_failed(self, connection: Connection, end: quic_events.ConnectionTerminated) -> None:
        """Take note that client and relay did not come together, by a TLS alert of either."""

    def connection_drains(self, connection: Connection, until: float) -> None:
        """Forget the connection, but for its IDs until then."""

    def connection_ended(self, connection: Connection) -> None:
        """Forget the connection."""

    def serve_alone(self, connection: Connection) -> None:
        """Give the connection a turn of its own."""

    def drop_pending(self, connection: Connection, room: int) -> None:
        """Keep no more than the first ``room`` pending packets."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class Connection(Carrier[RelayQuicConnection, Host]):
    """Implements ``transport.quic.session.SessionCarrier``."""

    def __init__(self, quic: RelayQuicConnection, host: Host, address: Address, now: float) -> None:
        super().__init__(quic, host, address, now, KEEP_ALIVE)
        self.connection_ids: set[bytes] = set()
        self.pending: list[bytes] = []
        """Packets that this turn brought, all from ``pending_address``; kept by the endpoint."""
        self.pending_address = address
        self.moved_at = 0.0
        """When packets from another address last took their place; kept by the endpoint."""
        self.timer: asyncio.TimerHandle | None = None
        """Kept by the endpoint: runs no later than ``next_timer`` says."""
        self._h3: RelayH3Connection | None = None
        self._mailbox: Mailbox | None = None
        self._capsules = webtransport.CapsuleReader()
        self._session_bytes = 0
        """Stream bytes that were capsules, which nothing keeps."""
        self._deadlines[NO_SESSION] = now + SESSION_DEADLINE
        self._closing: str | None = None
        """Why the session was closed, which the client is being told."""
        self.left_out = 0
        """Packets that were dropped because too many waited; kept by the endpoint."""
        self._taken = 0
        self._overruns = 0
        self._judged_at = now

    @property
    def has_session(self) -> bool:
        """Whether its packets may have a guest's frames."""
        return self._session is not None

    # -- SessionCarrier ---------------------------------------------------------------------------

    def want_flush(self) -> None:
        """Have the session's queue sent at the end of this turn."""
        self._host.want_flush(self)

    def close_session(self, code: int, reason: str, *, tell: bool = False) -> None:
        """Tell the client why (a capsule), then close the connection once it had time to read that.

        ``tell``: the session's actor does not know yet.
        """
        if self._session is None:
            if self._closing is None:  # else its session was closed already, and the client is reading why
                self.close(ErrorCode.H3_NO_ERROR, reason)
            return
        self._end_session(SessionClosed(code, reason) if tell else None)
        if STOPPED in self._deadlines:
            self.close(ErrorCode.H3_NO_ERROR, reason)
            return
        if self._h3 is not None:
            self._h3.send_data(
                self._stream_id, webtransport.encode_close_capsule(code, reason), end_stream=True
            )
        self._aioquic_is_idle = False
        self._closing = reason
        self._deadlines[CLOSING] = self._host.clock() + CLOSE_LINGER
        self._host.want_flush(self)

    def go_away(self) -> None:
        """Tell the client that the relay takes nothing new (GOAWAY), whatever becomes of what stands."""
        if self._h3 is not None:
            self._h3.send_goaway(self._stream_id + 4)
            self._aioquic_is_idle = False

    # -- called by the endpoint -------------------------------------------------------------------

    def _charge(self, spent: float, ordinary: float, now: float) -> None:
        """Note seconds of work; who goes on costing more than is ordinary is closed."""
        self.work.charge(spent, ordinary, now)
        if self.work.is_excessive:
            self._shut_out(EXCESSIVE)

    def _shut_out(self, reason: str) -> None:
        """Close the connection for the work that it makes."""
        if self.quic.ended is None:
            self._host.counters.add("connection.excessive_work")
            logger.bind(reason="excessive work").warning("{} is closed: {}", self.remote, reason)
            self._h3 = None
            self.close(ErrorCode.H3_EXCESSIVE_LOAD, reason)

    def serve_last(self) -> None:
        """Have a turn of its own, after the others."""
        self._host.serve_alone(self)

    def keep_waiting(self, packets: int) -> None:
        """Keep no more than the first ones waiting."""
        self._host.drop_pending(self, packets)

    def begin_own_turn(self, allowance: Allowance) -> None:
        """Charge from now on what exceeds ``allowance``."""
        self.work.begin_turn(allowance)
        self.ordinary_cost = allowance.packet
        self.share = OWN_SHARE

    def end_own_turn(self, spent: float, packets: int, size: int, allowance: Allowance, now: float) -> None:
        """Charge the actors' work: what was not charged yet of the ``spent`` seconds of processor time.

        ``packets`` were served, of ``size`` bytes.
        """
        self.work.end_turn(spent, packets * allowance.frames + size * allowance.frames_byte, now)
        if self.work.is_excessive:
            self._shut_out(EXCESSIVE)
        self._taken += packets
        if now - self._judged_at >= OVERRUN_PERIOD:
            self._overruns = self._overruns + 1 if self.left_out > self._taken // 2 else 0
            self._judged_at = now
            self.left_out = self._taken = 0
            if self._overruns >= MOST_OVERRUNS:
                self._shut_out("it goes on sending more packets than there is time for")
        self.ordinary_cost, self.share = GENEROUS.packet, SHARE

    def _on_end(self, end: quic_events.ConnectionTerminated) -> None:
        if self._session is not None:
            # The client closed, or broke the protocol.
            lost = self.quic.ended_by_peer
            self._end_session(SessionClosed(end.error_code, end.reason_phrase, lost))
        elif end.frame_type is not None and end.error_code in CRYPTO_ERRORS:
            self._host.handshake_failed(self, end)
        if self.quic.ended_by_peer:
            self._host.connection_drains(self, self.quic.over_at)

    def _open_path(self) -> DatagramPath | None:
        path = super()._open_path()
        if path is not None:
            path.reports_losses = True
        return path

    def deliver(self) -> None:
        """Tell the session's actor what was lost and what has arrived since the last time.

        In this order: the guest's acknowledgements may show the same gaps.
        """
        path = self._path
        if path is not None:
            self._tell_lost(path)
        if self._arrived and self._mailbox is not None:
            arrived, self._arrived = self._arrived, []
            self._mailbox.tell(DatagramsFromClient(arrived))

    def close(self, code: int, reason: str) -> None:
        """Close the connection at once with an HTTP/3 error code; the session's actor is told."""
        self._end_session(SessionClosed(0, reason))
        self._aioquic_is_idle = False
        self.quic.close(error_code=code, reason_phrase=reason)
        self._host.want_flush(self)

    def abandon(self) -> None:
        """Forget the session of a connection that failed, without sending anything."""
        self._end_session(SessionClosed(0, "connection failed", lost=True))

    def dissolve(self) -> None:
        """Let go of the parts that lead back here, once the connection has ended and nobody is in it."""
        self._h3 = None
        super().dissolve()

    def _on_dropped(self, datagrams: list[tuple[bytes, float]]) -> None:
        """Have TCP send it again, and not only at its time-out, which an outage makes as long as it was."""
        if self._mailbox is not None:
            self._mailbox.tell(DatagramsLost(datagrams))

    def _on_deadline(self, name: str) -> None:
        if name == NO_SESSION:
            self._host.counters.add("connection.no_session")
            logger.info("{} opened no session within {:g} s", self.remote, SESSION_DEADLINE)
            self.close(ErrorCode.H3_NO_ERROR, "no WebTransport session was opened")
        elif name == STOPPED:
            if self._session is not None:
                self._session_closed_by_client(0, "session stream reset", lost=True)
        elif self._closing is not None:
            self.close(ErrorCode.H3_NO_ERROR, self._closing)

    # -- QUIC and HTTP/3 events -------------------------------------------------------------------

    def _pump(self) -> None:
        super()._pump()
        self._check_stream_bytes()

    def _on_event(self, event: quic_events.QuicEvent) -> None:
        match event:
            case quic_events.ConnectionIdIssued():
                self._host.add_connection_id(event.connection_id, self)
            case quic_events.ConnectionIdRetired():
                self._host.remove_connection_id(event.connection_id)
            case quic_events.ProtocolNegotiated():
                self._h3 = RelayH3Connection(self.quic)
            case quic_events.HandshakeCompleted():
                self.quic.release_handshake()
                self._host.handshake_ended(self)
            case quic_events.StreamReset() if self._is_of_session(event.stream_id):
                self._session_closed_by_client(0, "session stream reset", lost=True)
            case quic_events.StopSendingReceived() if self._is_of_session(event.stream_id):
                # That ends it too (draft-ietf-webtrans-http3, section 6): aioquic answers by a reset. But the
                # closing capsule may come right behind: quic-go has frames of this kind ahead of data.
                self._deadlines.setdefault(STOPPED, self._host.clock() + CLOSE_LINGER)
            case quic_events.ConnectionTerminated():
                # A session that still stands has fallen silent.
                self._end_session(SessionClosed(event.error_code, event.reason_phrase, lost=True))
                self._host.handshake_ended(self)
                self._host.connection_ended(self)
        if self._h3 is not None:
            for h3_event in self._h3.handle_event(event):
                self._on_h3_event(h3_event)

    def _is_of_session(self, stream_id: int) -> bool:
        """Whether it is the stream of the session that stands."""
        return self._session is not None and stream_id == self._stream_id

    def _check_stream_bytes(self) -> None:
        limit = MAX_STREAM_BYTES if self._prefix else MAX_REQUEST_BYTES
        if self.quic.stream_bytes - self._session_bytes > limit and self.quic.ended is None:
            self._too_much_data()

    def _too_much_data(self) -> None:
        self._host.counters.add("connection.excessive_stream_data")
        self._h3 = None
        self.close(ErrorCode.H3_EXCESSIVE_LOAD, "too much data on streams")

    def _on_h3_event(self, event: H3Event) -> None:
        match event:
            case DatagramReceived() if self._session is not None and event.stream_id == self._stream_id:
                self._arrived.append(event.data)
            case DatagramReceived():
                self._host.counters.add("connection.drop.no_session")
            case HeadersReceived() | FieldsTooLarge() if not self.quic.may_answer(event.stream_id):
                self._on_headers_in_vain(event)
            case HeadersReceived():
                self._on_request(event)
            case FieldsTooLarge():
                self._refuse(event.stream_id, webtransport.FIELDS_TOO_LARGE, "a request of too many fields")
            case TooMuchData():
                self._too_much_data()
            case DataReceived() if self._is_of_session(event.stream_id):
                self._on_session_data(event)

    def _on_headers_in_vain(self, event: HeadersReceived | FieldsTooLarge) -> None:
        """Take trailers, or a request whose answer the client does not want any more (STOP_SENDING)."""
        self._host.counters.add("request.not_answered")
        ends = isinstance(event, HeadersReceived) and event.stream_ended
        if ends and self._is_of_session(event.stream_id):
            self._session_closed_by_client(0, "")

    def _on_request(self, event: HeadersReceived) -> None:
        if self._h3 is None or self.quic.ended is not None:
            return
        request = webtransport.read_request(event.headers)
        response = webtransport.answer(
            request,
            event.headers,
            # One that is being closed counts: the connection goes with it.
            has_session=self._session is not None or self._closing is not None,
            takes_datagrams=self.quic.peer_datagram_limit > 0,
        )
        grant: Grant | None = None
        refusal: Refusal | None = None
        if response.session:
            found = self._host.admit(webtransport.client_request(event.headers, self.remote))
            if isinstance(found, Refusal):
                response, refusal = webtransport.refuse(found), found
            else:
                grant = found
        if grant is None:
            asked = f"{request.method.decode('ascii', 'replace')} {without_secrets(request.path)}"
            self._refuse(event.stream_id, response, asked, refusal)
            return
        self._h3.send_headers(event.stream_id, response.headers)
        self._open_session(event.stream_id, grant)
        if event.stream_ended:
            self._session_closed_by_client(0, "")

    def _refuse(
        self, stream_id: int, response: webtransport.Response, asked: str, refusal: Refusal | None = None
    ) -> None:
        """Answer a request; ``refusal`` is that of a session, of which operators are told as an event."""
        if self._h3 is None:
            return
        self._h3.send_headers(stream_id, response.headers, end_stream=not response.body)
        self._host.counters.add(f"request.status_{response.status}")
        event = {} if refusal is None else refused(refusal, self.remote, "webtransport")
        reason = "" if refusal is None else f": {refusal.reason}"
        logger.bind(reason=f"request refused: {response.status}", **event).warning(
            "{} was refused {}: status {}{}", self.remote, asked, response.status, reason
        )
        if response.body:
            self._h3.send_data(stream_id, response.body, end_stream=True)

    def _open_session(self, stream_id: int, grant: Grant) -> None:
        self._stream_id = stream_id
        # RFC 9297, section 2.1: an HTTP datagram starts with a quarter of its stream's ID.
        self._prefix = encode_uint_var(stream_id // 4)
        self._deadlines.clear()
        host, (lan, path) = self._host, grant
        self._session = WebTransportSession(lan.next_port(), path, self, host.clock, host.counters)
        self._mailbox = lan.attach(self._session)

    def _on_session_data(self, event: DataReceived) -> None:
        self._session_bytes += len(event.data)
        try:
            closure = self._capsules.feed(event.data)
        except ValueError as error:
            self.close(ErrorCode.H3_DATAGRAM_ERROR, str(error))
            return
        if closure is not None:
            self._session_closed_by_client(*closure, lost=closure.code == CloseCode.COMING_BACK)
        elif event.stream_ended:
            self._session_closed_by_client(0, "")

    def _session_closed_by_client(self, code: int, reason: str, *, lost: bool = False) -> None:
        self._end_session(SessionClosed(code, reason, lost))
        self.close(ErrorCode.H3_NO_ERROR, "session closed")

    def _end_session(self, closed: SessionClosed | None) -> None:
        """Forget the session; ``closed`` is told to its actor unless the actor itself closed it."""
        session, mailbox = self._session, self._mailbox
        self._session = self._mailbox = None
        if session is not None:
            session.queue.clear()
        if mailbox is not None and closed is not None:
            if self._arrived:
                mailbox.tell(DatagramsFromClient(self._arrived))
            mailbox.tell(closed)
        self._arrived = []
