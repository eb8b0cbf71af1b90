"""The way out: the only place that opens sockets for guests, and asks the egress policy before each send.

UDP flows get a socket each. A datagram for one of this machine's own addresses is refused like any other,
unless its port is a flow's own: then it is one guest that writes to another's external address, and goes the
way it would from outside (RFC 4787 REQ-9). A flow's port is not used again for a while (RFC 6888 REQ-8).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from actors.messages import DatagramFromNet, DatagramsFromNet, ErrorFromNet, ErrorsFromNet
from actors.ports import SendResult
from netstack.egress import OWN_ADDRESS, SOMEWHERE_IPV6, Decision
from netstack.port_hold import PortHold
from transport.host.echo_sockets import EchoIdentifiers, PingEchoSocket, RawEchoSocket, RawIcmpSocket
from transport.host.host_socket import IPV4, IPV6, HostSocket, Reported, SocketFamily
from transport.host.interfaces import interface_addresses
from transport.host.listeners import TcpListener, UdpListener
from transport.host.local_routes import local_routes
from transport.host.readiness import Readiness
from transport.host.tcp_ports import SharedPorts, open_tcp
from transport.host.tcp_socket import DeniedTcpSocket, TcpFlowSocket

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from netstack.egress import EgressPolicy
    from transport.host.mapped_ports import RoomPorts
    from transport.turns import Turns

INTERFACES_INTERVAL = 5.0
"""Seconds after which the machine's own addresses are read again, when something is next sent."""

ANY_ADDRESS = "0.0.0.0"
ANY_ADDRESS6 = "::"

HAIRPIN = "hairpin"
"""Reason of a permission: the address is one of this machine's, and the port leads to a guest."""

PORT_HOLD = 120.0
"""Seconds for which the port of an ended UDP flow is not used again (RFC 6888 REQ-8)."""

PORTS_HELD = 8192
"""Ports held at a time: less than a third of those that Linux chooses from, so that flows still find one."""

PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
DYNAMIC_PORTS = 16_384
"""Ports that other systems choose from: 49152 to 65535 (RFC 6335 section 6)."""

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""There is no socket at present, which says nothing of what this host can do."""

PORT_TRIES = 16
"""Sockets opened in search of a port that is not held; then a held one has to do."""

_IP_VERSION_4 = 4
_IP_VERSION_6 = 6
_FAMILIES = {_IP_VERSION_4: IPV4, _IP_VERSION_6: IPV6}


class HostNetwork:
    """Opens sockets on the running event loop; implements ``actors.ports.Outside``."""

    def __init__(
        self,
        policy: EgressPolicy,
        counters: Counters,
        turns: Turns,
        *,
        port_hold: float = PORT_HOLD,
        ports_held: int = PORTS_HELD,
        ready: Readiness | None = None,
        identifiers: EchoIdentifiers | None = None,
        mapped: RoomPorts | None = None,
        processes: int = 1,
    ) -> None:
        """``ready`` and ``identifiers`` are what the networks of all LANs share.

        ``mapped`` has the UDP ports of the same room's flows at other workers; None where there are none.
        The ports of this machine are for so many ``processes``.
        """
        self._processes = processes
        self._mapped = mapped
        self.policy = policy
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self.ready = Readiness(turns) if ready is None else ready
        """Watches the sockets of all flows."""
        self._read_interfaces_at = 0.0
        self._can_use_ping_sockets: bool | None = None
        self._can_use_raw_sockets: bool | None = None
        """None until there was room to see it."""
        self._find_way_to_ping()
        self._reaches_ipv6 = False
        self._knows_addresses = False
        """Whether the machine's own addresses have been read at least once."""
        self.identifiers = EchoIdentifiers() if identifiers is None else identifiers
        self._tcp_ports = SharedPorts()
        self._raw: dict[int, RawIcmpSocket] = {}
        self._udp_ports: set[tuple[str, int]] = set()
        """Addresses and ports of this machine that lead to guests: of flows and forwards."""
        self._tcp_ports_to_guests: set[tuple[str, int]] = set()
        self._forwards: Counter[tuple[str, str, int]] = Counter()
        """How many forwards lead to guests, by protocol, address and port."""
        self._held_ports = PortHold(port_hold, ports_held)
        self._read_interfaces()

    @property
    def can_ping(self) -> bool:
        """Whether this host lets the process open any kind of ICMP socket."""
        if None in {self._can_use_ping_sockets, self._can_use_raw_sockets}:
            self._find_way_to_ping()
        return self._can_use_ping_sockets is not False or self._can_use_raw_sockets is not False

    def _find_way_to_ping(self) -> None:
        self._can_use_ping_sockets = _can_open(socket.SOCK_DGRAM)
        if self._can_use_ping_sockets is not None:
            self._can_use_raw_sockets = not self._can_use_ping_sockets and _can_open(socket.SOCK_RAW)

    @property
    def has_ipv6(self) -> bool:
        """Whether this host has IPv6 at all, as far as can be seen."""
        return _can_open(socket.SOCK_DGRAM, IPV6, socket.IPPROTO_UDP) is not False

    @property
    def has_ipv6_route(self) -> bool:
        """Whether IPv6 packets for the internet, or for a network that was allowed, would go anywhere.

        What the policy closes is no way out, but it is one for answers to the clients of forwards.
        """
        ways = (SOMEWHERE_IPV6, *self.policy.open_ipv6) if self._forwards else self.policy.open_ipv6
        try:
            self._reaches_ipv6 = any(map(_is_routed, ways))
        except OSError:  # else guests would lose their router for want of a descriptor here
            self._counters.add("outside.routes_unseen")
        return self._reaches_ipv6

    @property
    def udp_ports(self) -> int:
        """How many ports this process may have of those that the host chooses from.

        As of the last look at the host's interfaces.
        """
        return self._port_range // self._processes

    def allows_udp(self, address: tuple[str, int]) -> bool:
        """Whether the egress policy lets a guest write to ``address``; a refusal is counted."""
        return self.decide_udp(address).allowed

    def allows_tcp(self, address: tuple[str, int]) -> bool:
        """As :meth:`allows_udp`, for connections."""
        return self._decide_tcp(address).allowed

    def allows_echo(self, address: str) -> bool:
        """As :meth:`allows_udp`, for pings."""
        return self.decide(address).allowed

    def open_udp(self, flow: Mailbox, version: int = 4) -> UdpFlowSocket:
        """Open a UDP socket (IPv4 or 6) on a port of the host's choice. Raises OSError when it cannot."""
        opened = UdpFlowSocket(_FAMILIES[version], self, flow, self._counters)
        if self._held_ports.holds(opened.port, self._loop.time()):
            opened = self._replace_held(opened, flow)
        self._udp_ports.add((_any_of(opened.family), opened.port))
        if self._mapped is not None:
            self._mapped.add(opened.port, ipv6=opened.family is IPV6)
        return opened

    def _replace_held(self, held: UdpFlowSocket, flow: Mailbox) -> UdpFlowSocket:
        """Find a socket whose port does not rest; where there is none, take the one that does."""
        now = self._loop.time()
        refused = [held]
        with contextlib.suppress(OSError):
            while len(refused) < PORT_TRIES:
                refused.append(UdpFlowSocket(held.family, self, flow, self._counters))
                if not self._held_ports.holds(refused[-1].port, now):
                    break
        chosen = refused.pop()
        if self._held_ports.holds(chosen.port, now):
            self._counters.add("outside.held_ports_used")
        # Closed only now, or the system could have given the same ports again.
        for other in refused:
            HostSocket.close(other)
        return chosen

    def release_udp(self, port: int, family: SocketFamily) -> None:
        """Take back the port of a flow that ended."""
        self._udp_ports.discard((_any_of(family), port))
        if self._mapped is not None:
            self._mapped.discard(port, ipv6=family is IPV6)
        self._held_ports.release(port, self._loop.time())

    def open_echo(self, flow: Mailbox, version: int = 4) -> PingEchoSocket | RawEchoSocket:
        """Open an ICMP or ICMPv6 (``version``) echo socket. Raises OSError when none can be had."""
        family = _FAMILIES[version]
        if not self._can_use_raw_sockets:
            return PingEchoSocket(family, self, flow, self._counters)
        raw = self._raw.get(version)
        if raw is None or raw.closed:
            raw = self._raw[version] = RawIcmpSocket(family, self, self._counters)
        return raw.attach(flow)

    def open_tcp(
        self, flow: Mailbox, address: tuple[str, int], owner: Hashable
    ) -> TcpFlowSocket | DeniedTcpSocket:
        """Connect to ``address`` as the guest named it; ``owner`` is the guest's own address and port.

        The flow is told what came of it. Raises OSError when no socket can be had.
        """
        decision = self._decide_tcp(address)
        if not decision.allowed:
            return DeniedTcpSocket(flow)
        return open_tcp(flow, (decision.dial, address[1]), owner, self._tcp_ports, self.ready)

    def _decide_tcp(self, address: tuple[str, int]) -> Decision:
        """As :meth:`decide_udp`, of connections."""
        decision = self._decide_with(self._tcp_ports_to_guests, address)
        if decision.allowed and decision.reason != HAIRPIN and not self.policy.may_connect(address[1]):
            self._counters.add("outside.denied.smtp")
            return Decision(allowed=False, reason="smtp")
        return decision

    def decide(self, address: str) -> Decision:
        """Ask the policy about an address as the guest named it; a refusal is counted by its reason."""
        decision = self.judge(address)
        if not decision.allowed:
            self._counters.add(f"outside.denied.{decision.reason}")
        return decision

    def has_forward(self, protocol: str, host: str, port: int | None) -> bool:
        """Whether a UDP or TCP port of this machine, at an address that is else closed, leads to a guest."""
        forwards = ((protocol, at, port) for at in (host, ANY_ADDRESS6 if ":" in host else ANY_ADDRESS))
        return any(map(self._forwards.__contains__, forwards)) and self.judge(host).reason == OWN_ADDRESS

    def judge(self, address: str) -> Decision:
        """Ask the policy without counting what it says, knowing the machine's addresses of the moment."""
        if self._loop.time() >= self._read_interfaces_at or not self._knows_addresses:
            self._read_interfaces()
        if not self._knows_addresses:
            return Decision(allowed=False, reason="interfaces_unread")
        return self.policy.decide(address)

    def listen_udp(self, owner: Mailbox, host: str, port: int, *, shared: bool = False) -> UdpListener:
        """Open a port; guests reach it once it leads to one of them. Raises OSError."""
        return UdpListener(owner, host, port, self.ready, shared=shared)

    def listen_tcp(self, owner: Mailbox, host: str, port: int, *, shared: bool = False) -> TcpListener:
        """As :meth:`listen_udp`, for connections."""
        return TcpListener(owner, host, port, self.ready, self._counters, shared=shared)

    def lead_to_guests(self, protocol: str, host: str, port: int) -> None:
        """Let guests reach a port of this machine that leads to one of them, whichever process listens."""
        self._forwards[protocol, host, port] += 1
        self._leading(protocol).add((host, port))

    def lead_no_more(self, protocol: str, host: str, port: int) -> None:
        """Take one :meth:`lead_to_guests` back: the port may be another program's from now on."""
        self._forwards[protocol, host, port] -= 1
        if not self._forwards[protocol, host, port]:
            del self._forwards[protocol, host, port]
            self._leading(protocol).discard((host, port))

    def _leading(self, protocol: str) -> set[tuple[str, int]]:
        return self._udp_ports if protocol == "udp" else self._tcp_ports_to_guests

    def decide_udp(self, address: tuple[str, int]) -> Decision:
        """As :meth:`decide`; one of this machine's addresses is allowed where the port leads to a guest."""
        return self._decide_with(self._udp_ports, address)

    def _decide_with(self, to_guests: set[tuple[str, int]], address: tuple[str, int]) -> Decision:
        host, port = address
        # Where a guest's port is bound to one address, another service may have the same one on another.
        everywhere = (ANY_ADDRESS6 if ":" in host else ANY_ADDRESS, port)
        leads_to_guest = everywhere in to_guests or address in to_guests
        if self._mapped is not None and to_guests is self._udp_ports:
            leads_to_guest = leads_to_guest or self._mapped.has(port, ipv6=":" in host)
        if leads_to_guest and self.policy.decide(host).reason == OWN_ADDRESS:
            self._counters.add("outside.hairpinned")
            return Decision(allowed=True, reason=HAIRPIN, dial=host)
        return self.decide(host)

    def message(self, received: list[DatagramFromNet]) -> DatagramsFromNet:
        """Put what arrived into the guest's words."""
        shown = self.policy.shown
        if any(shown(host) != host for host in {datagram.address[0] for datagram in received}):
            received = [
                DatagramFromNet(payload, (shown(host), port), ttl) for payload, (host, port), ttl in received
            ]
        return DatagramsFromNet(received)

    def errors(self, errors: list[Reported]) -> ErrorsFromNet:
        """Put ICMP errors into the guest's words: of who sent them, only what the guest may reach is told."""
        decide, shown = self.policy.decide, self.policy.shown
        told = []
        for host, port, kind, code, rest, offender, quoted in errors:
            router = shown(offender) if decide(offender).allowed or shown(offender) != offender else ""
            told.append(ErrorFromNet((shown(host), port), kind, code, rest, router, quoted))
        return ErrorsFromNet(told)

    def _read_interfaces(self) -> None:
        self._read_interfaces_at = self._loop.time() + INTERFACES_INTERVAL
        self._port_range = port_range()
        try:
            self.policy.own_addresses = interface_addresses() | local_routes()
            self._knows_addresses = True
        except OSError:
            # What was read last still protects more than nothing would.
            self._counters.add("outside.interfaces_unread")


def port_range() -> int:
    """Tell how many ports the system chooses from, for each IP version and protocol (Linux: ip(7))."""
    with contextlib.suppress(OSError, ValueError):
        low, high = map(int, PORT_RANGE.read_text().split())
        return high - low + 1
    return DYNAMIC_PORTS


def _any_of(family: SocketFamily) -> str:
    return ANY_ADDRESS if family is IPV4 else ANY_ADDRESS6


def _is_routed(address: str) -> bool:
    """Whether this host knows a way to an IPv6 address; sends nothing. Raises OSError for want of room."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        return False
    return True


def _can_open(kind: int, family: SocketFamily = IPV4, protocol: int = socket.IPPROTO_ICMP) -> bool | None:
    """Whether this host has such sockets for us; None where it has no room to tell."""
    try:
        with socket.socket(family.number, kind, protocol) as probe:
            probe.bind((family.any_address, 0))
    except OSError as error:
        return None if error.errno in NO_ROOM else False
    return True


class UdpFlowSocket(HostSocket):
    """A host UDP socket that belongs to one flow; implements ``actors.ports.UdpSocket``."""

    def __init__(self, family: SocketFamily, network: HostNetwork, flow: Mailbox, counters: Counters) -> None:
        super().__init__(family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, network.ready, counters)
        self._network = network
        self._flow = flow
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Close; the port rests for a while."""
        if self._socket.fileno() >= 0:
            self._network.release_udp(self.port, self.family)
        super().close()

    def send_to(self, payload: bytes, address: tuple[str, int], ttl: int, dont_fragment: bool) -> SendResult:
        """Send one datagram after asking the egress policy about ``address`` as the guest named it."""
        decision = self._network.decide_udp(address)
        if not decision.allowed:
            return SendResult.DENIED
        if (":" in decision.dial) is not (self.family is IPV6):  # the socket is of the other version
            return SendResult.UNREACHABLE
        return self.transmit(payload, (decision.dial, address[1]), ttl, dont_fragment)

    def send_run(
        self, payloads: Sequence[bytes], address: tuple[str, int], ttl: int, dont_fragment: bool
    ) -> int:
        """Send datagrams to ``address`` with few calls; return how many left, the rest is for ``send_to``."""
        decision = self._network.decide_udp(address)
        if not decision.allowed or (":" in decision.dial) is not (self.family is IPV6):
            return 0
        return self.transmit_run(payloads, (decision.dial, address[1]), ttl, dont_fragment)

    def deliver(self, received: list[DatagramFromNet]) -> None:
        """Tell the flow."""
        self._flow.tell(self._network.message(received))

    def report(self, errors: list[Reported]) -> None:
        """Tell the flow."""
        self._flow.tell(self._network.errors(errors))
