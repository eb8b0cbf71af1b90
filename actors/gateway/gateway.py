"""The LAN's router at 10.0.2.2: its port of the switch, its messages and its timers.

Theory of operation
-------------------
The gateway is a port of the switch. Frames come in batches, of one port each, and go one by one to the router
of their IP version (``ipv4_router``, ``ipv6_router``), which answers what is for the gateway itself, with its
services (``services``: DHCP, DNS), and passes on what is for elsewhere to the flow of its mapping
(``actors.flows.flow_table``), one message per flow and batch. Who is on the LAN, and with which addresses, is
in ``guests``; everything of a port (flows, addresses) goes when the switch says PortClosed, after which no
frame of that port can come.

Accounting: ``gateway.received`` = ``gateway.answered`` + ``gateway.to_flows`` + ``gateway.routed`` +
``gateway.ignored`` + ``gateway.fragments`` + ``gateway.drop.*``, in frames. A dropped packet may be reported
by ICMP all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.descriptions import (
    Describe,
    DescribeHolder,
    GatewayDescription,
    HolderDescription,
    LeaseDescription,
)
from actors.flows.batch import TO_FLOWS, Batch, Dropped
from actors.flows.flow import FlowContext
from actors.flows.flow_table import FlowTable
from actors.gateway.elsewhere import GuestsElsewhere
from actors.gateway.forwards import Forwards
from actors.gateway.guests import NOWHERE, Guests, address_pool
from actors.gateway.ipv4_router import Ipv4Router
from actors.gateway.ipv6_router import Ipv6Router
from actors.gateway.leases import Leases, NoMemory
from actors.gateway.router import Parts
from actors.gateway.services import LanServices
from actors.gateway.tcp_forwards import TcpForwards
from actors.gateway.tcp_routing import TcpRouter
from actors.handler_errors import HandlerErrors
from actors.messages import (
    AddressUsed,
    AssignAddress,
    ClientGone,
    ClientShown,
    FlowAnswered,
    FlowClosed,
    FlowEstablished,
    FlowRests,
    ForwardOpened,
    FramesFromGateway,
    FramesReturned,
    FramesToFlow,
    FramesToGateway,
    GatewayAttached,
    GuestWanted,
    LeasesChanged,
    MacAgedOut,
    PeerList,
    PeerListRequest,
    PortClosed,
    PortLimited,
    SettingsChanged,
    TcpForGuest,
)
from actors.runtime import NEVER, EventLoopActor, Observe, Tick, handles, tell_alive
from actors.trunk_messages import (
    AddressContested,
    AddressGranted,
    AddressTaken,
    GuestElsewhere,
    GuestNowhereElse,
)
from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, format_mac
from netstack.gateway_replies import GatewayReplies
from netstack.icmpv6 import Icmpv6Replies
from netstack.ipv4 import format_ipv4
from netstack.malformed import MalformedPacket
from netstack.multicast import Queries
from netstack.neighbour_proxy import NeighbourProxy
from netstack.reassembly import Reassembler
from netstack.source_guard import SourceGuard
from netstack.udp import count_alike, udp_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.messages import FlowOpened
    from actors.ports import LeaseMemory, Outside, RoomLink
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.buffer_budget import BufferBudget
    from netstack.counters import Counters
    from netstack.icmp import IcmpError
    from netstack.shares import Shares


class GatewayActor(EventLoopActor):
    """Routes between the LAN and the outside."""

    def __init__(
        self,
        switch: Mailbox,
        outside: Outside,
        counters: Counters,
        settings: LanSettings,
        dns: Mailbox | None = None,
        *,
        flows: Shares | None = None,
        udp_flows: Shares | None = None,
        buffers: BufferBudget | None = None,
        memory: LeaseMemory | None = None,
        journals: Sequence[Callable[[FlowOpened], object]] = (),
        link: RoomLink | None = None,
    ) -> None:
        """``dns`` answers the guests' questions; without it there is no name server at the gateway.

        ``memory`` knows what addresses guests had before; without it nobody does. ``journals`` are told of
        each flow, those that are there when it begins.

        ``flows`` and, of these, ``udp_flows`` are what the gateways of all LANs share, and so is ``buffers``,
        the memory of TCP connections. ``link`` joins the parts of the room at other workers, if there are.
        """
        super().__init__()
        self._switch = switch
        self._counters = counters
        self._settings = settings
        errors6 = Icmpv6Replies(settings.gateway_mac, settings.gateway_link_local, settings.gateway_ip6)
        self._replies = GatewayReplies(settings.gateway_mac, settings.gateway_ip, settings.network, errors6)
        context = FlowContext(self.actor_ref, switch, outside, self._replies, counters, settings, journals)
        self._flows = FlowTable(context, flows, udp_flows, buffers)
        pool = address_pool(settings)
        self._services = LanServices(switch, dns, pool, counters, settings)
        self._leases = Leases(
            pool,
            self._services,
            counters,
            settings,
            switch=switch,
            memory=NoMemory() if memory is None else memory,
            call_later=lambda: self.actor_ref.tell(LeasesChanged()),
        )
        self._guests = Guests(context, pool, self._flows, self._services, self._leases)
        self._elsewhere: GuestsElsewhere | None = None
        if link is not None:
            self._elsewhere = GuestsElsewhere(
                link, self.actor_ref, self._guests, self._services, self._leases, counters=counters
            )
        self._forwards = Forwards(context, self._guests, self._services.names, self._leases, self.now)
        self._tcp_forwards = TcpForwards(context, self._forwards.locate, self._flows)
        self._reassembler = Reassembler(counters)
        parts = Parts(
            context,
            self._guests,
            self._services,
            self._forwards,
            self._flows,
            TcpRouter(context, self._flows, self._services),
            self._reassembler,
        )
        ipv4 = Ipv4Router(parts)
        self._handlers: dict[bytes, Callable[[bytes, Batch], str]] = {
            ETHERTYPE_ARP: ipv4.handle_arp,
            ETHERTYPE_IPV4: ipv4.handle,
        }
        """Who handles a frame, by its Ethernet type."""
        self._ipv6: Ipv6Router | None = None
        if settings.ipv6_prefix is not None:
            self._ipv6 = Ipv6Router(parts, self.now())
            self._handlers[ETHERTYPE_IPV6] = self._ipv6.handle
        self._handler_errors = HandlerErrors("gateway", counters)
        self._set_timer()

    def on_start(self) -> None:
        """Take the gateway's place at the switch."""
        settings, guests = self._settings, self._guests
        guard = (
            SourceGuard(
                guests.pool,
                guests.bindings,
                settings.ipv6_prefix,
                self._is_behind,
                self._prober_of,
                routes=settings.dhcp_routes,
            )
            if settings.source_guard
            else None
        )
        link_local = None if settings.ipv6_prefix is None else settings.gateway_link_local
        queries = Queries(settings.gateway_mac, settings.gateway_ip, link_local)
        proxy = None if self._elsewhere is None else NeighbourProxy(guests.pool, guests.bindings)
        self._switch.tell(GatewayAttached(self.actor_ref, guard, queries, proxy))

    def on_stop(self) -> None:
        """Stop all flows, and give back what of the host's they had."""
        self._flows.stop()

    @handles(Describe)
    def _describe(self, _: Describe) -> GatewayDescription:
        settings, guests, names = self._settings, self._guests, self._services.names
        by_rule = {lease.ip for lease in settings.fixed_leases}
        return GatewayDescription(
            network=str(settings.network),
            gateway=format_ipv4(settings.gateway_ip),
            pool_size=guests.pool.size,
            leases=tuple(
                LeaseDescription(
                    format_ipv4(address),
                    format_mac(mac),
                    guests.port_of.get(mac),
                    names.name_of(address),
                    fixed=address in by_rule,
                )
                for address, mac in guests.pool.held()
                if not guests.pool.is_elsewhere(mac)  # others are in the description of their worker
            ),
            flows={
                number: tuple(port.flows.values()) for number, port in self._flows.ports.items() if port.flows
            },
            drops={number: dict(port.drops) for number, port in self._flows.ports.items() if port.drops},
        )

    @handles(DescribeHolder)
    def _describe_holder(self, message: DescribeHolder) -> HolderDescription | None:
        guests, names = self._guests, self._services.names
        mac = guests.holder_of(message.address)
        if mac is None:
            return None
        name = names.name_of(message.address) or names.label_of(mac)[0]
        return HolderDescription(
            format_mac(mac), guests.port_of.get(mac), name or None, guests.pool.is_elsewhere(mac)
        )

    # -- frames -------------------------------------------------------------------------------------

    @handles(FramesToGateway)
    def _from_lan(self, message: FramesToGateway) -> None:
        number, frames = message
        counters, now = self._counters, self.now()
        counters.add("gateway.received", len(frames))
        batch = Batch(self._flows.port(number, now), now)
        handlers = self._handlers
        at, end = 0, len(frames)
        while at < end:
            frame = frames[at]
            at += 1
            handle = handlers.get(frame[12:14])
            try:
                outcome = "gateway.ignored" if handle is None else handle(frame, batch)
                counters.add(outcome)
                if at < end and outcome == TO_FLOWS and batch.latest and batch.latest[-1] is frame:
                    # Most of a batch go where the one before went; then only what differs is looked at.
                    head = udp_head(frame)
                    alike = 0 if head is None else count_alike(frames, at, head)
                    if alike:
                        batch.latest += frames[at : at + alike]
                        counters.add(TO_FLOWS, alike)
                        at += alike
            except MalformedPacket as malformed:
                self._drop(f"gateway.drop.{malformed.reason}", batch)
            except Dropped as dropped:
                self._drop(dropped.counter, batch)
                if dropped.report is not None:
                    self._report(dropped.whole or frame, dropped.report, batch)
            except Exception as error:  # noqa: BLE001 - a bug costs one frame, never the LAN
                self._handler_errors.note(error, now)
        self._finish(batch)

    def _drop(self, counter: str, batch: Batch) -> None:
        """Count a frame that goes no further, for the LAN and for who sent it."""
        self._counters.add(counter)
        drops = batch.port.drops
        drops[counter] = drops.get(counter, 0) + 1

    def _finish(self, batch: Batch) -> None:
        """Pass on what the frames of a batch led to."""
        for key, frames in batch.to_flows.items():
            flow = batch.port.flows.get(key)
            if flow is None or not tell_alive(flow, FramesToFlow(frames)):
                self._counters.add("gateway.lost_to_ended_flows", len(frames))
        for forward, frames in batch.to_forwards.items():
            if not tell_alive(forward, FramesToFlow(frames)):
                self._counters.add("gateway.lost_to_ended_flows", len(frames))
        self._services.pass_on(batch)
        self._send(batch.replies)
        self._guests.ipv6.publish()
        self._set_timer()

    def _send(self, frames: list[bytes]) -> None:
        if frames:
            tell_alive(self._switch, FramesFromGateway(frames))

    def _report(self, frame: bytes, error: IcmpError, batch: Batch) -> None:
        if not batch.port.errors.take(batch.now):
            self._counters.add("gateway.icmp_errors_suppressed")
            return
        reply = self._replies.icmp_error(frame, error)
        if reply is not None:
            self._counters.add("gateway.icmp_errors")
            batch.replies.append(reply)

    @handles(FramesReturned)
    def _frames_returned(self, message: FramesReturned) -> None:
        if message.port in self._flows.ports:
            self._from_lan(FramesToGateway(*message))
        else:
            self._counters.add("gateway.lost_to_ended_flows", len(message.frames))

    # -- time ---------------------------------------------------------------------------------------

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        now = self.now()
        self._guests.contests.step(now)
        if self._elsewhere is not None:
            self._elsewhere.step(now)
        if self._ipv6 is not None:
            self._send(self._ipv6.discovery.step(self._flows.ports.values(), now))
        self._set_timer()

    def _set_timer(self) -> None:
        advertises_at = NEVER if self._ipv6 is None else self._ipv6.discovery.poll_at
        asks_at = NEVER if self._elsewhere is None else self._elsewhere.poll_at
        self.poll_at = min(advertises_at, asks_at, self._guests.contests.poll_at)

    # -- flows --------------------------------------------------------------------------------------

    @handles(FlowClosed)
    def _flow_closed(self, message: FlowClosed) -> None:
        self._flows.end(message.key)

    @handles(FlowRests)
    def _flow_rests(self, message: FlowRests) -> None:
        self._flows.rests(message.key, message.entry, self.now())

    @handles(FlowEstablished)
    def _flow_established(self, message: FlowEstablished) -> None:
        self._flows.established(message.key)

    @handles(FlowAnswered)
    def _flow_answered(self, message: FlowAnswered) -> None:
        self._flows.answered(message.key)

    # -- port forwards ------------------------------------------------------------------------------

    @handles(ForwardOpened)
    def _forward_opened(self, message: ForwardOpened) -> None:
        self._forwards.attach(message.index, message.forward)

    @handles(ClientShown)
    def _client_shown(self, message: ClientShown) -> None:
        self._forwards.show(message)

    @handles(ClientGone)
    def _client_gone(self, message: ClientGone) -> None:
        self._forwards.hide(message)

    @handles(GuestWanted)
    def _guest_wanted(self, message: GuestWanted) -> None:
        self._forwards.tell_place(message)

    @handles(TcpForGuest)
    def _tcp_for_guest(self, message: TcpForGuest) -> None:
        self._tcp_forwards.serve(message)

    # -- guests -------------------------------------------------------------------------------------

    @handles(Observe)
    def _observed(self, message: Observe) -> None:
        """Have the flows looked on at too, those of later as well."""
        self._observe(message)
        self._flows.observe(message)

    @handles(SettingsChanged)
    def _settings_changed(self, message: SettingsChanged) -> None:
        self._settings = message.settings
        self._flows.follow(message.settings, self.now())
        self._tcp_forwards.follow()

    @handles(PortLimited)
    def _port_limited(self, message: PortLimited) -> None:
        self._flows.limit(message.port, message.policy, self.now())

    @handles(AssignAddress)
    def _assign_address(self, message: AssignAddress) -> None:
        now = self.now()
        port = self._flows.port(message.port, now)
        port.link_mtu = message.link_mtu
        port.line = message.line or port.line
        port.client = message.client
        port.registration = message
        port.fixed_name = message.name if message.name_is_fixed else ""
        if self._guests.moves_to(message.mac, port):
            self._services.expire_leases(now)
            self._leases.assign(message)
        else:
            self._leases.refuse(message)

    @handles(LeasesChanged)
    def _leases_changed(self, _: LeasesChanged) -> None:
        self._guests.ipv6.publish(*self._leases.tell_changed(self._flows.ports, self._guests.port_of))

    def _is_behind(self, mac: bytes, number: int) -> bool:
        """Take note of where a MAC is, asked by the switch's guard; False where there are too many.

        Frames of one batch are not to outrun the count.
        """
        return self._guests.moves_to(mac, self._flows.port(number, self.now()))

    def _prober_of(self, address: bytes) -> bytes:
        """Tell the MAC that is about to take an address, asked by the switch's guard."""
        return self._guests.contests.probes.prober_of(address, self.now())

    @handles(PortClosed)
    def _port_closed(self, message: PortClosed) -> None:
        port = self._flows.close(message.port)
        if port is not None:
            self._reassembler.forget(message.port)
            self._guests.left(port)

    @handles(AddressUsed)
    def _address_used(self, message: AddressUsed) -> None:
        """Follow what the switch has seen on frames that do not come here."""
        now = self.now()
        port = self._flows.port(message.port, now)
        self._guests.used(message.mac, message.address, port, now, contested=message.contested)
        self._set_timer()

    @handles(GuestElsewhere)
    def _guest_elsewhere(self, message: GuestElsewhere) -> None:
        if self._elsewhere is not None:
            self._elsewhere.note(message.binding)

    @handles(GuestNowhereElse)
    def _guest_nowhere_else(self, message: GuestNowhereElse) -> None:
        if self._elsewhere is not None:
            self._elsewhere.forget(message.mac)

    @handles(AddressTaken)
    def _address_taken(self, message: AddressTaken) -> None:
        if self._elsewhere is not None:
            self._elsewhere.give_up(message)

    @handles(AddressContested)
    def _address_contested(self, message: AddressContested) -> None:
        self._guests.contests.begin(message.address, message.challenger, NOWHERE, self.now())
        self._set_timer()

    @handles(AddressGranted)
    def _address_granted(self, message: AddressGranted) -> None:
        if self._elsewhere is not None:
            self._elsewhere.granted(message, self.now())
            self._set_timer()

    @handles(MacAgedOut)
    def _mac_aged_out(self, message: MacAgedOut) -> None:
        self._guests.aged_out(message.mac, message.port)

    @handles(PeerListRequest)
    def _peer_list_request(self, message: PeerListRequest) -> None:
        tell_alive(message.peer, PeerList(self._guests.pool.held() if self._settings.peer_list else ()))
