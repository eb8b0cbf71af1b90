"""Settings of the guests' network, and of what the gateway answers there: DNS, DHCP, IPv6."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated

from actors.settings import FixedLease  # noqa: TC001 - hints are read
from netstack.dhcp_boot import BootFile  # noqa: TC001 - hints are read
from netstack.dhcp_options import Route  # noqa: TC001 - same
from netstack.dns_zone import LAN_DOMAIN as DEFAULT_DOMAIN
from netstack.lan_network import DEFAULT_NETWORK, LARGEST, SMALLEST
from netstack.name_servers import NameServer  # noqa: TC001 - same
from relay.setting_kinds import (
    ADDRESS,
    ADDRESSES,
    BOOT_FILES,
    DAY,
    DOMAINS,
    FIXED_LEASES,
    LAN_DOMAIN,
    LAN_NETWORK,
    NAME_SERVERS,
    PREFIX,
    ROUTES,
    SEARCH,
    SWITCH,
    WPAD,
    Option,
    seconds,
)

_PREFIX6 = IPv6Network("fd76:6d72:656c:6179::/64")
"""A unique local prefix (RFC 4193); what it names never leaves the LAN."""


@dataclass(frozen=True)
class NetworkSettings:
    """A LAN's addresses, names and rules among guests."""

    network: Annotated[
        IPv4Network,
        Option(
            LAN_NETWORK,
            "NETWORK",
            f"the guests' IPv4 network, /{LARGEST} to /{SMALLEST}; address + 2 in it is the gateway, + 3 "
            "answers DNS, + 4 is this machine (--host-access), and guests get those from + 10 on, in a /28 "
            "or /29 all that are left",
        ),
    ] = DEFAULT_NETWORK
    domain: Annotated[str, Option(LAN_DOMAIN, "DOMAIN", "domain of the guests' names")] = DEFAULT_DOMAIN
    dns: Annotated[
        IPv4Address | None,
        Option(ADDRESS, "ADDRESS", "DNS server that guests are told to use, instead of the gateway"),
    ] = None
    upstream_dns: Annotated[
        tuple[NameServer, ...],
        Option(
            NAME_SERVERS,
            None,
            "DNS server that the gateway asks, instead of those in /etc/resolv.conf; repeat, or comma list",
        ),
    ] = ()
    dns_allow_private: Annotated[
        tuple[str, ...],
        Option(
            DOMAINS,
            None,
            "let names under this domain have private addresses, and ask for them upstream even if they are "
            "special; repeat, or comma list",
        ),
    ] = ()
    static_lease: Annotated[
        tuple[FixedLease, ...],
        Option(FIXED_LEASES, None, "address, and name, that a guest always gets; repeat, or comma list"),
    ] = ()
    lease_time: Annotated[
        float, Option(seconds(30, DAY), "SECONDS", "life of a DHCP lease; guests renew it at half time")
    ] = 3600.0
    peer_list: Annotated[bool, Option(SWITCH, None, "tell a client of the others when it asks")] = True
    isolated: Annotated[bool, Option(SWITCH, None, "let guests see the gateway only, and not each other")] = (
        False
    )
    source_guard: Annotated[
        bool, Option(SWITCH, None, "drop what guests send from addresses that are not their own")
    ] = True
    dhcp: Annotated[
        bool, Option(SWITCH, None, "answer DHCP and BOOTP; without, a guest may be the DHCP server")
    ] = True
    dhcp_boot: Annotated[
        tuple[BootFile, ...],
        Option(
            BOOT_FILES,
            None,
            "what machines boot: a file at a TFTP server (10.0.2.4 is this machine, with --host-access) or a "
            "URL; ARCH is bios, efi32, efi64, arm32, arm64, ipxe or a number of RFC 4578, and without it the "
            "file is for all others; repeat, or comma list",
        ),
    ] = ()
    dhcp_search: Annotated[
        tuple[str, ...],
        Option(SEARCH, None, "domain in which guests look for short names; repeat, or comma list"),
    ] = ()
    dhcp_ntp: Annotated[
        tuple[bytes, ...],
        Option(ADDRESSES, None, "NTP server that guests are told of; repeat, or comma list"),
    ] = ()
    dhcp_route: Annotated[
        tuple[Route, ...],
        Option(
            ROUTES,
            None,
            "network that guests reach by way of another guest, who has the address ROUTER; repeat, or comma "
            "list",
        ),
    ] = ()
    dhcp_wpad: Annotated[str, Option(WPAD, "URL", "proxy configuration (WPAD) that guests are told of")] = ""
    ipv6: Annotated[bool, Option(SWITCH, None, "give guests IPv6, by router advertisements")] = True
    ipv6_prefix: Annotated[
        IPv6Network, Option(PREFIX, "NETWORK", "/64 network of the guests' IPv6 addresses")
    ] = _PREFIX6
