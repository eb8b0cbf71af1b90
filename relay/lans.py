"""The LANs of a relay, by name: made when they are wanted, ended some time after the last session left.

Users call them rooms. Anybody can make one by naming it, so their number is bounded, in all and for each
client address, and so is how many are made in a second.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from loguru import logger

from actors.close_codes import CloseCode
from actors.token_bucket import TokenBucket
from netstack.counters import Counters
from netstack.room_names import DEFAULT_ROOM
from relay.lan import ForwardError
from relay.room_labels import RoomLabels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from relay.lan import Lan
    from relay.observation import Observer

CREATIONS_PER_SECOND = 10.0
"""LANs made per second; each takes 4 ms."""
CREATION_BURST = 50.0

FAILED = "the room failed; connect again for a fresh one"
"""What clients are told."""


class NoRoomError(Exception):
    """A LAN is not made; the message is for the client."""

    def __init__(self, kind: str, status: HTTPStatus, message: str) -> None:
        """``kind`` becomes part of a counter's name."""
        super().__init__(message)
        self.kind = kind
        self.status = status


class Bounds(NamedTuple):
    """Of the LANs that clients make."""

    total: int
    """LANs at a time, with the default one."""
    per_client: int
    """Of these, those that clients of one address have made; 0 for no limit."""
    idle_time: float
    """Seconds without a session after which a LAN ends: clients that lost theirs are back by then."""
    listed: frozenset[str] | None = None
    """Names that there may be; None for any."""


class Lans:
    """Makes LANs, and ends them."""

    def __init__(
        self,
        make: Callable[[str], Lan],
        counters: Counters,
        bounds: Bounds,
        clock: Callable[[], float],
        kept: Iterable[str] = (),
        *,
        elsewhere: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Make the default LAN and those of ``kept``, which stay however long they are empty.

        ``elsewhere`` tells the rooms of other workers, and by what client each was made: they count too.
        ``counters`` are the relay's own. Raises what ``make`` raises.
        """
        self._make = make
        self.counters = counters
        self._ended = Counters()
        """What LANs have counted that have ended."""
        self.labels = RoomLabels()
        self.bounds = bounds
        self._clock = clock
        self._creations = TokenBucket(CREATIONS_PER_SECOND, CREATION_BURST, clock())
        self._elsewhere = elsewhere
        self._makers: dict[str, str] = {}
        """Client addresses by which LANs were made."""
        self._lans: dict[str, Lan] = {}
        self._empty_since: dict[str, float] = {}
        """Those that had no session at the last look."""
        self._blocked: frozenset[bytes] = frozenset()
        """MACs that nobody may have."""
        self._observers: dict[Observer, str | None] = {}
        """Who looks on at which room, or at all."""
        self._kept = frozenset({DEFAULT_ROOM, *kept})
        try:
            for name in sorted(self._kept):
                self._begin(name)
            for lan in self:  # the ports that the settings name are taken, in whichever room
                lan.follow_changes()
        except BaseException:
            self.stop()
            raise
        self.default = self._lans[DEFAULT_ROOM]

    def __iter__(self) -> Iterator[Lan]:
        return iter(self._lans.values())

    def __len__(self) -> int:
        return len(self._lans)

    def find(self, name: str) -> Lan | None:
        """Find a LAN that there is."""
        return self._lans.get(name)

    def get(self, name: str, client: str) -> Lan:
        """Find a LAN, or make it for a client of this address. Raises NoRoomError and what ``make`` does."""
        lan = self._lans.get(name)
        if lan is None:
            refusal = self.why_not(name, client)
            if refusal is None and not self._creations.take(self._clock()):
                text = "Too many rooms were made just now; try again in a second."
                refusal = NoRoomError("too_fast", HTTPStatus.SERVICE_UNAVAILABLE, text)
            if refusal is not None:
                self.counters.add(f"rooms.refused.{refusal.kind}")
                raise refusal
            is_new = name not in self._elsewhere()
            lan = self._begin(name)
            lan.follow_changes()
            if is_new:
                self._makers[name] = client
            self.counters.add("rooms.made")
        self._empty_since.pop(name, None)
        return lan

    def maker_of(self, name: str) -> str:
        """Tell the client address by which a LAN was made; empty where none was."""
        return self._makers.get(name, "")

    def why_not(self, name: str, client: str) -> NoRoomError | None:
        """Say why a LAN would not be made for a client of this address, if it is not there."""
        bounds = self.bounds
        if name in self._lans:
            return None
        elsewhere = self._elsewhere()
        if name in elsewhere:
            return None
        makers = {**elsewhere, **self._makers}
        made = sum(maker == client for maker in makers.values()) if bounds.per_client else 0
        if bounds.listed is not None and name not in bounds.listed:
            text = f"There is no room {name} (--create-rooms listed)."
            return NoRoomError("unknown", HTTPStatus.NOT_FOUND, text)
        if len(self._lans.keys() | elsewhere.keys()) >= bounds.total:
            text = f"There are {bounds.total} rooms already (--max-rooms)."
            return NoRoomError("too_many", HTTPStatus.SERVICE_UNAVAILABLE, text)
        if bounds.per_client and made >= bounds.per_client:
            text = f"Clients of this address have made {made} rooms (--rooms-per-client)."
            return NoRoomError("too_many_of_one_address", HTTPStatus.TOO_MANY_REQUESTS, text)
        return None

    def look(self) -> None:
        """End LANs that failed or were empty for long; to be called every second or so."""
        now = self._clock()
        for name, lan in list(self._lans.items()):
            if lan is self.default:
                continue
            if not lan.is_alive:
                logger.error("the LAN of room {} failed and ends", name)
                lan.close_sessions(CloseCode.INTERNAL, FAILED)
                self._end(name)
                if name in self._kept:
                    self._begin_kept(name)
            elif lan.is_outdated and lan.is_empty:  # its table came when the room was there already
                logger.info("room {} is made anew, by its table", name)
                self._end(name)
                if name in self._kept:
                    self._begin_kept(name)
            elif name in self._kept or not lan.is_empty:
                self._empty_since.pop(name, None)
            elif now - self._empty_since.setdefault(name, now) >= self.bounds.idle_time:
                logger.info("room {} ends: nobody is in it", name)
                self._end(name)

    def keep(self, names: Iterable[str]) -> None:
        """Have these LANs, besides the default one, from now on, and no others that are empty for long."""
        self._kept = frozenset({DEFAULT_ROOM, *names})
        for name in sorted(self._kept - self._lans.keys()):
            self._begin_kept(name)

    def _begin_kept(self, name: str) -> None:
        try:
            self._begin(name).follow_changes()
        except ForwardError as error:
            logger.error("room {}: {}", name, error)

    def _begin(self, name: str) -> Lan:
        lan = self._lans[name] = self._make(name)
        self.labels.begin(name)
        if self._blocked:
            lan.block_macs(self._blocked)
        for observer, room in self._observers.items():
            if room in (None, name):
                lan.observation.add(observer)
        return lan

    def _end(self, name: str) -> None:
        lan = self._lans.pop(name)
        self._makers.pop(name, None)
        self._empty_since.pop(name, None)
        lan.stop()
        self.labels.end(name, lan.counters)
        for counter, count in lan.counters.items():
            self._ended.add(counter, count)

    def totals(self) -> Counters:
        """Add up the relay's own counters and those of all its LANs, with the ones that have ended."""
        totals = Counters(self.counters)
        for counters in (self._ended, *(lan.counters for lan in self)):
            for counter, count in counters.items():
                totals.add(counter, count)
        return totals

    async def close_session(self, port: int, code: CloseCode, reason: str) -> bool:
        """End one session, wherever it is; whether there is one."""
        for lan in list(self):
            if await lan.close_session(port, code, reason):
                return True
        return False

    async def inject(self, port: int, frames: list[bytes], *, to_guest: bool) -> bool:
        """Take frames as a session's, wherever it is, or give them to it; whether there is one."""
        for lan in list(self):
            if await lan.inject(port, frames, to_guest=to_guest):
                return True
        return False

    def look_on(self, observer: Observer, room: str | None) -> None:
        """Have somebody look on at a room, or all for None; at those that are made later too."""
        self._observers[observer] = room
        for name, lan in self._lans.items():
            if room in (None, name):
                lan.observation.add(observer)

    def look_away(self, observer: Observer) -> None:
        """End what :meth:`look_on` began."""
        self._observers.pop(observer, None)
        for lan in self:
            if observer in lan.observation:
                lan.observation.remove(observer)

    def block_macs(self, macs: frozenset[bytes]) -> None:
        """Let nobody have these MACs, on any LAN that there is or will be."""
        if macs != self._blocked:
            self._blocked = macs
            for lan in self:
                lan.block_macs(macs)

    def tell_of_drain(self, seconds: float | None) -> None:
        """Tell every client that the relay drains, and how long it has, if that is known."""
        for lan in self:
            lan.tell_of_drain(seconds)

    def close_sessions(self, code: CloseCode, reason: str) -> None:
        """Tell every client why its session ends."""
        for lan in self:
            lan.close_sessions(code, reason)

    def stop(self) -> None:
        """End all LANs."""
        for name in list(self._lans):
            self._end(name)
