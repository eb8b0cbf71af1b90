"""A WebTransport client on aioquic: what native guests, the debug shell and tests reach a relay with.

One :class:`WebTransportClient` is one session: a QUIC connection, HTTP/3 and a single extended CONNECT
(RFC 9220, draft-ietf-webtrans-http3) that carries datagrams only. It speaks to every server that announces
any of the WebTransport settings of drafts 02 to 15.

The UDP socket is drained, not read one packet per turn of the event loop, and what a turn brought is
delivered as one list. Both queues are bounded and drop their oldest datagrams; every drop is counted.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any

from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, HandshakeCompleted, StreamReset
from aioquic.quic.packet import QuicFrameType
from aioquic.tls import AlertDescription
from cryptography.x509 import load_pem_x509_certificates

from netstack.counters import Counters
from transport import webtransport
from transport.aioquic_internals import ClientQuicConnection
from transport.connection import DATAGRAMS_IN_AIOQUIC, PACKET_OVERHEAD
from transport.session import WRITABLE_BYTES, DatagramQueue
from transport.target import Target
from transport.tls_alerts import CRYPTO_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aioquic.h3.events import H3Event
    from aioquic.quic.events import ConnectionTerminated, QuicEvent

    from transport.target import Trust

CONNECT_TIMEOUT = 10.0
"""Seconds that a server gets for the handshake, its settings and its answer to the CONNECT together."""
KEEP_ALIVE = 10.0
"""Seconds between PINGs: NAT boxes on the way forget a UDP binding after 30 s or more."""
IDLE_TIMEOUT = 30.0
"""Seconds without a packet from the server after which it is taken for dead: three lost PINGs."""
REFUSED_GRACE = 2.0
"""Seconds of silence that end a session after an ICMP "port unreachable": the server's process is gone. Not
at once, since anyone can forge such a message."""
RECEIVE_QUEUE = 4096
"""Datagrams that wait for ``receive``, about 4 MB: a reader that is late by half a second at 60 Mbit/s."""
READS_PER_TURN = 256
"""Packets read per readiness event, so that a flood leaves the loop time for everyone else."""
SOCKET_BUFFER = 1024 * 1024
"""Asked of the kernel (it grants less without privileges); bursts wait here while a turn runs."""

WEBTRANSPORT_ANNOUNCED = (
    webtransport.SETTING_ENABLE_WEBTRANSPORT_DRAFT_02,
    webtransport.SETTING_MAX_SESSIONS_DRAFT_07,
    webtransport.SETTING_MAX_SESSIONS_DRAFT_13,
    webtransport.SETTING_ENABLED_DRAFT_15,
)
"""Settings of which any one, if not 0, says that the server speaks WebTransport."""

_PREFIX = b"\0"
"""Quarter stream ID of the connection's first request (RFC 9297, section 2.1)."""
_READ_SIZE = 65535
_BUSY = (BlockingIOError, InterruptedError)


class ConnectError(Exception):
    """No session, and why, in one line. ``permanent``: another attempt would end the same way."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class SessionEndedError(Exception):
    """The session is over, and why, in one line."""


class WebTransportClient:
    """One session with a server, made by :func:`connect`; for use on the event loop that made it."""

    def __init__(
        self, target: Target, trust: Trust, counters: Counters, keep_alive: float, idle_timeout: float
    ) -> None:
        self.target = target
        self._trust = trust
        self._counters = counters
        self._ping_interval = keep_alive
        self._loop = asyncio.get_running_loop()
        self._quic = ClientQuicConnection(configuration=_configuration(target, trust, idle_timeout))
        self._h3: H3Connection | None = None
        self._stream_id: int | None = None
        self._socket: socket.socket | None = None
        self._address: tuple[Any, ...] = ()
        self._established: asyncio.Future[None] = self._loop.create_future()
        self._end: str | None = None
        self._closed = asyncio.Event()
        self._capsules = webtransport.CapsuleReader()
        self._queue = DatagramQueue(counters)
        self._received: deque[bytes] = deque()
        self._has_received = asyncio.Event()
        self._has_room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._refused_timer: asyncio.TimerHandle | None = None
        self._flush_scheduled = False

    # -- life -------------------------------------------------------------------------------------

    async def open(self, family: int, address: tuple[Any, ...], seconds: float) -> None:
        """Connect to a socket address and ask for the session. Raises ConnectError."""
        self._address = address
        try:
            self._socket = _connected_socket(family, address)
        except OSError as error:
            raise ConnectError(self._message(error)) from None
        self._loop.add_reader(self._socket, self._read)
        self._quic.connect(address, now=self._loop.time())
        self._flush()
        try:
            async with asyncio.timeout(seconds):
                await self._established
        except TimeoutError:
            self._abandon("no answer")
            raise ConnectError(f"{self.target.authority}: no answer within {seconds:g} s") from None
        except BaseException:
            self._abandon("no session")
            raise
        self._ping_timer = self._loop.call_later(self._ping_interval, self._ping)

    @property
    def end(self) -> str | None:
        """Why the session is over, in one line; None while it lives."""
        return self._end

    async def wait_closed(self) -> None:
        """Wait until the session is over, whoever ended it."""
        await self._closed.wait()

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the session with a WebTransport code (32 bits) and a reason (1,024 bytes of UTF-8 are sent)."""
        if self._end is not None:
            return
        if self._h3 is not None and self._stream_id is not None:
            # What waits goes first, a message that says goodbye above all; then the capsule.
            self._flush()
            capsule = webtransport.encode_close_capsule(code, reason)
            self._h3.send_data(self._stream_id, capsule, end_stream=True)
            self._flush()
        self._abandon(reason or "closed")

    # -- datagrams --------------------------------------------------------------------------------

    @property
    def datagram_limit(self) -> int:
        """Bytes that one datagram may carry: what fits a packet and the server takes."""
        room = self._quic.configuration.max_datagram_size - PACKET_OVERHEAD
        return min(room, self._quic.peer_datagram_limit - 3) - len(_PREFIX)

    @property
    def writable(self) -> bool:
        """Whether a source should go on producing; see :meth:`wait_writable`."""
        return self._queue.bytes < WRITABLE_BYTES

    async def wait_writable(self) -> None:
        """Wait until the send queue is half empty again, or the session over."""
        while not self.writable and self._end is None:
            self._has_room.clear()
            await self._has_room.wait()

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams for the end of this turn. Never blocks or raises: what is dropped is counted."""
        if self._end is not None or self._stream_id is None:
            self._counters.add("client.drop.no_session", len(datagrams))
            return
        limit = self.datagram_limit
        fitting = [datagram for datagram in datagrams if len(datagram) <= limit]
        if len(fitting) != len(datagrams):
            self._counters.add("client.drop.too_long", len(datagrams) - len(fitting))
        self._queue.extend(fitting, self._loop.time())
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

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

    # -- the socket -------------------------------------------------------------------------------

    def _read(self) -> None:
        now = self._loop.time()
        for _ in range(READS_PER_TURN):
            if self._socket is None:
                return
            try:
                packet = self._socket.recv(_READ_SIZE)
            except _BUSY:
                break
            except OSError as error:
                self._socket_failed(error)
                continue
            self._quic.receive_datagram(packet, self._address, now)
            if self._refused_timer is not None:
                self._refused_timer.cancel()
                self._refused_timer = None
        self._pump()
        self._flush()

    def _socket_failed(self, error: OSError) -> None:
        """Take an ICMP error that the kernel reports on the connected socket as the hint that it is."""
        if not self._established.done():
            self._established.set_exception(ConnectError(self._message(error)))
        elif self._refused_timer is None and self._end is None:
            message = self._message(error)
            self._refused_timer = self._loop.call_later(REFUSED_GRACE, self._abandon, message)
            self._quic.send_ping(0)

    def _flush(self) -> None:
        """Send what waits: datagrams as far as aioquic takes them, and what aioquic has."""
        self._flush_scheduled = False
        if self._socket is None:
            return
        now = self._loop.time()
        self._queue.drop_stale(now)
        for _ in range(min(len(self._queue), DATAGRAMS_IN_AIOQUIC - self._quic.datagrams_waiting)):
            self._quic.send_datagram_frame(_PREFIX + self._queue.pop())
        for packet, _ in self._quic.datagrams_to_send(now):
            try:
                self._socket.send(packet)
            except _BUSY:
                # As good as lost on the way: QUIC notices and slows down.
                self._counters.add("client.drop.socket_full")
            except OSError as error:
                self._socket_failed(error)
        self._set_timer()
        if self.writable:
            self._has_room.set()
        if len(self._queue) and self._quic.datagrams_waiting < DATAGRAMS_IN_AIOQUIC:
            # aioquic took all it was given: go on in the next turn, after others had theirs.
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _set_timer(self) -> None:
        due = self._quic.get_timer()
        if self._timer is not None:
            if self._timer.when() == due and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._timer_fired, due)

    def _timer_fired(self, due: float) -> None:
        self._timer = None
        # The loop's clock has a resolution, by which it may call early; aioquic must see its own time.
        self._quic.handle_timer(max(due, self._loop.time()))
        self._pump()
        self._flush()

    def _ping(self) -> None:
        self._quic.send_ping(0)
        self._flush()
        self._ping_timer = self._loop.call_later(self._ping_interval, self._ping)

    # -- QUIC and HTTP/3 events -------------------------------------------------------------------

    def _pump(self) -> None:
        """Act on what aioquic has to say."""
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, DatagramFrameReceived):
                if event.data[:1] == _PREFIX:
                    self._received.append(event.data[1:])
                else:
                    self._counters.add("client.drop.unknown_session")
            else:
                self._on_event(event)
        while len(self._received) > RECEIVE_QUEUE:
            self._received.popleft()
            self._counters.add("client.drop.receive_queue")
        if self._received:
            self._has_received.set()
        if self._quic.ended is not None and self._end is None:
            self._on_connection_end(self._quic.ended)

    def _on_event(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted) and self._end is None:
            self._on_handshake()
        if self._h3 is None or self._end is not None:
            return
        for h3_event in self._h3.handle_event(event):
            self._on_h3_event(h3_event)
        if isinstance(event, StreamReset) and event.stream_id == self._stream_id:
            self._closed_by_server("the server reset the session")
        if self._stream_id is None and self._h3.received_settings is not None:
            self._request(self._h3, self._h3.received_settings)

    def _on_handshake(self) -> None:
        pinned = self._trust.certificate_hash
        found = self._quic.certificate_hash
        if pinned is not None and not hmac.compare_digest(found, pinned):
            self._refuse(
                f"the certificate's SHA-256 hash is {found.hex()}, not the one to be trusted: the relay has "
                "a new certificate, or this is another server",
                alert=AlertDescription.bad_certificate,
            )
        else:
            self._h3 = H3Connection(self._quic, enable_webtransport=True)

    def _request(self, h3: H3Connection, settings: dict[int, int]) -> None:
        """Ask for the session; not before the server's settings are known (draft-02, section 3.1)."""
        if not any(settings.get(setting) for setting in WEBTRANSPORT_ANNOUNCED):
            self._refuse("this is an HTTP/3 server without WebTransport")
            return
        self._stream_id = self._quic.get_next_available_stream_id()
        headers = {
            b":method": b"CONNECT",
            b":protocol": b"webtransport",
            b":scheme": b"https",
            b":authority": self.target.authority.encode(),
            b":path": self.target.path.encode(),
            b"sec-webtransport-http3-draft02": b"1",
        }
        h3.send_headers(self._stream_id, list(headers.items()))

    def _on_h3_event(self, event: H3Event) -> None:
        match event:
            case HeadersReceived() if event.stream_id == self._stream_id:
                self._on_response(int(dict(event.headers)[b":status"]))
            case DataReceived() if event.stream_id == self._stream_id:
                self._on_capsules(event.data)
            case _:
                return
        if event.stream_ended:
            self._closed_by_server("the server closed the session")

    def _on_response(self, status: int) -> None:
        if status in _INFORMATIONAL or self._established.done():
            return
        if status in _SUCCESSFUL:
            self._established.set_result(None)
        else:
            # The same request will not do better later, unless there were just too many of them.
            permanent = status in _CLIENT_ERRORS and status != _TOO_MANY_REQUESTS
            self._refuse(f"the server answered HTTP status {status}", permanent=permanent)

    def _on_capsules(self, data: bytes) -> None:
        try:
            closure = self._capsules.feed(data)
        except ValueError as error:
            self._closed_by_server(str(error))
            return
        if closure is not None:
            self._closed_by_server(one_line(closure.reason) or "the server closed the session")

    # -- ends -------------------------------------------------------------------------------------

    def _refuse(self, problem: str, *, permanent: bool = True, alert: AlertDescription | None = None) -> None:
        """Give up on a server that is not what was asked for; it is told the TLS alert."""
        if not self._established.done():
            message = f"{self.target.authority}: {problem}"
            self._established.set_exception(ConnectError(message, permanent=permanent))
        self._abandon(problem, alert)

    def _closed_by_server(self, reason: str) -> None:
        if self._established.done():
            self.close(reason=reason)
        else:
            self._refuse(reason, permanent=False)

    def _on_connection_end(self, event: ConnectionTerminated) -> None:
        reason = one_line(event.reason_phrase) or f"connection closed with code 0x{event.error_code:x}"
        if reason == "Idle timeout":
            reason = "the server has fallen silent"
        if not self._established.done():
            failed_tls = event.frame_type is not None and event.error_code in CRYPTO_ERRORS
            message = f"{self.target.authority}: {'TLS: ' * failed_tls}{reason}"
            if event.error_code == CRYPTO_ERRORS.start + AlertDescription.bad_certificate and failed_tls:
                message += "; trust the certificate by its hash, or by a file with its authority's"
            self._established.set_exception(ConnectError(message, permanent=failed_tls))
        self._abandon(reason)

    def _abandon(self, reason: str, alert: AlertDescription | None = None) -> None:
        """Close the connection without waiting for an answer, and everything with it."""
        if self._end is not None:
            return
        if alert is None:
            self._quic.close(error_code=ErrorCode.H3_NO_ERROR)
        else:
            # The frame's type makes it an error of the transport's, not of HTTP/3.
            self._quic.close(error_code=CRYPTO_ERRORS.start + alert, frame_type=QuicFrameType.CRYPTO)
        self._queue.clear()
        self._flush()
        self._end = reason
        for timer in (self._timer, self._ping_timer, self._refused_timer):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for event in (self._closed, self._has_received, self._has_room):
            event.set()

    def _message(self, error: OSError) -> str:
        return f"{self.target.authority}: {error.strerror or error}"


# RFC 9110, section 15, and RFC 6585.
_INFORMATIONAL = range(100, 200)
_SUCCESSFUL = range(200, 300)
_CLIENT_ERRORS = range(400, 500)
_TOO_MANY_REQUESTS = 429


async def connect(
    url: str,
    trust: Trust,
    *,
    counters: Counters | None = None,
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109 - per address, and told in the error
    keep_alive: float = KEEP_ALIVE,
    idle_timeout: float = IDLE_TIMEOUT,
) -> WebTransportClient:
    """Open a session with ``url``, trying the addresses of its host in turn.

    Raises ValueError for a URL or CA file that is none, and ConnectError (one line that names the server)
    when there is no session to be had.
    """
    target = Target.parse(url)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
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
        max_datagram_frame_size=65536,
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


def _connected_socket(family: int, address: tuple[Any, ...]) -> socket.socket:
    """Open a connected socket: the kernel checks the sender and reports a refused port."""
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            udp.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        udp.connect(address)
    except OSError:
        udp.close()
        raise
    return udp


def one_line(text: str) -> str:
    """Make a stranger's text fit for a terminal: one short line, nothing that controls it."""
    return "".join(character if character.isprintable() else " " for character in text).strip()[:200]
