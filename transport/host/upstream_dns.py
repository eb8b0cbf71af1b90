"""Questions to the host's name servers: which ones, in which order, by UDP and, where that is too small, TCP.

The servers are those that the operator named, else those of ``/etc/resolv.conf``, which is looked at again
now and then: containers and laptops change it. They may have any address, private and loopback ones too:
the operator chose them, so the guests' egress policy does not apply to them.

Every question leaves from a socket of its own, connected, with a port of the kernel's choice and a random id
(RFC 5452): an answer has to come from the server, to that port, with that id and question. A server that is
silent, refuses or fails gives way to the next, and all that were asked are listened to until the deadline.
One that missed is asked after the others for a while. Who does not know EDNS is asked without it (RFC 6891
section 7). After mere silence a question with DO is asked with EDNS once more before that, since an answer
without EDNS has no signatures.

Options of the file hold for the servers that it names (resolv.conf(5)): ``use-vc``, ``timeout:n``,
``attempts:n`` and ``rotate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loguru import logger

from actors.messages import NameServerAnswered
from netstack.dns_wire import TRUNCATED, MalformedMessageError, WireMessage
from netstack.name_servers import NameServer, ResolverOptions, parse_options, parse_resolv_conf
from transport.turns import TaskTurns

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from netstack.egress import EgressPolicy

RESOLV_CONF = Path("/etc/resolv.conf")

RELOAD_INTERVAL = 5.0
"""Seconds after which the file is read again, when something is next asked."""

MAX_RESOLV_CONF = 64 * 1024
"""Bytes of the file that are read."""

UDP_TIMEOUT = 1.5
"""Seconds after which the next is asked too; guests' resolvers wait 5 s in all."""

TCP_TIMEOUT = 3.0
"""Seconds for connecting and answering, where a cut answer was had by UDP."""

DEADLINE = 9.0
"""Seconds for all attempts together; after two tries of its own the guest has given up."""

LONGEST_DEADLINE = 30.0
"""Seconds for all attempts where the file's timeout asks for more than DEADLINE."""

ROUNDS = 2
"""How often each server is asked: datagrams get lost."""

MAX_OPEN = 4
"""Sockets that one question holds; a further attempt ends the oldest."""

REST = 30.0
"""Seconds for which a server that missed is asked after the others."""

PLAIN_TIME = 900.0
"""Seconds for which a server that refused EDNS is asked without."""

SILENCE_TIME = 300.0
"""The same of one that was silent with EDNS and answered without it: each question would wait for that
anew. Not those with DO, for it may have been a datagram that was lost."""

MAX_STRAYS = 16
"""Datagrams on one socket that answer something else; after these it is rather an attack."""

STEPS_PER_TURN = 4
"""Sockets opened and answers taken in a turn of the event loop: some 0.2 ms each."""

MAX_RESPONSE = 65_535
_Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""A socket address as ``getaddrinfo`` gives it."""
MOST_BESIDE_A_CODE = 16
"""Records of a response that is looked through for the upper bits of its code (RFC 6891, section 6.1.3)."""
_HEADER = 12
_RECORD_COUNTS = struct.Struct("!HHH")
_RESPONSE = 0x80
_RCODE = 0x0F
_WITHOUT_EDNS = frozenset({1, 4, 16})
"""FORMERR, NOTIMP and BADVERS: what servers say that do not know EDNS, or not ours."""
_SERVFAIL = 2
_OPT_LENGTH = 11
_DNSSEC_OK_AT = -4
"""The byte of a query of ours, OPT being last, whose highest bit is DO."""
_DNSSEC_OK = 0x80
_LOOPBACK = (NameServer("127.0.0.1"),)
"""Who is asked where the file names nobody: resolv.conf(5)."""
_FINAL = frozenset({0, 3})
"""NOERROR and NXDOMAIN are answers; whatever else a server says, the next may know more."""


class _Turn(NamedTuple):
    """A server that is asked, and whether without EDNS."""

    server: NameServer
    plain: bool


class NoResolvers:
    """Knows nothing; implements ``actors.ports.Upstream`` for a LAN without a way out."""

    def ask(self, query: bytes, token: int, asker: Mailbox) -> None:  # noqa: ARG002 - as HostResolvers
        """Say at once that there is no answer."""
        asker.tell(NameServerAnswered(token, None))

    def may_show(self, address: str) -> bool:  # noqa: ARG002 - as HostResolvers
        """No address outside can be reached."""
        return False

    def close(self) -> None:
        """Do nothing: nobody is asked."""


class HostResolvers:
    """Asks the host's name servers; implements ``actors.ports.Upstream``."""

    def __init__(
        self,
        servers: Sequence[NameServer],
        policy: EgressPolicy,
        counters: Counters,
        resolv_conf: Path = RESOLV_CONF,
        turnstile: asyncio.Semaphore | None = None,
    ) -> None:
        """Ask ``servers``, or if there are none those of ``resolv_conf``. Needs a running event loop.

        ``turnstile`` bounds the questions at a time of all who share it; others wait, within the deadline.
        """
        self._steps = TaskTurns(STEPS_PER_TURN)
        self._turnstile = contextlib.nullcontext() if turnstile is None else turnstile
        self._named = tuple(servers)
        self._policy = policy
        self._counters = counters
        self._file = resolv_conf
        self._loop = asyncio.get_running_loop()
        self._found: tuple[NameServer, ...] = ()
        self._options = ResolverOptions()
        """Those of the file; the defaults where the operator named the servers."""
        self._turn = 0
        """The server that is first, where they rotate."""
        self._read_again_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._rests_until: dict[NameServer, float] = {}
        """Servers that missed."""
        self._plain_until: dict[NameServer, float] = {}
        """Servers that refused EDNS."""
        self._silent_until: dict[NameServer, float] = {}
        """Servers that were silent with EDNS, and not without it."""
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, servers: Sequence[NameServer], policy: EgressPolicy) -> None:
        """Ask these servers from now on, and show guests what this policy lets them reach."""
        self._policy = policy
        if self._named != tuple(servers):
            self._named = tuple(servers)
            self._options = ResolverOptions()
            self._read_again_at = 0.0

    def ask(self, query: bytes, token: int, asker: Mailbox) -> None:
        """Send a query (its id is replaced); tells ``asker`` NameServerAnswered once, within some seconds."""
        task = self._loop.create_task(self._answer(query, token, asker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def may_show(self, address: bytes) -> bool:
        """Whether a guest may be told this address (4 or 16 bytes): whether it could reach it."""
        return self._policy.decide(address).allowed

    def close(self) -> None:
        """Stop asking; nobody is told anything any more."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, query: bytes, token: int, asker: Mailbox) -> None:
        response = None
        try:
            async with asyncio.timeout(DEADLINE) as deadline, self._turnstile:
                servers = await self._servers()
                patience = (self._options.timeout or 0) * (self._options.attempts or ROUNDS) * len(servers)
                if patience > DEADLINE:
                    deadline.reschedule(self._loop.time() + min(patience, LONGEST_DEADLINE))
                response = await self._ask_all(query, servers)
        except TimeoutError:
            self._counters.add("dns.upstream.deadlines")
        except Exception:  # noqa: BLE001 - whatever it was, the guest is to hear of it in time
            self._counters.add("dns.upstream.mishaps")
            logger.opt(exception=True).warning("a question to the name servers failed")
        if response is None:
            self._counters.add("dns.upstream.unanswered")
        asker.tell(NameServerAnswered(token, response))

    async def _ask_all(self, query: bytes, servers: Sequence[NameServer]) -> bytes | None:
        """Ask one server after the other; what a failing one said is better than nothing."""
        plan = self._plan(query, servers)
        attempts: dict[asyncio.Task[bytes], _Turn] = {}
        silent: set[_Turn | None] = set()
        """Turns in which there was no answer in time."""
        cut: set[NameServer] = set()
        """Those with more to say, but not by TCP; to ask them once more does not change that."""
        failure = None
        try:
            while plan or not cut.issuperset(turn.server for turn in attempts.values()):
                latest = plan.pop(0) if plan else None
                if latest is not None:
                    self._begin(latest, query, attempts)
                patience = self._options.timeout or UDP_TIMEOUT
                done, _ = await asyncio.wait(
                    attempts,
                    timeout=patience if plan or failure is not None else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    self._missed(None if latest is None else latest.server)
                    silent.add(latest)
                    if not plan:
                        break
                for attempt in done:
                    turn = attempts.pop(attempt)
                    response = self._outcome(attempt, turn, silent)
                    if response is None:
                        continue
                    if _rcode(response) in _FINAL and not response[2] & TRUNCATED:
                        return response
                    if response[2] & TRUNCATED:
                        cut.add(turn.server)
                        plan = [other for other in plan if other.server != turn.server]
                    if failure is None or not failure[2] & TRUNCATED:
                        failure = response
        finally:
            for attempt in attempts:
                attempt.cancel()
        return failure

    def _begin(self, turn: _Turn, query: bytes, attempts: dict[asyncio.Task[bytes], _Turn]) -> None:
        """Ask a server, in place of the one that was asked first if there are too many."""
        if len(attempts) == MAX_OPEN:
            oldest = next(iter(attempts))
            del attempts[oldest]
            oldest.cancel()
        attempts[self._loop.create_task(self._ask_one(turn, query))] = turn

    def _plan(self, query: bytes, servers: Sequence[NameServer]) -> list[_Turn]:
        """List who is asked one after the other; without EDNS in the last round.

        With DO that round is one more, since signatures come by EDNS only. Who is asked once only is asked
        once more without it: the C library, to which ``attempts`` speaks, asks without it at once.
        """
        rounds = max(self._options.attempts or ROUNDS, ROUNDS) + _wants_signatures(query)
        return [_Turn(server, number == rounds - 1) for number in range(rounds) for server in servers]

    def _outcome(
        self, attempt: asyncio.Task[bytes], turn: _Turn, silent: Container[_Turn | None]
    ) -> bytes | None:
        """Take what a server said, if anything, and remember how it did; ``silent`` are former turns."""
        server, plain = turn
        try:
            response = attempt.result()
        except (OSError, ValueError):  # TimeoutError is an OSError; ValueError: an address with a bad scope
            self._missed(server)
            return None
        self._rests_until.pop(server, None)
        if plain and _Turn(server, plain=False) in silent:
            self._silent_until[server] = self._loop.time() + SILENCE_TIME
        if _rcode(response) not in _FINAL:
            self._counters.add("dns.upstream.failures")
        return response

    def _missed(self, server: NameServer | None) -> None:
        self._counters.add("dns.upstream.no_answer")
        if server is not None:
            self._rests_until[server] = self._loop.time() + REST

    async def _ask_one(self, turn: _Turn, query: bytes) -> bytes:
        """Ask one server; with EDNS unless it is known not to take that."""
        server, now = turn.server, self._loop.time()
        plain = turn.plain or now < self._plain_until.get(server, 0.0)
        if plain or (now < self._silent_until.get(server, 0.0) and not _wants_signatures(query)):
            return await self._exchange(server, _without_edns(query))
        response = await self._exchange(server, query)
        if not _refuses_edns(response):
            return response
        self._counters.add("dns.upstream.without_edns")
        response = await self._exchange(server, _without_edns(query))
        if _rcode(response) in _FINAL:
            # It was EDNS then, and not the name.
            self._plain_until[server] = self._loop.time() + PLAIN_TIME
        return response

    async def _exchange(self, server: NameServer, query: bytes) -> bytes:
        """Ask by UDP, then by TCP if the answer was cut; the cut one where that fails."""
        query = secrets.token_bytes(2) + query[2:]
        if self._options.use_vc:
            return await self._by_tcp(server, query)  # which, as UDP, has until the deadline
        response = await self._by_udp(server, query)
        if not response[2] & TRUNCATED:
            return response
        self._counters.add("dns.upstream.by_tcp")
        try:
            async with asyncio.timeout(TCP_TIMEOUT):
                return await self._by_tcp(server, query)
        except OSError:
            self._counters.add("dns.upstream.cut")
            return response

    async def _by_udp(self, server: NameServer, query: bytes) -> bytes:
        await self._steps.next()
        host_socket, address = _opened(server, socket.SOCK_DGRAM)
        with host_socket:
            host_socket.connect(address)
            await self._loop.sock_sendall(host_socket, query)
            for _ in range(MAX_STRAYS):
                response = await self._loop.sock_recv(host_socket, MAX_RESPONSE)
                await self._steps.next()
                if _answers(response, query):
                    return response
                self._counters.add("dns.upstream.strays")
        raise OSError("too many datagrams that answer something else")

    async def _by_tcp(self, server: NameServer, query: bytes) -> bytes:
        await self._steps.next()
        host_socket, address = _opened(server, socket.SOCK_STREAM)
        with host_socket:
            await self._loop.sock_connect(host_socket, address)
            await self._loop.sock_sendall(host_socket, len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await self._read(host_socket, 2), "big")
            response = await self._read(host_socket, length)
        if not _answers(response, query):
            raise OSError("an answer to something else")
        return response

    async def _read(self, host_socket: socket.socket, size: int) -> bytes:
        """Read exactly so much, and be woken once it is there: many servers may send a byte now and then."""
        data = b""
        while len(data) < size:
            missing = size - len(data)
            host_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, missing)
            some = await self._loop.sock_recv(host_socket, missing)
            if not some:
                raise OSError("the connection ended within the answer")
            data += some
        return data

    async def _servers(self) -> list[NameServer]:
        """List the servers, those that missed lately last."""
        servers = self._named
        if not servers:
            if self._reading is None and self._loop.time() >= self._read_again_at:
                self._reading = self._loop.create_task(self._read_file())
            if self._reading is not None:
                # Everyone waits for the same reading, and none of them ends it by giving up.
                await asyncio.shield(self._reading)
            servers = self._found or _LOOPBACK
        now = self._loop.time()
        for marks in (self._rests_until, self._plain_until, self._silent_until):
            for server in [server for server, until in marks.items() if until <= now]:
                del marks[server]
        if self._options.rotate:
            self._turn = (self._turn + 1) % len(servers)
            servers = servers[self._turn :] + servers[: self._turn]
        return sorted(servers, key=self._rests_until.__contains__)

    async def _read_file(self) -> None:
        try:
            text = await asyncio.to_thread(read_resolv_conf, self._file)
        except OSError:
            # A file that is just being replaced; the servers it named last are as good as any.
            self._counters.add("dns.upstream.file_unread")
        else:
            self._found = parse_resolv_conf(text)
            self._options = parse_options(text)
        self._read_again_at = self._loop.time() + RELOAD_INTERVAL
        self._reading = None


def read_resolv_conf(path: Path = RESOLV_CONF) -> str:
    """Read the start of the file, up to MAX_RESOLV_CONF bytes. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MAX_RESOLV_CONF).decode("utf-8", "replace")


def _opened(server: NameServer, kind: socket.SocketKind) -> tuple[socket.socket, _Address]:
    """Open a socket towards a server, which is to be connected to the address. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        server.host, server.port, type=kind, flags=socket.AI_NUMERICHOST
    )[0]
    host_socket = socket.socket(family, kind, protocol)
    host_socket.setblocking(False)
    return host_socket, address


def _answers(response: bytes, query: bytes) -> bool:
    """Whether this is a response with the id and the question of ``query``, as it was written."""
    if len(response) >= _HEADER and response[4:6] == b"\0\0" and _rcode(response) not in _FINAL:
        # Some say what is wrong without repeating the question.
        return response[:2] == query[:2] and response[2] & _RESPONSE != 0
    end = _HEADER
    while query[end]:
        end += 1 + query[end]
    end += 5  # the root label, type and class
    return (
        len(response) >= _HEADER
        and response[:2] == query[:2]
        and response[2] & _RESPONSE != 0
        and response[4:6] == query[4:6]
        and response[_HEADER:end] == query[_HEADER:end]
    )


def _has_many_records(response: bytes) -> bool:
    """Whether a response has more records than one that only tells a code; walking 64 KB takes 2 ms."""
    answers, authority, additional = _RECORD_COUNTS.unpack_from(response, 6)
    return bool(answers + authority + additional > MOST_BESIDE_A_CODE)


def _rcode(response: bytes) -> int:
    """Code of a response, with the upper bits of its OPT record where it can be read."""
    if _has_many_records(response):
        return response[3] & _RCODE
    try:
        return WireMessage(response).rcode()
    except MalformedMessageError:
        return response[3] & _RCODE


def _refuses_edns(response: bytes) -> bool:
    """Whether a server says that it cannot take EDNS: by a code, or by SERVFAIL without an OPT record."""
    code = _rcode(response)
    if code != _SERVFAIL:
        return code in _WITHOUT_EDNS
    if _has_many_records(response):
        return False
    try:
        return not WireMessage(response).options()
    except MalformedMessageError:
        return True


def _wants_signatures(query: bytes) -> bool:
    """Whether a query of ours has DO."""
    return bool(query[_DNSSEC_OK_AT] & _DNSSEC_OK)


def _without_edns(query: bytes) -> bytes:
    """Take the OPT record off a query of ours, which is the last and only one beside the question."""
    return query[:10] + b"\0\0" + query[12:-_OPT_LENGTH]
