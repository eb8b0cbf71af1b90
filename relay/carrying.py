"""Sessions that this worker carries for others of its machine, and those that others carry for it.

A client that comes back may arrive at another worker than the one that has its port (``docs/scale.md``). That
other one is the *carrier*: it has the client's connection, and a ``Passage``, by which the session's
PeerActor passes on what comes. The *holder* has a ``CarriedSession``, which is to its actors what any session
is. What a turn of the actors has brought for one session travels together (``netstack.carried_wire``).

The holder knows what waits at the carrier from what that tells: after each batch, once half of its queue has
left, and at every tick. A tick also says what may have got lost: the holder's last sum, the carrier's state.
An end that got lost is told again in answer to what still comes.

Bounds: MAX_SESSIONS each way, UNDER_WAY bytes of each session towards the client, and from it what a turn
brings. The trunk's own queue is bounded, too. Counts ``carried.*``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from actors.close_codes import CloseCode
from actors.descriptions import PathState
from actors.messages import (
    ClosePeer,
    DatagramsFromClient,
    DatagramsLost,
    SessionClosed,
)
from actors.port_policy import Guard, PortPolicy
from actors.ports import SessionTerms
from actors.runtime import tell_alive
from actors.trunk_messages import NotCarried
from netstack import carried_wire as wire
from netstack.encapsulation import CONTROL
from netstack.malformed import MalformedPacket
from netstack.room_wire import Kind, pack_head, read_head
from transport.quic.session import QUEUE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actors.ports import Session
    from actors.runtime import Mailbox
    from netstack.counters import Counters

MAX_SESSIONS = 4096
"""As many as a worker holds connections."""

UNDER_WAY = QUEUE_BYTES
"""Bytes that are on their way to a client or wait at its carrier, whose queue would take no more."""

FOR_CONTROL = 16 * 1024
"""Bytes beyond that for control messages: a client whose heartbeats bring nothing gives its session up."""

_CONTROL = bytes((CONTROL,))

MAX_FROM_CLIENT = 8192
"""Datagrams of one client in one turn."""

ANSWERED_WITHIN = 1.0
"""Seconds that a holder has to take a session."""

GONE = "the process that had this session's port has ended; connect again"

Accept: TypeAlias = "Callable[[Session, SessionTerms], Mailbox]"
"""Gives a session to a room; returns who is told what comes from its client."""


class Worker(NamedTuple):
    """A worker's life."""

    number: int
    incarnation: int


class Passage:
    """A session of a client here whose port another worker has; implements ``actors.ports.Passage``."""

    def __init__(
        self, carrying: Carrying, holder: Worker, room: str, session: Session, peer: Mailbox
    ) -> None:
        self.number = session.id
        self.holder = holder
        self.session = session
        self.peer = peer
        self.opened_at = carrying.now()
        self.is_open = False
        self.answered = False
        """Whether the holder has taken the session."""
        self._carrying = carrying
        self._room = room
        self._terms: bytes | None = None
        """Those of an Open that has yet to be sent."""
        self._received = 0
        self._told_limit = session.datagram_limit
        self._up: list[bytes] = []
        self._lost: list[tuple[bytes, float]] = []
        self._tells_state = False
        self._ended: wire.Ended | None = None

    def open(self, terms: bytes) -> None:
        """Have the holder asked to take the session."""
        self.is_open = True
        self._terms = terms
        self._carrying.work_for(self)

    def pass_on(self, datagrams: Sequence[bytes]) -> None:
        """Pass on what the client has sent."""
        if self.is_open:
            self._up += datagrams
            self._carrying.work_for(self)

    def lost(self, datagrams: Sequence[tuple[bytes, float]]) -> None:
        """Pass on what QUIC takes as lost."""
        if self.is_open:
            self._lost += datagrams
            self._carrying.work_for(self)

    def end(self, code: int, reason: str, *, lost: bool) -> None:
        """Say that the session is gone."""
        if self._carrying.forget_passage(self):
            self._ended = wire.Ended(code, reason, lost)
            self._carrying.work_for(self)

    def report(self) -> None:
        """Tell the holder what waits here."""
        if self.is_open:
            self._tells_state = True
            self._carrying.work_for(self)

    def take(self, down: wire.Down) -> None:
        """Give the client what the holder sends."""
        self.answered = True
        self._received = down.total
        if down.datagrams:
            self.session.send(down.datagrams)
            self.session.call_when_writable(self.report)
        if self.session.datagram_limit != self._told_limit:
            self.report()

    def messages(self) -> Iterator[bytes]:
        """Give up what the holder is to be told."""
        if self._terms is not None:
            yield wire.pack_open(self.number, wire.Open(self._room, self._state(), self._terms))
            self._terms = None
        up, self._up = self._carrying.fitting(self._up), []
        if len(up) > MAX_FROM_CLIENT:
            self._carrying.drop("from_client_queue_full", len(up) - MAX_FROM_CLIENT)
            del up[MAX_FROM_CLIENT:]
        for batch in wire.batches(up):
            yield wire.pack_up(self.number, batch)
        if self._lost:
            yield wire.pack_lost(self.number, self._lost)
            self._lost = []
        if self._ended is not None:
            yield wire.pack_ended(self.number, self._ended)
        elif self._tells_state:
            yield wire.pack_state(self.number, self._state())
        self._tells_state = False

    def _state(self) -> wire.State:
        session = self.session
        path = session.path_state()
        self._told_limit = session.datagram_limit
        return wire.State(
            self._received,
            session.queued_bytes,
            session.room,
            session.datagram_limit,
            session.last_heard,
            path.round_trip,
            path.packets_sent,
            path.packets_lost,
            path.carrier,
            session.remote,
        )


class CarriedSession:
    """A session whose client's connection another worker has; implements ``actors.ports.Session``."""

    def __init__(
        self, carrying: Carrying, carrier: Worker, number: int, path: str, state: wire.State
    ) -> None:
        self.id = number
        self.path = path
        self.carrier = carrier
        self.peer: Mailbox | None = None
        self._carrying = carrying
        self._state = state
        self._sent = 0
        """The sum of all bytes."""
        self._pending: list[bytes] = []
        self._repeats = False
        """Whether the sum is told though there is nothing to be sent."""
        self._on_writable: Callable[[], object] | None = None
        self._closed: wire.Close | None = None

    @property
    def remote(self) -> str:
        """The client's present address, as the carrier told it last; so are all others."""
        return self._state.remote

    @property
    def datagram_limit(self) -> int:
        """Bytes that one datagram may carry."""
        return self._state.datagram_limit

    @property
    def room(self) -> int:
        """Bytes that producers which can wait should have queued at most."""
        return self._state.room

    @property
    def last_heard(self) -> float:
        """Monotonic time of the client's last packet: workers of one machine have one clock."""
        return self._state.last_heard

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here, are on their way to the carrier, or wait there."""
        return self._sent - self._state.received + self._state.queued

    @property
    def writable(self) -> bool:
        """Whether a producer should go on reading from its source."""
        return self.queued_bytes < self._state.room // 2

    def path_state(self) -> PathState:
        """Tell what carries the session."""
        state = self._state
        return PathState(state.carrier, state.round_trip, state.packets_sent, state.packets_lost)

    def call_when_writable(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, when producers may go on."""
        self._on_writable = callback

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams for the end of this turn; what exceeds the bound is dropped."""
        queued, dropped = self.queued_bytes, 0
        for datagram in datagrams:
            size = len(datagram)
            if queued + size > UNDER_WAY and (
                datagram[:1] != _CONTROL or queued + size > UNDER_WAY + FOR_CONTROL
            ):
                dropped += 1
                continue
            queued += size
            self._pending.append(datagram)
            self._sent += size
        if dropped:
            self._carrying.drop("queue_full", dropped)
        self._carrying.work_for(self)

    def close(self, code: int = 0, reason: str = "") -> None:
        """Have the carrier close the session."""
        if self._carrying.forget_session(self):
            self._closed = wire.Close(code, reason)
            self._carrying.work_for(self)

    def hear(self, state: wire.State) -> None:
        """Note what the carrier tells, and wake who waits for it."""
        self._state = state
        if self._on_writable is not None and self.writable:
            callback, self._on_writable = self._on_writable, None
            callback()

    def repeat(self, *, always: bool = False) -> None:
        """Tell the sum again, unless the carrier is known to have seen it."""
        if always or self._sent != self._state.received:
            self._repeats = True
            self._carrying.work_for(self)

    def messages(self) -> Iterator[bytes]:
        """Give up what the carrier is to be told."""
        pending, self._pending = self._carrying.fitting(self._pending), []
        total = self._sent - sum(map(len, pending))
        for batch in wire.batches(pending):
            total += sum(map(len, batch))
            yield wire.pack_down(self.id, total, batch)
        if self._repeats and not pending:
            yield wire.pack_down(self.id, total, ())
        self._repeats = False
        if self._closed is not None:
            yield wire.pack_close(self.id, self._closed)


class Carrying:
    """All of one worker."""

    def __init__(
        self,
        own: Worker,
        *,
        now: Callable[[], float],
        incarnation_of: Callable[[int], int | None],
        work_at_end: Callable[[], object],
        counters: Counters,
    ) -> None:
        """``incarnation_of`` tells of which life a worker is, None for one that is not.

        ``work_at_end`` has :meth:`take_outgoing` called at the end of this turn, or the next.
        """
        self.now = now
        self._head = pack_head(Kind.CARRIED, *own)
        self._incarnation_of = incarnation_of
        self._work_at_end = work_at_end
        self._counters = counters
        self._rooms: dict[str, Accept] = {}
        self._passages: dict[int, Passage] = {}
        self._sessions: dict[tuple[Worker, int], CarriedSession] = {}
        """By carrier and number."""
        self._busy: dict[Passage | CarriedSession, None] = {}
        """Those that have something to tell at the end of the turn."""
        self._answers: list[tuple[int, bytes]] = []
        """To what belongs to no session here."""

    # -- of rooms and sessions ----------------------------------------------------------------------

    def accept_by(self, room: str, accept: Accept | None) -> None:
        """Give sessions of a room that come from carriers to ``accept``; None refuses them."""
        if accept is None:
            self._rooms.pop(room, None)
        else:
            self._rooms[room] = accept

    def carry(self, worker: int, room: str, session: Session, terms: SessionTerms, peer: Mailbox) -> Passage:
        """Begin to carry a session for a worker; where that cannot be, ``peer`` is told so."""
        holder = Worker(worker, self._incarnation_of(worker) or 0)
        passage = Passage(self, holder, room, session, peer)
        packed = _pack_terms(session.path, terms)
        if len(self._passages) >= MAX_SESSIONS or len(packed) > wire.MAX_DATAGRAM - MAX_STATE:
            self._counters.add("carried.refused")
            tell_alive(peer, NotCarried())
            return passage
        self._passages[passage.number] = passage
        self._counters.add("carried.passages")
        passage.open(packed)
        return passage

    def forget_passage(self, passage: Passage) -> bool:
        """Forget one that has ended; whether it was known."""
        known = self._passages.get(passage.number) is passage
        if known:
            passage.is_open = False
            del self._passages[passage.number]
        return known

    def forget_session(self, session: CarriedSession) -> bool:
        """Forget one that has ended; whether it was known."""
        return self._sessions.pop((session.carrier, session.id), None) is not None

    def fitting(self, datagrams: list[bytes]) -> list[bytes]:
        """Leave out datagrams that no message takes."""
        found = [datagram for datagram in datagrams if len(datagram) <= wire.MAX_DATAGRAM]
        if len(found) < len(datagrams):
            self.drop("too_long", len(datagrams) - len(found))
        return found

    def drop(self, reason: str, datagrams: int) -> None:
        """Count datagrams that are dropped."""
        self._counters.add(f"carried.drop.{reason}", datagrams)

    def work_for(self, one: Passage | CarriedSession) -> None:
        """Take up at the end of the turn what there is to be told."""
        self._busy[one] = None
        self._work_at_end()

    # -- messages -----------------------------------------------------------------------------------

    def take_outgoing(self) -> Iterator[tuple[int, bytes]]:
        """Give up messages, each with its worker."""
        busy, self._busy = self._busy, {}
        for one in busy:
            worker = one.holder if isinstance(one, Passage) else one.carrier
            for body in one.messages():
                yield worker.number, self._head + body
        answers, self._answers = self._answers, []
        for number, body in answers:
            yield number, self._head + body

    def receive(self, message: bytes) -> None:
        """Take a message of another worker of this machine; what is malformed is counted and dropped."""
        try:
            _, number, incarnation = read_head(message)
            session, said = wire.read_carried(message)
            sender = Worker(number, incarnation)
            if self._incarnation_of(number) != incarnation:
                self._counters.add("carried.drop.unknown_worker")
            elif isinstance(said, wire.Down | wire.Close):
                self._from_holder(sender, session, said)
            elif isinstance(said, wire.Open):
                self._open(sender, session, said)
            else:
                self._from_carrier(sender, session, said)
        except MalformedPacket:
            self._counters.add("trunk.drop.malformed")

    def _from_holder(self, sender: Worker, number: int, said: wire.Down | wire.Close) -> None:
        passage = self._passages.get(number)
        if passage is None or passage.holder != sender:
            if isinstance(said, wire.Down):
                self._answer(sender, wire.pack_ended(number, wire.Ended(0, "", lost=True)))
            return
        if isinstance(said, wire.Down):
            passage.take(said)
            return
        self.forget_passage(passage)
        self._end(passage, said.code, said.reason)

    def _end(self, passage: Passage, code: int, reason: str) -> None:
        """Tell a session that its holder has it no longer, or never took it."""
        tell_alive(passage.peer, ClosePeer(code, reason) if passage.answered else NotCarried())

    def _open(self, sender: Worker, number: int, opened: wire.Open) -> None:
        accept = self._rooms.get(opened.room)
        if accept is None or len(self._sessions) >= MAX_SESSIONS or (sender, number) in self._sessions:
            self._counters.add("carried.refused")
            self._answer(sender, wire.pack_close(number, wire.Close(CloseCode.SHUTDOWN, GONE)))
            return
        path, terms = _read_terms(opened.terms)
        session = CarriedSession(self, sender, number, path, opened.state)
        self._sessions[sender, number] = session
        self._counters.add("carried.sessions")
        session.peer = accept(session, terms)
        session.repeat(always=True)

    def _from_carrier(
        self, sender: Worker, number: int, said: wire.State | wire.Up | wire.Lost | wire.Ended
    ) -> None:
        session = self._sessions.get((sender, number))
        if session is None or session.peer is None:
            if not isinstance(said, wire.Ended):
                self._answer(sender, wire.pack_close(number, wire.Close(CloseCode.SHUTDOWN, GONE)))
            return
        match said:
            case wire.State():
                session.hear(said)
            case wire.Up(datagrams):
                tell_alive(session.peer, DatagramsFromClient(datagrams))
            case wire.Lost(lost):
                tell_alive(session.peer, DatagramsLost(lost))
            case wire.Ended(code, reason, lost):
                self.forget_session(session)
                tell_alive(session.peer, SessionClosed(code, reason, lost))

    def _answer(self, worker: Worker, body: bytes) -> None:
        if len(self._answers) < MAX_SESSIONS:
            self._answers.append((worker.number, body))
            self._work_at_end()

    # -- time ---------------------------------------------------------------------------------------

    def look(self) -> None:
        """End what belonged to workers that are gone."""
        lost = "the process that had its connection has ended"
        for session in [s for s in self._sessions.values() if not self._lives(s.carrier)]:
            self.forget_session(session)
            if session.peer is not None:
                tell_alive(session.peer, SessionClosed(0, lost, lost=True))
        for passage in [p for p in self._passages.values() if not self._lives(p.holder)]:
            self.forget_passage(passage)
            self._end(passage, CloseCode.SHUTDOWN, GONE)

    def _lives(self, worker: Worker) -> bool:
        return self._incarnation_of(worker.number) == worker.incarnation

    def tick(self) -> None:
        """Do what is due; to be called twice a second."""
        self.look()
        late = self.now() - ANSWERED_WITHIN
        for passage in list(self._passages.values()):
            if passage.answered or passage.opened_at > late:
                passage.report()
                continue
            self._counters.add("carried.unanswered")
            passage.end(0, "", lost=True)
            tell_alive(passage.peer, NotCarried())
        for session in self._sessions.values():
            session.repeat()


MAX_STATE = 512
"""Bytes of an Open beside its terms, and some more."""


def _pack_terms(path: str, terms: SessionTerms) -> bytes:
    policy = None
    if terms.policy is not None:
        policy = asdict(terms.policy)
        policy["guards"] = terms.policy.guards.value
        if terms.policy.macs is not None:
            policy["macs"] = sorted(mac.hex() for mac in terms.policy.macs)
    expires = None if math.isinf(terms.expires) else terms.expires
    told = {"path": path, "name": terms.name, "token": terms.token, "expires": expires, "policy": policy}
    return json.dumps(told).encode()


def _read_terms(packed: bytes) -> tuple[str, SessionTerms]:
    """Undo :func:`_pack_terms`: the session's path, and the terms. Raises MalformedPacket."""
    try:
        told: dict[str, Any] = json.loads(packed)
        expires, policy = told["expires"], told["policy"]
        if policy is not None:
            macs = policy["macs"]
            policy["macs"] = None if macs is None else frozenset(map(bytes.fromhex, macs))
            policy["guards"] = Guard(policy["guards"])
            policy = PortPolicy(**policy)
        expires = math.inf if expires is None else float(expires)
        return str(told["path"]), SessionTerms(str(told["name"]), expires, policy, str(told["token"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise MalformedPacket("bad_room_message") from None
