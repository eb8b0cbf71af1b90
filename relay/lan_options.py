"""How name servers and fixed leases are written: text to value, for ``relay.settings``."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from actors.settings import FixedLease, LanSettings
from netstack.address_pool import AddressPool
from netstack.dns_local import parse_domain
from netstack.dns_zone import RESERVED_NAMES, clean_label
from netstack.ethernet import is_station, parse_mac
from netstack.name_servers import DNS_PORT, MAX_SERVERS, NameServer

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LEASES = 250
"""Fixed leases: as many as the LAN has addresses for guests."""

MAX_DOMAINS = 64
"""Domains of ``--dns-allow-private``: each is looked at for each question."""


def parse_name_servers(text: str) -> tuple[NameServer, ...]:
    """Read ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353``, with commas between.

    Raises ValueError that says what is expected.
    """
    servers = tuple(_name_server(item) for item in _items(text))
    if len(servers) > MAX_SERVERS:
        raise ValueError(f"must be at most {MAX_SERVERS} name servers")
    return servers


def _name_server(text: str) -> NameServer:
    host, port = text, str(DNS_PORT)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest or not closed else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{text!r} is not ADDRESS or ADDRESS:PORT, as 192.0.2.1:53 or [2001:db8::1]:53"
        ) from None
    if not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):  # noqa: PLR2004 - a port
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return NameServer(host, int(port))


def parse_domains(text: str) -> tuple[str, ...]:
    """Read ``example.com``, with commas between. Raises ValueError for what is no domain."""
    domains = tuple(_items(text))
    if len(domains) > MAX_DOMAINS:
        raise ValueError(f"must be at most {MAX_DOMAINS} domains")
    for domain in domains:
        parse_domain(domain)
    return domains


def parse_fixed_leases(text: str) -> tuple[FixedLease, ...]:
    """Read ``52:54:00:00:00:01=10.0.2.50`` or ``…=10.0.2.50=NAME``, with commas between.

    Raises ValueError for what is not written so, is not on the LAN, or is given twice.
    """
    leases = tuple(_fixed_lease(item) for item in _items(text))
    if len(leases) > MAX_LEASES:
        raise ValueError(f"must be at most {MAX_LEASES} leases")
    for what, values in (
        ("MAC", [lease.mac for lease in leases]),
        ("name", [lease.name for lease in leases if lease.name]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"has the same {what} twice")
    lan = LanSettings()
    AddressPool(
        lan.network, reserved=lan.gateway_ips | {lan.host_ip}, fixed={lease.mac: lease.ip for lease in leases}
    )
    return leases


def _fixed_lease(text: str) -> FixedLease:
    mac_text, _, rest = text.partition("=")
    address, named, name = rest.partition("=")
    try:
        mac, ip = parse_mac(mac_text), ipaddress.IPv4Address(address).packed
    except ValueError:
        mac = ip = b""
    if not is_station(mac):
        raise ValueError(
            f"{text!r} is not MAC=ADDRESS or MAC=ADDRESS=NAME, as 52:54:00:00:00:01=10.0.2.50=web"
        )
    label = clean_label(name)
    if named and (label != name.lower() or not label or label in RESERVED_NAMES):
        raise ValueError(f"{name!r} cannot be the name of a guest")
    return FixedLease(mac, ip, label)


def _items(text: str) -> Iterator[str]:
    return filter(None, (part.strip() for part in text.split(",")))
