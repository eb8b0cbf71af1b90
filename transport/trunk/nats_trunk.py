"""Messages between machines, by way of a NATS server (https://nats.io).

Every worker listens at the subjects ``NAME.all`` and ``NAME.w.NUMBER``, and sends to these; nothing else is
asked of the server. Core NATS delivers at most once, as Ethernet does: nothing is kept for who is away. A
message ends with a tag by the cluster's key: what others publish there is dropped.

Nothing waits for the server. While there is none, the relay serves its own guests, and messages to others are
dropped; the client connects again by itself, to any of the servers, also those of which one of them has told
it, and is replaced where it does not.
Messages wait until the server takes them, MAX_QUEUED bytes at most, and so do those that come, until the
actors have their turn.

Counts ``trunk.sent``, ``trunk.received`` and ``trunk.drop.*`` in messages, and ``trunk.nats_*``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from loguru import logger
from nats import errors
from nats.aio.client import Client, RawCredentials
from nats.aio.transport import TcpTransport

from transport.trunk.nats_servers import TAG_LENGTH, Seal, shown
from transport.turns import after_sockets

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import ParseResult

    from nats.aio.client import Srv
    from nats.aio.msg import Msg

    from netstack.counters import Counters
    from transport.trunk.nats_servers import NatsServers
    from transport.turns import Turns

MESSAGES_PER_TURN: Final = 32
"""Messages of up to 60 kB that are read before others have their turn."""
MAX_QUEUED: Final = 8 * 1024 * 1024
"""Bytes that wait in each direction: more is stale by the time it is read."""

CONNECT_TIMEOUT: Final = 3
"""Seconds for one attempt."""
RETRY_AFTER: Final = 1.0
"""Seconds between two attempts to connect."""
LEAVE_WITHIN: Final = 1
"""Seconds for the last messages when the relay ends, and for a client to clear up."""
PING_EVERY, PINGS_UNANSWERED = 2, 2
"""Seconds between pings, and how many the server may leave unanswered until another is tried."""
LOOK_EVERY: Final = 1.0
"""Seconds between looks whether the client has lost its server."""
GIVEN_UP_AFTER: Final = 15.0
"""Seconds without a server after which the client is replaced, whatever it waits for."""
MOST_LEARNT: Final = 16
"""Servers that others have named and that the next client knows of, too."""
COMPLAINT_EVERY: Final = 30.0
"""Seconds between two lines about a server that cannot be had."""


class NatsTrunk:
    """The way of one worker to those of other machines; works on the running loop."""

    def __init__(
        self,
        servers: NatsServers,
        worker: int,
        *,
        is_here: Callable[[int], bool],
        on_message: Callable[[bytes], object],
        turns: Turns,
        counters: Counters,
    ) -> None:
        """Begin to connect. ``is_here`` tells whether another way leads to a worker.

        Raises OSError and ssl.SSLError for an authority's file that cannot be read.
        """
        self._servers = servers
        self._worker = worker
        self._is_here = is_here
        self._on_message = on_message
        self._turns = turns
        self._counters = counters
        self._seal = Seal(servers.key)
        self._tls = servers.tls_context()
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._has_joined = False
        self._next_complaint = 0.0
        self._outgoing: deque[tuple[str, bytes]] = deque()
        self._outgoing_size = 0
        self._may_write = asyncio.Event()
        self._written = asyncio.Event()
        """Set while nothing waits to be sent."""
        self._written.set()
        self._incoming: deque[bytes] = deque()
        self._incoming_size = 0
        self._connecting = self._loop.create_task(self._keep_connected())

    @property
    def is_connected(self) -> bool:
        """Whether a server takes messages at present."""
        return self._client is not None and self._client.is_connected

    def send(self, worker: int | None, message: bytes) -> None:
        """Send to a worker of another machine, or to all of them for None."""
        if worker is not None and self._is_here(worker):
            return
        if not self.is_connected:
            self._counters.add("trunk.drop.no_nats_server")
        elif self._outgoing_size + len(message) > MAX_QUEUED:
            self._counters.add("trunk.drop.queue_full")
        else:
            subject = f"{self._servers.name}.all" if worker is None else self._subject_of(worker)
            self._outgoing.append((subject, self._seal.close(message)))
            self._outgoing_size += len(message) + TAG_LENGTH
            self._written.clear()
            self._may_write.set()

    async def close(self) -> None:
        """Send what waits, as far as the server takes it at once, and leave."""
        client = self._client
        if client is not None and client.is_connected:
            with contextlib.suppress(errors.Error, OSError):  # so is TimeoutError
                async with asyncio.timeout(LEAVE_WITHIN):
                    await self._written.wait()
                    await client.flush(LEAVE_WITHIN)
        while not self._connecting.done():  # the client may keep a cancellation to itself
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=2 * LEAVE_WITHIN)

    def _subject_of(self, worker: int) -> str:
        return f"{self._servers.name}.w.{worker}"

    # -- the connection -------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        """Have a client, and another one when that has given up, or is given up."""
        learnt: list[Srv] = []
        for attempt in count():
            client = _StrictClient()
            if attempt % 2:  # not always: they may be gone for good, and each attempt takes time
                client._server_pool += learnt  # noqa: SLF001 - there is no other way to have all of one there
            try:
                await self._use(client)
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would try again
                self._complain(error)
            learnt = [server for server in client._server_pool if server.discovered] or learnt  # noqa: SLF001
            del learnt[MOST_LEARNT:]
            await asyncio.sleep(RETRY_AFTER)

    async def _use(self, client: Client) -> None:
        """Be in the cluster by way of one client, as long as that has a server. Raises why it has none."""
        self._client = client
        writing = self._loop.create_task(self._keep_writing(client))
        try:
            try:
                async with asyncio.timeout(GIVEN_UP_AFTER):
                    await self._connect(client)
            except TimeoutError as error:
                raise client.last_error or error from None
            self._tell_connected()
            await self._until_lost(client, writing)
        finally:
            self._client = None
            writing.cancel()
            self._forget_outgoing()
            await _leave(client)

    async def _connect(self, client: Client) -> None:
        credentials, login = self._servers.read_credentials(), self._servers.login()
        await client.connect(
            servers=list(self._servers.urls),
            name=f"vmrelay {self._worker}",
            max_reconnect_attempts=-1,
            connect_timeout=CONNECT_TIMEOUT,
            reconnect_time_wait=1,
            ping_interval=PING_EVERY,
            max_outstanding_pings=PINGS_UNANSWERED,
            no_echo=True,
            tls=self._tls,
            # The client has it of these URLs, and none for the servers that it hears of there.
            user=login.user,
            password=login.password,
            token=login.token,
            user_credentials=None if credentials is None else RawCredentials(credentials),
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        for subject in (f"{self._servers.name}.all", self._subject_of(self._worker)):
            await client.subscribe(subject, cb=self._hear, pending_bytes_limit=MAX_QUEUED)

    async def _until_lost(self, client: Client, writing: asyncio.Task[None]) -> None:
        """Wait until the client has given up, as it does where it is refused, or had no server for too long.

        Before it tries another server it waits until the one that it leaves has read all that was written,
        which one that stands still, or cannot be reached any more, never does: its connection is ended here.
        Raises what the client says of it.
        """
        connection: asyncio.WriteTransport | None = None
        seen = self._loop.time()
        while not (client.is_closed or writing.done()) and self._loop.time() < seen + GIVEN_UP_AFTER:
            if client.is_connected:
                connection, seen = _connection_of(client), self._loop.time()
            elif connection is not None and connection is _connection_of(client):
                self._complain(errors.StaleConnectionError())
                connection.abort()
                connection = None
            await asyncio.sleep(LOOK_EVERY)
        if writing.done():
            writing.result()
        raise client.last_error or errors.StaleConnectionError()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, errors.SlowConsumerError):
            self._counters.add("trunk.drop.slow_consumer")
        else:
            self._complain(error)

    async def _on_disconnected(self) -> None:
        if self._has_joined:  # clients tell it once more when they are closed
            self._has_joined = False
            self._counters.add("trunk.nats_disconnects")
        self._forget_outgoing()

    async def _on_reconnected(self) -> None:
        self._tell_connected()

    def _tell_connected(self) -> None:
        self._has_joined = True
        self._counters.add("trunk.nats_connects")
        self._next_complaint = 0.0
        url = None if self._client is None else self._client.connected_url
        logger.info("joined the cluster at {}", "a NATS server" if url is None else shown(url))

    def _complain(self, error: Exception) -> None:
        self._counters.add("trunk.nats_errors")
        now = self._loop.time()
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_EVERY
            where = ", ".join(map(shown, self._servers.urls))
            reason = str(error) or type(error).__name__
            logger.warning("the cluster cannot be reached at {}: {}; trying on", where, reason)

    # -- messages -------------------------------------------------------------------------------------

    def _forget_outgoing(self) -> None:
        self._counters.add("trunk.drop.no_nats_server", len(self._outgoing))
        self._outgoing.clear()
        self._outgoing_size = 0
        self._written.set()

    async def _keep_writing(self, client: Client) -> None:
        """Hand to a client what is to be sent; it waits where the server reads too slowly.

        It may wait for ever once it has given up, and keep a cancellation of this task to itself.
        """
        while self._client is client:
            if not self._outgoing:
                self._written.set()
                self._may_write.clear()
                await self._may_write.wait()
                continue
            subject, sealed = self._outgoing.popleft()
            self._outgoing_size -= len(sealed)
            try:
                await client.publish(subject, sealed)
            except errors.MaxPayloadError as error:  # the server's operator has to know
                self._counters.add("trunk.drop.too_long")
                self._complain(error)
            except (errors.Error, OSError):
                self._counters.add("trunk.drop.no_nats_server")
            else:
                self._counters.add("trunk.sent")

    async def _hear(self, told: Msg) -> None:
        message = self._seal.open(told.data)
        if message is None:
            self._counters.add("trunk.drop.not_of_the_cluster")
        elif self._incoming_size + len(message) > MAX_QUEUED:
            self._counters.add("trunk.drop.queue_full")
        else:
            if not self._incoming:
                after_sockets(self._loop, self._receive)
            self._incoming.append(message)
            self._incoming_size += len(message)

    def _receive(self) -> None:
        self._turns.turn(self._deliver)
        if self._incoming:
            after_sockets(self._loop, self._receive)

    def _deliver(self) -> None:
        count = min(len(self._incoming), MESSAGES_PER_TURN)
        for _ in range(count):
            message = self._incoming.popleft()
            self._incoming_size -= len(message)
            self._on_message(message)
        self._counters.add("trunk.received", count)


class _StrictClient(Client):
    """One that takes servers' URLs at their word."""

    @staticmethod
    def _parse_server_uri(connect_url: str) -> ParseResult:
        """Read user and password, too, as a URL has them (RFC 3986 section 2.1)."""
        uri = Client._parse_server_uri(connect_url)  # noqa: SLF001 - a hook, as the next one
        login, at, place = uri.netloc.rpartition("@")
        return uri._replace(netloc=f"{unquote(login)}{at}{place}")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Go on with TLS only, where the URL says so: the next thing that is sent is the password.

        The client itself does what the server wants, or whoever is between.
        """
        server = self._current_server
        if initial_connection and server is not None and server.uri.scheme == "tls":
            if not (info.get("tls_required") or info.get("tls_available")):
                raise errors.Error("the server has no TLS, which its URL asks for")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)


def _connection_of(client: Client) -> asyncio.WriteTransport | None:
    """Tell the connection that a client uses: it has no public way to end one while something is unread."""
    transport = client._transport  # noqa: SLF001 - as said above
    writer = transport._io_writer if isinstance(transport, TcpTransport) else None  # noqa: SLF001
    return None if writer is None else writer.transport


async def _leave(client: Client) -> None:
    """End a client and its connection, whatever the server has not read."""
    client._pending_data_size = 0  # noqa: SLF001 - it would write that first, and end with half undone
    connection = _connection_of(client)
    if connection is not None:
        connection.abort()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(LEAVE_WITHIN):
            await client.close()
