"""What an operator can set, and where it comes from.

One table, the fields of ``Settings``, describes every setting; flags, environment variables and the TOML
file are derived from it. A value is looked up in this order: flag, environment variable, configuration
file, default. Lists replace each other, they are not joined across sources.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

from actors.settings import FixedLease  # noqa: TC001 - hints are read
from netstack.dhcp_boot import BootFile  # noqa: TC001 - same
from netstack.dhcp_options import Route  # noqa: TC001 - same
from netstack.dns_zone import LAN_DOMAIN as DEFAULT_DOMAIN
from netstack.forward import Forward  # noqa: TC001 - same
from netstack.lan_network import DEFAULT_NETWORK, LARGEST, SMALLEST
from netstack.name_servers import NameServer  # noqa: TC001 - same
from netstack.room_names import DEFAULT_ROOM
from relay.admin_place import AUTO, Address
from relay.contradictions import (
    refuse_contradictions,
    refuse_contradictions_of_rooms,
    refuse_half_a_certificate,
    refuse_half_of_auth,
)
from relay.log_filter import LEVELS, LIBRARIES, PARTS
from relay.room_tables import LISTED, NO_TABLES, OF_ONE_ROOM, RoomTables
from relay.setting_kinds import (
    ADDRESS,
    ADDRESSES,
    ADMIN,
    ARGUMENTS,
    AUTH_CHOICES,
    BOOT_FILES,
    CLIENT_URLS,
    CLUSTER_NAME,
    CLUSTER_NODE,
    DOMAINS,
    FIXED_LEASES,
    FORWARDS,
    HOST,
    LAN_DOMAIN,
    LAN_NETWORK,
    LOG_FILTER,
    MAX_BUFFERS,
    MAX_TCP_BUFFER,
    MAX_WORKERS,
    MIN_TCP_BUFFER,
    NAME_SERVERS,
    NATS_URLS,
    NETWORKS,
    OFF,
    ORIGINS,
    PATH,
    PREFIX,
    RATE,
    ROUTES,
    SEARCH,
    STATE,
    SWITCH,
    WORKERS,
    WPAD,
    Network,
    Option,
    SettingsError,
    choice,
    flag,
    seconds,
    size,
    whole,
)
from relay.setting_sources import checked, read_file, refuse_misspelt
from relay.spelling import CONFIG_VARIABLE, OTHER_VARIABLES, is_service_link

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPTIONS", "Settings", "SettingsError", "add_arguments", "resolve"]

WEB_CHOICES = ("auto", "https", "off")
LOG_FORMATS = ("auto", "human", "json")
ROOM_CREATION = ("any", LISTED)
CONGESTION_CONTROLS = ("bbr", "cubic", "reno")
UDP_FILTERINGS = ("address-dependent", "endpoint-independent")

MIN_AUDIT_LOG = 4096
"""Bytes: some lines."""

_HOUR = 3600.0
_DAY = 86_400.0

MAX_KEEP_ALIVE = 32_767.0
"""Seconds of silence that Linux takes before it probes."""

_PREFIX6 = IPv6Network("fd76:6d72:656c:6179::/64")
"""A unique local prefix (RFC 4193); what it names never leaves the LAN."""


# -- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, checked."""

    port: Annotated[
        int, Option(whole(0, 65535), "N", "UDP port for QUIC and TCP port for WebSocket; 0 takes a free one")
    ] = 4433
    bind: Annotated[
        str,
        Option(
            HOST,
            "ADDRESS",
            "address or name to listen on; :: is all of this machine's, IPv6 and IPv4, 0.0.0.0 all of IPv4, "
            "a name all of its addresses",
        ),
    ] = "::"
    web: Annotated[
        str,
        Option(
            choice(*WEB_CHOICES),
            "HOW",
            "WebSocket on the TCP port: auto (https, and http too when bound to loopback), https, or off",
        ),
    ] = "auto"
    allow_origin: Annotated[
        tuple[str, ...],
        Option(
            ORIGINS,
            None,
            "let web pages of this origin connect, such as https://example.org or, for any one label, "
            "https://*.example.org; * is all pages of the internet; repeat, or comma list",
        ),
    ] = ()
    auth: Annotated[
        str,
        Option(
            choice(*AUTH_CHOICES),
            "HOW",
            "tokens: off, optional (who has one is held to it), or required",
        ),
    ] = OFF
    auth_keys: Annotated[
        Path | None,
        Option(PATH, "FILE", "keys that tokens are checked by (JWK Set); see vmrelay token --help"),
    ] = None
    auth_revoked: Annotated[
        Path | None,
        Option(
            PATH, "FILE", "ids (jti) of tokens that hold no longer, one per line; read again when it changes"
        ),
    ] = None
    cert_pem: Annotated[
        Path | None,
        Option(
            PATH,
            "FILE",
            "TLS certificate chain, leaf first; without one the relay makes its own, to be pinned by hash",
            "RELAY_CERT_PEM",
        ),
    ] = None
    key_pem: Annotated[
        Path | None, Option(PATH, "FILE", "private key of the certificate, unencrypted", "RELAY_KEY_PEM")
    ] = None
    cert_poll_interval: Annotated[
        float,
        Option(
            seconds(0.1, _DAY),
            "SECONDS",
            "how often to look whether the certificate files changed",
            "CERT_POLL_INTERVAL",
        ),
    ] = 60.0
    state: Annotated[
        str,
        Option(
            STATE,
            "FOLDER",
            "keeps what outlives a restart: certificate, guests' addresses, keys; auto is $STATE_DIRECTORY, "
            "else ~/.local/state/vmrelay/PORT, and none keeps nothing",
        ),
    ] = "auto"
    heartbeat_interval: Annotated[
        float, Option(seconds(0.1, _DAY), "SECONDS", "how often peers that went silent are looked for")
    ] = 30.0
    peer_timeout: Annotated[
        float, Option(seconds(0.1, _DAY), "SECONDS", "silence after which a peer is removed")
    ] = 150.0
    resume_grace: Annotated[
        float,
        Option(
            seconds(0, _HOUR),
            "SECONDS",
            "time for which a client that lost its connection finds its addresses and connections again; "
            "0 for none",
        ),
    ] = 60.0
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
        float, Option(seconds(30, _DAY), "SECONDS", "life of a DHCP lease; guests renew it at half time")
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
    allow_cidr: Annotated[
        tuple[Network, ...],
        Option(
            NETWORKS,
            "NETWORK",
            "let guests reach this otherwise refused network; what is this machine's own must be named "
            "itself; repeat, or comma list",
        ),
    ] = ()
    deny_cidr: Annotated[
        tuple[Network, ...],
        Option(NETWORKS, "NETWORK", "never let guests reach this network; repeat, or comma list"),
    ] = ()
    host_access: Annotated[
        bool, Option(SWITCH, None, "let guests reach this machine's 127.0.0.1 as 10.0.2.4 (--network)")
    ] = False
    internet: Annotated[
        bool, Option(SWITCH, None, "let guests out; without, a LAN has nothing but its guests and gateway")
    ] = True
    allow_smtp: Annotated[
        bool, Option(SWITCH, None, "let guests connect to TCP port 25, as mail servers do, and bots")
    ] = False
    max_peers: Annotated[
        int, Option(whole(1, 65535), "N", "sessions at a time; --network has addresses for 245 guests")
    ] = 1024
    client_share: Annotated[
        int,
        Option(
            whole(0, 100),
            "PERCENT",
            "what the clients of one address (IPv6: of one /64) may take of connections, sessions and LAN "
            "addresses; 0, as behind a proxy, is no limit",
        ),
    ] = 98
    max_rooms: Annotated[
        int, Option(whole(1, 65535), "N", "rooms at a time; 1 is the default room alone")
    ] = 256
    rooms_per_client: Annotated[
        int,
        Option(
            whole(0, 65535),
            "N",
            "rooms that the clients of one address (IPv6: of one /64) may make; 0 is no limit",
        ),
    ] = 16
    room_idle_time: Annotated[
        float, Option(seconds(1, _DAY), "SECONDS", "time after which a room ends that nobody is in")
    ] = 60.0
    create_rooms: Annotated[
        str,
        Option(
            choice(*ROOM_CREATION),
            "WHICH",
            "rooms that whoever names them makes: any, or listed (those of the configuration file)",
        ),
    ] = "any"
    congestion: Annotated[
        str,
        Option(
            choice(*CONGESTION_CONTROLS),
            "NAME",
            "what decides how fast a QUIC client is sent to: bbr (the path's measured rate), cubic or reno "
            "(until packets are lost)",
        ),
    ] = "bbr"
    max_flows: Annotated[int, Option(whole(1, 65535), "N", "NAT flows of one peer at a time")] = 512
    max_flows_total: Annotated[
        int,
        Option(
            whole(1, 1_000_000),
            "N",
            "NAT flows of all peers at a time, as far as there are files for them (ulimit -n); one peer gets "
            "half of these, and of the host's UDP ports",
        ),
    ] = 65_536
    flow_rate: Annotated[
        int, Option(whole(1, 65535), "N", "NAT flows that one peer may open per second, on average")
    ] = 50
    max_half_open: Annotated[
        int,
        Option(whole(1, 65535), "N", "TCP connections of one peer, or one forward, that wait for an answer"),
    ] = 64
    bit_rate: Annotated[
        int,
        Option(RATE, "N", "bits per second from one peer, and to it: off, or a number such as 50M"),
    ] = 0
    packet_rate: Annotated[
        int,
        Option(RATE, "N", "packets per second from one peer, and to it: off, or a number such as 20k"),
    ] = 0
    udp_timeout: Annotated[
        float, Option(seconds(1, _DAY), "SECONDS", "life of a UDP mapping that its guest does not use")
    ] = 300.0
    dns_timeout: Annotated[
        float,
        Option(seconds(1, _DAY), "SECONDS", "life of a mapping to name servers after the last answer"),
    ] = 10.0
    tcp_timeout: Annotated[
        float, Option(seconds(1, _DAY), "SECONDS", "life of a TCP connection on which nothing moves")
    ] = 7440.0
    tcp_transitory_timeout: Annotated[
        float,
        Option(seconds(1, _DAY), "SECONDS", "the same of one that is opening, or that one side has ended"),
    ] = 240.0
    tcp_keep_alive: Annotated[
        float,
        Option(
            seconds(0, MAX_KEEP_ALIVE),
            "SECONDS",
            "silence after which the far end of a TCP connection is probed, and given up if it is gone; "
            "0 for never",
        ),
    ] = 300.0
    tcp_buffer: Annotated[
        int,
        Option(
            size(MIN_TCP_BUFFER, MAX_TCP_BUFFER),
            "BYTES",
            "what a TCP connection holds for each direction at most, and its largest window, such as 8M",
        ),
    ] = 8 * 2**20
    tcp_buffer_peer: Annotated[
        int,
        Option(
            size(MIN_TCP_BUFFER, MAX_BUFFERS),
            "BYTES",
            "the same of all connections of one peer; as it is used up each may hold less, 64k at last",
        ),
    ] = 32 * 2**20
    tcp_buffer_total: Annotated[
        int, Option(size(MIN_TCP_BUFFER, MAX_BUFFERS), "BYTES", "the same of all peers")
    ] = 256 * 2**20
    icmp_timeout: Annotated[
        float, Option(seconds(1, _DAY), "SECONDS", "life of a ping's mapping after its last request")
    ] = 60.0
    udp_filtering: Annotated[
        str,
        Option(
            choice(*UDP_FILTERINGS),
            "WHO",
            "who may write to a guest's UDP mapping: address-dependent (addresses that the guest wrote to), "
            "or endpoint-independent (anyone)",
        ),
    ] = "address-dependent"
    forward: Annotated[
        tuple[Forward, ...],
        Option(
            FORWARDS,
            "FORWARD",
            "tcp:HOSTIP:PORT:VM:PORT or udp:…: lead a port of this machine (of 127.0.0.1 where HOSTIP is "
            "empty; IPv6 in brackets, as [::1]) to one of a guest, named by MAC, address or name; with "
            ",proxy behind it each connection or datagram begins with a PROXY protocol v2 header, with "
            ",transparent it comes from the client's own address; repeat, or comma list",
        ),
    ] = ()
    max_forwarded: Annotated[
        int,
        Option(whole(1, 65535), "N", "TCP connections through one forward at a time; further clients wait"),
    ] = 512
    port_hold: Annotated[
        float, Option(seconds(0, _DAY), "SECONDS", "time for which the port of an ended mapping rests")
    ] = 120.0
    ports_held: Annotated[int, Option(whole(0, 16384), "N", "resting ports at a time")] = 8192
    drain_timeout: Annotated[
        float,
        Option(
            seconds(0, _DAY),
            "SECONDS",
            "time for which sessions go on after SIGTERM, while new ones are refused; 0 ends them at once",
        ),
    ] = 5.0
    admin: Annotated[
        str | Path | Address,
        Option(
            ADMIN,
            "WHERE",
            "the admin API, which vmrelay status and others ask: auto (a socket for this user), the path of "
            "a socket, ADDRESS:PORT with --admin-token, or none",
        ),
    ] = AUTO
    admin_token: Annotated[
        Path | None, Option(PATH, "FILE", "file with the token that requests to --admin ADDRESS:PORT show")
    ] = None
    workers: Annotated[
        int | str,
        Option(
            WORKERS,
            "N",
            "processes that share the port and the work, on Linux; auto is one for each CPU that it may use",
        ),
    ] = 1
    audit_log: Annotated[
        Path | None,
        Option(
            PATH,
            "FILE",
            "writes who had which address, flows' first packets and operators' changes, a JSON object a line",
        ),
    ] = None
    audit_log_size: Annotated[
        int,
        Option(
            size(MIN_AUDIT_LOG, MAX_BUFFERS),
            "BYTES",
            "size at which the audit log becomes FILE.1 and a new one begins, such as 10M",
        ),
    ] = 10 * 2**20
    audit_log_files: Annotated[
        int, Option(whole(0, 999), "N", "old audit logs that are kept, besides the one that is written")
    ] = 5
    url: Annotated[
        tuple[str, ...],
        Option(
            CLIENT_URLS,
            None,
            "where clients reach this machine, such as https://east.example:4433; they are told those of the "
            "whole cluster, and go elsewhere when their machine is lost; repeat, or comma list",
        ),
    ] = ()
    cluster: Annotated[
        tuple[str, ...],
        Option(
            NATS_URLS,
            None,
            "share rooms with the relays of other machines through this NATS server, such as "
            "nats://USER:PASSWORD@HOST:4222 or tls://HOST:4222; needs --cluster-key; repeat, or comma list",
        ),
    ] = ()
    cluster_key: Annotated[
        Path | None,
        Option(PATH, "FILE", "secret that all relays of the cluster share, as openssl rand -hex 32 makes it"),
    ] = None
    cluster_name: Annotated[
        str, Option(CLUSTER_NAME, "NAME", "the cluster's name, with which its subjects begin")
    ] = "vmrelay"
    cluster_node: Annotated[
        str,
        Option(
            CLUSTER_NODE,
            "NAME",
            "this relay's name, which no other of the cluster has; empty: the host's name",
        ),
    ] = ""
    cluster_credentials: Annotated[
        Path | None, Option(PATH, "FILE", "credentials for the NATS server (.creds), as nsc makes them")
    ] = None
    cluster_ca: Annotated[
        Path | None,
        Option(
            PATH, "FILE", "certificates (PEM) by which a tls:// server is checked, instead of the system's"
        ),
    ] = None
    log_format: Annotated[
        str, Option(choice(*LOG_FORMATS), "FORMAT", "auto (in colour on a terminal), human, or json")
    ] = "auto"
    log_level: Annotated[str, Option(choice(*LEVELS), "LEVEL", "debug, info, warning or error")] = "info"
    log_filter: Annotated[
        tuple[tuple[str, str], ...],
        Option(
            LOG_FILTER,
            None,
            f"another level for a part ({', '.join(PARTS)}), a module such as transport.quic, or a library "
            f"({', '.join(LIBRARIES)}), as in switch=debug; repeat, or comma list",
        ),
    ] = ()

    @property
    def rooms(self) -> frozenset[str]:
        """Rooms that have settings of their own, besides the default one."""
        return frozenset()

    def of_room(self, room: str) -> Settings:
        """Tell what holds for a room."""
        return self if room == DEFAULT_ROOM else replace(self, **OF_ONE_ROOM)


@dataclass(frozen=True, slots=True)
class SettingsWithRooms(Settings):
    """Settings of the relay, and those of single rooms."""

    tables: RoomTables = NO_TABLES

    @property
    def rooms(self) -> frozenset[str]:
        """Rooms that have settings of their own, besides the default one."""
        return frozenset(self.tables.named)

    def of_room(self, room: str) -> Settings:
        """Tell what holds for a room."""
        if room == DEFAULT_ROOM:
            return self
        values = {name: getattr(self, name) for name in OPTIONS}
        own = self.tables.named.get(room, {})
        return Settings(**{**values, **OF_ONE_ROOM, **self.tables.others, **own})


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
            flag(name),
            dest=name,
            default=argparse.SUPPRESS,
            help=_help(name, option),
            **ARGUMENTS.get(option.kind, {"metavar": option.metavar}),
        )
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"TOML file with any of these settings, named as the flags [{CONFIG_VARIABLE}]",
    )


class Origin(NamedTuple):
    """Where the value of a setting comes from."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str
    """The flag, the variable, or the file; empty for a default."""
    text: str = ""
    """The value as it was written there; lists with commas."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


def count_of_workers(settings: Settings) -> int:
    """Tell how many processes the relay is to have; for ``auto`` as many as CPUs that this one may use."""
    if isinstance(settings.workers, int):
        return settings.workers
    return min(MAX_WORKERS, len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Put flags (the parsed namespace as a mapping), environment and file together.

    An environment variable that is set to nothing counts as not set, and so does one that Kubernetes made for
    a service of our name. One that is misspelt is refused: with VMRELAY_DENY_CDIR a network that should be
    closed would stay open. Raises SettingsError.
    """
    return explain(flags, environment)[0]


def explain(flags: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Settings, dict[str, Origin]]:
    """As :func:`resolve`, and tell where each value comes from, by its field's name."""
    variables = {name: _variable(name, option) for name, option in OPTIONS.items()}
    refuse_misspelt(environment, variables | {"config": CONFIG_VARIABLE}, OTHER_VARIABLES)
    path = flags.get("config") or environment.get(CONFIG_VARIABLE)
    values, tables, texts = read_file(Path(path), OPTIONS) if path else ({}, NO_TABLES, {})
    origins = dict.fromkeys(OPTIONS, Origin("default", ""))
    origins |= {name: Origin("file", str(path), text) for name, text in texts.items()}
    for name, option in OPTIONS.items():
        variable = _variable(name, option)
        text = environment.get(variable, "").strip()
        if text and not is_service_link(variable, text):
            values[name] = checked(option, text, variable)
            origins[name] = Origin("environment", variable, text)
        if name in flags:
            given = flags[name]
            text = ",".join(given) if isinstance(given, list) else str(given)
            values[name] = checked(option, text, flag(name))
            origins[name] = Origin("flag", flag(name), text)
    settings = Settings(**values)
    refuse_half_a_certificate(settings)
    refuse_contradictions(settings)
    if tables == NO_TABLES:
        refuse_half_of_auth(settings)
        return settings, origins
    with_rooms = SettingsWithRooms(**values, tables=tables)
    refuse_half_of_auth(with_rooms)
    try:
        refuse_contradictions_of_rooms(with_rooms)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return with_rooms, origins


def _variable(name: str, option: Option) -> str:
    return option.own_variable or f"VMRELAY_{name.upper()}"


def _help(name: str, option: Option) -> str:
    """Help line: what it does, its default unless that is "nothing", its environment variable."""
    default = getattr(_DEFAULTS, name)
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    default_note = f", default {shown}" if default else ""
    return f"{option.help}{default_note} [{_variable(name, option)}]"
