"""One client's TCP connection: an HTTP request that is answered, or a WebSocket that carries a session.

Theory of operation. ``websockets``' sans-I/O protocol reads and writes the bytes; this module moves them, and
offers upwards what a WebTransport session offers: datagrams in batches, a bounded queue out. A binary message
is a datagram (RFC 6455, section 5.6); text has no meaning here and is dropped.

While the client does not read, asyncio's buffer fills to WRITE_BUFFER, then datagrams wait in the session's
queue, whose oldest are dropped: TCP below them must not turn a slow client into seconds of delay.

Closing codes: the relay's code 0 is 1000 (normal closure), SHUTDOWN is 1001 (going away), any other code is
4000 + code, of the range for private use (RFC 6455, section 7.4.2). Extensions are never negotiated:
compression would cost more than frames are worth.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from loguru import logger
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient, SessionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.http11 import Response

    from actors.messages import Mailbox
    from netstack.counters import Counters
    from transport.session import WebTransportSession
    from transport.turns import Turns

MAX_MESSAGE = 16 * 1024
"""Bytes of a message that are taken; the largest frame has 1,522 and a control message a few hundred."""
DATAGRAM_LIMIT = 65535
"""TCP cuts as it likes: nothing needs to be sent in chunks."""
WRITE_BUFFER = 64 * 1024
"""Bytes given to asyncio before datagrams wait in the session's queue, where old ones can be dropped."""
UNSENT_BYTES = 64 * 1024
"""Bytes the kernel takes beyond what the client's window lets it send (Linux, TCP_NOTSENT_LOWAT)."""
REQUEST_TIMEOUT = 10.0
"""Seconds for a request to be complete, and for an answer to be taken."""
PING_INTERVAL = 15.0
"""Seconds between pings: NATs and proxies forget silent connections after a minute."""
IDLE_TIMEOUT = 180.0
"""Seconds without a byte, pongs included, after which the client is taken for gone; as with QUIC."""
CLOSE_TIMEOUT = 2.0
"""Seconds that a client has to answer a close frame."""
MAX_REASON = 123
"""Bytes of UTF-8 in a closing reason (RFC 6455, section 5.5)."""
NORMAL, GOING_AWAY, PRIVATE_USE = 1000, 1001, 4000

_TCP_NOTSENT_LOWAT = 25
"""Linux: tcp(7)."""

_QUIET = logging.getLogger(__name__)
_QUIET.setLevel(logging.ERROR)
"""``websockets`` would log every connection's beginning and end; the peers' actors do that."""


def websocket_code(code: int) -> int:
    """Return the WebSocket closing code for one of the relay's."""
    return {CloseCode.DONE: NORMAL, CloseCode.SHUTDOWN: GOING_AWAY}.get(CloseCode(code), PRIVATE_USE + code)


def _shortened(reason: str) -> str:
    return reason.encode()[:MAX_REASON].decode(errors="ignore")


class WebHost(Protocol):
    """What a connection needs of the listener that accepted it."""

    counters: Counters
    turns: Turns

    def clock(self) -> float:
        """Monotonic time."""

    def respond(self, request: Request, protocol: ServerProtocol, *, secure: bool) -> tuple[Response, str]:
        """Answer a request; with status 101, the path of the session that begins."""

    def open_session(self, path: str, connection: WebConnection) -> tuple[WebTransportSession, Mailbox]:
        """Begin a session."""

    def want_flush(self, connection: WebConnection) -> None:
        """Flush the connection at the end of this turn."""

    def connection_ended(self, connection: WebConnection) -> None:
        """Forget the connection."""


class WebConnection(asyncio.Protocol):
    """Implements ``transport.session.SessionCarrier``."""

    def __init__(self, host: WebHost, *, secure: bool) -> None:
        self._host = host
        self._secure = secure
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE, logger=_QUIET)
        self._transport: asyncio.Transport
        self._paused = False
        self._partial: list[bytes] | None = None
        self._timer: asyncio.TimerHandle
        self._session: WebTransportSession | None = None
        self._mailbox: Mailbox | None = None
        """None before the session, and once it is known to be over."""
        self.remote = ""
        self.datagram_limit = DATAGRAM_LIMIT
        self.last_heard = host.clock()

    # -- asyncio's side -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER)
        address = transport.get_extra_info("peername") or ("?", 0)
        self.remote = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.setsockopt(
            socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", _TCP_NOTSENT_LOWAT), UNSENT_BYTES
        )
        self._call_later(REQUEST_TIMEOUT, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take what came; whatever goes wrong ends this connection only."""
        self.last_heard = self._host.clock()
        try:
            self._protocol.receive_data(data)
            self._handle_events()
            self.flush(self.last_heard)
        except Exception:  # noqa: BLE001
            self._fail()

    def eof_received(self) -> bool:
        """Take the client's end for the connection's."""
        self._protocol.receive_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session, if there was one."""
        self._timer.cancel()
        self._host.connection_ended(self)
        if self._session is not None:
            self._session.queue.clear()
            received = self._protocol.close_rcvd
            code, reason = (received.code, received.reason) if received else (0, "")
            self._tell(SessionClosed(code, reason or str(exc or "connection closed")))
            self._mailbox = None

    def pause_writing(self) -> None:
        """Let datagrams wait in the session's queue from now on."""
        self._paused = True

    def resume_writing(self) -> None:
        """Send what has waited, unless it is too old to be of use."""
        self._paused = False
        self._host.want_flush(self)

    # -- the session's side -------------------------------------------------------------------------

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
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def flush(self, now: float) -> None:
        """Send what the session has queued, and what the protocol has to say."""
        if self._session is not None and self._session.queue and not self._paused:
            queue = self._session.queue
            queue.drop_stale(now)
            if self._protocol.state is OPEN:
                for datagram in queue.take_all():
                    self._protocol.send_binary(datagram)
            else:
                queue.clear()
            self._session.sent()
        self._write()

    # -- inside -------------------------------------------------------------------------------------

    def _write(self) -> None:
        chunks = self._protocol.data_to_send()
        if not chunks or self._transport.is_closing():
            return
        data = b"".join(chunks)
        if data:
            self._transport.write(data)
        if chunks[-1] == SEND_EOF:
            self._transport.close()

    def _handle_events(self) -> None:
        datagrams: list[bytes] = []
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame):
                self._take(event, datagrams)
        if datagrams:
            self._tell(DatagramsFromClient(datagrams))

    def _take(self, frame: Frame, datagrams: list[bytes]) -> None:
        """Collect whole binary messages; the protocol has checked sizes and the order of fragments."""
        match frame.opcode:
            case Opcode.BINARY if frame.fin:
                datagrams.append(bytes(frame.data))
            case Opcode.BINARY:
                self._partial = [bytes(frame.data)]
            case Opcode.TEXT:
                self._host.counters.add("websocket.drop.text")
            case Opcode.CONT if self._partial is not None:
                self._partial.append(bytes(frame.data))
                if frame.fin:
                    datagrams.append(b"".join(self._partial))
                    self._partial = None
            case _:
                pass  # control frames: answered by the protocol; or the rest of a text message

    def _tell(self, message: DatagramsFromClient | SessionClosed) -> None:
        if self._mailbox is not None:
            self._host.turns.turn(partial(self._mailbox.tell, message))

    def _answer(self, request: Request) -> None:
        response, path = self._host.respond(request, self._protocol, secure=self._secure)
        self._protocol.send_response(response)
        self._write()
        if self._protocol.state is OPEN:
            self._session, self._mailbox = self._host.open_session(path, self)
            self._call_later(PING_INTERVAL, self._keep_alive)

    def _keep_alive(self) -> None:
        if self._host.clock() - self.last_heard >= IDLE_TIMEOUT:
            self._host.counters.add("websocket.idle_timeouts")
            self._transport.abort()
        elif self._protocol.state is OPEN:
            self._protocol.send_ping(b"")
            self._write()
            self._call_later(PING_INTERVAL, self._keep_alive)

    def _call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Run the connection's only timer, in place of what it was set for before."""
        if hasattr(self, "_timer"):
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, callback)

    def _fail(self) -> None:
        self._host.counters.add("websocket.failed")
        logger.exception("A WebSocket connection failed and is dropped")
        self._transport.abort()
