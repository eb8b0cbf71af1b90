"""A WebTransport client: what native guests, the debug shell and tests reach a relay with.

One :class:`WebTransportClient` is one session: a :class:`guest.client_connection.ClientConnection`, its
connected UDP socket and its timer. Datagrams go the relay's own way (``carrier``): the socket is
drained in batches, what a turn brought is delivered as one list, and what a turn sent leaves together. Both
queues are bounded and drop their oldest datagrams; every drop is counted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from cryptography.x509 import load_pem_x509_certificates

from guest.client_connection import ClientConnection
from guest.target import Target
from netstack.counters import Counters
from transport.daemon_threads import in_daemon_thread
from transport.end_of_turn import EndOfTurn
from transport.quic.aioquic_client import ClientQuicConnection
from transport.quic.aioquic_internals import CONNECTION_ID_LENGTH
from transport.quic.bbr import BBR
from transport.quic.udp import ConnectedUdpSocket

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from guest.target import Trust
    from transport.quic.udp import Address

CONNECT_TIMEOUT = 10.0
"""Seconds that a server gets for the handshake, its settings and its answer to the CONNECT together."""
KEEP_ALIVE = 10.0
"""Seconds of silence after which a PING is sent: NAT boxes forget a UDP binding after 30 s or more."""
IDLE_TIMEOUT = 30.0
"""Seconds without a packet from the server after which it is taken for dead: three lost PINGs."""
REFUSED_GRACE = 2.0
"""Seconds of silence that end a session after an ICMP "port unreachable": the server's process is gone. Not
at once, since anyone can forge such a message."""
RECEIVE_QUEUE = 4096
"""Datagrams that wait for ``receive``, about 4 MB: a reader that is late by half a second at 60 Mbit/s."""


class ConnectError(Exception):
    """No session, and why, in one line. ``permanent``: another attempt would end the same way."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class SessionEndedError(Exception):
    """The session is over, and why, in one line."""


class WebTransportClient:
    """One session with a server, made by :func:`connect`; for use on the event loop that made it.

    Implements ``guest.client_connection.ClientHost``.
    """

    def __init__(
        self, target: Target, trust: Trust, counters: Counters, keep_alive: float, idle_timeout: float
    ) -> None:
        self.target = target
        self.counters = counters
        self._trust = trust
        self._keep_alive = keep_alive
        self._configuration = _configuration(target, trust, idle_timeout)
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self._socket: ConnectedUdpSocket | None = None
        self._connection: ClientConnection | None = None
        self._address: Address = ()
        self._established: asyncio.Future[None] = self._loop.create_future()
        self._end: str | None = None
        self._closed = asyncio.Event()
        self._received: deque[bytes] = deque()
        self._has_received = asyncio.Event()
        self._has_room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._refused_timer: asyncio.TimerHandle | None = None
        self._flushes = EndOfTurn[ClientConnection](self._loop.call_soon, self._flush)
        self.want_flush = self._flushes.ask

    # -- life -------------------------------------------------------------------------------------

    async def open(self, family: int, address: Address, seconds: float) -> None:
        """Connect to a socket address and ask for the session. Raises ConnectError."""
        self._address = address
        try:
            self._socket = ConnectedUdpSocket(family, address, self.counters, self._on_socket_error)
        except OSError as error:
            raise ConnectError(self._message(error)) from None
        self._connection = ClientConnection(
            ClientQuicConnection(configuration=self._configuration),
            self,
            address,
            self.clock(),
            keep_alive=self._keep_alive,
            target=self.target,
            trust=self._trust,
        )
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        self._flushes.end([self._connection])
        try:
            async with asyncio.timeout(seconds):
                await self._established
        except TimeoutError:
            self.abandon("no answer")
            raise ConnectError(f"{self.target.authority}: no answer within {seconds:g} s") from None
        except BaseException:
            self.abandon("no session")
            raise

    @property
    def end(self) -> str | None:
        """Why the session is over, in one line; None while it lives."""
        return self._end

    @property
    def close_code(self) -> int | None:
        """The code with which the server closed the session; None where it did not."""
        return None if self._connection is None else self._connection.close_code

    async def wait_closed(self) -> None:
        """Wait until the session is over, whoever ended it."""
        await self._closed.wait()

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the session with a WebTransport code (32 bits) and a reason (1,024 bytes of UTF-8 are sent)."""
        if self._connection is not None:
            self._connection.close_session(code, reason)
            self._flushes.end([self._connection])

    def abandon(self, reason: str) -> None:
        """Close the connection without a goodbye: for the server this client was lost, and may be back."""
        if self._connection is not None:
            self._connection.abandon(reason)
            self._flushes.end([self._connection])

    # -- datagrams --------------------------------------------------------------------------------

    @property
    def datagram_limit(self) -> int:
        """Bytes that one datagram may carry: what fits a packet of the path and the server takes."""
        return 0 if self._connection is None else self._connection.datagram_limit

    @property
    def writable(self) -> bool:
        """Whether a source should go on producing; see :meth:`wait_writable`."""
        session = None if self._connection is None else self._connection.session
        return session is None or session.writable

    async def wait_writable(self) -> None:
        """Wait until the send queue has room for many datagrams, or the session is over."""
        while not self.writable and self._end is None:
            self._has_room.clear()
            await self._has_room.wait()

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams for the end of this turn. Never blocks or raises: what is dropped is counted."""
        session = None if self._connection is None else self._connection.session
        if self._end is not None or session is None:
            self.counters.add("client.drop.no_session", len(datagrams))
            return
        limit = self.datagram_limit
        fitting = [datagram for datagram in datagrams if len(datagram) <= limit]
        if len(fitting) != len(datagrams):
            self.counters.add("client.drop.too_long", len(datagrams) - len(fitting))
        session.send(fitting)

    async def receive(self) -> list[bytes]:
        """Return all datagrams that have come, at least one. Raises SessionEndedError after the last."""
        while not self._received:
            if self._end is not None:
                raise SessionEndedError(self._end)
            self._has_received.clear()
            await self._has_received.wait()
        batch = list(self._received)
        self._received.clear()
        return batch

    # -- ClientHost -------------------------------------------------------------------------------

    def send_packets(self, packets: Sequence[bytes], address: Address) -> None:
        """Send packets to the server."""
        if self._socket is not None:
            self._socket.send(packets, address)

    def session_opened(self) -> None:
        """Take note that the session stands."""
        if not self._established.done():
            self._established.set_result(None)

    def session_refused(self, problem: str, *, permanent: bool) -> None:
        """Take note that there will be no session."""
        if not self._established.done():
            message = f"{self.target.authority}: {problem}"
            self._established.set_exception(ConnectError(message, permanent=permanent))

    # -- one turn ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        connection, opened = self._connection, self._socket
        if connection is None or opened is None:
            return
        now = self.clock()
        for packets, _ in opened.drain():
            left: Sequence[bytes] = packets
            while left:
                left = left[connection.receive(left, self._address, now) :]
                self._deliver(connection)
            if self._refused_timer is not None:
                self._refused_timer.cancel()
                self._refused_timer = None
        self._flushes.end([connection])

    def _deliver(self, connection: ClientConnection) -> None:
        received = self._received
        received += connection.take_arrived()
        if len(received) > RECEIVE_QUEUE:
            self.counters.add("client.drop.receive_queue", len(received) - RECEIVE_QUEUE)
            while len(received) > RECEIVE_QUEUE:
                received.popleft()
        if received:
            self._has_received.set()

    def _flush(self, connections: dict[ClientConnection, None]) -> None:
        """Send what waits, set the timer, and let go of everything once the connection is over."""
        for connection in connections:
            if self._end is not None:
                return
            connection.flush(self.clock())
            if connection.end is not None:
                self._release(connection, connection.end)
                return
            self._arm(connection)
            if self.writable:
                self._has_room.set()

    def _arm(self, connection: ClientConnection) -> None:
        """See to it that a timer runs no later than the connection needs; an earlier one may stay."""
        when = connection.next_timer()
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer, connection)

    def _on_timer(self, connection: ClientConnection) -> None:
        self._timer = None
        connection.handle_timer(self.clock())
        self._deliver(connection)
        self._flushes.end([connection])

    def _on_socket_error(self, error: OSError) -> None:
        """Take an ICMP error that the kernel reports on the connected socket as the hint that it is."""
        if not self._established.done():
            self._established.set_exception(ConnectError(self._message(error)))
        elif self._refused_timer is None and self._end is None and self._connection is not None:
            self._refused_timer = self._loop.call_later(REFUSED_GRACE, self.abandon, self._message(error))
            self._connection.ask()

    def _release(self, connection: ClientConnection, reason: str) -> None:
        self._end = reason
        for timer in (self._timer, self._refused_timer):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        connection.dissolve()
        for event in (self._closed, self._has_received, self._has_room):
            event.set()

    def _message(self, error: OSError) -> str:
        return f"{self.target.authority}: {error.strerror or error}"


async def connect(
    url: str,
    trust: Trust,
    *,
    token: str = "",
    counters: Counters | None = None,
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 - per address, and told in the error
    keep_alive: float = KEEP_ALIVE,
    idle_timeout: float = IDLE_TIMEOUT,
) -> WebTransportClient:
    """Open a session with ``url``, trying the addresses of its host in turn; ``token`` lets the client in.

    Raises ValueError for a URL or CA file that is none, and ConnectError (one line that names the server)
    when there is no session to be had.
    """
    target = replace(Target.parse(url), token=token)
    try:
        # A look-up that no server answers takes half a minute, and whoever is cancelled would end that much
        # later by the event loop's own.
        look_up = partial(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_DGRAM)
        found = await in_daemon_thread(look_up, "look-up")
    except socket.gaierror as error:
        raise ConnectError(f"{target.host}: {error.strerror}") from None
    except UnicodeError:
        raise ValueError(f"{target.host[:80]!r} is not a host name") from None
    # Not "counters or ...": Counters in which nothing has been counted yet is an empty dict.
    counters = Counters() if counters is None else counters
    failure = ConnectError(f"{target.host}: no address")
    for family, _, _, _, address in found:
        client = WebTransportClient(target, trust, counters, keep_alive, idle_timeout)
        try:
            await client.open(family, address, timeout)
        except ConnectError as error:
            # "localhost" is ::1 before it is 127.0.0.1: a word from a server counts more than none.
            if not failure.permanent:
                failure = error
        else:
            return client
    raise failure


def _configuration(target: Target, trust: Trust, idle_timeout: float) -> QuicConfiguration:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=True,
        idle_timeout=idle_timeout,
        connection_id_length=CONNECTION_ID_LENGTH,
        max_datagram_frame_size=65536,
        congestion_control_algorithm=BBR,
        server_name=target.host,
    )
    if trust.certificate_hash is not None or trust.insecure:
        configuration.verify_mode = ssl.CERT_NONE
    elif trust.ca is not None:
        _check_ca_file(trust.ca)
        configuration.load_verify_locations(cafile=str(trust.ca))
    else:
        system = ssl.get_default_verify_paths()
        configuration.load_verify_locations(cafile=system.cafile, capath=system.capath)
    return configuration


def _check_ca_file(path: Path) -> None:
    """Look at a CA file before the handshake does, whose message would name neither file nor reason."""
    try:
        certificates = load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        certificates = []
    if not certificates:
        raise ValueError(f"{path}: not a PEM file of certificates")
