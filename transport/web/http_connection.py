"""One client's TCP connection, as long as it speaks HTTP: requests are answered one after the other.

Theory of operation. ``http1`` finds the requests, the listener says what to answer. What follows an
answered request on the same connection is answered too (RFC 9112, section 9.3), within bounds: MAX_REQUESTS,
and never ahead of a client that does not read. A request that cannot be understood gets its status, and then
the connection ends without losing that: as long as the client still sends, closing would reset the connection
under the answer (section 9.6), so what comes is thrown away for a while.

A request for a WebSocket hands the connection over to ``transport.web.websocket``.
"""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, cast

from loguru import logger

from transport.admission import refused, without_secrets
from transport.slices import SLICE
from transport.web import websocket
from transport.web.cycles import dissolve_transport
from transport.web.http1 import TEXT, Answer, BadRequestError, Request, RequestReader
from transport.web.websocket import Upgrade, WebSocketConnection, WebSocketHost, limit_unsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from transport.web.client_sockets import ClientSockets

REQUEST_TIMEOUT = 10.0
"""Seconds for a request to be complete, and in which a client must have taken some of an answer."""
SLOW_PERIODS = 6
"""How many times in a row that may have been only some."""
IDLE_TIMEOUT = 4.0
"""Seconds for which a connection waits for another request; browsers ask for all they need at once."""
MAX_REQUESTS = 100
"""Requests on one connection; the page with all its parts is 10."""
LINGER = 2.0
"""Seconds for which a client may go on sending after it was refused."""
LINGER_BYTES = 8 * 1024 * 1024
"""Bytes that are thrown away meanwhile."""
ADMISSION_STATUSES = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST})
"""Answers that the log tells of whatever was asked for: a setting would have it another one."""
WRITE_BUFFER = 64 * 1024
"""Bytes given to asyncio before requests wait, or datagrams of a session, where old ones can be dropped."""
UNSENT_BYTES = 64 * 1024
"""Bytes the kernel takes beyond what the client's window lets it send (Linux, TCP_NOTSENT_LOWAT)."""


class HttpHost(WebSocketHost, Protocol):
    """What a connection needs of the listener that accepted it."""

    client_sockets: ClientSockets

    def respond(self, request: Request, *, secure: bool, remote: str) -> Answer | Upgrade:
        """Answer a request, or grant a session, for which a WebSocket is to be opened."""

    def connection_began(self, connection: WebSocketConnection) -> None:
        """Remember a connection that speaks WebSocket from now on."""

    def connection_ended(self, connection: HttpConnection | WebSocketConnection) -> None:
        """Forget a connection."""


class HttpConnection(asyncio.Protocol):
    """Reads requests and answers them."""

    def __init__(self, host: HttpHost, remote: str, *, secure: bool) -> None:
        self._host = host
        self._secure = secure
        self._reader = RequestReader()
        self._transport: asyncio.Transport
        self.is_open = False
        """Whether there is a connection to be closed: not before the TLS handshake is over."""
        self._timer: asyncio.TimerHandle | None = None
        self.requests = 0
        """Requests that were answered."""
        self._paused = False
        self._ending = False
        self._thrown_away = 0
        self._unsent = 0
        """Bytes of answers that were not taken when time was up last."""
        self._slow_periods = 0
        self.remote = remote

    # -- asyncio's side -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        if not self._secure:
            self._host.client_sockets.adopt(transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER)
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit_unsent(transport, UNSENT_BYTES)
        self._call_later(REQUEST_TIMEOUT, self._timed_out)

    def data_received(self, data: bytes) -> None:
        """Take what came, and answer what is complete."""
        if self._ending:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self._transport.abort()
            return
        if self._reader.idle:
            self._call_later(REQUEST_TIMEOUT, self._timed_out)
        self._reader.feed(data)
        if self._host.slices.serve(self):
            self._transport.pause_reading()

    def note_reading(self, seconds: float) -> None:
        """Take no note: requests are bounded."""

    def eof_received(self) -> bool:
        """Take the client's end: it will ask for nothing more, but may wait for what it asked for."""
        if not self._ending and not self._reader.idle:
            self._refuse(BadRequestError(HTTPStatus.BAD_REQUEST, "The request is not complete."))
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Let go of everything."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        self._host.slices.forget(self)
        dissolve_transport(self._transport)
        self._host.connection_ended(self)

    def pause_writing(self) -> None:
        """Answer and read no more until the client has taken what is there."""
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._host.slices.serve(self)

    # -- the listener's side ------------------------------------------------------------------------

    def close(self) -> None:
        """End the connection once what was written has left."""
        if not self._transport.is_closing():  # asyncio's TLS cannot be aborted after two calls
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # -- inside -------------------------------------------------------------------------------------

    def work(self) -> bool:
        """Answer requests that are complete; whatever goes wrong ends this connection only."""
        more = self._serve()
        if self._transport.get_protocol() is self:  # else it has become a WebSocket's
            if more or self._paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        return more

    def _serve(self) -> bool:
        """Answer those that fit a slice; return whether there may be more of them."""
        deadline = self._host.clock() + SLICE
        try:
            while not (self._paused or self._ending):
                request = self._reader.next()
                if request is None:
                    return False
                self.requests += 1
                self._answer(request)
                if self._host.clock() >= deadline:
                    return not (self._paused or self._ending)
        except BadRequestError as error:
            self._refuse(error)
        except Exception:  # noqa: BLE001
            self._host.counters.add("web.failed")
            logger.exception("An HTTP connection failed and is dropped")
            self._refuse(BadRequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "The relay failed; see its log."))
        return False

    def _answer(self, request: Request) -> None:
        found = self._host.respond(request, secure=self._secure, remote=self.remote)
        if isinstance(found, Upgrade):
            self._become_websocket(WebSocketConnection(self._host, found, self.remote))
            return
        is_session = websocket.is_asked_for(request)
        if is_session or found.status in ADMISSION_STATUSES:
            what = "a WebSocket at " if is_session else ""
            event = refused(found.refusal, self.remote, "websocket") if is_session and found.refusal else {}
            logger.bind(reason=f"web request refused: {found.status.value}", **event).warning(
                "{} was refused {}{}: {} {}: {}",
                *(
                    self.remote,
                    what,
                    without_secrets(request.target),
                    found.status.value,
                    found.status.phrase,
                ),
                found.body.decode().strip(),
            )
        close = not request.keep_alive or self.requests >= MAX_REQUESTS
        self._send(found, close=close, head_only=request.method == "HEAD")
        if close:
            self._end(linger=request.unread_body or not self._reader.idle)
        else:
            self._call_later(IDLE_TIMEOUT, self._timed_out)

    def _become_websocket(self, connection: WebSocketConnection) -> None:
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        self._host.connection_began(connection)
        self._host.connection_ended(self)
        self._transport.resume_reading()
        self._transport.set_protocol(connection)
        connection.begin(self._transport)
        rest = self._reader.take_rest()
        if rest:
            connection.data_received(rest)

    def _refuse(self, error: BadRequestError) -> None:
        self._send(Answer(error.status, TEXT, f"{error}\n".encode()), close=True)
        self._end(linger=True)

    def _send(self, answer: Answer, *, close: bool, head_only: bool = False) -> None:
        self._host.counters.add(f"web.status_{answer.status.value}")
        self._transport.write(answer.encode(close=close, head_only=head_only))
        self._unsent = self._slow_periods = 0

    def _end(self, *, linger: bool) -> None:
        """End the connection once the client has what was written to it."""
        self._ending = True
        if not linger:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()
        self._call_later(LINGER if linger else REQUEST_TIMEOUT, self._timed_out)

    def _timed_out(self) -> None:
        """Give up a client that does not finish its request or take its answers; or has had them all."""
        unsent = self._transport.get_write_buffer_size()
        if unsent:
            self._slow_periods += 1
            if unsent == self._unsent or self._slow_periods > SLOW_PERIODS:
                self._transport.abort()
            else:
                self._unsent = unsent
                self._call_later(REQUEST_TIMEOUT, self._timed_out)
        elif self._transport.is_closing():
            # TLS has given the rest to TCP, and asyncio waits for ever until the client takes that.
            self._transport.abort()
        elif self._ending:
            self._transport.close()
            self._call_later(REQUEST_TIMEOUT, self._timed_out)
        elif self._reader.idle:
            self._end(linger=False)
        else:
            self._refuse(BadRequestError(HTTPStatus.REQUEST_TIMEOUT, "The request did not come in time."))

    def _call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Run the connection's only timer, in place of what it was set for before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, callback)
