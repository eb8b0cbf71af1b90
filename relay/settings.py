"""What an operator can set, and where it comes from.

One table, the fields of ``Settings``, describes every setting; flags, environment variables and the TOML
file are derived from it. A value is looked up in this order: flag, environment variable, configuration
file, default. Lists replace each other, they are not joined across sources.

Every value goes through the same check wherever it comes from, and a bad one is a ``SettingsError`` that
names its source in one line.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
import tomllib
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

from actors.buffer_budget import LEAST
from actors.settings import FixedLease, LanSettings
from netstack.dhcp_boot import BootFile  # noqa: TC001 - same
from netstack.dhcp_options import Route  # noqa: TC001 - same
from netstack.forward import Clients, Forward, parse_forwards
from netstack.name_servers import NameServer  # noqa: TC001 - same
from relay.lan_options import (
    parse_addresses,
    parse_boot_files,
    parse_domains,
    parse_fixed_leases,
    parse_name_servers,
    parse_routes,
    parse_search_domains,
    parse_wpad,
)
from relay.spelling import MAX_NAMED, is_service_link, misspelt_variables, perhaps
from transport.origins import MAX_ALLOWED, parse_origins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Network = IPv4Network | IPv6Network

CONFIG_VARIABLE = "VMRELAY_CONFIG"

OTHER_VARIABLES = (CONFIG_VARIABLE, "VMRELAY_COMPILE", "VMRELAY_ACCELERATED", "RELAYBENCH")
"""Variables that are no settings: the file's, and those of the build, the tests and the load generator."""

WEB_CHOICES = ("auto", "https", "off")
LOG_FORMATS = ("auto", "human", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
ROOM_CREATION = ("any", "listed")
UDP_FILTERINGS = ("address-dependent", "endpoint-independent")

MAX_CONFIG_BYTES = 1 << 20
"""Largest configuration file that is read."""

MAX_NETWORKS = 1024
"""Entries of one address list: the egress policy goes through them one after the other."""

_DAY = 86_400.0

MAX_KEEP_ALIVE = 32_767.0
"""Seconds of silence that Linux takes before it probes."""

_PREFIX_LENGTH = 64
"""SLAAC needs it so (RFC 4862 with RFC 2464)."""

_PREFIX6 = IPv6Network("fd76:6d72:656c:6179::/64")
"""A unique local prefix (RFC 4193); what it names never leaves the LAN."""

_DNS = IPv4Address("10.0.2.2")
"""The gateway, which knows the guests' names and asks the host's name servers about all others."""


class SettingsError(Exception):
    """A setting is wrong; the message is one line that names where it was set."""


class Kind(NamedTuple):
    """How a value is written: as text (flags, environment) and in TOML."""

    parse: Callable[[str], Any]
    """Text to value; raises ValueError with what is expected ("must be ...")."""
    toml: tuple[type, ...]
    """Types that TOML may have for it."""
    expected: str
    """Those types in words."""


class Option(NamedTuple):
    """One setting as the operator sees it."""

    kind: Kind
    metavar: str | None
    help: str
    own_variable: str | None = None
    """Environment variable, where it is not ``VMRELAY_`` and the name."""


# -- kinds of values ----------------------------------------------------------------------------------


def _whole(low: int, high: int) -> Kind:
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


def _parse_rate(text: str) -> int:
    """Read a number per second, or ``off``, which is 0."""
    if text.lower() == "off":
        return 0
    match = re.fullmatch(r"([0-9]{1,13})([kMG]?)", text)
    if match and 1 <= (value := int(match[1]) * _UNITS[match[2]]) <= MAX_RATE:
        return value
    raise ValueError("must be off, or a number per second, such as 50M, with k, M or G for thousands")


_BINARY_UNITS = {"": 1, "k": 2**10, "M": 2**20, "G": 2**30}


def _bytes(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,13})([kMG]?)", text)
        if match and low <= (value := int(match[1]) * _BINARY_UNITS[match[2]]) <= high:
            return value
        raise ValueError(
            f"must be a number of bytes from {low} to {high}, such as 8M, with k, M or G for powers of 1024"
        )

    return Kind(parse, (int, str), "a number or a string")


def _seconds(low: float, high: float) -> Kind:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if low <= value <= high:
            return value
        raise ValueError(f"must be a number of seconds from {low:g} to {high:g}")

    return Kind(parse, (int, float), "a number of seconds")


def _choice(*choices: str) -> Kind:
    def parse(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise ValueError(f"must be one of {', '.join(choices)}")

    return Kind(parse, (str,), "a string")


def _parse_networks(text: str) -> tuple[Network, ...]:
    networks = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(item))
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
    host = text.removeprefix("[").removesuffix("]")
    if not host or any(character.isspace() or character in "/@" for character in host):
        raise ValueError("must be an address or a host name of this machine")
    return host


def _parse_path(text: str) -> Path:
    if "\0" in text or not text:
        raise ValueError("must be the path of a file")
    return Path(text)


_SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True}
_SWITCH_WORDS |= {"0": False, "false": False, "no": False, "off": False}


def _parse_switch(text: str) -> bool:
    try:
        return _SWITCH_WORDS[text.lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


_FORWARDS = Kind(parse_forwards, (list,), "a list of strings")
_NETWORKS = Kind(_parse_networks, (list,), "a list of strings")
_NAME_SERVERS = Kind(parse_name_servers, (list,), "a list of strings")
_FIXED_LEASES = Kind(parse_fixed_leases, (list,), "a list of strings")
_DOMAINS = Kind(parse_domains, (list,), "a list of strings")
_SEARCH = Kind(parse_search_domains, (list,), "a list of strings")
_ADDRESSES = Kind(parse_addresses, (list,), "a list of strings")
_ROUTES = Kind(parse_routes, (list,), "a list of strings")
_BOOT_FILES = Kind(parse_boot_files, (list,), "a list of strings")
_WPAD = Kind(parse_wpad, (str,), "a string")
_ORIGINS = Kind(_parse_origins, (list,), "a list of strings")
_ADDRESS = Kind(_parse_address, (str,), "a string")
_PREFIX = Kind(_parse_prefix, (str,), "a string")
_HOST = Kind(_parse_host, (str,), "a string")
_PATH = Kind(_parse_path, (str,), "a string")
_RATE = Kind(_parse_rate, (int, str), "a number or a string")
_SWITCH = Kind(_parse_switch, (bool,), "true or false")

_ARGUMENT: Mapping[Kind, dict[str, Any]] = {
    _SWITCH: {"action": argparse.BooleanOptionalAction},
    _NETWORKS: {"action": "append", "metavar": "NETWORK"},
    _FORWARDS: {"action": "append", "metavar": "FORWARD"},
    _NAME_SERVERS: {"action": "append", "metavar": "ADDRESS[:PORT]"},
    _DOMAINS: {"action": "append", "metavar": "DOMAIN"},
    _ORIGINS: {"action": "append", "metavar": "ORIGIN"},
    _FIXED_LEASES: {"action": "append", "metavar": "MAC=ADDRESS[=NAME]"},
    _SEARCH: {"action": "append", "metavar": "DOMAIN"},
    _ADDRESSES: {"action": "append", "metavar": "ADDRESS"},
    _ROUTES: {"action": "append", "metavar": "NETWORK=ROUTER"},
    _BOOT_FILES: {"action": "append", "metavar": "[ARCH=]FILE[@SERVER]"},
}
"""How argparse takes the kinds that are not "a flag and its text"."""


# -- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, checked."""

    port: Annotated[
        int, Option(_whole(0, 65535), "N", "UDP port for QUIC and TCP port for WebSocket; 0 takes a free one")
    ] = 4433
    bind: Annotated[
        str,
        Option(
            _HOST,
            "ADDRESS",
            "address or name to listen on; :: is all of this machine's, IPv6 and IPv4, 0.0.0.0 all of IPv4, "
            "a name all of its addresses",
        ),
    ] = "::"
    web: Annotated[
        str,
        Option(
            _choice(*WEB_CHOICES),
            "HOW",
            "WebSocket on the TCP port: auto (https, and http too when bound to loopback), https, or off",
        ),
    ] = "auto"
    allow_origin: Annotated[
        tuple[str, ...],
        Option(
            _ORIGINS,
            None,
            "let web pages of this origin connect, such as https://example.org or, for any one label, "
            "https://*.example.org; * is all pages of the internet; repeat, or comma list",
        ),
    ] = ()
    cert_pem: Annotated[
        Path | None,
        Option(
            _PATH,
            "FILE",
            "TLS certificate chain, leaf first; without one the relay makes its own, to be pinned by hash",
            "RELAY_CERT_PEM",
        ),
    ] = None
    key_pem: Annotated[
        Path | None, Option(_PATH, "FILE", "private key of the certificate, unencrypted", "RELAY_KEY_PEM")
    ] = None
    cert_poll_interval: Annotated[
        float,
        Option(
            _seconds(0.1, _DAY),
            "SECONDS",
            "how often to look whether the certificate files changed",
            "CERT_POLL_INTERVAL",
        ),
    ] = 60.0
    heartbeat_interval: Annotated[
        float, Option(_seconds(0.1, _DAY), "SECONDS", "how often peers that went silent are looked for")
    ] = 30.0
    peer_timeout: Annotated[
        float, Option(_seconds(0.1, _DAY), "SECONDS", "silence after which a peer is removed")
    ] = 150.0
    dns: Annotated[IPv4Address, Option(_ADDRESS, "ADDRESS", "DNS server that guests are told to use")] = _DNS
    upstream_dns: Annotated[
        tuple[NameServer, ...],
        Option(
            _NAME_SERVERS,
            None,
            "DNS server that the gateway asks, instead of those in /etc/resolv.conf; repeat, or comma list",
        ),
    ] = ()
    dns_allow_private: Annotated[
        tuple[str, ...],
        Option(
            _DOMAINS,
            None,
            "let names under this domain have private addresses, and ask for them upstream even if they are "
            "special; repeat, or comma list",
        ),
    ] = ()
    static_lease: Annotated[
        tuple[FixedLease, ...],
        Option(_FIXED_LEASES, None, "address, and name, that a guest always gets; repeat, or comma list"),
    ] = ()
    lease_time: Annotated[
        float, Option(_seconds(30, _DAY), "SECONDS", "life of a DHCP lease; guests renew it at half time")
    ] = 3600.0
    peer_list: Annotated[bool, Option(_SWITCH, None, "tell a client of the others when it asks")] = True
    source_guard: Annotated[
        bool, Option(_SWITCH, None, "drop what guests send from addresses that are not their own")
    ] = True
    dhcp: Annotated[
        bool, Option(_SWITCH, None, "answer DHCP and BOOTP; without, a guest may be the DHCP server")
    ] = True
    dhcp_boot: Annotated[
        tuple[BootFile, ...],
        Option(
            _BOOT_FILES,
            None,
            "what machines boot: a file at a TFTP server (10.0.2.4 is this machine, with --host-access) or a "
            "URL; ARCH is bios, efi32, efi64, arm32, arm64, ipxe or a number of RFC 4578, and without it the "
            "file is for all others; repeat, or comma list",
        ),
    ] = ()
    dhcp_search: Annotated[
        tuple[str, ...],
        Option(_SEARCH, None, "domain in which guests look for short names; repeat, or comma list"),
    ] = ()
    dhcp_ntp: Annotated[
        tuple[bytes, ...],
        Option(_ADDRESSES, None, "NTP server that guests are told of; repeat, or comma list"),
    ] = ()
    dhcp_route: Annotated[
        tuple[Route, ...],
        Option(
            _ROUTES,
            None,
            "network that guests reach by way of another guest, who has the address ROUTER; repeat, or comma "
            "list",
        ),
    ] = ()
    dhcp_wpad: Annotated[str, Option(_WPAD, "URL", "proxy configuration (WPAD) that guests are told of")] = ""
    ipv6: Annotated[bool, Option(_SWITCH, None, "give guests IPv6, by router advertisements")] = True
    ipv6_prefix: Annotated[
        IPv6Network, Option(_PREFIX, "NETWORK", "/64 network of the guests' IPv6 addresses")
    ] = _PREFIX6
    allow_cidr: Annotated[
        tuple[Network, ...],
        Option(
            _NETWORKS,
            "NETWORK",
            "let guests reach this otherwise refused network; what is this machine's own must be named "
            "itself; repeat, or comma list",
        ),
    ] = ()
    deny_cidr: Annotated[
        tuple[Network, ...],
        Option(_NETWORKS, "NETWORK", "never let guests reach this network; repeat, or comma list"),
    ] = ()
    host_access: Annotated[
        bool, Option(_SWITCH, None, "let guests reach this machine's 127.0.0.1 as 10.0.2.4")
    ] = False
    allow_smtp: Annotated[
        bool, Option(_SWITCH, None, "let guests connect to TCP port 25, as mail servers do, and bots")
    ] = False
    max_peers: Annotated[
        int, Option(_whole(1, 65535), "N", "sessions at a time; there are addresses for 245 guests")
    ] = 1024
    client_share: Annotated[
        int,
        Option(
            _whole(0, 100),
            "PERCENT",
            "what the clients of one address (IPv6: of one /64) may take of connections, sessions and LAN "
            "addresses; 0, as behind a proxy, is no limit",
        ),
    ] = 98
    max_rooms: Annotated[
        int, Option(_whole(1, 65535), "N", "rooms at a time; 1 is the default room alone")
    ] = 256
    rooms_per_client: Annotated[
        int,
        Option(
            _whole(0, 65535),
            "N",
            "rooms that the clients of one address (IPv6: of one /64) may make; 0 is no limit",
        ),
    ] = 16
    room_idle_time: Annotated[
        float, Option(_seconds(1, _DAY), "SECONDS", "time after which a room ends that nobody is in")
    ] = 60.0
    create_rooms: Annotated[
        str,
        Option(
            _choice(*ROOM_CREATION),
            "WHICH",
            "rooms that whoever names them makes: any, or listed (those of the configuration file)",
        ),
    ] = "any"
    max_flows: Annotated[int, Option(_whole(1, 65535), "N", "NAT flows of one peer at a time")] = 512
    max_flows_total: Annotated[
        int,
        Option(
            _whole(1, 1_000_000),
            "N",
            "NAT flows of all peers at a time, as far as there are files for them (ulimit -n); one peer gets "
            "half of these, and of the host's UDP ports",
        ),
    ] = 65_536
    flow_rate: Annotated[
        int, Option(_whole(1, 65535), "N", "NAT flows that one peer may open per second, on average")
    ] = 50
    max_half_open: Annotated[
        int,
        Option(_whole(1, 65535), "N", "TCP connections of one peer, or one forward, that wait for an answer"),
    ] = 64
    bit_rate: Annotated[
        int,
        Option(_RATE, "N", "bits per second from one peer, and to it: off, or a number such as 50M"),
    ] = 0
    packet_rate: Annotated[
        int,
        Option(_RATE, "N", "packets per second from one peer, and to it: off, or a number such as 20k"),
    ] = 0
    udp_timeout: Annotated[
        float, Option(_seconds(1, _DAY), "SECONDS", "life of a UDP mapping that its guest does not use")
    ] = 300.0
    dns_timeout: Annotated[
        float,
        Option(_seconds(1, _DAY), "SECONDS", "life of a mapping to name servers after the last answer"),
    ] = 10.0
    tcp_timeout: Annotated[
        float, Option(_seconds(1, _DAY), "SECONDS", "life of a TCP connection on which nothing moves")
    ] = 7440.0
    tcp_transitory_timeout: Annotated[
        float,
        Option(_seconds(1, _DAY), "SECONDS", "the same of one that is opening, or that one side has ended"),
    ] = 240.0
    tcp_keep_alive: Annotated[
        float,
        Option(
            _seconds(0, MAX_KEEP_ALIVE),
            "SECONDS",
            "silence after which the far end of a TCP connection is probed, and given up if it is gone; "
            "0 for never",
        ),
    ] = 300.0
    tcp_buffer: Annotated[
        int,
        Option(
            _bytes(MIN_TCP_BUFFER, MAX_TCP_BUFFER),
            "BYTES",
            "what a TCP connection holds for each direction at most, and its largest window, such as 8M",
        ),
    ] = 8 * 2**20
    tcp_buffer_peer: Annotated[
        int,
        Option(
            _bytes(MIN_TCP_BUFFER, MAX_BUFFERS),
            "BYTES",
            "the same of all connections of one peer; as it is used up each may hold less, 64k at last",
        ),
    ] = 32 * 2**20
    tcp_buffer_total: Annotated[
        int, Option(_bytes(MIN_TCP_BUFFER, MAX_BUFFERS), "BYTES", "the same of all peers")
    ] = 256 * 2**20
    icmp_timeout: Annotated[
        float, Option(_seconds(1, _DAY), "SECONDS", "life of a ping's mapping after its last request")
    ] = 60.0
    udp_filtering: Annotated[
        str,
        Option(
            _choice(*UDP_FILTERINGS),
            "WHO",
            "who may write to a guest's UDP mapping: address-dependent (addresses that the guest wrote to), "
            "or endpoint-independent (anyone)",
        ),
    ] = "address-dependent"
    forward: Annotated[
        tuple[Forward, ...],
        Option(
            _FORWARDS,
            "FORWARD",
            "tcp:HOSTIP:PORT:VM:PORT or udp:…: lead a port of this machine (of 127.0.0.1 where HOSTIP is "
            "empty; IPv6 in brackets, as [::1]) to one of a guest, named by MAC, address or name; with "
            ",proxy behind it each connection or datagram begins with a PROXY protocol v2 header, with "
            ",transparent it comes from the client's own address; repeat, or comma list",
        ),
    ] = ()
    max_forwarded: Annotated[
        int,
        Option(_whole(1, 65535), "N", "TCP connections through one forward at a time; further clients wait"),
    ] = 512
    port_hold: Annotated[
        float, Option(_seconds(0, _DAY), "SECONDS", "time for which the port of an ended mapping rests")
    ] = 120.0
    ports_held: Annotated[int, Option(_whole(0, 16384), "N", "resting ports at a time")] = 8192
    log_format: Annotated[
        str, Option(_choice(*LOG_FORMATS), "FORMAT", "auto (in colour on a terminal), human, or json")
    ] = "auto"
    log_level: Annotated[str, Option(_choice(*LOG_LEVELS), "LEVEL", "debug, info, warning or error")] = "info"


def _table() -> dict[str, Option]:
    hints = get_type_hints(Settings, include_extras=True)
    return {setting.name: hints[setting.name].__metadata__[0] for setting in fields(Settings)}


OPTIONS: Mapping[str, Option] = _table()
"""Every setting by its field's name, in the order of ``Settings``."""

_DEFAULTS = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting, and ``--config``. Flags that are not given leave no trace."""
    for name, option in OPTIONS.items():
        parser.add_argument(
            _flag(name),
            dest=name,
            default=argparse.SUPPRESS,
            help=_help(name, option),
            **_ARGUMENT.get(option.kind, {"metavar": option.metavar}),
        )
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"TOML file with any of these settings, named as the flags [{CONFIG_VARIABLE}]",
    )


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Put flags (the parsed namespace as a mapping), environment and file together.

    An environment variable that is set to nothing counts as not set, and so does one that Kubernetes made for
    a service of our name. One that is misspelt is refused: with VMRELAY_DENY_CDIR a network that should be
    closed would stay open. Raises SettingsError.
    """
    _refuse_misspelt(environment)
    path = flags.get("config") or environment.get(CONFIG_VARIABLE)
    values = _from_file(Path(path)) if path else {}
    for name, option in OPTIONS.items():
        variable = _variable(name, option)
        text = environment.get(variable, "").strip()
        if text and not is_service_link(variable, text):
            values[name] = _checked(option, text, variable)
        if name in flags:
            given = flags[name]
            text = ",".join(given) if isinstance(given, list) else str(given)
            values[name] = _checked(option, text, _flag(name))
    settings = Settings(**values)
    if (settings.cert_pem is None) != (settings.key_pem is None):
        there, missing = ("cert", "key") if settings.key_pem is None else ("key", "cert")
        raise SettingsError(
            f"--{there}-pem needs --{missing}-pem (or RELAY_{missing.upper()}_PEM): both or neither"
        )
    _refuse_idle_dhcp(settings)
    for forward in settings.forward:
        if forward.clients is Clients.TRANSPARENT and ":" in forward.host and not settings.ipv6:
            raise SettingsError(f"--forward: {forward} needs IPv6 on the LAN, which --no-ipv6 takes away")
    return settings


def _refuse_idle_dhcp(settings: Settings) -> None:
    """Refuse what DHCP is to tell where there is none, or what it must not tell."""
    for name in OPTIONS:
        if name.startswith("dhcp_") and getattr(settings, name) and not settings.dhcp:
            raise SettingsError(f"{_flag(name)} needs DHCP, which --no-dhcp takes away")
    host = LanSettings().host_ip
    servers = {"dhcp_boot": [file.server for file in settings.dhcp_boot], "dhcp_ntp": settings.dhcp_ntp}
    for name, addresses in servers.items():
        if host in addresses and not settings.host_access:
            raise SettingsError(
                f"{_flag(name)}: {IPv4Address(host)} is this machine, which needs --host-access"
            )


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    variables = {name: _variable(name, option) for name, option in OPTIONS.items()}
    variables["config"] = CONFIG_VARIABLE
    found = misspelt_variables(environment, variables, OTHER_VARIABLES)
    if found:
        complaints = [
            f"{name[:80]}{f', perhaps {near}' if near else ''}" for name, near in sorted(found.items())
        ]
        more = f"; and {len(complaints) - MAX_NAMED} more" if len(complaints) > MAX_NAMED else ""
        raise SettingsError(
            f"unknown environment variable {'; '.join(complaints[:MAX_NAMED])}{more} (see vmrelay --help)"
        )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise SettingsError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        table = tomllib.loads(data.decode())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError; nested too deep
        raise SettingsError(f"{path}: not valid TOML: {' '.join(str(error).split())}") from None
    names = {_flag(name)[2:]: name for name in OPTIONS}
    values = {}
    for key, value in table.items():
        if key not in names:
            raise SettingsError(f"{path}: unknown setting {key[:80]!r}{perhaps(key, names)}")
        option, source = OPTIONS[names[key]], f"{path}: {key}"
        values[names[key]] = _checked(option, _toml_text(option.kind, value, source), source)
    return values


def _toml_text(kind: Kind, value: Any, source: str) -> str:
    """Bring a TOML value to the text that a flag would have; booleans are no numbers here."""
    fits = isinstance(value, kind.toml) and isinstance(value, bool) == (kind is _SWITCH)
    if isinstance(value, list):
        fits = fits and all(isinstance(item, str) for item in value)
    if not fits:
        raise SettingsError(f"{source}: must be {kind.expected}")
    return ",".join(value) if isinstance(value, list) else str(value)


def _checked(option: Option, text: str, source: str) -> Any:
    try:
        return option.kind.parse(text)
    except ValueError as error:
        raise SettingsError(f"{source}: {error}, not {text[:80]!r}") from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str, option: Option) -> str:
    return option.own_variable or f"VMRELAY_{name.upper()}"


def _help(name: str, option: Option) -> str:
    """Help line: what it does, its default unless that is "nothing", its environment variable."""
    default = getattr(_DEFAULTS, name)
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    default_note = f", default {shown}" if default else ""
    return f"{option.help}{default_note} [{_variable(name, option)}]"
