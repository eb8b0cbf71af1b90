"""What one port of a switch may: as the LAN's settings say, or as the token that let its session in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING

from netstack.mac_table import MAX_MACS_PER_PORT

if TYPE_CHECKING:
    from actors.settings import LanSettings


class Guard(Flag):
    """What the switch keeps the guests behind a port from, frame by frame."""

    NONE = 0
    SOURCES = auto()
    """Sending from addresses that are another's (``netstack.source_guard``)."""
    DHCP = auto()
    """Answering DHCP."""
    ROUTER = auto()
    """Posing as the router: ARP for its addresses, router advertisements, DHCPv6 (``netstack.ra_guard``)."""


class Role(Enum):
    """What is behind a port; the values are bits of HEARS and TAKES."""

    GUEST = 1
    ISOLATED = 2
    """A guest that sees the gateway only."""
    GATEWAY = 4
    TRUNK = 8
    """Another worker, with guests of the same room and a gateway for them."""


HEARS = {
    Role.GUEST: Role.GUEST.value | Role.GATEWAY.value | Role.TRUNK.value,
    Role.ISOLATED: Role.GATEWAY.value,
    Role.GATEWAY: Role.GUEST.value | Role.ISOLATED.value,
    Role.TRUNK: Role.GUEST.value,
}
"""Of whom a port gets what is for all or for a group. Each worker has a gateway, which speaks to its own
guests; what came by a trunk goes by none (split horizon)."""

TAKES = HEARS | {Role.TRUNK: Role.GUEST.value | Role.GATEWAY.value}
"""Of whom a port gets what is for one NIC behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPolicy:
    """Limits and rights of one port."""

    bits_per_second: int
    """Of frames, from and to the session; 0 for no limit."""
    packets_per_second: int
    max_flows: int
    """NAT mappings that its guests open, and as many at once."""
    new_flows_per_second: float
    max_half_open: int
    """TCP connections that its guests open and that wait for an answer."""
    macs: frozenset[bytes] | None = None
    """MACs of its guests (6 bytes each); None for any."""
    max_macs: int = MAX_MACS_PER_PORT
    """How many of them at a time."""
    is_forwarded_to: bool = True
    """Whether forwards may lead to its guests."""
    floods_per_second: float
    """Frames that the switch may copy to all other ports; above it they are dropped."""
    isolated: bool = False
    """Whether its guests see the gateway only, and no other guest sees them."""
    guards: Guard = Guard.SOURCES | Guard.DHCP | Guard.ROUTER
    role: Role = Role.GUEST
    own: frozenset[str] = frozenset()
    """Names of what the port has of its own; all else is as the LAN's settings say, and changes with them."""

    def following(self, usual: PortPolicy) -> PortPolicy:
        """Give this policy where ``usual`` is what the settings say by now."""
        own = {name: getattr(self, name) for name in self.own}
        return replace(usual, own=self.own, **own) if own else usual


_USUAL_GUARDS = {
    (dhcp, sources): Guard.ROUTER
    | (Guard.DHCP if dhcp else Guard.NONE)
    | (Guard.SOURCES if sources else Guard.NONE)
    for dhcp in (False, True)
    for sources in (False, True)
}
"""By whether the LAN has DHCP and guards sources. Each session needs one, and a flag's ``|`` is slow."""


def usual_policy(settings: LanSettings) -> PortPolicy:
    """Tell what a port may of which nothing else is known."""
    return PortPolicy(
        bits_per_second=settings.bits_per_second,
        packets_per_second=settings.packets_per_second,
        max_flows=settings.max_flows_per_peer,
        new_flows_per_second=settings.new_flows_per_second,
        max_half_open=settings.max_half_open_per_peer,
        floods_per_second=settings.floods_per_second,
        isolated=settings.isolated,
        guards=_USUAL_GUARDS[settings.dhcp, settings.source_guard],
    )


def gateway_policy(settings: LanSettings) -> PortPolicy:
    """Tell what the gateway's port may: it sends from one MAC, without limits, and is kept from nothing."""
    return PortPolicy(
        bits_per_second=0,
        packets_per_second=0,
        max_flows=0,
        new_flows_per_second=0.0,
        max_half_open=0,
        macs=frozenset({settings.gateway_mac}),
        max_macs=1,
        is_forwarded_to=False,
        floods_per_second=0.0,
        guards=Guard.NONE,
        role=Role.GATEWAY,
    )
