"""What a worker learns of rooms over workers from what the others say; ``netstack.room_state`` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from netstack.room_wire import Binding


class Elsewhere(NamedTuple):
    """A MAC is behind a port of another worker, or something of it has changed.

    ``lost``: this worker announced it too, and has to take that back.
    """

    room: str
    worker: int
    binding: Binding
    lost: bool = False


class NowhereElse(NamedTuple):
    """A MAC is behind no port of another worker any more."""

    room: str
    mac: bytes


class MembersChanged(NamedTuple):
    """The workers that have ports of a room are others than before."""

    room: str


class AddressLost(NamedTuple):
    """An address of a guest of ours is that of another worker's guest, who has had it for longer."""

    room: str
    mac: bytes
    address: bytes
    holder: bytes


class Granted(NamedTuple):
    """What the home has answered to the question with ``token``; no address where all are taken."""

    token: int
    room: str
    mac: bytes
    address: bytes


class Contested(NamedTuple):
    """A guest of another worker's uses an address that one of ours has."""

    room: str
    address: bytes
    challenger: bytes


class AddressNeeded(NamedTuple):
    """Another worker needs an address, and wants that of a guest of ours whose client is away."""

    room: str
    mac: bytes


Event = Elsewhere | NowhereElse | MembersChanged | AddressLost | Granted | Contested | AddressNeeded
