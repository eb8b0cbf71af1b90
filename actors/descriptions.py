"""What actors say of themselves to an operator: every actor answers ``Describe`` with one of these.

Texts are for people and JSON: MACs as ``02:00:00:00:00:01``, addresses without prefix. Times are seconds
until now (``age``, ``silent``) or from now on (``ends_in``), sizes are bytes. What is not known is None.
Nobody reaches into another's attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Describe:
    """Asks an actor what it is and has at this moment."""


@dataclass(frozen=True, slots=True)
class PathState:
    """How a session's packets fare."""

    carrier: str
    """``webtransport`` or ``websocket``; ``none`` while the client is away."""
    round_trip: float | None = None
    """Seconds, smoothed (RFC 9002 section 5.3); None on a WebSocket, where TCP alone knows."""
    packets_sent: int | None = None
    packets_lost: int | None = None


@dataclass(frozen=True, slots=True)
class PeerDescription:
    """A session."""

    port: int
    """Number of its port of the switch, which no other session of the process has."""
    room: str
    remote: str
    carrier: str
    encapsulation: str | None
    """``framed`` or ``raw``; None for a client that has said nothing yet."""
    name: str | None
    mac: str | None
    address: str | None
    mtu: int
    age: float
    silent: float
    frames_in: int
    """Frames from the guest; ``_out`` are those to it."""
    bytes_in: int
    frames_out: int
    bytes_out: int
    queued: int
    """Bytes that wait to be sent."""
    round_trip: float | None
    packets_sent: int | None
    packets_lost: int | None
    drops: dict[str, int]
    """Frames of and for this session that were dropped, by reason."""
    flows: int = 0
    """NAT mappings and connections of its guests; which the gateway knows, and not the session."""


@dataclass(frozen=True, slots=True)
class MacDescription:
    """A MAC address that the switch knows."""

    mac: str
    port: int
    registered: bool
    """Whether a registration binds it; otherwise it was learned from a frame."""
    silent: float | None
    """Seconds since its last frame; None for a registered one, which does not age."""


@dataclass(frozen=True, slots=True)
class SwitchDescription:
    """A LAN's switch."""

    ports: int
    macs: tuple[MacDescription, ...]
    drops: dict[int, dict[str, int]]
    """Frames that were dropped, by the port of who sent them and by reason."""


@dataclass(frozen=True, slots=True)
class LeaseDescription:
    """An address of a LAN that somebody holds."""

    address: str
    mac: str
    port: int | None
    """Where its guest is; None while it is away."""
    name: str | None
    fixed: bool


@dataclass(frozen=True, slots=True)
class DescribeHolder:
    """Asks a gateway who has an address of the LAN."""

    address: bytes
    """4 or 16 bytes; or 6, the MAC of a guest."""


@dataclass(frozen=True, slots=True)
class HolderDescription:
    """A guest that has an address, at this worker or at another one."""

    mac: str
    port: int | None
    """Where it is here; None for one that is away, or elsewhere."""
    name: str | None
    elsewhere: bool
    """Whether it is at another worker of the room's, of this machine or another one."""


@dataclass(frozen=True, slots=True)
class FlowDescription:
    """A NAT mapping or a connection."""

    protocol: str
    """``udp``, ``icmp`` or ``tcp``."""
    port: int
    """The guest's port of the switch."""
    guest: str
    """Address and UDP or TCP port, or echo identifier, of the guest."""
    remote: str
    """The other end as the guest names it; of a mapping the latest one."""
    state: str
    age: float
    ends_in: float | None
    """Seconds until it ends if nothing more happens."""
    bytes_out: int | None = None
    """From the guest; ``_in`` are those to it."""
    bytes_in: int | None = None


@dataclass(frozen=True, slots=True)
class GatewayDescription:
    """A LAN's gateway."""

    network: str
    gateway: str
    pool_size: int
    """Addresses that there are for guests."""
    leases: tuple[LeaseDescription, ...]
    """Of this worker's guests."""
    flows: dict[int, tuple[Any, ...]]
    """References of the flows' actors, each of which may be asked in turn, by the port of their guest."""
    drops: dict[int, dict[str, int]]
    """As the switch's."""


@dataclass(frozen=True, slots=True)
class NamesDescription:
    """A LAN's name server."""

    names: dict[str, tuple[str, ...]]
    """Guests' names, with their addresses."""
    cached: int
    in_flight: int
    """Questions that name servers outside were asked and have not answered yet."""


@dataclass(frozen=True, slots=True)
class ForwardDescription:
    """A port of the host that leads to a guest."""

    forward: str
    """As ``--forward`` writes it."""
    guest: str | None
    """Where it leads; None while its guest is not there, or before anybody asked."""
    clients: int | None
    """UDP clients that are remembered; None for TCP, whose connections are flows, and where another worker or
    machine has the guest."""
