"""One room's end of the trunk: what its switch and gateway announce to other workers, and hear of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from actors.ports import WorkerPlace
from actors.runtime import tell_alive
from actors.trunk_messages import (
    AddressContested,
    AddressNeededElsewhere,
    AddressTaken,
    GuestElsewhere,
    GuestNowhereElse,
    WorkersChanged,
)
from netstack.room_events import (
    AddressLost,
    AddressNeeded,
    Contested,
    Elsewhere,
    MembersChanged,
    NowhereElse,
)
from netstack.room_state import MEMBER
from netstack.room_wire import MAX_ADDRESSES, Binding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.ports import GuestAddresses, Passage, Session, SessionTerms
    from actors.runtime import Mailbox
    from netstack.room_events import Event
    from netstack.room_state import RoomState
    from relay.carrying import Accept, Carrying


class RoomTrunk(WorkerPlace, Protocol):
    """What a room asks of the worker's trunk, ``relay.trunk.Trunk``."""

    number: int
    share: tuple[int, int]
    state: RoomState
    carrying: Carrying
    maker_of: Callable[[str], str]

    def leave(self, link: RoomLink) -> None:
        """Forget a room."""

    def key_of(self, room: str, worker: int) -> bytes | None:
        """Give the key for secrets of a room's guests at a worker; None for one that does not live."""

    def work_at_end(self, link: RoomLink | None = None) -> None:
        """Send at the end of this turn what there is by then, and what ``link`` has to announce."""

    def send(self, worker: int, room: str, frames: list[bytes]) -> None:
        """Send frames to a room's part at a worker, at the end of the turn."""

    def ask(self, room: str, mac: bytes, candidates: tuple[bytes, ...], asker: Mailbox) -> None:
        """Have ``asker`` told AddressGranted, once."""

    def may_carry(self, worker: int) -> bool:
        """Whether sessions can be passed on to a worker."""


class RoomLink:
    """One room's end of the trunk; implements ``actors.ports.RoomLink``."""

    def __init__(self, trunk: RoomTrunk, room: str) -> None:
        self.room = room
        self.number = trunk.number
        self.share = trunk.share
        self.switch: Mailbox | None = None
        self._trunk = trunk
        self._state = trunk.state
        self._here: dict[bytes, Binding] = {}
        """What the switch has said of the MACs behind its ports."""
        self._changed: dict[bytes, None] = {}
        self._ports = self._announced_ports = 0
        """Of this worker in the room."""
        self._describe: Callable[[bytes], GuestAddresses] | None = None

    @property
    def has_siblings(self) -> bool:
        """Whether this machine has, or is to have, other workers."""
        return self._trunk.has_siblings

    @property
    def is_lowest(self) -> bool:
        """Whether no worker of this machine with a lower number lives."""
        return self._trunk.is_lowest

    @property
    def is_settled(self) -> bool:
        """Whether this worker has been there for long enough to know the others."""
        return self._trunk.is_settled

    def attach(self, switch: Mailbox) -> None:
        """Tell a switch from now on what happens elsewhere, and what has happened so far."""
        self.switch = switch
        tell_alive(switch, WorkersChanged(dict(self._state.members(self.room))))
        for worker, binding in self._state.all_elsewhere(self.room):
            tell_alive(switch, GuestElsewhere(worker, binding))

    def describe_by(self, describe: Callable[[bytes], GuestAddresses]) -> None:
        """Have the gateway's word for addresses and names."""
        self._describe = describe

    def close(self) -> None:
        """Take back all that this room has announced."""
        self.switch = None
        self._trunk.carrying.accept_by(self.room, None)
        for mac in (*self._here, MEMBER):
            self._state.unbind(self.room, mac)
        self._ports = self._announced_ports = 0
        self._here.clear()
        self._changed.clear()
        self._trunk.leave(self)
        self._trunk.work_at_end()

    @property
    def workers(self) -> Mapping[int, int]:
        """Other workers that have ports of this room, and how many."""
        return self._state.members(self.room)

    def key_of(self, worker: int | None = None) -> bytes | None:
        """Give the key for secrets of guests at a worker, this one for None; None where it does not live."""
        return self._trunk.key_of(self.room, self.number if worker is None else worker)

    def elsewhere(self, mac: bytes) -> tuple[int, Binding] | None:
        """Find a MAC behind a port of another worker."""
        return self._state.elsewhere(self.room, mac)

    def keeps_name(self, mac: bytes, other: bytes) -> bool:
        """Whether of two guests that have one name, by MAC, it is the first one's."""
        return self._state.keeps_name(self.room, mac, other)

    def is_here(self, mac: bytes) -> bool:
        """Whether a MAC was announced as behind a port of this worker."""
        return mac in self._here

    def set_ports(self, ports: int) -> None:
        """Announce how many ports there are here; for none this worker is no member of the room."""
        self._ports = ports
        self._trunk.work_at_end(self)

    def present(self, mac: bytes, port: int, client: str, flags: int) -> None:
        """Announce a MAC behind a port of this worker, or what has changed of it."""
        binding = Binding(mac, port=port, client=client, flags=flags)
        if self._here.get(mac) != binding:
            self._here[mac] = binding
            self.touch(mac)

    def absent(self, mac: bytes) -> None:
        """Announce that a MAC is behind no port of this worker any more."""
        if self._here.pop(mac, None) is not None:
            self._changed.pop(mac, None)
            self._state.unbind(self.room, mac)
            self._trunk.work_at_end()

    def touch(self, mac: bytes) -> None:
        """Announce, at the end of the turn, what addresses and name a MAC has now."""
        if mac in self._here:
            self._changed[mac] = None
            self._trunk.work_at_end(self)

    def announce(self) -> None:
        """Announce what has changed in this turn."""
        now = int(time.time())
        # What fails is not tried again, and what is left is announced in another round.
        announced, self._announced_ports = self._announced_ports, self._ports
        if not self._ports:
            self._state.unbind(self.room, MEMBER)
        elif self._ports != announced:
            member = Binding(MEMBER, port=self._ports, client=self._trunk.maker_of(self.room))
            self._state.bind(self.room, member, now)
        while self._changed:
            mac = next(iter(self._changed))
            del self._changed[mac]
            binding = self._here[mac]
            is_pending, fixed = False, None
            if self._describe is not None:
                guest = self._describe(mac)
                addresses = guest.ipv4[:MAX_ADDRESSES] + guest.ipv6[:MAX_ADDRESSES]
                flags = binding.flags | guest.flags
                binding = binding._replace(addresses=addresses, name=guest.name, flags=flags)
                is_pending, fixed = guest.is_pending, guest.fixed
            self._state.bind(self.room, binding, now, is_pending=is_pending, fixed=fixed)

    def send(self, worker: int, frames: list[bytes]) -> None:
        """Send frames to the room's part at a worker."""
        self._trunk.send(worker, self.room, frames)

    def ask(self, mac: bytes, candidates: tuple[bytes, ...], asker: Mailbox) -> None:
        """Have ``asker`` told, by AddressGranted, which of these addresses a MAC may have."""
        self._trunk.ask(self.room, mac, candidates, asker)

    def want_address_of(self, worker: int, mac: bytes) -> None:
        """Have a worker let a guest go whose client is away: its address is needed."""
        self._state.want_address_of(worker, self.room, mac)
        self._trunk.work_at_end()

    def contest(self, worker: int, address: bytes, challenger: bytes) -> None:
        """Have a worker ask its guest whether that still has an address that a guest of ours uses."""
        self._state.contest(worker, self.room, address, challenger)
        self._trunk.work_at_end()

    def may_carry(self, worker: int) -> bool:
        """Whether sessions can be passed on to a worker: one of this machine."""
        return self._trunk.may_carry(worker)

    def carry(self, worker: int, session: Session, terms: SessionTerms, peer: Mailbox) -> Passage:
        """Open a passage for a session, of the PeerActor ``peer``, to the room's part at a worker."""
        return self._trunk.carrying.carry(worker, self.room, session, terms, peer)

    def accept_by(self, accept: Accept) -> None:
        """Give the sessions that other workers carry for this room's part to ``accept``."""
        self._trunk.carrying.accept_by(self.room, accept)

    def hear(self, event: Event) -> None:
        """Tell the switch what has happened elsewhere."""
        message: object
        match event:
            case Elsewhere(_, worker, binding, lost):
                message = GuestElsewhere(worker, binding, lost)
            case NowhereElse(_, mac):
                message = GuestNowhereElse(mac)
            case MembersChanged():
                message = WorkersChanged(dict(self.workers))
            case AddressLost(_, mac, address, holder):
                logger.info("room {}: an address of {} is another worker's guest's", self.room, mac.hex(":"))
                message = AddressTaken(mac, address, holder)
            case Contested(_, address, challenger):
                message = AddressContested(address, challenger)
            case AddressNeeded(_, mac):
                message = AddressNeededElsewhere(mac)
            case _:
                return
        if self.switch is not None:
            tell_alive(self.switch, message)
