"""What the routers of both IP versions share: fragments, the way from guest to guest, the way out.

A router handles one frame at a time (:meth:`Router.handle`). It returns the counter for what became of the
frame, or raises Dropped or MalformedPacket; answers go to the batch's replies, what is for flows to theirs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from actors.flows.batch import Dropped
from actors.flows.icmp_flow import IcmpFlowActor
from actors.flows.udp_flow import UdpFlowActor
from actors.messages import FlowKey
from netstack.checksum import PROTOCOL_UDP
from netstack.icmp import IcmpError
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.udp import parse_udp

if TYPE_CHECKING:
    from actors.flows.batch import Batch
    from actors.flows.flow import FlowContext
    from actors.flows.flow_table import FlowTable
    from actors.gateway.forwards import Forwards
    from actors.gateway.guests import Guests
    from actors.gateway.services import LanServices
    from actors.gateway.tcp_routing import TcpRouter
    from netstack.address_pool import AddressPool
    from netstack.family import Family
    from netstack.ipv4 import Ipv4Packet
    from netstack.ipv6 import Ipv6Packet
    from netstack.neighbour import AddressBindings
    from netstack.reassembly import Reassembler


class Parts(NamedTuple):
    """What a LAN's routers work with."""

    context: FlowContext
    guests: Guests
    services: LanServices
    forwards: Forwards
    flows: FlowTable
    tcp: TcpRouter
    reassembler: Reassembler


class Router(ABC):
    """One IP version of a gateway."""

    def __init__(self, parts: Parts, family: Family, addresses: AddressPool | AddressBindings) -> None:
        """``addresses`` tells whose is which."""
        self._family = family
        self._addresses = addresses
        self._settings = parts.context.settings
        self._mac = parts.context.settings.gateway_mac
        self._replies = parts.context.replies
        self._guests = parts.guests
        self._contests = parts.guests.contests
        self._services = parts.services
        self._forwards = parts.forwards
        self._tcp = parts.tcp
        self._flows = parts.flows
        self._outside = parts.context.outside
        self._reassembler = parts.reassembler

    @abstractmethod
    def handle(self, frame: bytes, batch: Batch) -> str:
        """Handle one frame; return the counter for what became of it. Raises Dropped, MalformedPacket."""

    def _fragment(self, frame: bytes, batch: Batch) -> str:
        """Keep a fragment, or handle the packet that it completes (RFC 4787 REQ-14)."""
        if not batch.port.fragments.take(batch.now):
            raise Dropped("fragment_rate")
        family = self._family
        whole = self._reassembler.accept(batch.port.number, family.parse_fragment(frame), batch.now)
        if whole is None:
            return "gateway.fragments"
        before = len(batch.replies)
        packet = family.build_whole(whole)
        try:
            outcome = self.handle(packet, batch)
        except Dropped as dropped:
            dropped.whole = packet  # no error may be about a fragment that is not the first
            raise
        mtu = batch.port.link_mtu()
        batch.replies[before:] = [
            piece for reply in batch.replies[before:] for piece in family.fragment(reply, mtu)
        ]
        return outcome

    def _to_guest(self, frame: bytes, packet: Ipv4Packet | Ipv6Packet, batch: Batch) -> str:
        """Route from guest to guest: the sender believes its neighbour to be behind the gateway."""
        neighbour = self._addresses.holder_of(packet.destination)
        if batch.port.policy.isolated or (neighbour is not None and self._guests.is_isolated(neighbour)):
            raise Dropped("isolated", IcmpError.PROHIBITED)
        if neighbour is None:
            raise Dropped("no_such_guest", IcmpError.HOST_UNREACHABLE)
        batch.replies.append(neighbour + self._mac + self._family.one_hop_on(frame))
        return "gateway.routed"

    # -- the way out --------------------------------------------------------------------------------

    def _to_net(self, frame: bytes, packet: Ipv4Packet | Ipv6Packet, batch: Batch) -> str:
        """Pass a frame that is for the world outside to its flow.

        ``packet`` was parsed of the frame, which has no IPv6 extension headers but an atomic fragment header.
        """
        if packet.protocol == PROTOCOL_TCP:
            return self._tcp.to_net(frame, packet, batch)
        if packet.protocol == PROTOCOL_UDP:
            return self._udp_to_net(frame, packet, batch)
        if packet.protocol == self._family.icmp:
            return self._ping_to_net(frame, packet, batch)
        raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)

    def _udp_to_net(self, frame: bytes, packet: Ipv4Packet | Ipv6Packet, batch: Batch) -> str:
        datagram = parse_udp(packet)
        to_client = self._forwards.to_client(frame, datagram, batch)
        if to_client:
            return to_client
        source, source_port, destination, destination_port, _ = datagram
        key = FlowKey(batch.port.number, PROTOCOL_UDP, source, source_port)
        return self._flows.pass_on(UdpFlowActor, key, (destination, destination_port), frame, batch)

    def _ping_to_net(self, frame: bytes, packet: Ipv4Packet | Ipv6Packet, batch: Batch) -> str:
        message = self._family.parse_icmp(packet)
        if message.type != self._family.echo_request:
            to_flow = self._tcp.error(message, self._family, batch)
            if to_flow:
                return to_flow
            raise Dropped("icmp_type")
        if not self._outside.can_ping:
            raise Dropped("no_ping", IcmpError.PROHIBITED)
        key = FlowKey(batch.port.number, self._family.icmp, packet.source, message.identifier)
        return self._flows.pass_on(IcmpFlowActor, key, (packet.destination, 0), frame, batch)
