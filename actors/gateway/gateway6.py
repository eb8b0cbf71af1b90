"""The gateway's IPv6 half: neighbour discovery, router advertisements, stateless DHCPv6, and routing.

Theory of operation
-------------------
The gateway advertises one /64 and itself as the router; guests choose their addresses (RFC 4862). What leaves
goes through the same flows as IPv4, each with a host socket of the host's own IPv6 address. A guest may use
any address of the prefix and any link-local one, first come first served, until its session ends.

Guests ask for the gateway by multicast, which the switch floods, so multicast frames come here too; of these
only neighbour and router solicitations and DHCPv6 are of interest. Everything else counts as in
``actors.gateway.gateway``, whose part this is: outcomes are returned as counters or raised as ``Dropped``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.flows.batch import Dropped
from actors.flows.flow import FlowContext, Guest
from actors.flows.icmp_flow import IcmpFlowActor
from actors.flows.udp_flow import UdpFlowActor
from netstack.checksum import PROTOCOL_UDP
from netstack.dhcpv6 import CLIENT_PORT, SERVER_PORT, Dhcpv6Server, parse_information_request
from netstack.icmp import IcmpError
from netstack.icmpv6 import (
    ECHO_REPLY6,
    ECHO_REQUEST6,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    PROTOCOL_ICMPV6,
    ROUTER_SOLICITATION,
    build_echo6,
    build_icmpv6,
    parse_icmpv6,
)
from netstack.ipv6 import (
    HOP_LIMIT,
    NEXT_HEADER,
    PROTOCOL_FRAGMENT,
    UNSPECIFIED,
    build_whole6,
    format_ipv6,
    fragment6,
    is_link_local,
    is_multicast,
    link_local_of,
    parse_fragment6,
    parse_ipv6,
    plain,
)
from netstack.malformed import MalformedPacket
from netstack.neighbour import (
    HOP_LIMIT_ON_LINK,
    TARGET,
    advertisement,
    link_layer_address,
    parse_solicitation,
)
from netstack.router_advertisement import RouterAdvertisements
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.udp import UdpFrameTemplate, parse_udp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.flows.batch import Batch, PortState
    from actors.flows.tcp_flow import Remote
    from actors.gateway.address_contests import AddressContests
    from actors.gateway.services import LanServices
    from actors.gateway.tcp_routing import TcpRouter
    from actors.ports import TcpSocket
    from actors.runtime import Mailbox
    from netstack.icmp import IcmpMessage
    from netstack.ipv6 import Ipv6Packet
    from netstack.neighbour import AddressBindings
    from netstack.reassembly import Reassembler
    from netstack.udp import UdpDatagram

    ToFlow = Callable[[type[UdpFlowActor | IcmpFlowActor], int, Guest, bytes, Batch], str]

_MULTICAST_MAC = b"\x33\x33"
_ECHO_GROUPS = frozenset(bytes.fromhex(f"ff02{0:026x}0{group}") for group in (1, 2))
"""All nodes and all routers of the link (RFC 4291 section 2.7.1): the gateway is in both groups."""
_ON_LINK_ONLY = frozenset({ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT})


class Gateway6:
    """Handles the IPv6 frames that the gateway gets."""

    def __init__(
        self,
        context: FlowContext,
        services: LanServices,
        tcp: TcpRouter,
        reassembler: Reassembler,
        *,
        bindings: AddressBindings,
        contests: AddressContests,
        admit_mac: Callable[[bytes, Batch], None],
        to_flow: ToFlow,
        to_client: Callable[[bytes, UdpDatagram], str],
    ) -> None:
        """``admit_mac`` takes a guest's MAC, ``to_flow`` a frame into its flow; both may raise Dropped.

        ``to_client`` takes an answer to a forward's client, or returns an empty string.
        """
        settings = context.settings
        self._context = context
        self._services = services
        self._tcp = tcp
        self._reassembler = reassembler
        self._admit_mac = admit_mac
        self._to_flow = to_flow
        self._to_client = to_client
        self._mac = settings.gateway_mac
        self._address = settings.gateway_ip6
        self._link_local = settings.gateway_link_local
        self._own = frozenset({self._address, self._link_local})
        self._prefix = self._address[:8]
        self._bindings = bindings
        self._contests = contests
        self._announced: dict[bytes, bytes] = {}
        """The address that each known MAC was about to take, when it last looked for duplicates."""
        self._changed: set[bytes] = set()
        """Guests with new addresses, of this batch of frames."""
        dns = self._address if services.has_dns else None
        self._has_ipv6 = context.outside.has_ipv6
        self._has_uplink = context.outside.has_ipv6_route
        self._advertisements = RouterAdvertisements(self._mac, self._link_local, self._address, dns)
        self._dhcp = Dhcpv6Server(self._mac, dns, settings.domain)

    def forget(self, mac: bytes) -> None:
        """Forget the addresses of a guest that left."""
        self._bindings.release(mac)
        self._announced.pop(mac, None)
        self._changed.discard(mac)

    def address_of(self, mac: bytes) -> bytes | None:
        """Tell where in the prefix a guest is best reached."""
        return next(iter(self.addresses_of(mac)), None)

    def addresses_of(self, mac: bytes) -> tuple[bytes, ...]:
        """List where in the prefix a guest is reached: its lasting address, then the one used last.

        A guest that has not used any yet has announced one, when it looked for duplicates (RFC 4862).
        """
        used = [address for address in self._bindings.addresses_of(mac) if address[:8] == self._prefix]
        lasting = self._prefix + link_local_of(mac)[8:]
        used.sort(key=lasting.__eq__)
        announced = self._announced.get(mac)
        if not used and announced is not None and self._bindings.holder_of(announced) in {None, mac}:
            used.append(announced)
        return tuple(reversed(used))

    def taken(self, mac: bytes, address: bytes) -> None:
        """Note that an address is new to a guest: :meth:`publish` is to be called."""
        if address[:8] == self._prefix:
            self._changed.add(mac)

    def publish(self, *macs: bytes) -> None:
        """Let these guests, and those with new addresses, be found by name."""
        self._changed.update(macs)
        while self._changed:
            mac = self._changed.pop()
            self._services.set_ipv6(mac, self.addresses_of(mac))

    def uplink_changed(self) -> bool:
        """Look whether the host still has, or has by now, a way to the IPv6 internet."""
        before, self._has_uplink = self._has_uplink, self._context.outside.has_ipv6_route
        return self._has_uplink != before

    def advertisement(self, guest_mac: bytes, mtu: int) -> bytes:
        """Build a router advertisement for one NIC: a default router's while the host has an uplink."""
        return self._advertisements.frame(guest_mac, mtu, is_default_router=self._has_uplink)

    def handle(self, frame: bytes, batch: Batch) -> str:
        """Handle one frame; return the counter for what became of it. Raises Dropped, MalformedPacket."""
        to_gateway = frame[:6] == self._mac
        if not to_gateway and frame[:2] != _MULTICAST_MAC:
            return "gateway.ignored"
        try:
            packet = parse_ipv6(frame)
        except MalformedPacket as malformed:
            if malformed.reason != "fragment" or not to_gateway:
                raise
            return self._fragment(frame, batch)
        if not to_gateway or is_multicast(packet.destination):
            return self._multicast(frame, packet, batch)
        if packet.protocol == PROTOCOL_ICMPV6 and packet.payload[:1] and packet.payload[0] in _ON_LINK_ONLY:
            return self._discovery(frame, packet, parse_icmpv6(packet), batch)
        self._admit(frame[6:12], packet.source, batch)
        if packet.destination in self._own:
            return self._to_gateway(frame, packet, batch)
        if packet.ttl <= 1:
            raise Dropped("ttl_exceeded", IcmpError.TTL_EXCEEDED)
        if is_link_local(packet.source) or is_link_local(packet.destination):
            raise Dropped("not_routable")
        if packet.destination[:8] == self._prefix:
            return self._to_guest(frame, packet, batch)
        return self._to_net(frame, packet, batch)

    def _fragment(self, frame: bytes, batch: Batch) -> str:
        """Keep a fragment, or handle the packet that it completes."""
        if not batch.port.fragments.take(batch.now):
            raise Dropped("fragment_rate")
        whole = self._reassembler.accept(batch.number, parse_fragment6(frame), batch.now)
        if whole is None:
            return "gateway.fragments"
        before = len(batch.replies)
        outcome = self.handle(build_whole6(whole), batch)
        batch.replies[before:] = [piece for reply in batch.replies[before:] for piece in fragment6(reply)]
        return outcome

    def _admit(self, mac: bytes, address: bytes, batch: Batch) -> None:
        """Let a guest use an address that fits the LAN, unless another does. Raises Dropped."""
        if address in self._own:
            raise Dropped("reserved_address")
        if is_multicast(address) or not (is_link_local(address) or address[:8] == self._prefix):
            raise Dropped("foreign_address")
        self._admit_mac(mac, batch)
        if self._bindings.uses(mac, address):
            return
        if not self._bindings.claim(mac, address):
            self._contests.begin(address, mac, batch)
            raise Dropped("address_conflict")
        self.taken(mac, address)

    # -- the LAN ------------------------------------------------------------------------------------

    def _multicast(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        if packet.protocol == PROTOCOL_ICMPV6 and packet.payload[:1] and packet.payload[0] in _ON_LINK_ONLY:
            return self._discovery(frame, packet, parse_icmpv6(packet), batch)
        if packet.protocol == PROTOCOL_UDP and packet.payload[2:4] == SERVER_PORT.to_bytes(2, "big"):
            return self._ask_dhcp(frame, packet, batch)
        if packet.protocol == PROTOCOL_ICMPV6 and packet.destination in _ECHO_GROUPS:
            return self._echo_to_group(frame, packet, batch)
        return "gateway.ignored"

    def _echo_to_group(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        """Answer a ping of all nodes or all routers from an address of the sender's scope (RFC 4443)."""
        self._admit(frame[6:12], packet.source, batch)
        source = self._link_local if is_link_local(packet.source) else self._address
        return self._echo(frame, packet, source, batch)

    def advertisements(self, ports: Iterable[PortState], *, to_all: bool) -> list[bytes]:
        """Return advertisements for the guests of all ports, or of those that were told another MTU."""
        frames = []
        for port in ports:
            mtu = port.link_mtu()
            if to_all or port.advertised_mtu not in (0, mtu):
                port.advertised_mtu = mtu
                frames += [self.advertisement(mac, mtu) for mac in port.macs]
        return frames

    def _discovery(self, frame: bytes, packet: Ipv6Packet, message: IcmpMessage, batch: Batch) -> str:
        if packet.ttl != HOP_LIMIT_ON_LINK or packet.extended:
            raise Dropped("not_on_link")
        mac, source = frame[6:12], packet.source
        if source != UNSPECIFIED:
            self._admit(mac, source, batch)
        if message.type == ROUTER_SOLICITATION:
            link_layer_address(message.data)
            self._admit_mac(mac, batch)
            if not batch.port.errors.take(batch.now):
                raise Dropped("solicitation_rate")
            mtu = batch.port.advertised_mtu = batch.port.link_mtu()
            batch.replies.append(self.advertisement(mac, mtu))
            return "gateway.answered"
        if message.type == NEIGHBOUR_SOLICITATION:
            target = parse_solicitation(message).target
            if source == UNSPECIFIED and target[:8] == self._prefix and mac in batch.port.macs:
                self._announced[mac] = target
                self.taken(mac, target)
            if target in self._own:
                batch.replies.append(advertisement(self._mac, target, mac, source))
                return "gateway.answered"
        elif message.type == NEIGHBOUR_ADVERTISEMENT:
            self._contests.answered(message.data[TARGET], mac, batch.now)
        return "gateway.ignored"

    def _ask_dhcp(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        self._admit(frame[6:12], packet.source, batch)
        datagram = parse_udp(packet)
        request = parse_information_request(datagram.payload)
        answer = None if request is None else self._dhcp.answer(request)
        if answer is None:
            return "gateway.ignored"
        if not batch.port.errors.take(batch.now):
            raise Dropped("dhcp_rate")
        macs = frame[6:12] + self._mac
        template = UdpFrameTemplate(macs, self._link_local, SERVER_PORT, packet.source, CLIENT_PORT)
        batch.replies.append(template.build(answer, 0))
        return "gateway.answered"

    def _to_gateway(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        if packet.protocol == PROTOCOL_ICMPV6:
            return self._echo(frame, packet, packet.destination, batch)
        if packet.protocol == PROTOCOL_UDP:
            return self._services.udp6(frame, parse_udp(packet), batch)
        if packet.protocol == PROTOCOL_TCP:
            addresses = (packet.source, packet.destination)
            dial = self._services.dial(packet.payload, batch.number)
            return self._tcp.route(_unextended(frame, packet), addresses, packet.payload, batch, dial)
        raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)

    def _echo(self, frame: bytes, packet: Ipv6Packet, source: bytes, batch: Batch) -> str:
        """Answer an echo request from ``source``, one of the gateway's own addresses."""
        request = parse_icmpv6(packet)
        if request.type != ECHO_REQUEST6:
            return "gateway.ignored"
        reply = build_echo6(ECHO_REPLY6, request.identifier, request.sequence, request.data)
        macs = frame[6:12] + self._mac
        batch.replies.append(build_icmpv6(macs, source, packet.source, reply))
        return "gateway.answered"

    def _to_guest(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        """Route from guest to guest: the sender believes its neighbour to be behind the gateway."""
        if self._context.settings.isolated:
            raise Dropped("isolated", IcmpError.PROHIBITED)
        neighbour = self._bindings.holder_of(packet.destination)
        if neighbour is None:
            raise Dropped("no_such_guest", IcmpError.HOST_UNREACHABLE)
        hop = bytes((frame[HOP_LIMIT] - 1,))
        batch.replies.append(neighbour + self._mac + frame[12:HOP_LIMIT] + hop + frame[HOP_LIMIT + 1 :])
        return "gateway.routed"

    # -- the way out --------------------------------------------------------------------------------

    def _to_net(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        if not self._has_ipv6:
            raise Dropped("no_ipv6", IcmpError.NETWORK_UNREACHABLE)
        if packet.protocol == PROTOCOL_TCP:
            addresses = (packet.source, packet.destination)
            frame = _unextended(frame, packet)
            return self._tcp.route(frame, addresses, packet.payload, batch, self._dial)
        if packet.extended and frame[NEXT_HEADER] != PROTOCOL_FRAGMENT:
            frame = plain(frame, packet)
        mac, source = frame[6:12], packet.source
        if packet.protocol == PROTOCOL_UDP:
            datagram = parse_udp(packet)
            guest = Guest(mac, source, datagram.source_port)
            return self._to_client(frame, datagram) or self._to_flow(
                UdpFlowActor, PROTOCOL_UDP, guest, frame, batch
            )
        if packet.protocol == PROTOCOL_ICMPV6:
            message = parse_icmpv6(packet)
            if message.type != ECHO_REQUEST6:
                raise Dropped("icmp_type")
            if not self._context.outside.can_ping:
                raise Dropped("no_ping", IcmpError.PROHIBITED)
            guest = Guest(mac, source, message.identifier)
            return self._to_flow(IcmpFlowActor, PROTOCOL_ICMPV6, guest, frame, batch)
        raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)

    def _dial(self, guest: Guest, remote: Remote) -> Callable[[Mailbox], TcpSocket]:
        address = (format_ipv6(remote.ip), remote.port)
        return partial(self._connect, address, guest)

    def _connect(self, address: tuple[str, int], guest: Guest, flow: Mailbox) -> TcpSocket:
        return self._context.outside.open_tcp(flow, address, (guest.ip, guest.number))


def _unextended(frame: bytes, packet: Ipv6Packet) -> bytes:
    """Give the frame with nothing between its IPv6 header and its payload."""
    return plain(frame, packet._replace(dont_fragment=True)) if packet.extended else frame
