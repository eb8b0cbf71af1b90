"""How name servers, leases and what DHCP tells are written: text to value, for ``relay.settings``."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from actors.settings import FixedLease
from netstack.dhcp_boot import ARCHITECTURES, BootFile
from netstack.dhcp_options import Route
from netstack.dns_local import parse_domain
from netstack.dns_zone import MAX_DOMAIN, RESERVED_NAMES, clean_label, is_lan_domain
from netstack.ethernet import is_station, parse_mac
from netstack.name_servers import DNS_PORT, MAX_SERVERS, NameServer

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LEASES = 4096
"""Fixed leases of one LAN."""

MAX_DOMAINS = 64
"""Domains of ``--dns-allow-private``: each is looked at for each question."""


MAX_SEARCH_DOMAINS, MAX_NTP_SERVERS, MAX_ROUTES, MAX_BOOT_FILES = 32, 8, 32, 32
"""What DHCP tells has to fit a message, of 548 bytes with many clients."""

NOT_FOR_LANS = ("localhost", "local", "arpa", "invalid", "onion")
"""Domains that resolvers answer themselves, ask others about, or refuse (RFC 6761, 6762 and 7686)."""

MAX_FILE = 255
"""Bytes of a boot file's name or URL, and of a proxy configuration's URL: one option."""


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
        if b"*" in parse_domain(domain).labels:
            raise ValueError(f"{domain!r} is no domain: leave the * out, for names under a domain are meant")
    return domains


def parse_fixed_leases(text: str) -> tuple[FixedLease, ...]:
    """Read ``52:54:00:00:00:01=10.0.2.50`` or ``…=10.0.2.50=NAME``, with commas between.

    Raises ValueError for what is not written so, or is given twice. Whether the LAN has the addresses is
    another question.
    """
    leases = tuple(_fixed_lease(item) for item in _items(text))
    if len(leases) > MAX_LEASES:
        raise ValueError(f"must be at most {MAX_LEASES} leases")
    for what, values in (
        ("MAC", [lease.mac for lease in leases]),
        ("address", [lease.ip for lease in leases]),
        ("name", [lease.name for lease in leases if lease.name]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"has the same {what} twice")
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


def parse_lan_domain(text: str) -> str:
    """Read the domain of the guests' names, such as ``vm.internal``. Raises ValueError."""
    name = parse_domain(text)
    domain = name.to_text(omit_final_dot=True)
    if not is_lan_domain(domain):
        raise ValueError(f"must be a domain such as vm.internal, of up to {MAX_DOMAIN} characters")
    if any(name.is_subdomain(parse_domain(special)) for special in NOT_FOR_LANS) and domain != "home.arpa":
        raise ValueError("must be a domain that resolvers ask name servers about, as vm.internal is")
    return domain


def parse_search_domains(text: str) -> tuple[str, ...]:
    """Read ``example.com``, with commas between. Raises ValueError for no domain, or too many."""
    domains = parse_domains(text)
    if len(domains) > MAX_SEARCH_DOMAINS:
        raise ValueError(f"must be at most {MAX_SEARCH_DOMAINS} domains")
    if any(parse_domain(domain) == parse_domain(".") for domain in domains):
        raise ValueError("the root is no domain to search in")
    return domains


def parse_addresses(text: str) -> tuple[bytes, ...]:
    """Read the IPv4 addresses of NTP servers, with commas between. Raises ValueError."""
    addresses = tuple(_ipv4(item, f"{item!r} is not an IPv4 address") for item in _items(text))
    if len(addresses) > MAX_NTP_SERVERS:
        raise ValueError(f"must be at most {MAX_NTP_SERVERS} servers")
    return addresses


def parse_routes(text: str) -> tuple[Route, ...]:
    """Read ``192.168.0.0/16=10.0.2.15``, with commas between.

    Raises ValueError for what is not written so, or has a network twice.
    """
    routes = tuple(_route(item) for item in _items(text))
    if len(routes) > MAX_ROUTES:
        raise ValueError(f"must be at most {MAX_ROUTES} routes")
    if len({route[:2] for route in routes}) < len(routes):
        raise ValueError("has the same network twice")
    return routes


def _route(text: str) -> Route:
    network_text, _, router_text = text.partition("=")
    expected = f"{text!r} is not NETWORK=ROUTER, as 192.168.0.0/16=10.0.2.15"
    router = _ipv4(router_text, expected)
    try:
        network = ipaddress.IPv4Network(network_text)
    except ValueError:
        raise ValueError(expected) from None
    return Route(network.network_address.packed, network.prefixlen, router)


def parse_boot_files(text: str) -> tuple[BootFile, ...]:
    """Read ``FILE@SERVER``, ``ARCH=FILE@SERVER`` or ``ARCH=URL``, with commas between.

    ARCH is a number (RFC 4578) or one of ``netstack.dhcp_boot.ARCHITECTURES``; a file without it is for all
    others. Raises ValueError for what is not written so, or has an architecture twice.
    """
    files = tuple(_boot_file(item) for item in _items(text))
    if len(files) > MAX_BOOT_FILES:
        raise ValueError(f"must be at most {MAX_BOOT_FILES} boot files")
    if sum(not file.architectures for file in files) > 1:
        raise ValueError("has two files for all architectures")
    numbers = [number for file in files for number in file.architectures]
    if len(set(numbers)) < len(numbers):
        raise ValueError("has the same architecture twice")
    return files


def _boot_file(text: str) -> BootFile:
    name, chosen, rest = text.partition("=")
    architectures: tuple[int, ...] = ()
    # In a file's name or a URL there is a dot or a slash before any "=".
    if chosen and name.isascii() and name.replace("-", "").isalnum():
        architectures = _architectures(name)
    else:
        rest = text
    file, _, server = rest.rpartition("@")
    try:
        address = ipaddress.IPv4Address(server).packed
    except ValueError:
        file, address = rest, bytes(4)
    if address == bytes(4) and "://" not in file:
        raise ValueError(f"{text!r} is not FILE@SERVER, with the IPv4 address of a TFTP server, nor a URL")
    _check_text(file, "the name of a file")
    return BootFile(architectures, file, address)


def _architectures(name: str) -> tuple[int, ...]:
    known = ARCHITECTURES.get(name.lower())
    if known is not None:
        return known
    if name.isdecimal() and int(name[:6]) <= 0xFFFF:  # noqa: PLR2004 - 16 bits
        return (int(name),)
    raise ValueError(f"{name!r} is no architecture: {', '.join(ARCHITECTURES)}, or a number (RFC 4578)")


def parse_wpad(text: str) -> str:
    """Read the URL of a proxy configuration, or nothing. Raises ValueError."""
    if not text:
        return ""
    if not text.startswith(("http://", "https://")):
        raise ValueError("must be a URL, as http://10.0.2.15/wpad.dat")
    _check_text(text, "a URL")
    return text


def _check_text(text: str, what: str) -> None:
    if not text or len(text) > MAX_FILE or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:80]!r} is not {what}: up to {MAX_FILE} printable ASCII characters")


def _ipv4(text: str, expected: str) -> bytes:
    try:
        return ipaddress.IPv4Address(text).packed
    except ValueError:
        raise ValueError(expected) from None


def _items(text: str) -> Iterator[str]:
    return filter(None, (part.strip() for part in text.split(",")))
