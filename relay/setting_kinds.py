"""Kinds of settings: how the value of a setting is written, as text (flags, environment) and in TOML."""

from __future__ import annotations

import argparse
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from netstack.buffer_budget import LEAST
from netstack.egress import parse_network
from netstack.forward import parse_forwards
from netstack.lan_network import LARGEST, SMALLEST, addresses_of
from netstack.room_wire import MAX_URLS
from relay.admin_place import parse_place
from relay.home import at_home
from relay.lan_options import (
    parse_addresses,
    parse_boot_files,
    parse_domains,
    parse_fixed_leases,
    parse_lan_domain,
    parse_name_servers,
    parse_routes,
    parse_search_domains,
    parse_wpad,
)
from relay.log_filter import parse_log_filter
from transport.origins import MAX_ALLOWED, parse_origins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Network = IPv4Network | IPv6Network

OFF, OPTIONAL, REQUIRED = AUTH_CHOICES = ("off", "optional", "required")
"""What is done about tokens."""

MAX_NETWORKS = 1024
"""Entries of one address list: the egress policy goes through them one after the other."""

_PREFIX_LENGTH = 64
"""SLAAC needs it so (RFC 4862 with RFC 2464)."""


class SettingsError(Exception):
    """A setting is wrong; the message is one line that names where it was set."""


def flag(name: str) -> str:
    """Name a setting as on the command line."""
    return f"--{name.replace('_', '-')}"


class Kind(NamedTuple):
    """How a value is written: as text (flags, environment) and in TOML."""

    parse: Callable[[str], Any]
    """Text to value; raises ValueError with what is expected ("must be ...")."""
    toml: tuple[type, ...]
    """Types that TOML may have for it."""
    expected: str
    """Those types in words."""
    choices: tuple[str, ...] = ()
    """All values that there are, where they can be listed; what shells complete."""


class Option(NamedTuple):
    """One setting as the operator sees it."""

    kind: Kind
    metavar: str | None
    help: str
    own_variable: str | None = None
    """Environment variable, where it is not ``VMRELAY_`` and the name."""


def whole(low: int, high: int) -> Kind:
    """Make the kind of a whole number."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and low <= (value := int(text[:20])) <= high:
            return value
        raise ValueError(f"must be a whole number from {low} to {high}")

    return Kind(parse, (int,), "a whole number")


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
MAX_RATE = 10**12
MIN_TCP_BUFFER = LEAST
MAX_TCP_BUFFER = 2**30 - 1
"""Bytes: the largest window that TCP's scaling can tell (RFC 7323 section 2.3)."""
MAX_BUFFERS = 2**40


NO_RATE = "off"
"""How no limit is written; its value is 0."""


def _parse_rate(text: str) -> int:
    """Read a number per second, or ``off``."""
    if text.lower() == NO_RATE:
        return 0
    match = re.fullmatch(r"([0-9]{1,13})([kMG]?)", text)
    if match and 1 <= (value := int(match[1]) * _UNITS[match[2]]) <= MAX_RATE:
        return value
    raise ValueError("must be off, or a number per second, such as 50M, with k, M or G for thousands")


_BINARY_UNITS = {"": 1, "k": 2**10, "M": 2**20, "G": 2**30}


def parse_size(text: str, low: int, high: int) -> int:
    """Read a number of bytes, with k, M or G for powers of 1024. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,13})([kMG]?)", text)
    if match and low <= (value := int(match[1]) * _BINARY_UNITS[match[2]]) <= high:
        return value
    raise ValueError(
        f"must be a number of bytes from {low} to {high}, such as 8M, with k, M or G for powers of 1024"
    )


def size(low: int, high: int) -> Kind:
    """Make the kind of a number of bytes."""

    def parse(text: str) -> int:
        return parse_size(text, low, high)

    return Kind(parse, (int, str), "a number or a string")


HOUR, DAY = 3600.0, 86_400.0
"""In seconds."""

_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)", re.ASCII)


def parse_duration(text: str) -> float:
    """Read a time in seconds, or with a unit (``5m``). Raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError("must be a time such as 90, 30s, 5m, 12h or 7d")
    return float(found[1]) * _TIMES[found[2]]


def seconds(low: float, high: float) -> Kind:
    """Make the kind of a number of seconds, which may have a unit."""

    def parse(text: str) -> float:
        try:
            value = parse_duration(text)
        except ValueError:
            value = -1.0
        if low <= value <= high:
            return value
        raise ValueError(f"must be a number of seconds from {low:g} to {high:g}, or a time such as 5m")

    return Kind(parse, (int, float, str), 'a number of seconds, or a time such as "5m"')


def choice(*choices: str) -> Kind:
    """Make the kind of one of some words."""

    def parse(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise ValueError(f"must be one of {', '.join(choices)}")

    return Kind(parse, (str,), "a string", choices)


def _parse_networks(text: str) -> tuple[Network, ...]:
    networks = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(parse_network(item))
        except ValueError as error:
            reason = "has host bits set" if "host bits" in str(error) else "is not an address or a network"
            raise ValueError(f"{item!r} {reason}; write networks as 192.0.2.0/24 or 2001:db8::/32") from None
    if len(networks) > MAX_NETWORKS:
        raise ValueError(f"must be at most {MAX_NETWORKS} networks")
    return tuple(networks)


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = parse_origins(text)
    if len(origins) > MAX_ALLOWED:
        raise ValueError(f"must be at most {MAX_ALLOWED} origins")
    return origins


def _parse_address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError("must be an IPv4 address") from None


def _parse_lan_network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
        addresses_of(network)
    except ValueError:
        raise ValueError(
            f"must be an IPv4 network of /{LARGEST} to /{SMALLEST}, such as 10.0.2.0/24"
        ) from None
    return network


def _parse_prefix(text: str) -> IPv6Network:
    try:
        prefix = IPv6Network(text)
    except ValueError:
        prefix = IPv6Network("::/128")
    if (
        prefix.prefixlen != _PREFIX_LENGTH
        or prefix.is_multicast
        or prefix.is_link_local
        or int(prefix[0]) == 0
    ):
        raise ValueError("must be a /64 network such as fd12:3456:789a:1::/64")
    return prefix


def _parse_host(text: str) -> str:
    """Read an address, in the one spelling that it is known by from then on, or a name."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(host)
    except ValueError:
        if not host or any(character.isspace() or character in "/@:,*[]" for character in host):
            raise ValueError(
                "must be one address or a host name of this machine, or :: for all; the port is --port's"
            ) from None
        return host.lower()
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _parse_path(text: str) -> Path:
    if "\0" in text or not text:
        raise ValueError("must be the path of a file")
    return at_home(text)


AUTO_STATE, NO_STATE = "auto", "none"
"""Words that stand for a folder."""


def _parse_state(text: str) -> str:
    if text.lower() in (AUTO_STATE, NO_STATE):
        return text.lower()
    return str(_parse_path(text))


AUTO_WORKERS = "auto"
MAX_WORKERS = 64
"""Each has a slot in the first byte of connection IDs, and four of that byte's values."""


def _parse_workers(text: str) -> int | str:
    if text.lower() == AUTO_WORKERS:
        return AUTO_WORKERS
    if text.isascii() and text.isdecimal() and 1 <= (number := int(text[:20])) <= MAX_WORKERS:
        return number
    raise ValueError(f"must be auto, or a whole number from 1 to {MAX_WORKERS}")


MAX_HOST = 100
"""Characters of a host in a URL that others are told: several have to fit a datagram."""

_HOST = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_HOST}}}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
MAX_SERVERS = 16
MAX_NODE_NAME = 255


def _parse_nats_urls(text: str) -> tuple[str, ...]:
    """Read servers' URLs; schemes are written small, for the client takes others for hosts without TLS."""
    urls = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            parts = urlsplit(item)
            usable = parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            parts, usable = urlsplit(""), False
        if not usable or any(map(str.isspace, item)):
            raise ValueError("must be URLs such as nats://HOST:4222 or tls://USER:PASSWORD@HOST:4222")
        urls.append(parts.scheme + item[len(parts.scheme) :])
    if len(urls) > MAX_SERVERS:
        raise ValueError(f"must be at most {MAX_SERVERS} servers")
    return tuple(urls)


def _parse_client_urls(text: str) -> tuple[str, ...]:
    """Read URLs of a machine; rooms and tokens are its clients' to add."""
    urls = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            parts = urlsplit(item)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        host = parts.hostname or ""
        plain = (
            f"https://{parts.netloc}" == item.removesuffix("/")
            and "@" not in parts.netloc
            and parts.netloc[-1:] != ":"
        )
        if not plain or not _HOST.fullmatch(host) or port == 0:
            raise ValueError("must be URLs such as https://relay.example:4433, without a path")
        urls.append(f"https://{parts.netloc}")
    if len(urls) > MAX_URLS:
        raise ValueError(f"must be at most {MAX_URLS} URLs")
    return tuple(dict.fromkeys(urls))


def _parse_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError("must be 1 to 63 letters, digits, - or _")
    return text


def _parse_node(text: str) -> str:
    if len(text) > MAX_NODE_NAME or not text.isprintable():
        raise ValueError(f"must be a name of up to {MAX_NODE_NAME} characters")
    return text


_SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True}
_SWITCH_WORDS |= {"0": False, "false": False, "no": False, "off": False}


def _parse_switch(text: str) -> bool:
    try:
        return _SWITCH_WORDS[text.lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


FORWARDS = Kind(parse_forwards, (list,), "a list of strings")
NETWORKS = Kind(_parse_networks, (list,), "a list of strings")
NAME_SERVERS = Kind(parse_name_servers, (list,), "a list of strings")
FIXED_LEASES = Kind(parse_fixed_leases, (list,), "a list of strings")
DOMAINS = Kind(parse_domains, (list,), "a list of strings")
SEARCH = Kind(parse_search_domains, (list,), "a list of strings")
ADDRESSES = Kind(parse_addresses, (list,), "a list of strings")
ROUTES = Kind(parse_routes, (list,), "a list of strings")
BOOT_FILES = Kind(parse_boot_files, (list,), "a list of strings")
WPAD = Kind(parse_wpad, (str,), "a string")
LOG_FILTER = Kind(parse_log_filter, (list,), "a list of strings")
ORIGINS = Kind(_parse_origins, (list,), "a list of strings")
ADDRESS = Kind(_parse_address, (str,), "a string")
LAN_NETWORK = Kind(_parse_lan_network, (str,), "a string")
LAN_DOMAIN = Kind(parse_lan_domain, (str,), "a string")
PREFIX = Kind(_parse_prefix, (str,), "a string")
HOST = Kind(_parse_host, (str,), "a string")
ADMIN = Kind(parse_place, (str,), "a string")
PATH = Kind(_parse_path, (str,), "a string")
STATE = Kind(_parse_state, (str,), "a string")
RATE = Kind(_parse_rate, (int, str), "a number or a string")
WORKERS = Kind(_parse_workers, (int, str), "a number or a string")
CLIENT_URLS = Kind(_parse_client_urls, (list,), "a list of strings")
NATS_URLS = Kind(_parse_nats_urls, (list,), "a list of strings")
CLUSTER_NAME = Kind(_parse_word, (str,), "a string")
CLUSTER_NODE = Kind(_parse_node, (str,), "a string")
SWITCH = Kind(_parse_switch, (bool,), "true or false")

ARGUMENTS: Mapping[Kind, dict[str, Any]] = {
    SWITCH: {"action": argparse.BooleanOptionalAction},
    NETWORKS: {"action": "append", "metavar": "NETWORK"},
    FORWARDS: {"action": "append", "metavar": "FORWARD"},
    NAME_SERVERS: {"action": "append", "metavar": "ADDRESS[:PORT]"},
    DOMAINS: {"action": "append", "metavar": "DOMAIN"},
    LOG_FILTER: {"action": "append", "metavar": "PART=LEVEL"},
    ORIGINS: {"action": "append", "metavar": "ORIGIN"},
    CLIENT_URLS: {"action": "append", "metavar": "URL"},
    NATS_URLS: {"action": "append", "metavar": "URL"},
    FIXED_LEASES: {"action": "append", "metavar": "MAC=ADDRESS[=NAME]"},
    SEARCH: {"action": "append", "metavar": "DOMAIN"},
    ADDRESSES: {"action": "append", "metavar": "ADDRESS"},
    ROUTES: {"action": "append", "metavar": "NETWORK=ROUTER"},
    BOOT_FILES: {"action": "append", "metavar": "[ARCH=]FILE[@SERVER]"},
}
"""How argparse takes the kinds that are not "a flag and its text"."""
