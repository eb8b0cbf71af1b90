"""What a room's trunk and the actors say to each other: of guests that other workers have.

The rules are those of ``actors.messages``, where all other messages are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from actors.runtime import data_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.ports import RoomLink
    from netstack.room_wire import Binding


@data_message
class FramesFromTrunk(NamedTuple):
    """Trunk -> SwitchActor: frames of guests of another worker's, checked there, for guests of ours."""

    worker: int
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class WorkersChanged:
    """Trunk -> SwitchActor: these other workers have ports of the room, so many each by now."""

    ports: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class GuestElsewhere:
    """Trunk -> SwitchActor -> GatewayActor: a MAC is behind a port of another worker, with this known of it.

    ``lost``: it is behind one of ours too, and the other worker has the right to it.
    """

    worker: int
    binding: Binding
    lost: bool = False


@dataclass(frozen=True, slots=True)
class GuestNowhereElse:
    """Trunk -> SwitchActor -> GatewayActor: a MAC is behind no port of another worker any more."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class AddressTaken:
    """Trunk -> SwitchActor -> GatewayActor: ``address`` of our ``mac`` is ``holder``'s, at another worker."""

    mac: bytes
    address: bytes
    holder: bytes


@dataclass(frozen=True, slots=True)
class AddressContested:
    """Trunk -> SwitchActor -> GatewayActor: ``challenger``, at another worker, uses ``address`` of ours."""

    address: bytes
    challenger: bytes


@dataclass(frozen=True, slots=True)
class AddressNeededElsewhere:
    """Trunk -> SwitchActor: another worker needs the address of ``mac``, if its client is away."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class AddressGranted:
    """Trunk -> GatewayActor: what the room's home says about an address for ``mac``.

    ``address`` is empty where all that were asked for are taken, None where it did not answer.
    """

    mac: bytes
    address: bytes | None


@dataclass(frozen=True, slots=True)
class PortElsewhere:
    """SwitchActor -> PeerActor: your client has a port at another worker, which ``link`` leads to.

    The port that the session has here is gone: what comes is to be passed on to ``worker``.
    """

    worker: int
    link: RoomLink


@dataclass(frozen=True, slots=True)
class NotCarried:
    """Trunk -> PeerActor: the other worker does not take the session: take a port here."""
