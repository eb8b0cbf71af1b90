"""Who is in which room, over all workers: soft state, as EVPN's (RFC 7432), of which each has a copy.

Theory of operation
-------------------
Every worker is the truth for its own guests. It announces each change to all others (CHANGES), and twice a
second that it lives, with a digest of all that it has announced (HELLO). Who holds something else of it asks
(WANT) and is told everything (SNAPSHOT): so a message may be lost, come twice, or late. A worker that is
silent for DEAD_AFTER, is reported lost, or comes back as another incarnation, has no guests any more.
Changes that can wait share a message with others: who is silent, how many ports there are, who is gone.

A MAC that two workers announce is the one's with the higher ``seq``; of equal ones, the lower number's. Who
takes a MAC over announces one more than it knows of, or knew of a worker that was lost. Who is beaten is
told so (an ``Elsewhere`` with ``lost``), and takes its own binding back; or, if its guest has the better
right, announces one more than the winner's.

An address that guests of two workers have, as after a partition, stays with whom it has been longer, by the
announced times; the other's worker is told (``AddressLost``). Of a name the like holds (``keeps_name``).

New addresses are granted by the room's *home*, by rendezvous hashing among the workers that live: it knows
all bindings, and what it granted a moment ago (GRANT_KEPT). So two workers do not give one address to two
guests, as long as they agree who lives; when they do not, the rule above heals it.

No clock and no I/O: ``now`` are monotonic seconds, ``unix`` is Unix time; what is to be sent is taken from
``take_outgoing``, what has happened from ``take_events``. Counts ``trunk.drop.*`` and ``rooms.*``.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.malformed import MalformedPacket
from netstack.room_events import (
    AddressLost,
    AddressNeeded,
    Contested,
    Elsewhere,
    Event,
    Granted,
    MembersChanged,
    NowhereElse,
)
from netstack.room_wire import (
    MAX_CANDIDATES,
    MAX_SEQ,
    Ask,
    Binding,
    Change,
    Contest,
    Flag,
    Grant,
    Heard,
    Hello,
    Kind,
    SnapshotPart,
    Wanted,
    pack_about,
    pack_ask,
    pack_change,
    pack_changes,
    pack_contest,
    pack_grant,
    pack_head,
    pack_hello,
    pack_snapshot,
    pack_wanted,
    read_about,
    read_ask,
    read_changes,
    read_contest,
    read_grant,
    read_head,
    read_hello,
    read_snapshot,
    read_wanted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from netstack.counters import Counters

HELLO_EVERY: Final = 0.5
DEAD_AFTER: Final = 3.0
"""Seconds of silence after which a worker is taken for gone: five Hellos, and a slow turn of its loop."""

ABOUT_EVERY: Final = 5.0
"""Seconds between announcements of what does not change: where clients reach a machine."""

WANT_EVERY: Final = 0.5
"""Seconds between two requests for one worker's snapshot."""

TOLD_EVERY: Final = WANT_EVERY / 2
"""Seconds between two snapshots for one worker: a message of some bytes has megabytes for its answer."""

GRANT_KEPT: Final = 5.0
"""Seconds for which a granted address is kept for its MAC, unless its binding is announced before."""

MAX_GRANTS = 4096
MAX_ENTRIES = 16_384
"""Bindings of one worker: some 8 MB."""

MAX_WORKERS: Final = 256
MAX_OUTGOING: Final = 4096
"""Messages that wait to be sent; what is dropped beyond is told again by a snapshot."""

MEMBER: Final = bytes(6)
"""Stands instead of a MAC for a worker's membership of a room; ``port`` of such a binding is how many ports
of the room it has, ``client`` the client's network for which the room was made, at no other worker before."""

_SILENCE: Final = int(Flag.SILENT | Flag.AWAY)

Key = tuple[str, bytes]
"""Room and MAC."""


class Outgoing(NamedTuple):
    """A message for a worker, or for all others where that is None."""

    worker: int | None
    message: bytes


class _Told(NamedTuple):
    """A binding, with what is known of its announcement."""

    version: int
    binding: Binding
    digest: int


class _Worker:
    """What another worker has announced."""

    def __init__(self, incarnation: int, now: float) -> None:
        self.incarnation = incarnation
        self.heard = now
        self.urls: tuple[str, ...] = ()
        self.told: dict[Key, _Told] = {}
        self.rooms: dict[str, str] = {}
        """Of which it is a member, and what client made them there, where it says so."""
        self.digest = 0
        self.is_known = False
        """Whether all was heard that it had announced at some time."""
        self.want_at = now
        self.tell_at = now
        """When it may be told everything again."""
        self.snapshot = -1
        self.parts: dict[int, list[Heard]] = {}


class RoomState:
    """One worker's view of all rooms."""

    def __init__(self, number: int, incarnation: int, counters: Counters, urls: Sequence[str] = ()) -> None:
        """``incarnation`` is larger than those of the same number before.

        ``urls`` are those of this worker's machine: at most MAX_URLS, of MAX_URL bytes each.
        """
        self._urls = tuple(urls)
        self.number = number
        self.incarnation = incarnation
        self.same_number_at = 0.0
        """When another process was heard last that goes by this worker's number; 0 if never."""
        self._counters = counters
        self._version = 0
        self._own: dict[Key, _Told] = {}
        self._digest = 0
        self._workers: dict[int, _Worker] = {}
        self._ended: dict[int, tuple[int, float]] = {}
        """Incarnations that are known to have ended, and until when they are not listened to."""
        self._claims: dict[Key, dict[int, Binding]] = {}
        """What is announced of a MAC, by worker, our own included."""
        self._holders: dict[tuple[str, bytes], dict[tuple[int, bytes], None]] = {}
        """(worker, MAC) by room and address."""
        self._former: dict[Key, int] = {}
        """``seq`` of what workers that were lost had announced last, the oldest first."""
        self._members: dict[str, dict[int, int]] = {}
        """Other workers with ports of a room, and how many."""
        self._grants: dict[tuple[str, bytes], tuple[bytes, float]] = {}
        """MACs, and until when, by room and address; the oldest first."""
        self._hello_at = self._about_at = 0.0
        self._changes: dict[Key, int] = {}
        """What has changed of our own and was not announced yet, with its version."""
        self._is_pressing = self._has_freed = False
        """Whether one of these changes cannot wait, and whether one gives an address back."""
        self._outgoing: list[Outgoing] = []
        self._events: list[Event] = []
        self._readers: dict[int, Callable[[int, _Worker, bytes, float], None]] = {
            Kind.HELLO: self._hello,
            Kind.CHANGES: self._hear_changes,
            Kind.SNAPSHOT: self._hear_snapshot,
            Kind.WANT: self._hear_want,
            Kind.ASK: self._hear_ask,
            Kind.GRANT: self._hear_grant,
            Kind.CONTEST: self._hear_contest,
            Kind.WANTED: self._hear_wanted,
            Kind.ABOUT: self._hear_about,
        }

    # -- what is asked ------------------------------------------------------------------------------

    def live(self) -> list[int]:
        """List the workers that live, this one among them."""
        return sorted([self.number, *self._workers])

    def incarnation_of(self, worker: int) -> int | None:
        """Tell the incarnation of a worker that lives."""
        if worker == self.number:
            return self.incarnation
        known = self._workers.get(worker)
        return None if known is None else known.incarnation

    def knows(self, worker: int) -> bool:
        """Whether a worker that lives was heard with all that it had announced at some time."""
        known = self._workers.get(worker)
        return known is not None and known.is_known

    def urls_of(self, worker: int) -> tuple[str, ...]:
        """Tell where clients reach a worker's machine, as far as it has said."""
        if worker == self.number:
            return self._urls
        known = self._workers.get(worker)
        return () if known is None else known.urls

    def members(self, room: str) -> dict[int, int]:
        """Tell the other workers that have ports of a room, and how many."""
        return self._members.get(room, {})

    def rooms_of(self, worker: int) -> Mapping[str, str]:
        """Tell the rooms of which another worker is a member, and who made them there; empty if nobody."""
        known = self._workers.get(worker)
        return {} if known is None else known.rooms

    def elsewhere(self, room: str, mac: bytes) -> tuple[int, Binding] | None:
        """Find a MAC at another worker, where that has the right to it."""
        winner = self._winner((room, mac))
        return None if winner is None or winner[0] == self.number else winner

    def all_elsewhere(self, room: str) -> list[tuple[int, Binding]]:
        """List all that is behind ports of other workers in a room."""
        found = [self.elsewhere(room, mac) for place, mac in self._claims if place == room]
        return [each for each in found if each is not None]

    def own(self, room: str, mac: bytes) -> Binding | None:
        """Tell what this worker has announced of a MAC."""
        told = self._own.get((room, mac))
        return None if told is None else told.binding

    def home_of(self, room: str) -> int:
        """Tell who grants a room's addresses (highest random weight, Thaler and Ravishankar 1998)."""
        return max(self.live(), key=lambda number: (_weight(room, number), number))

    def holders_of(self, room: str, address: bytes) -> set[bytes]:
        """Tell which MACs have an address, at any worker."""
        return {mac for _, mac in self._holders.get((room, address), ())}

    def keeps_name(self, room: str, mac: bytes, other: bytes) -> bool:
        """Whether of two guests that have one name it is that of ``mac``; all workers say the same.

        One by a token goes before one that a guest gave itself, and then who has been here longer, by the
        announced times. Who was not announced has nothing.
        """
        ranks = [self._name_rank(room, each) for each in (mac, other)]
        return ranks[0] < ranks[1]

    def _name_rank(self, room: str, mac: bytes) -> tuple[bool, float, int]:
        found = self._winner((room, mac))
        if found is None:
            return (True, inf, self.number)
        worker, binding = found
        return (not binding.flags & Flag.GRANTED_NAME, min(binding.since, default=inf), worker)

    # -- what this worker has -----------------------------------------------------------------------

    def bind(
        self,
        room: str,
        binding: Binding,
        unix: int,
        *,
        again: bool = False,
        is_pending: bool = False,
        fixed: bytes | None = None,
    ) -> None:
        """Announce a MAC of ours, or what has changed of it. ``again`` takes it back from who has beaten us.

        ``seq`` and ``since`` of the binding are decided here. ``is_pending`` tells that its address is being
        decided about: until then nobody has to know of one that nobody else announces. The address that the
        operator ``fixed`` for it, it has had for ever.
        """
        key = (room, binding.mac)
        before = self._own.get(key)
        others = [other for worker, other in self._claims.get(key, {}).items() if worker != self.number]
        if before is None and len(self._own) >= MAX_ENTRIES:
            self._counters.add("rooms.drop.table_full")
            return
        if before is not None and not again:
            seq = before.binding.seq
        else:
            # One that comes back with its guest of before must not beat where that went meanwhile.
            seq = min(MAX_SEQ, 1 + max((self._former.get(key, -1), *(other.seq for other in others))))
        since: dict[bytes, int] = {}
        # Who moves here has its addresses for as long as it has had them.
        for former in others if before is None else [before.binding]:
            since.update(zip(former.addresses, former.since, strict=True))
        if fixed is not None:
            since[fixed] = 0
        times = tuple(since.get(address, unix) for address in binding.addresses)
        binding = binding._replace(seq=seq, since=times)
        if before is not None and before.binding == binding:
            return
        can_wait = (is_pending and not others) or (
            before is not None and _may_be_told_late(before.binding, binding)
        )
        self._announce(key, binding, can_wait=can_wait)
        if binding.mac != MEMBER:
            self._look_for_conflicts(room, binding)

    def unbind(self, room: str, mac: bytes) -> None:
        """Announce that a MAC is gone."""
        key = (room, mac)
        if key in self._own:
            self._announce(key, None, can_wait=mac != MEMBER)
            other = self._winner(key)
            if other is not None:  # it has not heard yet that it was beaten
                self._events.append(Elsewhere(room, *other))

    def _announce(self, key: Key, binding: Binding | None, *, can_wait: bool) -> None:
        self._version += 1
        before = self._own.pop(key, None)
        if before is not None:
            self._digest ^= before.digest
            self._index(key, self.number, before.binding, None)
            kept = () if binding is None else binding.addresses
            self._has_freed = self._has_freed or not set(before.binding.addresses).issubset(kept)
        if binding is not None:
            self._own[key] = _Told(self._version, binding, 0)  # its digest counts once it is told
            self._index(key, self.number, None, binding)
        self._changes.pop(key, None)
        self._changes[key] = self._version
        self._is_pressing = self._is_pressing or not can_wait

    # -- addresses ----------------------------------------------------------------------------------

    def ask(
        self, token: int, room: str, mac: bytes, candidates: tuple[bytes, ...], now: float
    ) -> bytes | None:
        """Ask for one of these addresses: the answer, empty where all are taken, if this is the home.

        Else None; the home's answer is a ``Granted``, if it comes.
        """
        candidates = candidates[:MAX_CANDIDATES]
        home = self.home_of(room)
        if home == self.number:
            return self.grant(room, mac, candidates, now)
        if self._has_freed:  # perhaps one of these
            self._flush_changes()
        self._send(home, Kind.ASK, pack_ask(Ask(token, room, mac, candidates)))
        return None

    def grant(self, room: str, mac: bytes, candidates: Iterable[bytes], now: float) -> bytes:
        """Choose the first of these addresses that is nobody else's, and keep it for a while, or none."""
        for address in candidates:
            key = (room, address)
            if self.holders_of(room, address) - {mac}:
                continue
            holder, until = self._grants.get(key, (mac, now))
            if holder != mac and now < until:
                continue
            self._grants.pop(key, None)
            self._grants[key] = (mac, now + GRANT_KEPT)
            if len(self._grants) > MAX_GRANTS:
                del self._grants[next(iter(self._grants))]
            self._counters.add("rooms.addresses_granted")
            return address
        return b""

    def contest(self, worker: int, room: str, address: bytes, challenger: bytes) -> None:
        """Tell a worker that its guest's address is used by one of ours."""
        self._send(worker, Kind.CONTEST, pack_contest(Contest(room, address, challenger)))

    def want_address_of(self, worker: int, room: str, mac: bytes) -> None:
        """Have a worker let a guest go whose client is away: its address is needed."""
        self._send(worker, Kind.WANTED, pack_wanted(Wanted(room, mac)))

    # -- others -------------------------------------------------------------------------------------

    def receive(self, message: bytes, now: float) -> None:
        """Take a message of another worker's; what is malformed is counted and dropped."""
        try:
            kind, sender, incarnation = read_head(message)
            if sender == self.number:
                if incarnation != self.incarnation:
                    self._counters.add("trunk.drop.same_number")
                    self.same_number_at = now
                return
            read = self._readers.get(kind)
            worker = self._worker(sender, incarnation, now) if read else None
            if read is not None and worker is not None:
                read(sender, worker, message, now)
        except MalformedPacket:
            self._counters.add("trunk.drop.malformed")

    def lost(self, worker: int, *, has_ended: bool = True) -> None:
        """Forget a worker of which it is known that it has ended, whatever of its words is on the way yet."""
        known = self._workers.get(worker)
        if known is not None:
            if has_ended:
                self._ended[worker] = known.incarnation, inf
            self._counters.add("rooms.workers_lost")
            self._forget(worker)

    def tick(self, now: float) -> None:
        """Forget who is silent, and say Hello when it is time; to be called every ``HELLO_EVERY``."""
        for number in [n for n, worker in self._workers.items() if now - worker.heard >= DEAD_AFTER]:
            self.lost(number, has_ended=False)
        ended = self._ended.items()
        self._ended = {n: (life, min(until, now + DEAD_AFTER)) for n, (life, until) in ended if now < until}
        for key in [key for key, (_, until) in self._grants.items() if now >= until]:
            del self._grants[key]
        if now >= self._hello_at:
            self._hello_at = now + HELLO_EVERY
            self._flush_changes()
            self._say_hello(None)
        if now >= self._about_at:
            self._about_at = now + ABOUT_EVERY
            self._say_where(None)

    def take_outgoing(self, *, late: bool = True) -> list[Outgoing]:
        """Give up what is to be sent; without ``late``, no changes if all that there are can wait."""
        if late or self._is_pressing:
            self._flush_changes()
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to be announced yet."""
        return bool(self._changes)

    @property
    def has_events(self) -> bool:
        """Whether there is anything to be told."""
        return bool(self._events)

    def take_events(self) -> list[Event]:
        """Give up what has happened."""
        events, self._events = self._events, []
        return events

    def _flush_changes(self) -> None:
        changes, packed = self._changes, []
        try:
            while changes:
                key = next(iter(changes))
                packed.append(self._pack(key, changes.pop(key)))
            self._is_pressing = self._has_freed = False
        finally:
            # One that cannot be written is lost, and no other.
            for body in pack_changes(packed):
                self._send(None, Kind.CHANGES, body)

    def _pack(self, key: Key, version: int) -> bytes:
        """Write a change, and count its binding among what is told."""
        told = self._own.get(key)
        packed = pack_change(Change(*key, version, None if told is None else told.binding))
        if told is not None:
            digest = _digest(packed)
            self._own[key] = told._replace(digest=digest)
            self._digest ^= digest
        return packed

    def _say_hello(self, worker: int | None) -> None:
        self._send(worker, Kind.HELLO, pack_hello(Hello(self._digest, len(self._own))))

    def _say_where(self, worker: int | None) -> None:
        if self._urls:
            self._send(worker, Kind.ABOUT, pack_about(self._urls))

    def _send(self, worker: int | None, kind: Kind, body: bytes) -> None:
        if len(self._outgoing) >= MAX_OUTGOING:
            self._counters.add("trunk.drop.queue_full")
            return
        head = pack_head(kind, self.number, self.incarnation)
        self._outgoing.append(Outgoing(worker, head + body))

    def _worker(self, number: int, incarnation: int, now: float) -> _Worker | None:
        """Find who speaks; None for one that is no more, or one too many."""
        worker = self._workers.get(number)
        oldest = self._ended[number][0] + 1 if number in self._ended else 0
        if incarnation < (oldest if worker is None else worker.incarnation):
            self._counters.add("trunk.drop.former_incarnation")
            return None
        if worker is not None and incarnation > worker.incarnation:
            self._forget(number)
            worker = None
        if worker is None:
            if len(self._workers) >= MAX_WORKERS:
                self._counters.add("trunk.drop.too_many_workers")
                return None
            worker = self._workers[number] = _Worker(incarnation, now)
            self._counters.add("rooms.workers_found")
            self._flush_changes()
            self._say_hello(number)
            self._say_where(number)
        worker.heard = now
        return worker

    def _forget(self, number: int) -> None:
        worker = self._workers.pop(number)
        for key, told in list(worker.told.items()):
            self._hold(number, worker, key, None)
            if key[1] != MEMBER:
                self._remember(key, told.binding.seq)

    def _remember(self, key: Key, seq: int) -> None:
        self._former[key] = max(seq, self._former.pop(key, 0))
        if len(self._former) > MAX_ENTRIES:
            del self._former[next(iter(self._former))]

    def _hello(self, number: int, worker: _Worker, message: bytes, now: float) -> None:
        hello = read_hello(message)
        if hello == (worker.digest, len(worker.told)):
            worker.is_known = True
            return
        if now < worker.want_at:
            return
        worker.want_at = now + WANT_EVERY
        self._counters.add("rooms.snapshots_wanted")
        self._send(number, Kind.WANT, b"")

    def _hear_changes(self, number: int, worker: _Worker, message: bytes, _now: float) -> None:
        for heard in read_changes(message):
            self._hear(number, worker, heard)

    def _hear(self, number: int, worker: _Worker, heard: Heard) -> None:
        change = heard.change
        key = (change.room, change.mac)
        before = worker.told.get(key)
        if before is not None and before.version >= change.version:
            return
        if before is None and len(worker.told) >= MAX_ENTRIES:
            self._counters.add("rooms.drop.table_full")
            return
        told = None
        if change.binding is not None:
            told = _Told(change.version, change.binding, _digest(heard.packed))
        self._hold(number, worker, key, told)

    def _hear_snapshot(self, number: int, worker: _Worker, message: bytes, _now: float) -> None:
        snapshot: SnapshotPart = read_snapshot(message)
        if snapshot.version < worker.snapshot:
            return
        if snapshot.version > worker.snapshot:
            worker.snapshot, worker.parts = snapshot.version, {}
        worker.parts[snapshot.part] = snapshot.changes
        if len(worker.parts) < snapshot.parts:
            return
        parts, worker.parts, worker.snapshot = worker.parts, {}, -1
        said = {(each.change.room, each.change.mac): each for part in parts.values() for each in part}
        for key, told in list(worker.told.items()):
            if key not in said and told.version <= snapshot.version:
                self._hold(number, worker, key, None)
        for heard in said.values():
            self._hear(number, worker, heard)
        worker.is_known = True

    def _hear_want(self, number: int, worker: _Worker, _message: bytes, now: float) -> None:
        if now < worker.tell_at:
            self._counters.add("rooms.drop.snapshots_wanted")
            return
        worker.tell_at = now + TOLD_EVERY
        self._flush_changes()
        packed = (pack_change(Change(*key, told.version, told.binding)) for key, told in self._own.items())
        for body in pack_snapshot(self._version, packed):
            self._send(number, Kind.SNAPSHOT, body)

    def _hear_ask(self, number: int, _worker: _Worker, message: bytes, now: float) -> None:
        ask = read_ask(message)
        address = self.grant(ask.room, ask.mac, ask.candidates, now)
        self._send(number, Kind.GRANT, pack_grant(Grant(ask.token, ask.room, ask.mac, address)))

    def _hear_grant(self, _number: int, _worker: _Worker, message: bytes, _now: float) -> None:
        self._events.append(Granted(*read_grant(message)))

    def _hear_contest(self, _number: int, _worker: _Worker, message: bytes, _now: float) -> None:
        self._events.append(Contested(*read_contest(message)))

    def _hear_wanted(self, _number: int, _worker: _Worker, message: bytes, _now: float) -> None:
        self._events.append(AddressNeeded(*read_wanted(message)))

    def _hear_about(self, _number: int, worker: _Worker, message: bytes, _now: float) -> None:
        worker.urls = read_about(message)

    # -- what follows -------------------------------------------------------------------------------

    def _hold(self, number: int, worker: _Worker, key: Key, told: _Told | None) -> None:
        """Note what another worker says of a MAC, and what follows from it."""
        before = worker.told.pop(key, None)
        if before is not None:
            worker.digest ^= before.digest
        if told is not None:
            worker.told[key] = told
            worker.digest ^= told.digest
        room, mac = key
        if mac == MEMBER:
            worker.rooms.pop(room, None)
            if told is not None:
                worker.rooms[room] = told.binding.client
            self._note_member(room, number, None if told is None else told.binding.port)
            return
        winner = self._winner(key)
        self._index(key, number, before and before.binding, told and told.binding)
        now_wins = self._winner(key)
        if now_wins == winner:
            return
        if now_wins is None or now_wins[0] == self.number:
            if winner is not None and winner[0] != self.number:
                self._events.append(NowhereElse(room, mac))
            return
        lost = key in self._own
        self._events.append(Elsewhere(room, *now_wins, lost))
        self._look_for_conflicts(room, now_wins[1])

    def _note_member(self, room: str, worker: int, ports: int | None) -> None:
        members = self._members.setdefault(room, {})
        was_member = worker in members
        if ports is None:
            members.pop(worker, None)
        else:
            members[worker] = ports
        if not members:
            del self._members[room]
        if was_member != (ports is not None):
            self._events.append(MembersChanged(room))

    def _index(self, key: Key, worker: int, before: Binding | None, after: Binding | None) -> None:
        room, mac = key
        claims = self._claims.setdefault(key, {})
        claims.pop(worker, None)
        if after is not None:
            claims[worker] = after
        if not claims:
            del self._claims[key]
        for address in () if before is None else before.addresses:
            holders = self._holders.get((room, address), {})
            holders.pop((worker, mac), None)
            if not holders:
                self._holders.pop((room, address), None)
        for address in () if after is None else after.addresses:
            self._holders.setdefault((room, address), {})[worker, mac] = None
            if self._grants.get((room, address), (b"", 0.0))[0] == mac:
                del self._grants[room, address]

    def _winner(self, key: Key) -> tuple[int, Binding] | None:
        """Tell who has the right to a MAC, and what it says of it."""
        claims = self._claims.get(key)
        if claims is None:
            return None
        return max(claims.items(), key=lambda claim: (claim[1].seq, -claim[0]))

    def _look_for_conflicts(self, room: str, binding: Binding) -> None:
        """Find addresses of guests of ours that another worker's guest has had for longer."""
        for address in binding.addresses:
            holders = self._holders.get((room, address), {})
            if len(holders) < 2:  # noqa: PLR2004 - it takes two
                continue
            ranked = sorted(self._rank(room, address, worker, mac) for worker, mac in holders)
            _, _, keeper = ranked[0]
            for _, worker, mac in ranked[1:]:
                if worker == self.number and mac != keeper:
                    self._counters.add("rooms.addresses_lost")
                    self._events.append(AddressLost(room, mac, address, keeper))

    def _rank(self, room: str, address: bytes, worker: int, mac: bytes) -> tuple[int, int, bytes]:
        """Order those that have an address by since when; those whose MAC is another's by now come last."""
        key = (room, mac)
        binding = self._claims[key][worker]
        wins = self._winner(key)
        beaten = wins is None or wins[0] != worker
        since = binding.since[binding.addresses.index(address)]
        return (since + (beaten << 33), worker, mac)


def _may_be_told_late(before: Binding, after: Binding) -> bool:
    """Whether only how many ports there are has changed, or whether a guest is silent."""
    if after.mac == MEMBER:
        return True
    return not (before.flags ^ after.flags) & ~_SILENCE and before._replace(flags=after.flags) == after


def _digest(packed: bytes) -> int:
    return int.from_bytes(blake2b(packed, digest_size=8).digest())


def _weight(room: str, number: int) -> bytes:
    return blake2b(number.to_bytes(4) + room.encode(), digest_size=8).digest()
