"""The gateway's IPv6 half: what is for the gateway itself, and routing.

Theory of operation
-------------------
The gateway advertises one /64 and itself as the router (``discovery``); guests choose their addresses
(RFC 4862). What leaves goes through the same flows as IPv4, each with a host socket of the host's own IPv6
address. A guest may use any address of the prefix and any link-local one, first come first served, until its
session ends.

Guests ask for the gateway by multicast, which the switch floods, so multicast frames come here too; of these
only neighbour and router solicitations, DHCPv6, and pings of the gateway's groups are of interest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.batch import Dropped
from actors.gateway.discovery import Discovery
from actors.gateway.router import Router
from netstack.checksum import PROTOCOL_UDP
from netstack.dhcpv6 import SERVER_PORT
from netstack.family import IPV6
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
    UNSPECIFIED,
    is_link_local,
    is_multicast,
    parse_ipv6,
    plain,
)
from netstack.malformed import MalformedPacket
from netstack.neighbour import HOP_LIMIT_ON_LINK, solicited_node_of
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.udp import parse_udp

if TYPE_CHECKING:
    from actors.flows.batch import Batch
    from actors.gateway.router import Parts
    from netstack.ipv6 import Ipv6Packet

_MULTICAST_MAC = b"\x33\x33"
_GROUPS = frozenset(bytes.fromhex(f"ff02{group:028x}") for group in (1, 2, 0x1_0002))
"""All nodes, routers and DHCPv6 agents of the link, of which the gateway is one (RFC 4291 section 2.7.1, RFC
8415 section 7.1)."""
_ON_LINK_ONLY = frozenset({ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT})


class Ipv6Router(Router):
    """Handles the IPv6 frames that the gateway gets."""

    def __init__(self, parts: Parts, now: float) -> None:
        super().__init__(parts, IPV6, parts.guests.bindings)
        settings = parts.context.settings
        self._address = settings.gateway_ip6
        self._link_local = settings.gateway_link_local
        self._own = frozenset({self._address, self._link_local})
        self._groups = _GROUPS.union(map(solicited_node_of, self._own))
        self._prefix = self._address[:8]
        self._bindings = parts.guests.bindings
        self._has_ipv6 = parts.context.outside.has_ipv6
        self.discovery = Discovery(parts.context, parts.guests, parts.services, now)

    def handle(self, frame: bytes, batch: Batch) -> str:
        """As of :class:`Router`."""
        to_gateway = frame[:6] == self._mac
        if not to_gateway and frame[:2] != _MULTICAST_MAC:
            return "gateway.ignored"
        try:
            packet = parse_ipv6(frame)
        except MalformedPacket as malformed:
            if malformed.reason != "fragment" or not to_gateway:
                raise
            return self._fragment(frame, batch)
        if packet.protocol == PROTOCOL_ICMPV6 and packet.payload[:1] and packet.payload[0] in _ON_LINK_ONLY:
            return self._discover(frame, packet, batch)
        if not to_gateway or is_multicast(packet.destination):
            return self._multicast(frame, packet, batch)
        self._admit(frame[6:12], packet.source, batch)
        if packet.destination in self._own:
            return self._to_gateway(frame, packet, batch)
        if packet.ttl <= 1:
            raise Dropped("ttl_exceeded", IcmpError.TTL_EXCEEDED)
        if is_link_local(packet.source) or is_link_local(packet.destination):
            raise Dropped("not_routable")
        if packet.destination[:8] == self._prefix:
            return self._to_guest(frame, packet, batch)
        if not self._has_ipv6:
            raise Dropped("no_ipv6", IcmpError.NETWORK_UNREACHABLE)
        return self._to_net(_for_flows(frame, packet), packet, batch)

    def _admit(self, mac: bytes, address: bytes, batch: Batch) -> None:
        """Let a guest use an address that fits the LAN, unless another does. Raises Dropped."""
        if address in self._own:
            raise Dropped("reserved_address")
        if is_multicast(address) or not (is_link_local(address) or address[:8] == self._prefix):
            raise Dropped("foreign_address")
        self._guests.move_to(mac, batch.port)
        if self._bindings.uses(mac, address):
            return
        if not self._bindings.claim(mac, address):
            self._contests.begin(address, mac, batch.port.number, batch.now)
            raise Dropped("address_conflict")
        self._guests.ipv6.taken(mac, address)

    # -- the LAN ------------------------------------------------------------------------------------

    def _discover(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        message = parse_icmpv6(packet)
        if packet.ttl != HOP_LIMIT_ON_LINK or packet.extended:
            raise Dropped("not_on_link")
        if packet.source != UNSPECIFIED:
            self._admit(frame[6:12], packet.source, batch)
        return self.discovery.answer(frame[6:12], packet, message, batch)

    def _multicast(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        if packet.protocol == PROTOCOL_UDP and packet.payload[2:4] == SERVER_PORT.to_bytes(2, "big"):
            self._admit(frame[6:12], packet.source, batch)
            return self.discovery.inform(frame[6:12], parse_udp(packet), batch)
        if packet.protocol == PROTOCOL_ICMPV6 and packet.destination in self._groups:
            # Answered from an address of the sender's scope (RFC 4443 section 4.2).
            self._admit(frame[6:12], packet.source, batch)
            source = self._link_local if is_link_local(packet.source) else self._address
            return self._echo(frame, packet, source, batch)
        return "gateway.ignored"

    def _to_gateway(self, frame: bytes, packet: Ipv6Packet, batch: Batch) -> str:
        if packet.protocol == PROTOCOL_ICMPV6:
            return self._echo(frame, packet, packet.destination, batch)
        if packet.protocol == PROTOCOL_UDP:
            return self._services.serve(frame, parse_udp(packet), batch)
        if packet.protocol == PROTOCOL_TCP:
            return self._tcp.to_gateway(_for_flows(frame, packet), packet, batch)
        raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)

    def _echo(self, frame: bytes, packet: Ipv6Packet, source: bytes, batch: Batch) -> str:
        """Answer an echo request from ``source``, one of the gateway's own addresses."""
        request = parse_icmpv6(packet)
        if request.type != ECHO_REQUEST6:
            return self._tcp.error(request, self._family, batch) or "gateway.ignored"
        reply = build_echo6(ECHO_REPLY6, request.identifier, request.sequence, request.data)
        macs = frame[6:12] + self._mac
        batch.replies.append(build_icmpv6(macs, source, packet.source, reply))
        return "gateway.answered"


def _for_flows(frame: bytes, packet: Ipv6Packet) -> bytes:
    """Give the frame with no extension headers, as flows read it.

    But UDP and ICMP keep an atomic fragment header: what may be fragmented again (RFC 6946).
    """
    if not packet.extended:
        return frame
    if packet.protocol == PROTOCOL_TCP:
        packet = packet._replace(dont_fragment=True)
    return plain(frame, packet)
