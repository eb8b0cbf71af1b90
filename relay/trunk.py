"""The rooms of this process as parts of rooms that span all workers.

A ``Trunk`` keeps the state that the workers share (``netstack.room_state``) and tells each room's switch
what has changed there; one room's end of it is ``relay.room_link``. What actors announce, and the frames that
they send, is put together at the end of their turn: what is known of a guest goes out once, and frames for
one worker share messages. Frames are stamped; those that are older than STALE_AFTER are dropped: what they
belonged to has been sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from itertools import count, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from loguru import logger

from actors.handler_errors import HandlerErrors
from actors.runtime import tell_alive
from actors.trunk_messages import (
    AddressGranted,
    FramesFromTrunk,
)
from netstack.ipv4 import IPV4_LENGTH
from netstack.malformed import MalformedPacket
from netstack.message_ages import MessageAges
from netstack.room_events import (
    Elsewhere,
    Granted,
)
from netstack.room_state import DEAD_AFTER, HELLO_EVERY, MEMBER, RoomState
from netstack.room_wire import STAMPS, Kind, pack_frames, pack_head, read_frames
from relay.carried_end import Worker
from relay.carrying import Carrying
from relay.room_link import RoomLink
from relay.workers.place import NODE_SHIFT
from transport.end_of_turn import EndOfTurn
from transport.trunk.unix_trunk import UnixTrunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from netstack.room_wire import Binding
    from relay.workers.place import Place
    from transport.trunk.nats_servers import NatsServers
    from transport.trunk.nats_trunk import NatsTrunk
    from transport.turns import Turns


STALE_AFTER = 1.0
"""Seconds after which a frame that crosses workers is dropped."""

TOLD_WITHIN = 0.02
"""Seconds that what can wait to be announced does, for something to share its message."""

ANSWERED_WITHIN = 0.1
"""Seconds that a room's home has to say which address a guest may have."""

LOOK_EVERY = 0.005
"""Seconds between looks whether what others have announced is known, at the start."""

COMPLAINT_EVERY = 30.0
"""Seconds between two lines about another relay of this one's name."""

MAX_QUESTIONS = 1024
"""Questions to homes at a time; who asks beyond decides alone."""

MAX_HELD_FRAMES = 8192
"""Frames of one turn for one room of one worker."""

SHARES = 1 << 16
"""Of a pool, in a cluster of which nobody knows how large it is."""

NODES = 1 << 24
"""Numbers of nodes are less."""

KIND_AT = 1
"""Where a message says what kind it is."""

SENDER_AT = slice(2, 6)
"""Where it says of whom it is."""

_FRAMES, _CARRIED = bytes((Kind.FRAMES,)), bytes((Kind.CARRIED,))


class _Question(NamedTuple):
    asker: Mailbox
    mac: bytes
    until: float


class Trunk:
    """The part of one worker in the rooms of all; works on the running loop."""

    def __init__(
        self,
        place: Place,
        *,
        turns: Turns,
        counters: Counters,
        cluster: NatsServers | None = None,
        urls: Sequence[str] = (),
    ) -> None:
        """Begin to listen, and say Hello. ``urls`` are this machine's, for clients. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._turns = turns
        self._counters = counters
        self._handler_errors = HandlerErrors("trunk", counters)
        self._room_key = place.room_key
        self._has_waited = place.count == 1
        """Whether what other workers of this machine have announced was waited for."""
        self.number = place.worker
        self.share = (place.worker % SHARES, SHARES) if place.node else (place.number, place.count)
        """Of a pool, where addresses are given that nobody else decides about."""
        self._node = place.node
        self.state = RoomState(self.number, time.time_ns(), counters, urls)
        self._frames_head = pack_head(Kind.FRAMES, self.number, self.state.incarnation)
        self._ages = MessageAges()
        self.carrying = Carrying(
            Worker(self.number, self.state.incarnation),
            now=self._loop.time,
            incarnation_of=self.state.incarnation_of,
            work_at_end=self.work_at_end,
            counters=counters,
        )
        self._links: dict[str, RoomLink] = {}
        self.maker_of: Callable[[str], str] = lambda _room: ""
        """Tells the client's network for which a room was made here."""
        self.remember: Callable[[str, bytes, bytes, str], object] = lambda *_: None
        """Told room, MAC, IPv4 address and name of others' guests, also of rooms that are not here."""
        self._questions: dict[int, _Question] = {}
        """By token, the oldest first."""
        self._tokens = count(1)
        self._frames: dict[tuple[int, str], list[bytes]] = {}
        self._next_complaint = self._started + DEAD_AFTER
        """When another relay of this name is told of again; what ran here before may be heard at first."""
        self._flushes = EndOfTurn[RoomLink | None](turns.at_end, self._flush)
        """Of rooms in which something is to be announced; None: just of what is to be sent."""
        self._is_late = False
        """Whether the next flush sends also what has waited."""
        self._unix = None if place.count == 1 else self._open_unix(place)
        self._nats = None if cluster is None else self._open_nats(cluster)
        """Each takes what is for workers to which it leads."""
        self._timer: asyncio.TimerHandle | None = None
        self._answers_due: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        """Until what can wait to be announced is."""
        self._tick()

    def _open_unix(self, place: Place) -> UnixTrunk:
        return UnixTrunk(
            place.folder,
            place.number,
            place.count,
            first=self.number - place.number,
            on_message=self._receive_here,
            turns=self._turns,
            counters=self._counters,
        )

    def _open_nats(self, cluster: NatsServers) -> NatsTrunk:
        from transport.trunk.nats_trunk import NatsTrunk  # few relays are in a cluster

        return NatsTrunk(
            cluster,
            self.number,
            is_here=self._is_here,
            on_message=self._receive_from_afar,
            turns=self._turns,
            counters=self._counters,
        )

    def may_carry(self, worker: int) -> bool:
        """Whether sessions can be passed on to a worker."""
        return self._unix is not None and self._is_here(worker)

    def _is_here(self, worker: int) -> bool:
        """Whether a worker is on this machine."""
        return worker >> NODE_SHIFT == self._node

    def _send(self, worker: int | None, message: bytes) -> None:
        if self._unix is not None:
            self._unix.send(worker, message)
        if self._nats is not None:
            self._nats.send(worker, message)

    async def wait_closed(self) -> None:
        """Wait until what was said last is with the server, if there is one; after ``close``."""
        if self._nats is not None:
            await self._nats.close()

    def close(self) -> None:
        """Take all back that was announced, and say nothing more."""
        for link in list(self._links.values()):
            link.close()
        self._flush_late()
        for timer in (self._timer, self._answers_due):
            if timer is not None:
                timer.cancel()
        if self._unix is not None:
            self._unix.close()

    def lost(self, number: int) -> None:
        """Forget a worker of this machine of which it is known that its process has ended."""
        self.state.lost(self._node << NODE_SHIFT | number)
        self.carrying.look()
        self.work_at_end()

    async def until_known(self, workers: Iterable[int], patience: float) -> None:
        """Wait until it is known what these others of this machine have, for so many seconds at most."""
        wanted = {self._node << NODE_SHIFT | number for number in workers} - {self.number}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not all(map(self.state.knows, wanted)):  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(LOOK_EVERY)
        self._has_waited = True

    @property
    def has_siblings(self) -> bool:
        """Whether this machine has, or is to have, other workers."""
        return self._unix is not None

    @property
    def is_settled(self) -> bool:
        """Whether this worker has been there for long enough to know the others."""
        return self._loop.time() - self._started >= DEAD_AFTER

    @property
    def is_lowest(self) -> bool:
        """Whether no worker of this machine with a lower number lives; at first all are taken to.

        Not before it could know what the others have: it would take for nowhere who is with one of them.
        """
        live = filter(self._is_here, self.state.live())
        lowest = min(live) if self.is_settled else self._node << NODE_SHIFT
        return self.number == lowest and (self._has_waited or self.is_settled)

    def rooms_elsewhere(self) -> dict[str, str]:
        """Tell the rooms in which other workers of this machine have sessions, and for which clients made."""
        found: dict[str, str] = {}
        for worker in filter(self._is_here, self.state.live()):
            for room, maker in self.state.rooms_of(worker).items():
                found[room] = maker or found.get(room, "")
        return found

    def urls(self, room: str | None = None) -> list[str]:
        """List the URLs of all machines that live: this one's first, or those with most of a room's ports.

        The others follow as a ring, so that clients of one that is lost and of the next do not all meet.
        Further ones of any come after the first of each: who has lost a machine tries no other name of it.
        """
        own = self.state.own(room, MEMBER) if room is not None else None
        ports = {**self.state.members(room or ""), self.number: 0 if own is None else own.port}
        machines: dict[int, int] = {}
        urls: dict[int, tuple[str, ...]] = {}
        for worker in self.state.live():
            machine = worker >> NODE_SHIFT
            machines[machine] = machines.get(machine, 0) + ports.get(worker, 0)
            urls[machine] = self.state.urls_of(worker) or urls.get(machine, ())
        ring = sorted(machines, key=lambda machine: (-machines[machine], (machine - self._node) % NODES))
        several = zip_longest(*(urls[machine] for machine in ring), fillvalue="")
        return list(dict.fromkeys(url for each in several for url in each if url))

    def join(self, room: str) -> RoomLink:
        """Give a room of this process its link."""
        link = self._links[room] = RoomLink(self, room)
        return link

    def leave(self, link: RoomLink) -> None:
        """Forget a room."""
        if self._links.get(link.room) is link:
            del self._links[link.room]

    def key_of(self, room: str, worker: int) -> bytes | None:
        """Give the key for secrets of a room's guests at a worker; None for one that does not live."""
        incarnation = self.state.incarnation_of(worker)
        if incarnation is None:
            return None
        return hmac.digest(self._room_key, f"{room} {worker} {incarnation}".encode(), "sha256")

    # -- from the actors ----------------------------------------------------------------------------

    def work_at_end(self, link: RoomLink | None = None) -> None:
        """Send at the end of this turn what there is by then, and what ``link`` has to announce."""
        self._flushes.ask(link)

    def send(self, worker: int, room: str, frames: list[bytes]) -> None:
        """Send frames to a room's part at a worker, at the end of the turn."""
        held = self._frames.setdefault((worker, room), [])
        room_left = MAX_HELD_FRAMES - len(held)
        if len(frames) > room_left:
            self._counters.add("trunk.drop.frames_queue_full", len(frames) - room_left)
            frames = frames[:room_left]
        held += frames
        self.work_at_end()

    def ask(self, room: str, mac: bytes, candidates: tuple[bytes, ...], asker: Mailbox) -> None:
        """Have ``asker`` told AddressGranted, once."""
        token = next(self._tokens) & 0xFFFF_FFFF
        if len(self._questions) >= MAX_QUESTIONS:
            self._counters.add("rooms.questions_refused")
            tell_alive(asker, AddressGranted(mac, None))
            return
        answer = self.state.ask(token, room, mac, candidates, self._loop.time())
        if answer is not None:
            tell_alive(asker, AddressGranted(mac, answer))
            return
        self._questions[token] = _Question(asker, mac, self._loop.time() + ANSWERED_WITHIN)
        if self._answers_due is None:
            self._answers_due = self._loop.call_later(ANSWERED_WITHIN, self._give_up_questions)
        self.work_at_end()

    def _give_up_questions(self) -> None:
        self._answers_due = None
        self._turns.turn(self._tell_unanswered)

    def _tell_unanswered(self) -> None:
        now = self._loop.time()
        while self._questions:
            token, question = next(iter(self._questions.items()))
            if question.until > now:
                self._answers_due = self._loop.call_at(question.until, self._give_up_questions)
                break
            del self._questions[token]
            self._counters.add("rooms.questions_unanswered")
            tell_alive(question.asker, AddressGranted(question.mac, None))

    def _flush_late(self) -> None:
        """Send now what the actors have brought, and what has waited."""
        self._is_late = True
        self._flushes.end([None])

    def _flush(self, links: dict[RoomLink | None, None]) -> None:
        """Send what the actors' turn has brought, and, if it is late, what has waited.

        Nothing that is sent overtakes what was to be announced before.
        """
        late, self._is_late = self._is_late, False
        for link in links:
            if link is not None:
                try:
                    link.announce()
                except Exception as error:  # noqa: BLE001
                    self._failed(error, link)
        frames, self._frames = self._frames, {}
        carried = list(self.carrying.take_outgoing())
        try:
            for worker, message in self.state.take_outgoing(late=late or bool(frames or carried)):
                self._send(worker, message)
        except Exception as error:  # noqa: BLE001
            self._failed(error)
        self._wait_for_changes()
        for (worker, room), batch in frames.items():
            try:
                self._send_frames(worker, room, batch)
            except Exception as error:  # noqa: BLE001
                self._failed(error)
        for worker, message in carried:
            self._send(worker, message)
        if self.state.has_events:
            self._turns.turn(self._tell_events)

    def _send_frames(self, worker: int, room: str, frames: list[bytes]) -> None:
        stamp = int(self._loop.time() * 1000)
        messages, dropped = pack_frames(self._frames_head, stamp, room, frames)
        for message in messages:
            self._send(worker, message)
        self._counters.add("trunk.frames_sent", len(frames) - dropped)
        if dropped:
            self._counters.add("trunk.drop.frame_too_long", dropped)

    def _failed(self, error: Exception, link: RoomLink | None = None) -> None:
        """Have a bug cost what it happened at; what it kept from being sent is in another round."""
        self._handler_errors.note(error, self._loop.time())
        self.work_at_end(link)

    def _wait_is_over(self) -> None:
        self._late = None
        self._flush_late()

    def _wait_for_changes(self) -> None:
        """Have what is still to be announced sent when it has waited for long enough."""
        if not self.state.has_changes:
            if self._late is not None:
                self._late.cancel()
                self._late = None
        elif self._late is None:
            self._late = self._loop.call_later(TOLD_WITHIN, self._wait_is_over)

    # -- from the others ----------------------------------------------------------------------------

    def _receive_here(self, message: bytes) -> None:
        """Take a message of another worker of this machine: only these pass sessions on."""
        if message[KIND_AT : KIND_AT + 1] == _CARRIED:
            try:
                self.carrying.receive(message)
            except Exception as error:  # noqa: BLE001 - as below
                self._handler_errors.note(error, self._loop.time())
            return
        self._receive(message)

    def _receive_from_afar(self, message: bytes) -> None:
        """Take a message of another machine.

        What workers of this one say to all has come from them before, and they may have said more since: its
        copy from the server would bring back who is gone, and have all asked for that seems to be missing.
        """
        sender = int.from_bytes(message[SENDER_AT])
        if sender == self.number or not self._is_here(sender):
            self._receive(message)

    def _receive(self, message: bytes) -> None:
        try:
            if message[KIND_AT : KIND_AT + 1] == _FRAMES:
                self._receive_frames(message)
                return
            self.state.receive(message, self._loop.time())
        except Exception as error:  # noqa: BLE001 - a bug costs one message, never the rooms
            self._handler_errors.note(error, self._loop.time())
        self._tell_events()
        self.work_at_end()

    def _receive_frames(self, message: bytes) -> None:
        try:
            worker, incarnation, stamp, room, frames = read_frames(message)
        except MalformedPacket:
            self._counters.add("trunk.drop.malformed")
            return
        now = int(self._loop.time() * 1000) % STAMPS
        if self._ages.age((worker, incarnation), stamp, now) > STALE_AFTER * 1000:
            self._counters.add("trunk.drop.stale_frames", len(frames))
            return
        link = self._links.get(room)
        if link is None or link.switch is None:
            self._counters.add("trunk.drop.no_room", len(frames))
            return
        self._counters.add("trunk.frames_received", len(frames))
        tell_alive(link.switch, FramesFromTrunk(worker, frames))

    def _tick(self) -> None:
        self._timer = self._loop.call_later(HELLO_EVERY, self._tick)
        now = self._loop.time()
        self.state.tick(now)
        self._turns.turn(self.carrying.tick)
        self._flush_late()
        if self.state.same_number_at >= self._next_complaint:
            self._next_complaint = now + COMPLAINT_EVERY
            logger.error(
                "another relay of the cluster goes by this one's name: they do not share guests; "
                "give each a --cluster-node of its own"
            )

    def _tell_events(self) -> None:
        for event in self.state.take_events():
            if isinstance(event, Granted):
                question = self._questions.get(event.token)
                # Else it answers a former life of this worker, which counted from the same number on.
                if question is not None and question.mac == event.mac:
                    del self._questions[event.token]
                    tell_alive(question.asker, AddressGranted(question.mac, event.address))
                continue
            if isinstance(event, Elsewhere):
                self._remember(event.room, event.binding)
            link = self._links.get(event.room)
            if link is not None:
                link.hear(event)

    def _remember(self, room: str, binding: Binding) -> None:
        """Have known what a guest was called, and its address, when it comes here: its worker may be gone."""
        for address in binding.addresses:
            if len(address) == IPV4_LENGTH:
                self.remember(room, binding.mac, address, binding.name)
                return
