"""The LAN's name server: local names at once, all others from the host's name servers through a cache.

Theory of operation
-------------------
A question is answered from the zone (guests' names, the gateway's, private reverse zones: these never leave
the LAN), from the cache, or it is asked upstream. Guests that ask the same thing at the same time wait for
one and the same answer, so a question that comes back to us by a loop (a host that uses this LAN's gateway
as its name server) ends there, and nobody can have many guesses at one answer at a time.

An answer is checked (is it to this question?), stripped of addresses that guests may not reach, in slices
when it is long, kept for as long as its TTLs say, and adapted to each guest (``netstack.dns_answers``).

Limits: QUERIES_PER_SECOND, WAITING_PER_PORT and SHARE for each session, WAITING and IN_FLIGHT for all, of
which sessions get less the more is taken (``netstack.shares``). What is over the first is dropped, since
resolvers ask again; where too many wait it is told SERVFAIL; over the others it waits in a queue of its
session, in those of all sessions that ask the same, and the sessions take turns. A question that took more
time than ORDINARY_COST, itself or the reading of its answer, counts as so many questions as could have been
answered in that time.

Accounting: ``dns.received`` = ``dns.local`` + ``dns.cached`` + ``dns.forwarded`` + ``dns.refused`` +
``dns.drop.*``; ``dns.forwarded`` = ``dns.answered`` + ``dns.failed`` + ``dns.abandoned`` + those waiting.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import dns.rcode
from loguru import logger

from actors.descriptions import Describe, NamesDescription
from actors.handler_errors import HandlerErrors
from actors.messages import (
    AnswersOutdated,
    ConnectionMade,
    DnsQuestions,
    DnsStreamOpened,
    Ipv6AddressesKnown,
    NameBound,
    NameForgotten,
    NameServerAnswered,
    PortClosed,
)
from actors.runtime import EventLoopActor, handles, tell_alive
from actors.token_bucket import TokenBucket
from actors.work_time import work_time
from netstack.dns_answers import Answer, accept, respond
from netstack.dns_cache import CachedAnswer, DnsCache
from netstack.dns_local import LocalNames
from netstack.dns_messages import Query, parse_query
from netstack.dns_wire import MalformedMessageError
from netstack.dns_zone import Zone
from netstack.ethernet import format_mac
from netstack.ipv4 import IPV4_LENGTH
from netstack.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Generator

    from actors.messages import DnsQuestion
    from actors.ports import Upstream
    from actors.settings import LanSettings
    from netstack.buffer_budget import BufferBudget
    from netstack.counters import Counters
    from netstack.dns_messages import Question

QUERIES_PER_SECOND = 100.0
"""For each session: a browser asks some dozens for one page."""

ORDINARY_COST = 0.002
"""Seconds of the relay's that a question may take, and as many that the reading of its answer may."""

READING = 0.002
"""Seconds of a turn for reading questions; of one that takes longer this is the only one."""

TELLING = 0.002
"""Seconds of a turn for telling what was answered: thousands may wait for one answer, each 0.1 ms."""

QUERY_BURST = 300.0
"""Queries of one session at once: all tabs of a browser that starts."""

WAITING_PER_PORT = 400
"""Queries of one session that may wait for name servers at a time, most of them in its queue."""

WAITING = 4096
"""Those of all sessions, of up to 11 KB each."""

SHARE = 100
"""Questions of one session to name servers at a time: silent servers hold each of them for some seconds."""

IN_FLIGHT = 500
"""Questions to name servers at a time, until their answers are looked at: each holds a socket of the host,
then up to 64 KB."""


class _Waiting(NamedTuple):
    """A guest's query that waits for an answer from outside."""

    port: int
    query: Query
    asked: DnsQuestion


class _Inspection(NamedTuple):
    """An answer that is being looked at."""

    token: int
    work: Generator[None, None, Answer]


class GoOn(NamedTuple):
    """DnsActor -> itself: look at the next slice of an answer."""


class ReadOn(NamedTuple):
    """DnsActor -> itself: read further questions."""


class TellOn(NamedTuple):
    """DnsActor -> itself: tell others who have waited for an answer."""


class _Port:
    """What is kept for one session."""

    __slots__ = ("queries",)

    def __init__(self, now: float) -> None:
        self.queries = TokenBucket(QUERIES_PER_SECOND, QUERY_BURST, now)


class DnsActor(EventLoopActor):
    """Answers the questions of one LAN's guests."""

    def __init__(
        self,
        upstream: Upstream,
        counters: Counters,
        settings: LanSettings,
        memory: BufferBudget | None = None,
    ) -> None:
        """Begin with the LAN's own names. Raises ValueError when the settings' domain is no name.

        ``memory`` is that of the caches of all LANs; None for a LAN alone.
        """
        super().__init__()
        self._upstream = upstream
        self._counters = counters
        self._zone = Zone(settings.own_names, settings.fixed_names)
        told = Zone(settings.gateway_names) if settings.isolated else self._zone
        network = IPv4Network(settings.network)
        self._network = (int(network.network_address), int(network.netmask))
        self._prefix = settings.ipv6_prefix
        networks: list[IPv4Network | IPv6Network] = [network]
        if self._prefix is not None:
            networks.append(IPv6Network((self._prefix + bytes(8), 64)))
        self._local = LocalNames(settings.domain, told, settings.dns_allow_private, networks)
        self._cache = DnsCache(memory=memory)
        self._limit = min(IN_FLIGHT, settings.max_questions)
        self._share = max(1, min(SHARE, self._limit // 2))
        self._ports: dict[int, _Port] = {}
        self._tokens = count()
        self._asked: dict[Question, int] = {}
        """Tokens of the questions in flight."""
        self._waiting: dict[int, tuple[Question, list[_Waiting]]] = {}
        """Who waits, by token."""
        self._owner: dict[int, int] = {}
        """Whose share a question in flight counts to: a port, by token."""
        self._in_flight = Shares(self._limit)
        self._waits = Shares(WAITING)
        """Queries that wait for answers from outside, by port."""
        self._queues: dict[int, deque[int]] = {}
        """Tokens that wait for room, by port; the port whose turn it is first.

        Some may have been asked by now in another's turn: no more than a session may ask for while nothing of
        its own is answered.
        """
        self._unread: dict[int, deque[DnsQuestion]] = {}
        """Questions that are yet to be read, by port; the port whose turn it is first.

        They are no more than rates and bursts let pass. A message to this actor is on its way while there are
        any.
        """
        self._inspections: deque[_Inspection] = deque()
        """Long answers and what came after them, in turn.

        A message to this actor is on its way while there are any.
        """
        self._untold: deque[tuple[_Waiting, CachedAnswer | None]] = deque()
        """Those who are yet to be told what the answer is, which still count as waiting.

        A message to this actor is on its way while there are any.
        """
        self._handler_errors = HandlerErrors("dns", counters)

    def on_stop(self) -> None:
        """Give the questions up, and what memory others may have use for."""
        self._upstream.close()
        self._cache.clear()

    # -- questions ----------------------------------------------------------------------------------

    @handles(AnswersOutdated)
    def _answers_outdated(self, _: AnswersOutdated) -> None:
        self._cache.clear()

    @handles(DnsQuestions)
    def _questions(self, message: DnsQuestions) -> None:
        self._counters.add("dns.received", len(message.questions))
        now = self.now()
        port = self._ports.get(message.port)
        if port is None:
            port = self._ports[message.port] = _Port(now)
        is_first = not self._unread
        for asked in message.questions:
            if port.queries.take(now):
                self._unread.setdefault(message.port, deque()).append(asked)
            else:
                self._counters.add("dns.drop.rate")
                _give_up(asked)
        if is_first:
            self._read()

    @handles(ReadOn)
    def _read(self, _message: ReadOn | None = None) -> None:
        """Read questions for READING of a turn, one of each session in turn; the others have later turns."""
        now = self.now()
        begun = started = work_time()
        while self._unread and started - begun < READING:
            number = next(iter(self._unread))
            questions, port = self._unread.pop(number), self._ports[number]
            asked = questions.popleft()
            if questions:
                self._unread[number] = questions
            try:
                self._counters.add(self._question(number, asked, now))
            except Exception as error:  # noqa: BLE001 - a bug costs one question, never the LAN
                self._handler_errors.note(error, now)
                _give_up(asked)
            started = self._charge(port, started)
        if self._unread:
            self.scheduler.after_sockets(partial(tell_alive, self.actor_ref, ReadOn()))

    def _charge(self, port: _Port, started: float) -> float:
        """Count work begun at ``started`` as questions, beyond what is ordinary; return ``work_time``."""
        now = work_time()
        excess = (now - started) / ORDINARY_COST - 1
        if excess > 0:
            port.queries.charge(excess)
        return now

    def _question(self, number: int, asked: DnsQuestion, now: float) -> str:
        """Deal with one query of a session; return the counter for what became of it."""
        query = parse_query(asked.query)
        if not isinstance(query, Query):
            if query is None:
                _give_up(asked)
                return "dns.drop.malformed"
            asked.reply(query)
            return "dns.refused"
        local = self._local.answer(query)
        if local is not None:
            asked.reply(query.render(local, over_stream=asked.over_stream, limit=asked.limit))
            return "dns.local"
        cached = self._cache.get(query.question, now)
        if cached is not None:
            _respond(query, asked, cached)
            return "dns.cached"
        if self._waits.held_by(number) >= WAITING_PER_PORT or not self._waits.take(number):
            asked.reply(query.refuse(dns.rcode.SERVFAIL))
            return "dns.refused"
        self._forward(_Waiting(number, query, asked))
        return "dns.forwarded"

    def _forward(self, waiting: _Waiting) -> None:
        """Let a query wait for its answer, and ask unless someone did."""
        question = waiting.query.question
        token = self._asked.get(question)
        if token is None:
            token = self._asked[question] = next(self._tokens)
            self._waiting[token] = (question, [])
        self._waiting[token][1].append(waiting)
        if token not in self._owner:
            # Whoever asked first may have no room left: nobody waits in another session's queue.
            self._queues.setdefault(waiting.port, deque()).append(token)
            self._ask_next()

    def _ask_next(self) -> None:
        """Ask what waits in the queues while there is room, one of each session in turn."""
        for port in list(self._queues):
            queue = self._queues[port]
            while queue:
                token = queue[0]
                if token in self._owner or token not in self._waiting:
                    queue.popleft()  # another session that wants to know it had its turn first
                    continue
                if self._in_flight.held_by(port) >= self._share or not self._in_flight.take(port):
                    break
                queue.popleft()
                self._owner[token] = port
                self._counters.add("dns.asked_upstream")
                self._upstream.ask(self._waiting[token][0].to_wire(), token, self.actor_ref)
                if len(self._queues) > 1:
                    break
            del self._queues[port]
            if queue:
                self._queues[port] = queue

    # -- answers ------------------------------------------------------------------------------------

    @handles(NameServerAnswered)
    def _answered(self, message: NameServerAnswered) -> None:
        if message.response is None:
            self._done(message.token, None)
        else:
            question, _ = self._waiting[message.token]
            if self._local.is_trusted(question.name):
                work = accept(message.response, question, None)
            else:
                work = accept(message.response, question, self._may_show, self._local.is_ours)
            inspection = _Inspection(message.token, work)
            if self._inspections:
                # Many may come in one turn, and the first slice has the parsing of up to 64 KB.
                self._inspections.append(inspection)
            else:
                self._inspect(inspection)

    def _inspect(self, inspection: _Inspection) -> None:
        """Do a slice of looking at an answer; the others of a long one have later turns of the loop."""
        answer = None
        port = self._ports.get(self._owner[inspection.token])
        started = work_time()
        try:
            next(inspection.work)
        except StopIteration as done:
            answer = done.value
        except MalformedMessageError:
            self._counters.add("dns.unusable_answers")
        except Exception as error:  # noqa: BLE001 - whatever a name server says, its guests get an answer
            self._handler_errors.note(error, self.now())
        else:
            if port is not None:
                self._charge(port, started)
            self._inspections.append(inspection)
            if len(self._inspections) == 1:
                self._inspect_in_next_turn()
            return
        if port is not None:
            self._charge(port, started)
        self._done(inspection.token, answer)

    def _inspect_in_next_turn(self) -> None:
        self.scheduler.after_sockets(partial(tell_alive, self.actor_ref, GoOn()))

    @handles(GoOn)
    def _go_on(self, _message: GoOn) -> None:
        inspection = self._inspections.popleft()
        if self._inspections:
            self._inspect_in_next_turn()
        self._inspect(inspection)

    def _done(self, token: int, answer: Answer | None) -> None:
        """Finish a question that was asked outside, and ask the next."""
        self._in_flight.give_back(self._owner.pop(token))
        self._finish(token, answer)
        self._ask_next()

    @handles(Describe)
    def _describe(self, _: Describe) -> NamesDescription:
        return NamesDescription(
            names={
                name: tuple(str(ip_address(address)) for address in addresses)
                for name, addresses in self._zone.guests().items()
            },
            cached=len(self._cache),
            in_flight=len(self._owner),
        )

    def _finish(self, token: int, answer: Answer | None) -> None:
        """Keep an answer, and have everyone told who waits for it, or that there is none."""
        question, everyone = self._waiting.pop(token)
        del self._asked[question]
        now = self.now()
        if answer is not None:
            if answer.addresses_taken_out:
                self._counters.add("dns.addresses_stripped", answer.addresses_taken_out)
            if answer.names_taken_out:
                self._counters.add("dns.names_stripped", answer.names_taken_out)
            evicted = self._cache.put(question, answer.wire, answer.lifetime, now)
            if evicted:
                self._counters.add("dns.cache_evictions", evicted)
        fresh = None if answer is None else CachedAnswer(answer.wire, 0)
        is_first = not self._untold
        self._untold += [(waiting, fresh) for waiting in everyone]
        if is_first:
            self._tell()

    @handles(TellOn)
    def _tell(self, _message: TellOn | None = None) -> None:
        """Tell those who have waited for answers, for TELLING of a turn; the others have later turns."""
        begun = work_time()
        while self._untold:
            self._tell_one(*self._untold.popleft())
            if work_time() - begun >= TELLING:
                break
        if self._untold:
            self.scheduler.after_sockets(partial(tell_alive, self.actor_ref, TellOn()))

    def _tell_one(self, waiting: _Waiting, answer: CachedAnswer | None) -> None:
        if waiting.port not in self._ports:
            self._counters.add("dns.abandoned")
            return
        self._waits.give_back(waiting.port)
        try:
            self._counters.add(_respond(waiting.query, waiting.asked, answer))
        except Exception as error:  # noqa: BLE001 - a bug costs one answer, never the LAN
            self._handler_errors.note(error, self.now())
            _give_up(waiting.asked)

    def _may_show(self, address: bytes) -> bool:
        """Whether an answer from outside may hold ``address``; the LAN's are not for others to give."""
        network, mask = self._network
        if len(address) == IPV4_LENGTH:
            own = int.from_bytes(address, "big") & mask == network
        else:
            own = address[:8] == self._prefix
        return not own and self._upstream.may_show(address)

    # -- names and ports ------------------------------------------------------------------------------

    @handles(NameBound)
    def _name_bound(self, message: NameBound) -> None:
        name = self._zone.bind(message.mac, message.address, message.name, granted=message.granted)
        if message.name:
            logger.debug("{} is called {!r}", format_mac(message.mac), name)

    @handles(Ipv6AddressesKnown)
    def _ipv6_addresses_known(self, message: Ipv6AddressesKnown) -> None:
        self._zone.set_ipv6(message.mac, message.addresses)

    @handles(DnsStreamOpened)
    def _stream_opened(self, message: DnsStreamOpened) -> None:
        tell_alive(message.flow, ConnectionMade())

    @handles(NameForgotten)
    def _name_forgotten(self, message: NameForgotten) -> None:
        self._zone.forget(message.mac)

    @handles(PortClosed)
    def _port_closed(self, message: PortClosed) -> None:
        """Forget the session; answers that it waits for go nowhere, unless another session asked the same."""
        self._ports.pop(message.port, None)
        unread = self._unread.pop(message.port, ())
        if unread:
            self._counters.add("dns.drop.session_ended", len(unread))
        self._waits.forget(message.port)
        for token in self._queues.pop(message.port, ()):
            if token in self._owner or token not in self._waiting:
                continue
            if not any(waiting.port in self._ports for waiting in self._waiting[token][1]):
                self._finish(token, None)  # else it stands in the queues of those others, too
        self._ask_next()


def _give_up(asked: DnsQuestion) -> None:
    """Leave a question unanswered; a stream, which counts them, is told that nothing comes."""
    if asked.over_stream:
        asked.reply(b"")


def _respond(query: Query, asked: DnsQuestion, answer: CachedAnswer | None) -> str:
    """Give a guest the answer, or SERVFAIL where there is none; return the counter for it."""
    if answer is None:
        asked.reply(query.refuse(dns.rcode.SERVFAIL))
        return "dns.failed"
    size = query.size(over_stream=asked.over_stream, limit=asked.limit)
    asked.reply(respond(query, answer.wire, answer.age, size))
    return "dns.answered"
