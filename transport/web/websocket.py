"""One client's WebSocket, which carries a session over TCP.

Theory of operation. ``websockets``' sans-I/O protocol reads and writes the bytes; this module moves them, and
offers upwards what a WebTransport session offers: datagrams in batches, a bounded queue out. A binary message
is a datagram (RFC 6455, section 5.6). The request that opens it was read by ``http_connection``.

While the client does not read, asyncio's buffer fills to WRITE_BUFFER, then datagrams wait in the session's
queue, whose oldest are dropped: TCP below them must not turn a slow client into seconds of delay. So queue
and buffer become smaller for a slow one, as it shows each time that the buffer has left, and larger again. Of
the pongs that it does not read either, only the latest is kept (RFC 6455, section 5.5.3), and after
MAX_UNREAD_PINGS nothing more is read of it until it reads.

What a client sends is worked off in slices (``transport.slices``), and nothing more is read of it meanwhile.
The processor time of each slice, the actors' included, is charged to the client; whose takes more than its
share gets its slices after all others, and is closed when it goes on (``transport.work_shares``).

Closing codes: the relay's code 0 is 1000 (normal closure), SHUTDOWN is 1001 (going away), any other code is
4000 + code, of the range for private use (RFC 6455, section 7.4.2). A client that breaks the protocol gets
the code that RFC 6455 has for that: 1002, 1007 for a text or a reason that is not UTF-8, 1009 for a message
over MAX_MESSAGE or of more than MAX_FRAGMENTS, 1003 for a text message, which has no meaning here, and 1008
for messages that cost too much.

Who closes with 1001, as browsers do for a page that goes, or with 4010, or not at all, may come back.

Of the subprotocols that a client offers, ``binary`` is selected, which says what is done anyway and without
which Emscripten's sockets give up; of others none. Extensions are never negotiated: compression would cost
more than frames are worth.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import socket
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from loguru import logger
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from actors.close_codes import CloseCode
from actors.descriptions import PathState
from actors.messages import DatagramsFromClient, DatagramsLost, SessionClosed
from actors.work_time import work_time
from netstack.shares import client_network
from transport.quic.session import MOST_ROOM
from transport.slices import SLICE
from transport.web.cycles import dissolve_protocol, dissolve_transport
from transport.web.http1 import TEXT, Answer
from transport.work_shares import EXCESSIVE, PACKET_BYTES, WorkAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from websockets.http11 import Request as WebSocketRequest

    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from transport.admission import Grant
    from transport.quic.session import DatagramQueue, WebTransportSession
    from transport.slices import Slices
    from transport.turns import Turns
    from transport.web.http1 import Request
    from transport.work_shares import LastTurns

MAX_MESSAGE = 16 * 1024
"""Bytes of a message that are taken; the largest frame has 1,522 and a control message a few hundred."""
MAX_FRAGMENTS = 1024
"""Frames of a message, empty ones included."""
PIECE = 2048
"""Bytes that are taken apart between two looks at the clock: 340 of the smallest frames, 1 ms."""
MAX_BATCH = 256
"""Messages after which a slice ends: what they cost their session's actor is yet to come."""
LAST_BATCH = 128
"""The same of a client whose messages cost more than its share."""
BUFFER_SECONDS = 0.1
"""Seconds of the rate at which the client reads that asyncio's buffer holds, and as many the kernel beyond
what is on its way; WRITE_BUFFER each at most."""
LEAST_BUFFER = 4096
SHORTEST_PAUSE = 0.0001
"""Seconds: a buffer that has left sooner says nothing but that the client is fast."""
DATAGRAM_LIMIT = 65535
"""TCP cuts as it likes: nothing needs to be sent in chunks."""
MAX_COMMAS = 64
"""Commas between members of the lists in a handshake; ``websockets`` takes 1 us for each short member."""
MAX_UNREAD_PINGS = 16
"""Pings of a client that does not read, after which it is not read either."""
PING_INTERVAL = 15.0
"""Seconds between pings: NATs and proxies forget silent connections after a minute."""
IDLE_TIMEOUT = 180.0
"""Seconds without a byte, pongs included, after which the client is taken for gone; as with QUIC."""
CLOSE_TIMEOUT = 2.0
"""Seconds that a client has to answer a close frame, to read one that says what it did wrong, or after it has
ended its side to take what was written."""
MAX_REASON = 123
"""Bytes of UTF-8 in a closing reason (RFC 6455, section 5.5)."""
NORMAL, GOING_AWAY, UNSUPPORTED_DATA, INVALID_DATA, PRIVATE_USE = 1000, 1001, 1003, 1007, 4000
POLICY_VIOLATION, MESSAGE_TOO_BIG = 1008, 1009
_COMING_BACK = frozenset({GOING_AWAY, PRIVATE_USE + CloseCode.COMING_BACK})
"""Codes of clients that may be back: a page that is loaded anew, and one that says so."""
SUBPROTOCOL = Subprotocol("binary")
VERSION = "13"

_OF_THE_HANDSHAKE = frozenset({"host", "connection"})
_PREFIX_OF_THE_HANDSHAKE = "sec-websocket-"
"""What a request's fields are called that ``websockets`` reads: it has limits of its own for all others."""
_OF_AN_ANSWER = frozenset({"Date", "Connection", "Content-Length"})
"""Headers that every answer gets."""

_TCP_NOTSENT_LOWAT = 25
"""Linux: tcp(7)."""

_TEXT_DECODER = codecs.getincrementaldecoder("utf-8")

_QUIET = logging.getLogger(__name__)
_QUIET.setLevel(logging.ERROR)
"""``websockets`` would log every connection's beginning and end; the peers' actors do that."""


def websocket_code(code: int) -> int:
    """Return the WebSocket closing code for one of the relay's."""
    return {CloseCode.DONE: NORMAL, CloseCode.SHUTDOWN: GOING_AWAY}.get(CloseCode(code), PRIVATE_USE + code)


def _shortened(reason: str) -> str:
    return reason.encode()[:MAX_REASON].decode(errors="ignore")


def client_of(remote: str) -> str:
    """Tell by which address a client is counted; ``remote`` is ``host:port``."""
    return client_network(remote.rpartition(":")[0])


def limit_unsent(transport: asyncio.BaseTransport, size: int) -> None:
    """Have the kernel take ``size`` bytes beyond what the client's window lets it send."""
    tcp = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", _TCP_NOTSENT_LOWAT)
    tcp.setsockopt(socket.IPPROTO_TCP, option, size)


class WebSocketHost(Protocol):
    """What a connection needs of the listener that accepted it."""

    counters: Counters
    turns: Turns
    slices: Slices
    last_turns: LastTurns

    def clock(self) -> float:
        """Monotonic time."""

    def open_session(
        self, grant: Grant, connection: WebSocketConnection
    ) -> tuple[WebTransportSession, Mailbox]:
        """Begin a session."""

    def want_flush(self, connection: WebSocketConnection, /) -> None:
        """Flush the connection at the end of this turn."""

    def connection_ended(self, connection: WebSocketConnection) -> None:
        """Forget the connection."""


def is_asked_for(request: Request) -> bool:
    """Whether a request asks for a WebSocket (RFC 6455, 4.1); HTTP/1.0 cannot (RFC 9110, section 7.8)."""
    return request.method == "GET" and request.minor_version > 0 and "websocket" in request.tokens("upgrade")


class Upgrade(NamedTuple):
    """How a connection goes on that has asked for a WebSocket, and got it."""

    grant: Grant
    protocol: ServerProtocol
    """Has the answer that opens the WebSocket."""


def shake_hands(request: Request) -> ServerProtocol | Answer:
    """Accept a request for a WebSocket (RFC 6455, section 4.2): the protocol to go on with, or a refusal."""
    protocol = ServerProtocol(max_size=MAX_MESSAGE, select_subprotocol=_select, logger=_QUIET)
    if request.field("sec-websocket-version") != VERSION:
        text = f"Only version {VERSION} of the WebSocket protocol is spoken here.\n"
        return Answer(
            HTTPStatus.UPGRADE_REQUIRED,
            {**TEXT, "Upgrade": "websocket", "Sec-WebSocket-Version": VERSION},
            text.encode(),
        )
    # The protocol reads its request itself; of the protocols that a client could go on with it wants one.
    lines = [f"GET {request.target} HTTP/1.1", "Upgrade: websocket"]
    lines += [
        f"{name}: {value}"
        for name, value in request.fields
        if name in _OF_THE_HANDSHAKE or name.startswith(_PREFIX_OF_THE_HANDSHAKE)
    ]
    head = "\r\n".join([*lines, "", ""])
    if head.count(",", len(lines[0])) > MAX_COMMAS:
        text = f"The lists of the handshake have more than {MAX_COMMAS} commas.\n"
        return Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, text.encode())
    protocol.receive_data(head.encode("latin-1"))
    openings = protocol.events_received()
    if not openings:
        text = f"The fields of the handshake are too large ({protocol.handshake_exc}).\n"
        return Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, text.encode())
    response = protocol.accept(cast("WebSocketRequest", openings[0]))
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        headers = {name: value for name, value in response.headers.raw_items() if name not in _OF_AN_ANSWER}
        return Answer(HTTPStatus(response.status_code), headers, bytes(response.body or b""))
    protocol.send_response(response)
    del protocol.select_subprotocol  # bound to the protocol: a cycle
    return protocol


def _select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class WebSocketConnection(asyncio.Protocol):
    """Implements ``transport.quic.session.SessionCarrier``."""

    def __init__(self, host: WebSocketHost, upgrade: Upgrade, remote: str) -> None:
        self._host = host
        self._grant, self._protocol = upgrade
        self._transport: asyncio.Transport
        self._paused = False
        self._paused_at = 0.0
        self._unsent = self._most_unsent = 0
        """Bytes in asyncio's buffer when the client fell behind, and how many that may be at most."""
        self._filled = False
        """Whether what was sent last was as much as might wait for the client."""
        self._backlog = b""
        self._taken = 0
        """Bytes of the backlog that were worked off."""
        self._unread_pings = 0
        self._pong = b""
        """The latest answer to them."""
        self._partial: list[bytes] | None = None
        self._fragments = 0
        self._text: codecs.IncrementalDecoder | None = None
        """Checks the text message that has begun; None outside of one."""
        self._refused = False
        """Whether the client is being shown out; what it still says is for nobody."""
        self._is_shut_out = False
        """Whether that is for the work that it makes."""
        self._timer: asyncio.TimerHandle
        self._session: WebTransportSession | None = None
        self._mailbox: Mailbox | None = None
        """None once the session is known to be over."""
        self.remote = remote
        self._client = client_of(remote)
        self.datagram_limit = DATAGRAM_LIMIT
        self.last_heard = now = host.clock()
        self._work = WorkAccount(now)

    def begin(self, transport: asyncio.Transport) -> None:
        """Send the answer that opens the WebSocket, and begin the session."""
        self._transport = transport
        self._most_unsent = transport.get_write_buffer_limits()[1]
        self._write()
        self._call_later(PING_INTERVAL, self._keep_alive)
        self._session, self._mailbox = self._host.open_session(self._grant, self)

    # -- asyncio's side -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self.last_heard = self._host.clock()
        self._backlog = self._backlog[self._taken :] + data if self._backlog else data
        self._taken = 0
        if self._work.is_heavy(self.last_heard):
            self._wait_for_last_turn(self.last_heard)
        elif self._host.slices.serve(self):
            self._transport.pause_reading()

    def work(self) -> bool:
        """Work off a slice of what came, unless that is for a last turn."""
        self._have_turn()
        now = self._host.clock()
        if self._backlog and self._work.is_heavy(now):
            self._wait_for_last_turn(now)
            return False
        return bool(self._backlog)

    def serve_last(self) -> None:
        """Work off a slice after all others."""
        self._have_turn()
        if self._backlog:
            self._wait_for_last_turn(self._host.clock())

    def keep_waiting(self, packets: int) -> None:
        """Keep all that waits: it is bounded, for nothing more is read of the client."""

    def note_reading(self, seconds: float) -> None:
        """Charge processor time that TLS took: who sends tiny records waits as who sends tiny messages."""
        self._work.end_turn(seconds, seconds, self._host.clock())

    def eof_received(self) -> bool:
        """Take the client's end for the connection's; asyncio closes it when what was written has left."""
        # Over TLS the end may be told before all that came ahead of it was worked off.
        self._backlog, self._taken = b"", 0
        self._protocol.receive_eof()
        self._session_ended(None)
        self._call_later(CLOSE_TIMEOUT, self._transport.abort)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session, if there was one."""
        self._timer.cancel()
        self._backlog = b""
        self._host.slices.forget(self)
        self._host.last_turns.discard(self)
        dissolve_transport(self._transport)
        self._host.connection_ended(self)
        self._session_ended(exc)
        self._session = None  # which has this as its carrier
        dissolve_protocol(self._protocol)

    def pause_writing(self) -> None:
        """Let datagrams wait in the session's queue from now on."""
        self._paused = True
        self._paused_at, self._unsent = self._host.clock(), self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Send what has waited, unless it is too old to be of use."""
        self._paused = False
        self._unread_pings = 0
        self._fit_buffers()
        self._read_or_not()
        self._host.want_flush(self)

    def _fit_buffers(self) -> None:
        """Have no more wait for the client, here and in the session's queue, than it reads in a moment."""
        if self._session is None:
            return
        seconds = max(self._host.clock() - self._paused_at, SHORTEST_PAUSE)
        rate = (self._unsent - self._transport.get_write_buffer_size()) / seconds
        self._session.queue.fit_room(rate)
        self._limit_buffer(rate * BUFFER_SECONDS)

    def _look_at_buffers(self, queue: DatagramQueue) -> None:
        """Let twice as much wait for a client that was sent all that might wait, and has nothing left."""
        filled, self._filled = self._filled, queue.bytes >= queue.room // 2
        if filled and not self._transport.get_write_buffer_size():
            queue.room = min(2 * queue.room, MOST_ROOM)
            self._limit_buffer(2 * self._transport.get_write_buffer_limits()[1])

    def _limit_buffer(self, size: float) -> None:
        most = int(min(max(size, LEAST_BUFFER), self._most_unsent))
        if most != self._transport.get_write_buffer_limits()[1]:
            self._transport.set_write_buffer_limits(most)
            with contextlib.suppress(OSError):  # the connection is over
                limit_unsent(self._transport, most)

    # -- the session's side -------------------------------------------------------------------------

    def path_state(self) -> PathState:
        """Tell what carries the session; how its packets fare only TCP knows."""
        return PathState("websocket")

    def want_flush(self) -> None:
        """Have the session's queue sent at the end of this turn."""
        self._host.want_flush(self)

    def close_session(self, code: int, reason: str) -> None:
        """Send a close frame; the client has CLOSE_TIMEOUT to answer it."""
        self._mailbox = None
        if self._protocol.state is OPEN:
            self.flush(self._host.clock())
            self._protocol.send_close(websocket_code(code), _shortened(reason))
            self._write()
            self._call_later(CLOSE_TIMEOUT, self._transport.abort)

    def close(self) -> None:
        """End the connection once what was written has left."""
        if not self._transport.is_closing():  # asyncio's TLS cannot be aborted after two calls
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def fail(self) -> None:
        """End the connection for the exception that is being handled."""
        self._host.counters.add("websocket.failed")
        logger.exception("A WebSocket connection failed and is dropped")
        self._backlog = b""
        self._transport.abort()

    def flush(self, now: float) -> None:
        """Send what the session has queued, and what the protocol has to say."""
        if self._session is not None and self._session.queue and not self._paused:
            queue = self._session.queue
            if queue.room < MOST_ROOM:
                self._look_at_buffers(queue)
            stale = queue.drop_stale(now)
            if stale and self._mailbox is not None:
                self._mailbox.tell(DatagramsLost(stale))
            if self._protocol.state is OPEN:
                for datagram in queue.take_all():
                    self._protocol.send_binary(datagram)
            else:
                queue.clear()
            self._session.sent()
        self._write()

    # -- inside -------------------------------------------------------------------------------------

    def _wait_for_last_turn(self, now: float) -> None:
        self._transport.pause_reading()
        self._host.last_turns.add(self, self._client, now)

    def _have_turn(self) -> None:
        """Work off a slice and charge its processor time; whatever goes wrong ends this connection only."""
        now, waiting = self._host.clock(), len(self._backlog) - self._taken
        allowance = self._host.last_turns.allowance(now)
        self._work.begin_turn(allowance)
        started = work_time()
        try:
            self._take_slice(LAST_BATCH if self._work.is_heavy(now) else MAX_BATCH)
            self.flush(self._host.clock())
            if self._protocol.state is not OPEN:
                self._session_ended(None)
        except Exception:  # noqa: BLE001
            self.fail()
        size = waiting - (len(self._backlog) - self._taken)
        ordinary = -(-size // PACKET_BYTES) * (allowance.packet + allowance.frames)
        self._work.end_turn(work_time() - started, ordinary + size * allowance.frames_byte, now)
        if self._work.is_excessive:
            self._shut_out(EXCESSIVE)
        self._read_or_not()

    def _shut_out(self, reason: str) -> None:
        """Close for the work that the client makes, and read no more of it."""
        if self._is_shut_out or self._transport.is_closing():
            return
        self._host.counters.add("connection.excessive_work")
        logger.bind(reason="excessive work").warning("{} is closed: {}", self.remote, reason)
        self._is_shut_out = True
        self._backlog, self._taken = b"", 0
        self._refuse(POLICY_VIOLATION, reason)
        self._write()
        self._session_ended(None)

    def _read_or_not(self) -> None:
        if self._backlog or self._unread_pings > MAX_UNREAD_PINGS or self._is_shut_out:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _write(self) -> None:
        chunks = self._protocol.data_to_send()
        if self._paused and self._protocol.state is OPEN:
            # No datagrams are among them: these are pongs.
            self._unread_pings += len(chunks)
            self._pong = chunks[-1] if chunks else self._pong
            return
        if self._pong:
            chunks.insert(0, self._pong)
            self._pong = b""
        if not chunks or self._transport.is_closing():
            return
        data = b"".join(chunks)
        if data:
            self._transport.write(data)
        if chunks[-1] == SEND_EOF:
            self._close_transport()

    def _close_transport(self) -> None:
        """End the connection, but not under a close frame that the client, still sending, has not read."""
        if self._protocol.close_rcvd is not None:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()
        self._call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _session_ended(self, error: Exception | None) -> None:
        """Tell the session's actor once that the client has left, or was shown out for what it sent."""
        if self._session is None or self._mailbox is None:
            return
        self._session.queue.clear()
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None and received == sent:
            code, reason, lost = received.code, received.reason, received.code in _COMING_BACK
        elif sent is None:
            code, reason, lost = 0, "", True
        elif sent.code == POLICY_VIOLATION:
            code, reason, lost = 0, sent.reason, False
        else:
            code, reason, lost = 0, f"broke the protocol: {sent}", False
        self._tell(SessionClosed(code, reason or str(error or "connection closed"), lost))
        self._mailbox = None

    def _refuse(self, code: int, reason: str) -> None:
        """Close for what the client sent."""
        self._refused = True
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._call_later(CLOSE_TIMEOUT, self._transport.abort)

    def _take_slice(self, most: int) -> None:
        datagrams: list[bytes] = []
        deadline = self._host.clock() + SLICE
        while self._backlog:
            end = self._taken + PIECE
            self._protocol.receive_data(self._backlog[self._taken : end])
            self._taken = end
            if end >= len(self._backlog):
                self._backlog, self._taken = b"", 0
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and not self._refused:
                    self._take(event, datagrams)
            if len(datagrams) >= most or self._host.clock() >= deadline:
                break
        if datagrams:
            self._tell(DatagramsFromClient(datagrams))

    def _take(self, frame: Frame, datagrams: list[bytes]) -> None:
        """Collect whole binary messages; the protocol has checked sizes and the order of fragments."""
        if frame.opcode is Opcode.CONT:
            self._fragments += 1
            if self._fragments > MAX_FRAGMENTS:
                self._refuse(MESSAGE_TOO_BIG, f"a message has more than {MAX_FRAGMENTS} fragments")
                return
        elif frame.opcode in DATA_OPCODES:
            self._fragments = 1
        match frame.opcode:
            case Opcode.BINARY if frame.fin:
                datagrams.append(bytes(frame.data))
            case Opcode.BINARY:
                self._partial = [bytes(frame.data)]
            case Opcode.TEXT:
                self._host.counters.add("websocket.drop.text")
                self._text = _TEXT_DECODER()
                self._check_text(frame)
            case Opcode.CONT if self._text is not None:
                self._check_text(frame)
            case Opcode.CONT if self._partial is not None:
                if frame.data:
                    self._partial.append(bytes(frame.data))
                if frame.fin:
                    datagrams.append(b"".join(self._partial))
                    self._partial = None
            case _:
                pass  # control frames are answered by the protocol

    def _check_text(self, frame: Frame) -> None:
        """Close at the end of a text message, or where it ceases to be one (RFC 6455, section 8.1)."""
        if self._text is None:
            return
        try:
            self._text.decode(frame.data, final=frame.fin)
        except UnicodeDecodeError:
            self._refuse(INVALID_DATA, "a text message is not UTF-8")
        else:
            if not frame.fin:
                return
            self._refuse(UNSUPPORTED_DATA, "only binary messages are taken")
        self._text = None

    def _tell(self, message: DatagramsFromClient | SessionClosed) -> None:
        if self._mailbox is not None:
            self._host.turns.turn(partial(self._mailbox.tell, message))

    def _keep_alive(self) -> None:
        if self._host.clock() - self.last_heard >= IDLE_TIMEOUT:
            self._host.counters.add("websocket.idle_timeouts")
            self._transport.abort()
        elif self._protocol.state is OPEN:
            if not self._paused:
                self._protocol.send_ping(b"")
                self._write()
            self._call_later(PING_INTERVAL, self._keep_alive)
        else:
            self._transport.abort()

    def _call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Run the connection's only timer, in place of what it was set for before."""
        if hasattr(self, "_timer"):
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, callback)
