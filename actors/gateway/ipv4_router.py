"""The gateway's IPv4 half: ARP, what is for the gateway itself, and routing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from actors.flows.batch import Dropped
from actors.gateway.router import Router
from netstack import dhcp
from netstack.address_pool import Claim
from netstack.arp import REQUEST, parse_arp
from netstack.checksum import PROTOCOL_ICMP, PROTOCOL_UDP
from netstack.ethernet import format_mac
from netstack.family import IPV4
from netstack.icmp import ECHO_REQUEST, IcmpError, parse_icmp
from netstack.ipv4 import FIRST_MULTICAST, FLAGS, NOT_FRAGMENTED, format_ipv4, parse_ipv4
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.udp import parse_udp

if TYPE_CHECKING:
    from actors.flows.batch import Batch
    from actors.gateway.router import Parts
    from netstack.ipv4 import Ipv4Packet

_UNSPECIFIED = bytes(4)
_EVERYONE = b"\xff" * 4

_CLAIM_DROPS = {
    Claim.TAKEN: "address_conflict",
    Claim.RESERVED: "reserved_address",
    Claim.FOREIGN: "foreign_address",
    Claim.OVER_SHARE: "address_share",
}


class Ipv4Router(Router):
    """Handles the IPv4 and ARP frames that the gateway gets."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, IPV4, parts.guests.pool)
        settings = parts.context.settings
        self._pool = parts.guests.pool
        self._port_of = parts.guests.port_of
        self._own = settings.gateway_ips
        self._served = frozenset({settings.gateway_ip, settings.dns_ip})
        netmask = int.from_bytes(settings.netmask, "big")
        network = int.from_bytes(settings.gateway_ip, "big") & netmask
        self._netmask, self._network = netmask, network
        self._broadcast = (network | ~netmask & 0xFFFFFFFF).to_bytes(4, "big")

    def handle_arp(self, frame: bytes, batch: Batch) -> str:
        """Answer for the gateway's addresses, and take note of the guests'. Raises as :meth:`handle`."""
        packet = parse_arp(frame)
        if packet.sender_mac != frame[6:12]:
            raise Dropped("arp_sender")
        if packet.sender_ip != _UNSPECIFIED:
            self._admit(packet.sender_mac, packet.sender_ip, batch)
            self._contests.answered(packet.sender_ip, packet.sender_mac, batch.now)
        elif packet.operation == REQUEST and packet.target_ip not in self._own:
            self._guests.move_to(packet.sender_mac, batch.port)
            self._contests.probed(packet.target_ip, packet.sender_mac, batch.now)
        if packet.operation != REQUEST or packet.target_ip not in self._own:
            return "gateway.ignored"
        batch.replies.append(self._replies.arp_reply(packet))
        return "gateway.answered"

    def handle(self, frame: bytes, batch: Batch) -> str:
        """As of :class:`Router`."""
        if frame[:6] != self._mac:
            return self._to_everyone(frame, batch)
        if frame[FLAGS : FLAGS + 2] not in NOT_FRAGMENTED:
            return self._fragment(frame, batch)
        packet = parse_ipv4(frame)
        mac, destination = frame[6:12], packet.destination
        if not self._pool.uses(mac, packet.source) or self._port_of.get(mac) != batch.port.number:
            try:
                self._admit(mac, packet.source, batch)
            except Dropped:
                # Who renews a lease that it does not have here is to be told so.
                if destination in self._served and self._settings.dhcp and dhcp.is_for_server(frame):
                    return self._services.serve(frame, parse_udp(packet), batch)
                raise
        if destination in self._served:
            return self._to_gateway(frame, packet, batch)
        if destination[0] >= FIRST_MULTICAST or destination[0] == 0 or destination == self._broadcast:
            raise Dropped("not_routable")
        if packet.ttl <= 1:
            raise Dropped("ttl_exceeded", IcmpError.TTL_EXCEEDED)
        is_on_link = int.from_bytes(destination, "big") & self._netmask == self._network
        if is_on_link and destination not in self._own:
            return self._to_guest(frame, packet, batch)
        return self._to_net(frame, packet, batch)

    def _admit(self, mac: bytes, address: bytes, batch: Batch) -> None:
        """Let a guest use an address that it took by hand, unless another has it. Raises Dropped.

        The other one is asked whether it still has it: see ``actors.gateway.address_contests``.
        """
        self._guests.move_to(mac, batch.port)
        claim = self._pool.claim(mac, address)
        if claim.accepted:
            if claim is Claim.GRANTED:
                logger.debug("{} uses {}", format_mac(mac), format_ipv4(address))
                self._guests.took(mac, batch.port)
            return
        if claim is Claim.TAKEN:
            self._contests.begin(address, mac, batch.port.number, batch.now)
        raise Dropped(_CLAIM_DROPS[claim])

    def _to_everyone(self, frame: bytes, batch: Batch) -> str:
        """Serve DHCP to a guest that may have no address; other broadcasts are the guests' own affair."""
        if frame[23:24] != bytes((PROTOCOL_UDP,)) or frame[30:34] != _EVERYONE:
            return "gateway.ignored"
        datagram = parse_udp(parse_ipv4(frame))
        if datagram.destination_port != dhcp.SERVER_PORT or not self._settings.dhcp:
            return "gateway.ignored"
        self._guests.move_to(frame[6:12], batch.port)
        return self._services.serve(frame, datagram, batch)

    def _to_gateway(self, frame: bytes, packet: Ipv4Packet, batch: Batch) -> str:
        if packet.protocol == PROTOCOL_ICMP:
            message = parse_icmp(packet.payload)
            if message.type != ECHO_REQUEST:
                return self._tcp.error(message, self._family, batch) or "gateway.ignored"
            batch.replies.append(self._replies.echo_reply(frame))
            return "gateway.answered"
        if packet.protocol == PROTOCOL_UDP:
            datagram = parse_udp(packet)
            to_client = self._forwards.to_gateway(frame, datagram, batch)
            return to_client or self._services.serve(frame, datagram, batch)
        if packet.protocol == PROTOCOL_TCP:
            return self._tcp.to_gateway(frame, packet, batch)
        raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)
