"""What an operator may choose about a LAN, with the defaults that existing clients expect."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from netstack.dns_zone import LAN_DOMAIN
from netstack.ethernet import format_mac
from netstack.ipv6 import link_local_of
from netstack.lan_network import DEFAULT_NETWORK, addresses_of
from netstack.room_names import DEFAULT_ROOM

if TYPE_CHECKING:
    from netstack.dhcp_boot import BootFile
    from netstack.dhcp_options import Route


CHANGEABLE = frozenset(
    {
        *("bits_per_second", "packets_per_second", "heartbeat_interval", "peer_timeout", "resume_grace"),
        *("max_peers", "peer_list", "max_flows_per_peer", "new_flows_per_second", "max_half_open_per_peer"),
        *("max_connections_per_forward", "udp_idle_timeout", "dns_answered_timeout", "icmp_idle_timeout"),
        *("tcp_idle_timeout", "tcp_transitory_timeout", "tcp_keep_alive", "max_flows"),
    }
)
"""Fields of ``LanSettings`` that may change while the LAN runs (``SettingsChanged``)."""

_USUAL = addresses_of(DEFAULT_NETWORK)


class FixedLease(NamedTuple):
    """An address (4 bytes) for one guest's MAC (6 bytes), and its name, if it has one."""

    mac: bytes
    ip: bytes
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanSettings:
    """Settings of one LAN: its switch, gateway and peers. Addresses are bytes, times are seconds."""

    room: str = DEFAULT_ROOM
    """The LAN's name, which clients are told."""
    gateway_ip: bytes = _USUAL.gateway_ip
    gateway_mac: bytes = bytes.fromhex("525400123456")
    netmask: bytes = _USUAL.netmask
    dns: bytes = _USUAL.gateway_ip
    """The name server that guests are told to use: the gateway, unless the operator wants another."""
    dns_ip: bytes = _USUAL.dns_ip
    """Where the gateway answers DNS too: guests with a fixed configuration for QEMU's network ask there."""
    domain: str = LAN_DOMAIN
    """Where the guests' names are."""
    dns_allow_private: tuple[str, ...] = ()
    """Domains whose names are always asked upstream, and may have private addresses."""
    pool_first: bytes = _USUAL.pool_first
    pool_last: bytes = _USUAL.pool_last

    fixed_leases: tuple[FixedLease, ...] = ()
    """Guests that always get the same address."""
    dhcp_lease_time: float = 3600.0
    """How often guests ask for their address again, about twice in it; they hear of a new MTU then."""
    dhcp: bool = True
    """Whether the gateway answers DHCP; if not, a guest may."""
    dhcp_boot: tuple[BootFile, ...] = ()
    """What machines boot over the network."""
    dhcp_search: tuple[str, ...] = ()
    dhcp_ntp: tuple[bytes, ...] = ()
    dhcp_routes: tuple[Route, ...] = ()
    dhcp_wpad: str = ""
    ipv6_prefix: bytes | None = bytes.fromhex("fd766d72656c6179")
    """First 8 bytes of the LAN's IPv6 addresses, a ULA prefix (RFC 4193); None for a LAN without IPv6. The
    same at each start, so that guests keep their addresses."""

    host_access: bool = False
    """Whether guests reach the relay's own 127.0.0.1 as ``host_ip``. The egress policy decides; here it
    only means that the gateway answers ARP for that address."""
    host_ip: bytes = _USUAL.host_ip

    heartbeat_interval: float = 30.0
    """How often a session is checked for signs of life."""
    peer_timeout: float = 150.0
    """Silence after which a session is removed: ten of the clients' heartbeats. One that never said
    anything is removed after it too."""
    resume_grace: float = 60.0
    """Seconds for which the port of a client whose session was lost is kept, with its flows; 0 for none. A
    session is lost after 30 s of silence, so a network may be away for a minute and a half."""
    registration_timeout: float = 30.0
    """Time that a framed client has for its Register."""

    max_peers: int = 1024
    """Ports of the switch; each costs some 60 KB with its session."""
    client_share: int = 98
    """What the sessions of one client address may have of ports and LAN addresses, in percent; 0: all."""
    peer_list: bool = True
    """Whether a client is told of the others when it asks."""
    isolated: bool = False
    """Whether guests see the gateway only, and not each other."""
    source_guard: bool = True
    """Whether the switch lets guests send from their own addresses only."""
    bits_per_second: int = 0
    """Of frames, from and to each session; 0 for no limit."""
    packets_per_second: int = 0
    """Frames from and to each session; 0 for no limit."""
    floods_per_second: float = 200.0
    """Frames per port that the switch may copy to all others; above it they are dropped."""
    max_half_open_per_peer: int = 64
    """TCP connections that a session's guests open and that wait for an answer; as many of each forward."""
    max_flows_per_peer: int = 512
    """NAT mappings that a session's guests open; each holds one socket of the relay's host."""
    max_flows: int = 65_536
    """Mappings of all sessions; a session has half of them at most, and of the host's UDP ports too."""
    max_questions: int = 500
    """Questions to the host's name servers that are not answered yet."""
    max_connections_per_forward: int = 512
    """TCP connections that clients outside have through one forward; further ones wait until one ends."""
    new_flows_per_second: float = 50.0
    """Mappings that a session may open on average; bursts up to ``max_flows_per_peer`` at once."""
    udp_idle_timeout: float = 300.0
    """RFC 4787 REQ-5 recommends five minutes, and demands two."""
    dns_idle_timeout: float = 30.0
    """For UDP mappings that wrote to port 53 only (RFC 4787 REQ-5a): resolvers take a new port for each
    question, and wait for an answer for some 30 s at most."""
    dns_answered_timeout: float = 10.0
    """For such a mapping once all its questions are answered: time for duplicates, and for the next question
    of a resolver that keeps its port."""
    endpoint_independent_filtering: bool = False
    """Whether anyone may write to a UDP mapping (RFC 4787 REQ-8), not only whom the guest wrote to."""
    icmp_idle_timeout: float = 60.0
    """RFC 5508 REQ-2 demands at least 60 s."""

    tcp_idle_timeout: float = 7440.0
    """RFC 5382 REQ-5: two hours and four minutes, so that keep-alives after two hours find the connection."""
    tcp_keep_alive: float = 300.0
    """Silence of a host outside after which it is probed, so that one that is gone is noticed; 0 for never.
    The guests' own keep-alives end at the relay."""
    tcp_buffer: int = 8 * 1024 * 1024
    """Bytes that a TCP connection holds at most for one direction, and its largest window: what is under way
    at 320 Mbit/s and a round trip of 200 ms."""
    tcp_buffers_per_peer: int = 32 * 1024 * 1024
    """Bytes that a session's TCP connections hold together, beyond the least that each may (``LEAST``)."""
    tcp_transitory_timeout: float = 240.0
    """Of connections that are opening or that one side has ended; RFC 5382 REQ-5 demands four minutes."""

    @property
    def network(self) -> str:
        """The LAN as text: ``"10.0.2.0/24"``. Raises ValueError for a mask with holes."""
        return str(IPv4Network((self.gateway_ip, _prefix_length(self.netmask)), strict=False))

    @property
    def gateway_ip6(self) -> bytes:
        """The gateway's address in the IPv6 prefix: ``fd76:6d72:656c:6179::2``."""
        return (self.ipv6_prefix or bytes(8)) + bytes(7) + b"\2"

    @property
    def gateway_link_local(self) -> bytes:
        """The gateway's link-local address, which guests know as their router's."""
        return link_local_of(self.gateway_mac)

    @property
    def gateway_mac_refusal(self) -> str:
        """What a guest is told that has the gateway's MAC; fits the reason of a WebSocket's end."""
        mac = format_mac(self.gateway_mac)
        return f"{mac} is the gateway's MAC: give the guest another (QEMU: -device ...,mac=52:54:00:xx:xx:xx)"

    @property
    def gateway_ips(self) -> frozenset[bytes]:
        """Addresses that are the gateway's on the LAN: it answers ARP for them, no guest may have them."""
        host = {self.host_ip} if self.host_access else set()
        return frozenset({self.gateway_ip, self.dns_ip} | host)

    @property
    def services(self) -> frozenset[bytes]:
        """Addresses at which the gateway itself serves guests."""
        return (self.gateway_ips - {self.host_ip}) | {self.gateway_ip6, self.gateway_link_local}

    @property
    def gateway_names(self) -> dict[str, tuple[bytes, ...]]:
        """The gateway's names, with their addresses."""
        ipv6 = () if self.ipv6_prefix is None else (self.gateway_ip6,)
        names = {"gateway": (self.gateway_ip, *ipv6), "dns": (self.dns_ip, *ipv6)}
        if self.host_access:
            names["host"] = (self.host_ip,)
        return names

    @property
    def own_names(self) -> dict[str, tuple[bytes, ...]]:
        """Names that are no guest's to take, with their addresses: the gateway's, and of fixed leases."""
        leases = {lease.name: (lease.ip,) for lease in self.fixed_leases if lease.name}
        return self.gateway_names | leases

    @property
    def fixed_names(self) -> dict[str, bytes]:
        """Those of them that are guests' with fixed leases, with their MACs."""
        return {lease.name: lease.mac for lease in self.fixed_leases if lease.name}


def _prefix_length(netmask: bytes) -> int:
    return IPv4Network((0, ".".join(map(str, netmask)))).prefixlen
