"""What IPv6 guests learn of their router: neighbour discovery, advertisements, stateless DHCPv6."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from actors.flows.batch import Dropped
from netstack.dhcpv6 import CLIENT_PORT, SERVER_PORT, Dhcpv6Server, parse_information_request
from netstack.dns_local import parse_domain
from netstack.icmpv6 import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION
from netstack.ipv6 import UNSPECIFIED
from netstack.neighbour import (
    advertisement,
    check_router_solicitation,
    parse_advertisement,
    parse_solicitation,
)
from netstack.router_advertisement import INTERVAL, RouterAdvertisements
from netstack.udp import UdpFrameTemplate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.flows.batch import Batch, PortState
    from actors.flows.flow import FlowContext
    from actors.gateway.guests import Guests
    from actors.gateway.services import LanServices
    from netstack.icmp import IcmpMessage
    from netstack.ipv6 import Ipv6Packet
    from netstack.udp import UdpDatagram

MAX_SEARCH_LIST = 800
"""Bytes of the domains in which guests look for short names: what tells them fits any session's packets."""

UPLINK_INTERVAL = 5.0
"""Seconds between looks at whether the host has a way to the IPv6 internet."""

UPLINK_REPEATS = 3
"""Advertisements that tell each guest of a change: any one may get lost (RFC 4861 section 6.2.4)."""


def search_list(*domains: str) -> tuple[str, ...]:
    """Give the first of some domains that fit, each once, in lower case and without the last dot."""
    texts = dict.fromkeys(parse_domain(domain).to_text(omit_final_dot=True) for domain in domains)
    sizes = accumulate(len(text) + 2 for text in texts)
    return tuple(text for text, size in zip(texts, sizes, strict=True) if size <= MAX_SEARCH_LIST)


class Discovery:
    """One LAN's router, as its guests come to know it."""

    def __init__(self, context: FlowContext, guests: Guests, services: LanServices, now: float) -> None:
        settings = context.settings
        self._outside = context.outside
        self._guests = guests
        self._mac = settings.gateway_mac
        self._link_local = settings.gateway_link_local
        self._own = frozenset({settings.gateway_ip6, settings.gateway_link_local})
        # Where guests are told to ask another one, which is known by IPv4, none is told of by IPv6.
        is_name_server = services.has_dns and settings.dns in settings.services
        dns = settings.gateway_ip6 if is_name_server else None
        domains = search_list(settings.domain, *settings.dhcp_search)
        prefix = settings.gateway_ip6
        self._advertisements = RouterAdvertisements(self._mac, self._link_local, prefix, dns, domains)
        self._dhcp = Dhcpv6Server(self._mac, dns, domains)
        self._has_uplink = context.outside.has_ipv6_route
        self._changes_to_tell = 0
        self._advertise_at = now + INTERVAL
        self.poll_at = now + UPLINK_INTERVAL
        """When :meth:`step` is to be called next."""

    def answer(self, mac: bytes, packet: Ipv6Packet, message: IcmpMessage, batch: Batch) -> str:
        """Handle a message of neighbour discovery that came from the link. Raises as ``Router.handle``.

        ``packet`` is the one that had it.
        """
        source = packet.source
        if message.type == ROUTER_SOLICITATION:
            check_router_solicitation(message, source)
            self._guests.move_to(mac, batch.port)
            if not batch.port.errors.take(batch.now):
                raise Dropped("solicitation_rate")
            mtu = batch.port.advertised_mtu = batch.port.link_mtu()
            batch.replies.append(self._advertisement(mac, mtu))
            return "gateway.answered"
        if message.type == NEIGHBOUR_SOLICITATION:
            target = parse_solicitation(message, source, packet.destination).target
            if target in self._own:
                batch.replies.append(advertisement(self._mac, target, mac, source))
                return "gateway.answered"
            if source == UNSPECIFIED and self._guests.moves_to(mac, batch.port):
                self._guests.probed6(mac, target, batch.now)
        elif message.type == NEIGHBOUR_ADVERTISEMENT:
            target = parse_advertisement(message, packet.destination)
            self._guests.contests.answered(target, mac, batch.now)
        return "gateway.ignored"

    def inform(self, mac: bytes, datagram: UdpDatagram, batch: Batch) -> str:
        """Answer a question by DHCPv6, which has no addresses to give (RFC 8415 section 6.1)."""
        request = parse_information_request(datagram.payload)
        answer = None if request is None else self._dhcp.answer(request)
        if answer is None:
            return "gateway.ignored"
        if not batch.port.errors.take(batch.now):
            raise Dropped("dhcp_rate")
        macs = mac + self._mac
        template = UdpFrameTemplate(macs, self._link_local, SERVER_PORT, datagram.source, CLIENT_PORT)
        batch.replies.append(template.build(answer, 0))
        return "gateway.answered"

    def step(self, ports: Iterable[PortState], now: float) -> list[bytes]:
        """Return the advertisements that are due: they remind every guest of its router, and of its MTU.

        Guests hear at once, and a few times more, that the host has lost or got its IPv6 uplink (RFC 7084
        G-5); and those whose path turns out to take other packets, that it does.
        """
        if now < self.poll_at:
            return []
        self.poll_at = now + UPLINK_INTERVAL
        before, self._has_uplink = self._has_uplink, self._outside.has_ipv6_route
        if self._has_uplink != before:
            self._changes_to_tell = UPLINK_REPEATS
        is_due = self._changes_to_tell > 0 or now >= self._advertise_at
        if self._changes_to_tell:
            self._changes_to_tell -= 1
        if is_due:
            self._advertise_at = now + INTERVAL
        frames: list[bytes] = []
        for port in ports:
            mtu = port.link_mtu()
            if is_due or port.advertised_mtu not in (0, mtu):
                port.advertised_mtu = mtu
                frames += [self._advertisement(mac, mtu) for mac in port.macs]
        return frames

    def _advertisement(self, guest_mac: bytes, mtu: int) -> bytes:
        """Build a router advertisement for one NIC: a default router's while the host has an uplink."""
        return self._advertisements.frame(guest_mac, mtu, is_default_router=self._has_uplink)
