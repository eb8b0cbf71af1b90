"""The relay's TCP port: HTTPS (and plain HTTP where that is allowed) for pages and WebSockets.

A connection shows by its first byte which of the two it is: 0x16 begins a TLS handshake record (RFC 8446,
section 5.1), and no HTTP method. Plain HTTP is for relays that are bound to a loopback address; elsewhere who
speaks it is sent to https. Which hosts are answered for, and whose pages may connect, says admission
(``transport.admission``).

Certificates come from the store that the QUIC endpoint uses, and are read for each new connection.

When all MAX_CONNECTIONS are taken, a newcomer gets the place of the one that has been silent for longest: of
those that have sent nothing or are in the TLS handshake, else of those that have completed no request, else
of those that speak HTTP. Sessions keep their places.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import tempfile
from http import HTTPStatus
from typing import TYPE_CHECKING

from loguru import logger

from netstack.shares import HALF, Shares
from transport import tls_alerts
from transport.admission import ClientRequest, NoRoom, Refusal
from transport.binding import bound_sockets
from transport.end_of_turn import EndOfTurn
from transport.host.heap import Crowd
from transport.origins import ADMISSION_PAGES, GUARDED_PAGES, WHERE_PAGE, is_guarded
from transport.quic.session import WebTransportSession, remote_text
from transport.slices import TURN, Slices
from transport.turns import TaskTurns
from transport.web import websocket
from transport.web.client_sockets import ClientSockets
from transport.web.cycles import forget_frames
from transport.web.http1 import TEXT, Answer, host_and_port
from transport.web.http_connection import REQUEST_TIMEOUT, HttpConnection
from transport.web.tls_records import TlsConnection
from transport.web.websocket import Upgrade, WebSocketConnection, client_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from transport.admission import Admission, Carrier, Grant
    from transport.certificates import Certificate, CertificateStore
    from transport.turns import Turns
    from transport.web.http1 import Request
    from transport.work_shares import LastTurns

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""
MAX_CONNECTIONS = 2048
"""Connections in every state; one costs 50 KB with TLS. Clients of one address get ``client_share`` of them,
and of those that carry no session half at most."""
FEW = 16
"""Connections of one client that are no more than it needs; browsers open 6 to a host."""
TLS_RECORD = 0x16
"""First byte of a TLS handshake."""
ACCEPT_PAUSE = 0.1
"""Seconds until accepting is tried again after it failed for want of files or memory."""
GREETINGS_PER_TURN = 4
"""Connections whose first byte is looked at in one turn of the event loop: what for costs 0.3 ms each."""
CLOSE_WAIT = 1.0
"""Seconds that clients have at the end to take what was written to them."""

ALLOWED = "GET, HEAD, OPTIONS"
"""Methods that are answered."""
OTHER_METHODS = frozenset({"POST", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"})
"""Methods that are known, and have nothing to do here: 405, and all others 501 (RFC 9110, section 9.1)."""
HTTP_PORT = 80
"""What a client used that names no port."""

Page = tuple[str, bytes, dict[str, str]]
"""A page: content type, body, further headers."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class WebListener:
    """Listens for browsers and WebSocket clients. Implements ``transport.web.http_connection.HttpHost``."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        plain: bool,
        certificates: CertificateStore,
        pages: Callable[[str], Page | None],
        admission: Admission,
        turns: Turns,
        last_turns: LastTurns,
        counters: Counters,
        client_share: int = 0,
        max_connections: int = MAX_CONNECTIONS,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        """``plain`` allows HTTP without TLS beside HTTPS; ``pages`` finds what is shown under a path.

        ``last_turns`` are the other carrier's, too. ``client_share`` is what one client address may have of
        ``max_connections``, in percent; 0: all.
        ``sockets`` listen already, perhaps for several processes: who is first accepts.
        """
        self.counters = counters
        self.turns = turns
        self.last_turns = last_turns
        self._bind = (host, port)
        self._sockets = list(sockets)
        self._plain = plain
        self._certificates = certificates
        self._configured: tuple[Certificate, ssl.SSLContext] | None = None
        self._pages = pages
        self._admission = admission
        self._connections: dict[HttpConnection | WebSocketConnection, str] = {}
        """Oldest first, with their clients."""
        self._shares = Shares(max_connections, client_share)
        self._requests = Shares(max_connections, client_share and HALF)
        """Of the connections, those that carry no session."""
        self._crowd = Crowd()
        self._no_room = NoRoom("http")
        self._greeting: dict[asyncio.Task[None], str] = {}
        """Those of which nothing is known but the client, oldest first."""
        self._flushes = EndOfTurn[WebSocketConnection](turns.at_end, self._flush)
        self.want_flush = self._flushes.ask
        self._emptied = asyncio.Event()

    def start(self) -> None:
        """Bind and listen. Raises OSError when the address cannot be had."""
        self._loop = asyncio.get_running_loop()
        self.slices = Slices(self.clock)
        self.client_sockets = ClientSockets(self._loop)
        self._greetings = TaskTurns(GREETINGS_PER_TURN)
        self._sockets = self._sockets or listening_sockets(*self._bind)
        self._accepting = [self._loop.create_task(self._accept(listener)) for listener in self._sockets]

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._sockets[0].getsockname()[1])

    @property
    def connection_count(self) -> int:
        """Connections in every state."""
        return self._shares.total

    def take_no_more(self) -> None:
        """Accept no connections from now on, where others do."""
        for task in self._accepting:
            task.cancel()

    async def close(self) -> None:
        """Let go of the port and end all connections, once what was written to them has left."""
        for task in (*self._accepting, *self._greeting):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._greeting, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        while self._flushes:
            self._flushes.end()
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WAIT):
                while self._connections:
                    self._emptied.clear()
                    await self._emptied.wait()
        for connection in list(self._connections):
            connection.abort()
        self.client_sockets.close()

    # -- HttpHost: what connections need -------------------------------------------------------------

    def clock(self) -> float:
        """Monotonic time, as the event loop has it."""
        return self._loop.time()

    def connection_began(self, connection: WebSocketConnection) -> None:
        """Remember a connection that speaks WebSocket from now on."""
        self._connections[connection] = client = client_of(connection.remote)
        self._shares.add(client)

    def connection_ended(self, connection: HttpConnection | WebSocketConnection) -> None:
        """Forget the connection."""
        if connection in self._connections:
            del self._connections[connection]
            self._give_back(connection.remote, request=isinstance(connection, HttpConnection))
        if isinstance(connection, WebSocketConnection):
            self._flushes.discard(connection)
        if not self._connections:
            self._emptied.set()

    def open_session(
        self, grant: Grant, connection: WebSocketConnection
    ) -> tuple[WebTransportSession, Mailbox]:
        """Begin a session on the LAN that was granted."""
        self.counters.add("websocket.sessions")
        lan, path = grant
        session = WebTransportSession(lan.next_port(), path, connection, self.clock, self.counters)
        return session, lan.attach(session)

    def respond(self, request: Request, *, secure: bool, remote: str) -> Answer | Upgrade:
        """Answer a request, or grant a session, for which a WebSocket is to be opened."""
        if not secure and not self._plain:
            self.counters.add("web.not_https")
            return _to_https(request)
        path, _, query = request.target.partition("#")[0].partition("?")
        carrier: Carrier = "websocket" if websocket.is_asked_for(request) else "http"
        asked = ClientRequest(carrier, path, query, request.fields, request.authority or "", secure, remote)
        refusal = self._admission.check(asked)
        if refusal is not None:
            return _refused(refusal)
        if request.method == "OPTIONS":
            may_send = _preflight(request.field("origin")) if is_guarded(path) else {}
            return Answer(HTTPStatus.NO_CONTENT, {"Allow": ALLOWED, **may_send})
        if request.method not in {"GET", "HEAD"}:
            known = request.method in OTHER_METHODS
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_IMPLEMENTED
            return _text(status, "Only GET and HEAD are answered.", {"Allow": ALLOWED})
        if carrier == "websocket":
            # A room is made for a session only, not for a handshake that fails.
            protocol = websocket.shake_hands(request)
            if isinstance(protocol, Answer):
                return protocol
            found = self._admission.admit(asked)
            return _refused(found) if isinstance(found, Refusal) else Upgrade(found, protocol)
        return self._page(asked, request)

    def _page(self, asked: ClientRequest, request: Request) -> Answer:
        path = asked.path
        if path.startswith(ADMISSION_PAGES):
            return self._explain(asked, request)
        room = WHERE_PAGE.fullmatch(path)
        if room is not None:
            return self._tell_where(asked._replace(path=room[1], carrier="websocket"), request)
        page = self._pages(path)
        if page is None:
            return _text(HTTPStatus.NOT_FOUND, "There is nothing here; see /.")
        kind, body, extra = page
        if path.startswith(GUARDED_PAGES):
            extra = {**extra, **_readable_by(request.field("origin"))}
        return Answer(HTTPStatus.OK, {"Content-Type": kind, **_HEADERS, **extra}, body)

    def _explain(self, asked: ClientRequest, request: Request) -> Answer:
        """Tell whether a session would be granted that is asked for so, and if not why."""
        path = asked.path.removeprefix(ADMISSION_PAGES[:-1])
        refusal = self._admission.explain(asked._replace(path=path, carrier="websocket"))
        readers = _readable_by(request.field("origin"))
        if refusal is None:
            return Answer(HTTPStatus.NO_CONTENT, {**_HEADERS, **readers})
        return _text(refusal.status, refusal.reason, {**refusal.fields, **readers})

    def _tell_where(self, asked: ClientRequest, request: Request) -> Answer:
        """Tell at which machines a room is, to whom is let in there."""
        found = self._admission.where(asked)
        readers = _readable_by(request.field("origin"))
        if isinstance(found, Refusal):
            return _text(found.status, found.reason, {**found.fields, **readers})
        body = json.dumps({"urls": list(found)}).encode()
        return Answer(HTTPStatus.OK, {"Content-Type": "application/json", **_HEADERS, **readers}, body)

    # -- inside -------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(listener)
            except OSError:
                # No files or memory left, or the client is gone again: others may have better luck.
                self.counters.add("web.accept_failed")
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            try:
                await self._take(client, remote_text(address))
            except Exception:  # noqa: BLE001 - whatever it is, others come to this port
                self.counters.add("web.failed")
                logger.exception("A TCP connection cannot be taken and is dropped")
                client.close()

    async def _take(self, client: socket.socket, remote: str) -> None:
        """Greet a client, or refuse it."""
        whose = client_of(remote)
        if not self._has_room_for(whose) and self._evict(whose):
            await asyncio.sleep(0)  # a task that was cancelled has its turn
        if not self._has_room_for(whose):
            self._refuse(remote)
            client.close()
            return
        self._requests.add(whose)
        self._shares.add(whose)
        self._crowd.counted(self._shares.total)
        task = self._loop.create_task(self._greet(client, remote))
        self._greeting[task] = whose
        task.add_done_callback(lambda done: self._greeting.pop(done, None))
        # What is cancelled before it has begun would clean nothing up; and others have their turn.
        await asyncio.sleep(0)

    def _evict(self, client: str) -> bool:
        """End the connection that has said least, so that a newcomer finds room; return whether there is one.

        It is one of the newcomer's own address, or anybody's where that has few itself and all are taken.
        """
        of_anybody = self._shares.total >= self._shares.limit and self._shares.held_by(client) <= FEW
        task = next((task for task, whose in self._greeting.items() if of_anybody or whose == client), None)
        if task is not None:
            del self._greeting[task]
            task.cancel()
        else:
            victims = [
                found
                for found, whose in self._connections.items()
                # One whose TLS handshake another newcomer has just ended is about to go.
                if isinstance(found, HttpConnection) and found.is_open and (of_anybody or whose == client)
            ]
            if not victims:
                return False
            victim = next((found for found in victims if not found.requests), victims[0])
            self.connection_ended(victim)
            victim.abort()
        self.counters.add("web.evicted")
        return True

    def _has_room_for(self, client: str) -> bool:
        return self._requests.may_take(client) and self._shares.may_take(client)

    def _refuse(self, remote: str) -> None:
        """Count a client that finds no room, and say whether that is its own address's doing."""
        full = self._shares.total >= self._shares.limit
        self.counters.add(f"web.drop.too_many_{'connections' if full else 'of_one_address'}")
        reason = "too many TCP connections" if full else "too many TCP connections of one address"
        self._no_room.tell(remote, reason, self.clock())

    def _give_back(self, remote: str, *, request: bool) -> None:
        client = client_of(remote)
        self._shares.give_back(client)
        if request:
            self._requests.give_back(client)
        self._crowd.counted(self._shares.total)

    async def _greet(self, client: socket.socket, remote: str) -> None:
        """Look at the first byte, then hand the connection to HTTP with or without TLS."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                first = await self._first_byte(client)
            if first is None:
                self._give_up(client, remote)
                return
            secure = first == TLS_RECORD
            connection = HttpConnection(self, remote, secure=secure)
            self._connections[connection] = client_of(remote)
        except (OSError, TimeoutError, asyncio.CancelledError):
            self._give_up(client, remote)
            return
        try:
            if secure:
                await self._shake_hands(client, connection)
            else:
                await self._loop.connect_accepted_socket(lambda: connection, client)
        except (OSError, asyncio.CancelledError) as error:
            forget_frames(error)
            self.counters.add("web.drop.tls_handshake")
            if isinstance(error, OSError) and secure:
                tls_alerts.log_handshake_error(remote, error, self._certificates.current)
            client.close()
            self.connection_ended(connection)

    async def _shake_hands(self, client: socket.socket, connection: HttpConnection) -> None:
        """Have the connection speak TLS. Raises OSError."""
        tls = TlsConnection(
            connection,
            self._context(),
            self,
            loop=self._loop,
            handshake_timeout=REQUEST_TIMEOUT,
            shutdown_timeout=CLOSE_WAIT,
        )
        transport, _ = await self._loop.connect_accepted_socket(lambda: tls, client)
        try:
            await tls.handshake
        except BaseException:
            transport.abort()
            raise

    def _give_up(self, client: socket.socket, remote: str) -> None:
        """Close a connection on which nothing was asked."""
        self.counters.add("web.drop.no_request")
        client.close()
        self._give_back(remote, request=True)

    async def _first_byte(self, client: socket.socket) -> int | None:
        """Wait for the first byte and leave it where it is; None when the client sends none."""
        client.setblocking(False)
        ready = asyncio.Event()
        self.client_sockets.add_reader(client.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            self.client_sockets.remove_reader(client.fileno())
        await self._greetings.next()
        first = client.recv(1, socket.MSG_PEEK)
        return first[0] if first else None

    def _flush(self, connections: dict[WebSocketConnection, None]) -> Iterable[WebSocketConnection]:
        """Send what is queued for a slice of time, and the rest once others were served.

        A frame for hundreds of guests is as many writes, of which each is a call of the system. Whatever goes
        wrong ends one connection only.
        """
        now = self.clock()
        while connections:
            connection = next(iter(connections))
            del connections[connection]
            try:
                connection.flush(now)
            except Exception:  # noqa: BLE001
                connection.fail()
            if self.clock() >= now + TURN:
                break
        return connections

    def _context(self) -> ssl.SSLContext:
        certificate = self._certificates.current
        if self._configured is None or self._configured[0] is not certificate:
            self._configured = certificate, _tls_context(certificate)
        return self._configured[1]


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen as ``binding.bound_sockets`` binds. Raises OSError."""
    listeners = bound_sockets(socket.SOCK_STREAM, host, port, _reuse_address)
    try:
        for listener in listeners:
            listener.listen(BACKLOG)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _reuse_address(listener: socket.socket, _host: str) -> None:
    """Have connections of an earlier life that linger in TIME_WAIT not keep the port."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _tls_context(certificate: Certificate) -> ssl.SSLContext:
    """TLS for HTTP/1.1. Python reads keys from files only: for a moment this one is in a private file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    with _private_file(certificate.chain_pem() + certificate.private_key_pem()) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _private_file(data: bytes) -> Iterator[str]:
    """Path of a file with ``data``, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("certificate"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as named:
            named.write(data)
            named.flush()
            yield named.name


def _to_https(request: Request) -> Answer:
    """Send a client that came without TLS to where it is spoken: the same port, as the client sees it."""
    scheme = "wss" if websocket.is_asked_for(request) else "https"
    host, port = host_and_port(request.authority or "")
    if not host or request.method == "CONNECT":
        return _text(HTTPStatus.BAD_REQUEST, "This port speaks HTTPS: use https:// in place of http://.")
    url = f"{scheme}://{host}:{port or HTTP_PORT}{request.target if request.target != '*' else '/'}"
    return _text(HTTPStatus.TEMPORARY_REDIRECT, f"This port speaks HTTPS: {url}", {"Location": url})


def _readable_by(origin: str | None) -> dict[str, str]:
    """Headers that let pages of an admitted origin read the answer, and no cache show it to others."""
    return {"Vary": "Origin", **({} if origin is None else {"Access-Control-Allow-Origin": origin})}


def _preflight(origin: str | None) -> dict[str, str]:
    """Headers that let pages of an admitted origin show a token in one of theirs (Fetch, section 3.2)."""
    return {**_readable_by(origin), "Access-Control-Allow-Headers": "authorization"}


def _refused(refusal: Refusal) -> Answer:
    return _text(refusal.status, refusal.reason, refusal.fields)._replace(refusal=refusal)


def _text(status: HTTPStatus, text: str, extra: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {**TEXT, **_HEADERS, **(extra or {})}, f"{text}\n".encode("utf-8", "replace"))
