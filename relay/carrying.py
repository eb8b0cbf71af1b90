"""Sessions that this worker carries for others of its machine, and those that others carry for it.

A client that comes back may arrive at another worker than the one that has its port (``docs/scale.md``). That
other one is the *carrier*: it has the client's connection, and a ``relay.passage``, by which the session's
PeerActor passes on what comes. The *holder* has a ``relay.carried_session``, which is to its actors what any
session is. What a turn of the actors has brought for one session travels together
(``netstack.carried_wire``).

The holder knows what waits at the carrier from what that tells: after each batch, once half of its queue has
left, and at every tick. A tick also says what may have got lost: the holder's last sum, the carrier's state.
An end that got lost is told again in answer to what still comes.

Bounds: MAX_SESSIONS each way, UNDER_WAY bytes of each session towards the client, and from it what a turn
brings. The trunk's own queue is bounded, too. Counts ``carried.*``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from actors.close_codes import CloseCode
from actors.handler_errors import HandlerErrors
from actors.messages import ClosePeer, DatagramsFromClient, DatagramsLost, SessionClosed
from actors.runtime import tell_alive
from actors.trunk_messages import NotCarried
from netstack import carried_wire as wire
from netstack.malformed import MalformedPacket
from netstack.room_wire import Kind, pack_head, read_head
from relay.carried_end import Worker
from relay.carried_session import CarriedSession
from relay.passage import Passage
from relay.session_terms import pack_terms, read_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.ports import Session, SessionTerms
    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from relay.carried_end import End

MAX_SESSIONS = 4096
"""As many as a worker holds connections."""

MAX_STATE = 512
"""Bytes of an Open beside its terms, and some more."""

ANSWERED_WITHIN = 1.0
"""Seconds that a holder has to take a session."""

GONE = "the process that had this session's port has ended; connect again"

Accept: TypeAlias = "Callable[[Session, SessionTerms], Mailbox]"
"""Gives a session to a room; returns who is told what comes from its client."""


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
        self._now = now
        self._head = pack_head(Kind.CARRIED, *own)
        self._incarnation_of = incarnation_of
        self._work_at_end = work_at_end
        self._counters = counters
        self._handler_errors = HandlerErrors("carried", counters)
        self._rooms: dict[str, Accept] = {}
        self._passages: dict[int, Passage] = {}
        self._sessions: dict[tuple[Worker, int], CarriedSession] = {}
        """By carrier and number."""
        self._busy: dict[End, None] = {}
        """Those that have something to tell at the end of the turn."""
        self._answers: list[tuple[int, bytes]] = []
        """To what belongs to no session here."""

    def now(self) -> float:
        """Tell the monotonic time."""
        return self._now()

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
        packed = pack_terms(session.path, terms)
        if len(self._passages) >= MAX_SESSIONS or len(packed) > wire.MAX_DATAGRAM - MAX_STATE:
            self._counters.add("carried.refused")
            tell_alive(peer, NotCarried())
            return passage
        self._passages[passage.number] = passage
        self._counters.add("carried.passages")
        passage.open(packed)
        return passage

    def forget(self, end: End) -> bool:
        """Forget one that has ended; whether it was known."""
        if isinstance(end, CarriedSession):
            return self._sessions.pop((end.other, end.id), None) is not None
        known = isinstance(end, Passage) and self._passages.get(end.number) is end
        if isinstance(end, Passage) and known:
            end.is_open = False
            del self._passages[end.number]
        return known

    def fitting(self, datagrams: list[bytes]) -> list[bytes]:
        """Leave out datagrams that no message takes."""
        found = [datagram for datagram in datagrams if len(datagram) <= wire.MAX_DATAGRAM]
        if len(found) < len(datagrams):
            self.drop("too_long", len(datagrams) - len(found))
        return found

    def drop(self, reason: str, datagrams: int) -> None:
        """Count datagrams that are dropped."""
        self._counters.add(f"carried.drop.{reason}", datagrams)

    def work_for(self, end: End) -> None:
        """Take up at the end of the turn what there is to be told."""
        self._busy[end] = None
        self._work_at_end()

    # -- messages -----------------------------------------------------------------------------------

    def take_outgoing(self) -> Iterator[tuple[int, bytes]]:
        """Give up messages, each with its worker."""
        busy, self._busy = self._busy, {}
        for end in busy:
            try:
                bodies = list(end.messages())
            except Exception as error:  # noqa: BLE001 - a bug costs one session's messages
                self._handler_errors.note(error, self._now())
                continue
            for body in bodies:
                yield end.other.number, self._head + body
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
        if passage is None or passage.other != sender:
            if isinstance(said, wire.Down):
                self._answer(sender, wire.pack_ended(number, wire.Ended(0, "", lost=True)))
            return
        if isinstance(said, wire.Down):
            passage.take(said)
            return
        self.forget(passage)
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
        path, terms = read_terms(opened.terms)
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
                self.forget(session)
                tell_alive(session.peer, SessionClosed(code, reason, lost))

    def _answer(self, worker: Worker, body: bytes) -> None:
        if len(self._answers) < MAX_SESSIONS:
            self._answers.append((worker.number, body))
            self._work_at_end()

    # -- time ---------------------------------------------------------------------------------------

    def look(self) -> None:
        """End what belonged to workers that are gone."""
        lost = "the process that had its connection has ended"
        for session in [s for s in self._sessions.values() if not self._lives(s.other)]:
            self.forget(session)
            if session.peer is not None:
                tell_alive(session.peer, SessionClosed(0, lost, lost=True))
        for passage in [p for p in self._passages.values() if not self._lives(p.other)]:
            self.forget(passage)
            self._end(passage, CloseCode.SHUTDOWN, GONE)

    def _lives(self, worker: Worker) -> bool:
        return self._incarnation_of(worker.number) == worker.incarnation

    def tick(self) -> None:
        """Do what is due; to be called twice a second."""
        self.look()
        late = self._now() - ANSWERED_WITHIN
        for passage in list(self._passages.values()):
            if passage.answered or passage.opened_at > late:
                passage.report()
                continue
            self._counters.add("carried.unanswered")
            passage.end(0, "", lost=True)
            tell_alive(passage.peer, NotCarried())
        for session in self._sessions.values():
            session.repeat()
