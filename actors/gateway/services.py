"""What the gateway itself offers to guests, by UDP port: DHCP and DNS.

Guests without an address broadcast; all others write to one of the gateway's addresses. A service returns
the counter for what became of the frame, or raises Dropped, as all of the gateway's handlers do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from loguru import logger

from actors.flows.batch import Dropped
from actors.gateway.dns_stream import DnsStream
from actors.messages import (
    DnsQuestion,
    DnsQuestions,
    FramesFromGateway,
    FramesReturned,
    FramesToPort,
    Ipv6AddressesKnown,
    NameBound,
    NameForgotten,
    PortClosed,
)
from actors.runtime import tell_alive
from actors.token_bucket import TokenBucket
from netstack import dhcp
from netstack.dhcp_options import Code
from netstack.dhcp_server import DhcpOptions, DhcpServer, Unanswered
from netstack.dns_zone import Zone, clean_label
from netstack.ethernet import BROADCAST
from netstack.family import family_of
from netstack.icmp import IcmpError
from netstack.name_servers import DNS_PORT
from netstack.udp import UDP_HEADER_LENGTH, UdpFrameTemplate

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.flows.batch import Batch, PortState
    from actors.flows.tcp_flow import Dial
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.address_pool import AddressPool
    from netstack.counters import Counters
    from netstack.family import Family
    from netstack.udp import UdpDatagram


DHCP_PER_SECOND = 10.0
"""DHCP messages of one session that are answered; a guest that boots sends two."""

DHCP_BURST = 20.0
"""DHCP messages at once: a bridge with all its guests."""

_WANT_ADDRESS = frozenset({dhcp.MessageType.DISCOVER, dhcp.MessageType.REQUEST, dhcp.MessageType.BOOTP})


class LanServices:
    """The services of one LAN's gateway."""

    def __init__(
        self,
        switch: Mailbox,
        dns: Mailbox | None,
        pool: AddressPool,
        counters: Counters,
        settings: LanSettings,
    ) -> None:
        """Without ``dns`` there is no name server."""
        self._switch = switch
        self._dns = dns
        self.names = Zone(settings.own_names, settings.fixed_names)
        """What guests call themselves, decided as the name server decides it."""
        self.on_name: Callable[[bytes, bytes, str], None] = lambda _mac, _address, _name: None
        """Told the lease of a MAC, and the name that its guest gives with it, if any."""
        self.renamed: Callable[[bytes], None] = lambda _mac: None
        """Told a MAC whose guest has another name, perhaps."""
        self.replay: Callable[[FramesReturned], None] = lambda _frames: None
        """Has a guest's frames handled again."""
        self.waits: Callable[..., bool] = lambda *_, **__: False
        """``GuestsElsewhere.waits``, where there are other workers."""
        self._counters = counters
        self._settings = settings
        options = DhcpOptions(
            settings.gateway_ip,
            settings.netmask,
            settings.dns,
            settings.domain,
            int(settings.dhcp_lease_time),
            settings.dhcp_boot,
            settings.dhcp_search,
            settings.dhcp_ntp,
            settings.dhcp_routes,
            settings.dhcp_wpad,
        )
        self._pool = pool
        # Among the names a further lease of a MAC is known by the MAC and the address.
        self._dhcp_server = DhcpServer(options, pool, lambda mac, address: self._forget_name(mac + address))
        self._dhcp_rates: dict[int, TokenBucket] = {}
        self._by_port: dict[tuple[int, int], Callable[[bytes, UdpDatagram, Batch], str]] = {}
        """Services by IP version and port."""
        if settings.dhcp:
            self._by_port[4, dhcp.SERVER_PORT] = self._dhcp
        if dns is not None:
            self._by_port[4, DNS_PORT] = self._by_port[6, DNS_PORT] = self._ask_dns

    def serve(self, frame: bytes, datagram: UdpDatagram, batch: Batch) -> str:
        """Serve a datagram to one of the gateway's addresses."""
        service = self._by_port.get((family_of(datagram.source).version, datagram.destination_port))
        if service is None:
            raise Dropped("no_service", IcmpError.PORT_UNREACHABLE)
        return service(frame, datagram, batch)

    @property
    def has_dns(self) -> bool:
        """Whether the gateway is a name server."""
        return self._dns is not None

    # -- DHCP ---------------------------------------------------------------------------------------

    def _dhcp(self, frame: bytes, datagram: UdpDatagram, batch: Batch) -> str:
        rate = self._dhcp_rates.get(batch.port.number)
        if rate is None:
            rate = self._dhcp_rates[batch.port.number] = TokenBucket(DHCP_PER_SECOND, DHCP_BURST, batch.now)
        if not rate.take(batch.now):
            raise Dropped("dhcp_rate")
        request = dhcp.parse_dhcp(datagram.payload)
        if request.mac != frame[6:12]:
            raise Dropped("dhcp_spoofed")  # else one guest could take all addresses
        if request.type in _WANT_ADDRESS and self.waits(
            request.mac,
            partial(self._again, batch.port.number, frame),
            request.address(Code.REQUESTED_ADDRESS),
            further=self._dhcp_server.wants_further(request, batch.now),
        ):
            return "gateway.answered"  # once it has its address
        reply = self._dhcp_server.answer(request, batch.port.link_mtu(), batch.port.number, batch.now)
        if isinstance(reply, Unanswered):
            self._counters.add(f"dhcp.{reply.value}")
            return "gateway.answered"
        self._counters.add(f"dhcp.{reply.kind.name.lower()}")
        if reply.lease is not None:
            fixed = batch.port.fixed_name
            name = "" if fixed is None else fixed or request.host_name
            self._name_client(request.mac, reply.lease, name, granted=bool(fixed))
        settings = self._settings
        template = UdpFrameTemplate(
            reply.mac + settings.gateway_mac,
            settings.gateway_ip,
            dhcp.SERVER_PORT,
            reply.address,
            dhcp.CLIENT_PORT,
        )
        frame = template.build(reply.payload, 0)
        if reply.mac == BROADCAST:  # for all clients of one NIC: no other guest is to see it
            tell_alive(self._switch, FramesToPort(batch.port.number, [frame]))
        else:
            batch.replies.append(frame)
        return "gateway.answered"

    def _again(self, port: int, frame: bytes) -> None:
        self.replay(FramesReturned(port, [frame]))

    # -- DNS ----------------------------------------------------------------------------------------

    def dial(self, service: int, port: PortState) -> Dial | None:
        """Say how a guest behind ``port`` is connected to a TCP port of the gateway; None where nobody is."""
        if self._dns is None or service != DNS_PORT:
            return None
        return partial(DnsStream, self._dns, port.number, port.buffers)

    def _ask_dns(self, frame: bytes, datagram: UdpDatagram, batch: Batch) -> str:
        family = family_of(datagram.source)
        template = UdpFrameTemplate(
            frame[6:12] + self._settings.gateway_mac,
            datagram.destination,
            DNS_PORT,
            datagram.source,
            datagram.source_port,
        )
        question = DnsQuestion(
            datagram.payload,
            over_stream=False,
            reply=partial(self._send, template, family),
            limit=batch.port.link_mtu() - family.header_length - UDP_HEADER_LENGTH,
        )
        batch.questions.append(question)
        return "gateway.answered"

    def pass_on(self, batch: Batch) -> None:
        """Ask the name server what the frames of a batch wanted to know."""
        if batch.questions:
            self._tell_dns(DnsQuestions(batch.port.number, batch.questions))

    def _send(self, template: UdpFrameTemplate, family: Family, response: bytes) -> None:
        tell_alive(self._switch, FramesFromGateway(family.fragment(template.build(response, 0))))

    def name(self, mac: bytes, address: bytes, name: str, *, granted: bool) -> None:
        """Let the guest be found by what it calls itself, or by what its token calls it (``granted``)."""
        if address in {self._pool.address_of(mac), self._pool.place_of(mac)}:
            self.on_name(mac, address, name)
        label = clean_label(name)
        before = self.names.holder_of(label)
        self.names.bind(mac, address, name, granted=granted)
        self.renamed(mac)
        if before is not None and self.names.holder_of(label) != before:
            self.renamed(before)
            self._counters.add("gateway.names_displaced")
            logger.debug(
                "{!r} is no more {}: a token gives {} that name", label, before.hex(":"), mac.hex(":")
            )
        self._tell_dns(NameBound(mac, address, name, granted))

    def name_elsewhere(self, mac: bytes, address: bytes, name: str, *, granted: bool) -> None:
        """Let a guest of another worker be found by the name that it has there."""
        if self.names.label_of(mac)[0] not in ("", name):
            self._forget_name(mac)
        self.names.bind(mac, address, name, granted=granted)
        self._tell_dns(NameBound(mac, address, name, granted))

    def forget_elsewhere(self, mac: bytes) -> None:
        """Forget the name of a guest that is at no other worker any more, or has none there."""
        self._forget_name(mac)

    def lose_name(self, owner: bytes, *, to: bytes) -> None:
        """Take a guest's name from it, for a guest of another worker has it, by right."""
        self._counters.add("rooms.names_lost")
        label, _ = self.names.label_of(owner)
        logger.info("the name {!r} of {} is that of {} at another worker", label, owner.hex(":"), to.hex(":"))
        self._forget_name(owner)
        self.renamed(owner)

    def set_ipv6(self, mac: bytes, addresses: tuple[bytes, ...]) -> None:
        """Let the guest's name lead to all its IPv6 addresses, and back."""
        self._tell_dns(Ipv6AddressesKnown(mac, addresses))

    def address_moved(self, address: bytes) -> None:
        """Let the name of the guest that had an IPv4 address not lead to its new holder."""
        owner = self.names.owner_of(address)
        if owner is not None:
            self._forget_name(owner)

    def forget(self, port: int, macs: set[bytes]) -> None:
        """Forget a session and its guests."""
        self._dhcp_rates.pop(port, None)
        for mac in macs:
            self.forget_guest(mac)
        self._tell_dns(PortClosed(port))

    def expire_leases(self, now: float) -> None:
        """Free addresses that DHCP clients have no more."""
        self._dhcp_server.expire(now)

    def _name_client(self, mac: bytes, lease: bytes, name: str, *, granted: bool) -> None:
        """Let a DHCP client be found by its name; several behind one MAC have theirs."""
        owner = mac if lease == self._pool.address_of(mac) else mac + lease
        self.name(owner, lease, name, granted=granted)

    def forget_guest(self, mac: bytes) -> None:
        """Forget a guest: its names, and the DHCP clients behind its MAC."""
        self._dhcp_server.forget(mac)
        self._forget_name(mac)

    def _forget_name(self, owner: bytes) -> None:
        self.names.forget(owner)
        self._tell_dns(NameForgotten(owner))

    def _tell_dns(
        self, message: DnsQuestions | NameBound | Ipv6AddressesKnown | NameForgotten | PortClosed
    ) -> None:
        if self._dns is not None:
            tell_alive(self._dns, message)
