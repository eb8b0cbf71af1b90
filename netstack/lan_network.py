"""Whose the addresses of a LAN's network are: one rule for networks of /16 to /29.

Counted from the network's own address 2 is the gateway, 3 answers DNS and 4 is the relay's machine, as in
QEMU's user network. Guests get what is from 10 on, and may take others by hand; a /28 or /29 has no such
reserve, and there guests get all that is left.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from netstack.ipv4 import FIRST_MULTICAST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netstack.dhcp_options import Route

DEFAULT_NETWORK = IPv4Network("10.0.2.0/24")

LARGEST, SMALLEST = 16, 29
"""Lengths of the prefixes of networks that a LAN can have."""

_GATEWAY, _DNS, _HOST, _FIRST_GUEST = 2, 3, 4, 10
_SMALL = 28
"""Length of the prefix from which on guests get all that is left."""


class LanAddresses(NamedTuple):
    """Addresses of one LAN, 4 bytes each; named as in ``actors.settings.LanSettings``."""

    netmask: bytes
    gateway_ip: bytes
    dns_ip: bytes
    """Where the gateway answers DNS too."""
    host_ip: bytes
    """With host access: the relay's machine."""
    pool_first: bytes
    pool_last: bytes
    """What guests get, from the first to the last of these, without the gateway's three."""

    @property
    def services(self) -> frozenset[bytes]:
        """Those that no guest may have."""
        return frozenset({self.gateway_ip, self.dns_ip, self.host_ip})


def addresses_of(network: IPv4Network) -> LanAddresses:
    """Tell whose the addresses of a network are. Raises ValueError for one that no LAN can have."""
    if not LARGEST <= network.prefixlen <= SMALLEST:
        raise ValueError(f"{network} is not a network of /{LARGEST} to /{SMALLEST}")
    if network[0].is_loopback or network[0].is_link_local or not 0 < network[0].packed[0] < FIRST_MULTICAST:
        raise ValueError(f"{network} has no addresses for hosts")
    first = 1 if network.prefixlen >= _SMALL else _FIRST_GUEST
    numbers = (_GATEWAY, _DNS, _HOST, first, network.num_addresses - 2)
    return LanAddresses(network.netmask.packed, *(network[number].packed for number in numbers))


def is_reached_inside(address: IPv4Address, network: IPv4Network, routes: Iterable[Route] = ()) -> bool:
    """Whether guests reach an address on the LAN, or behind a guest that ``routes`` lead to."""
    others = (IPv4Network((route.network, route.prefix_length)) for route in routes)
    return any(address in each for each in (network, *others))
