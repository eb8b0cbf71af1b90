"""The LAN's router at 10.0.2.2: addresses, ARP, ICMP, and the flows through the NAT.

Theory of operation
-------------------
The gateway is a port of the switch. Of what it gets it answers ARP for its own addresses, echo requests to
itself and what its services (``services``: DHCP, DNS) are asked; packets for elsewhere go to the flow
of their mapping (``actors.flows.flow_table``), one message per flow and batch.

A guest sends from addresses that are its own: the one assigned to its MAC, or one that it took by hand while
nobody else had it. Everything of a port (flows, addresses) goes when the switch says PortClosed, after which
no frame of that port can come.

Accounting: ``gateway.received`` = ``gateway.answered`` + ``gateway.to_flows`` + ``gateway.routed`` +
``gateway.ignored`` + ``gateway.fragments`` + ``gateway.drop.*``, in frames. A dropped packet may be reported
by ICMP all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from loguru import logger

from actors.descriptions import Describe, GatewayDescription, LeaseDescription
from actors.flows.batch import TO_FLOWS, Batch, Dropped, PortState
from actors.flows.buffer_budget import TOTAL, BufferBudget
from actors.flows.flow import FlowContext, Guest
from actors.flows.flow_table import FlowTable, is_key_of
from actors.flows.icmp_flow import IcmpFlowActor
from actors.flows.udp_flow import UdpFlowActor
from actors.gateway.address_contests import AddressContests
from actors.gateway.address_shares import AddressShares
from actors.gateway.forwards import Forwards
from actors.gateway.gateway6 import Gateway6
from actors.gateway.leases import Leases, NoMemory
from actors.gateway.services import LanServices
from actors.gateway.tcp_forwards import TcpForwards
from actors.gateway.tcp_routing import TcpRouter
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
    TcpForGuest,
)
from actors.mishaps import Mishaps
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from netstack.address_pool import AddressPool, Claim
from netstack.arp import REQUEST, parse_arp
from netstack.checksum import PROTOCOL_ICMP, PROTOCOL_UDP, update
from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, format_mac
from netstack.gateway_replies import GatewayReplies
from netstack.icmp import ECHO_REQUEST, IcmpError, parse_icmp
from netstack.icmpv6 import Icmpv6Replies
from netstack.ipv4 import (
    FLAGS,
    NOT_FRAGMENTED,
    build_whole,
    format_ipv4,
    fragment,
    parse_fragment,
    parse_ipv4,
)
from netstack.malformed import MalformedPacket
from netstack.multicast import Queries
from netstack.neighbour import AddressBindings
from netstack.reassembly import Reassembler
from netstack.router_advertisement import INTERVAL as RA_INTERVAL
from netstack.source_guard import SourceGuard
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.udp import is_intact_udp, parse_udp, udp_head

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from actors.flows.tcp_flow import Remote
    from actors.ports import LeaseMemory, Outside, TcpSocket
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.counters import Counters
    from netstack.ipv4 import Ipv4Packet
    from netstack.shares import Shares

MAX_MACS_PER_PORT = 16
"""MACs of one port that may have addresses: twice what the switch takes at a time, since there they age."""

UPLINK_INTERVAL = 5.0
"""Seconds between looks at whether the host has a way to the IPv6 internet."""

UPLINK_REPEATS = 3
"""Advertisements that tell each guest of a change: any one may get lost (RFC 4861 section 6.2.4)."""

_UNSPECIFIED = bytes(4)
_FIRST_MULTICAST = 224

_CLAIM_DROPS = {
    Claim.TAKEN: "address_conflict",
    Claim.RESERVED: "reserved_address",
    Claim.FOREIGN: "foreign_address",
    Claim.OVER_SHARE: "address_share",
}


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
    ) -> None:
        """``dns`` answers the guests' questions; without it there is no name server at the gateway.

        ``memory`` knows what addresses guests had before; without it nobody does.

        ``flows`` and, of these, ``udp_flows`` are what the gateways of all LANs share, and so is ``buffers``,
        the memory of TCP connections.
        """
        super().__init__()
        self._switch = switch
        self._counters = counters
        self._settings = settings
        self._outside = outside
        self._own = settings.gateway_ips
        self._served = frozenset({settings.gateway_ip, settings.dns_ip})
        self._pool = AddressPool(
            settings.network,
            format_ipv4(settings.pool_first),
            format_ipv4(settings.pool_last),
            frozenset({settings.gateway_ip, settings.dns_ip, settings.host_ip}),
            {lease.mac: lease.ip for lease in settings.fixed_leases},
        )
        self._services = LanServices(switch, dns, self._pool, counters, settings)
        self._leases = Leases(
            self._pool,
            self._services,
            counters,
            settings,
            memory=NoMemory() if memory is None else memory,
            call_later=lambda: self.actor_ref.tell(LeasesChanged()),
        )
        errors6 = Icmpv6Replies(settings.gateway_mac, settings.gateway_link_local, settings.gateway_ip6)
        self._replies = GatewayReplies(settings.gateway_mac, settings.gateway_ip, settings.network, errors6)
        self._context = FlowContext(self.actor_ref, switch, outside, self._replies, counters, settings)
        self._buffers = BufferBudget(TOTAL) if buffers is None else buffers
        self._flows = FlowTable(self._context, flows, udp_flows)
        self._tcp = TcpRouter(self._context, self._flows.start, self._flows.total)
        netmask = int.from_bytes(settings.netmask, "big")
        network = int.from_bytes(settings.gateway_ip, "big") & netmask
        self._netmask, self._network = netmask, network
        self._broadcast = (network | ~netmask & 0xFFFFFFFF).to_bytes(4, "big")
        self._ports: dict[int, PortState] = {}
        self._port_of: dict[bytes, int] = {}
        """Where a MAC is, as far as its addresses go."""
        shares = AddressShares(self._pool, self._ports, self._port_of, settings.client_share)
        self._pool.admits = shares.admits
        self._forwards = Forwards(
            self._pool, self._services, self._port_of, self._address6_of, self._is_forwarded_to
        )
        self._tcp_forwards = TcpForwards(self._context, self._forwards.locate, self._ports, self._flows.total)
        self._reassembler = Reassembler(counters)
        self._bindings = AddressBindings()
        self._contests = AddressContests(self._context, self._pool, self._bindings, self._address_moved)
        self._ipv6: Gateway6 | None = None
        self._look_at = NEVER
        self._changes_to_tell = 0
        if settings.ipv6_prefix is not None:
            self._ipv6 = Gateway6(
                self._context,
                self._services,
                self._tcp,
                self._reassembler,
                bindings=self._bindings,
                contests=self._contests,
                admit_mac=self._move_to,
                to_flow=self._flows.pass_on,
                to_client=self._forwards.to_client,
            )
            self._advertise_at = self.now() + RA_INTERVAL
            self.poll_at = self._look_at = self.now() + UPLINK_INTERVAL
        self._mishaps = Mishaps("gateway", counters)

    def on_start(self) -> None:
        """Take the gateway's place at the switch."""
        prefix = self._settings.ipv6_prefix
        guard = (
            SourceGuard(self._pool, self._bindings, prefix, self._locate)
            if self._settings.source_guard
            else None
        )
        link_local = None if prefix is None else self._settings.gateway_link_local
        queries = Queries(self._settings.gateway_mac, self._settings.gateway_ip, link_local)
        self._switch.tell(GatewayAttached(self.actor_ref, guard, queries))

    def on_stop(self) -> None:
        """Stop all flows, and give back what of the host's they had."""
        for number, port in self._ports.items():
            self._flows.end_all(number, port)

    def on_failure(
        self,
        _exception_type: type[BaseException] | None,
        _exception_value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """As :meth:`on_stop`."""
        self.on_stop()

    @handles(Describe)
    def _describe(self, _: Describe) -> GatewayDescription:
        settings, names, fixed = self._settings, self._services.names, self._settings.fixed_leases
        by_rule = {lease.ip for lease in fixed}
        return GatewayDescription(
            network=str(settings.network),
            gateway=format_ipv4(settings.gateway_ip),
            pool_size=self._pool.size,
            leases=tuple(
                LeaseDescription(
                    format_ipv4(address),
                    format_mac(mac),
                    self._port_of.get(mac),
                    names.name_of(address),
                    fixed=address in by_rule,
                )
                for address, mac in self._pool.held()
            ),
            flows=tuple(flow for port in self._ports.values() for flow in port.flows.values()),
        )

    # -- frames -------------------------------------------------------------------------------------

    @handles(FramesToGateway)
    def _from_lan(self, message: FramesToGateway) -> None:
        number, frames = message
        counters = self._counters
        counters.add("gateway.received", len(frames))
        batch = Batch(number, self._port(number), self.now())
        handlers = self._BY_ETHERTYPE
        known = b""
        repeated = 0
        for frame in frames:
            # Most frames of a batch go where the one before went; then only what differs is looked at.
            head = udp_head(frame)
            if head and head == known and is_intact_udp(frame):
                batch.latest.append(frame)
                repeated += 1
                continue
            known = b""
            handle = handlers.get(frame[12:14])
            try:
                outcome = "gateway.ignored" if handle is None else handle(self, frame, batch)
                counters.add(outcome)
                if outcome == TO_FLOWS and batch.latest and batch.latest[-1] is frame:
                    known = head
            except MalformedPacket as malformed:
                counters.add(f"gateway.drop.{malformed.reason}")
            except Dropped as dropped:
                counters.add(dropped.counter)
                if dropped.report is not None:
                    self._report(frame, dropped.report, batch)
            except Exception as error:  # noqa: BLE001 - a bug costs one frame, never the LAN
                self._mishaps.note(error, batch.now)
        if repeated:
            counters.add(TO_FLOWS, repeated)
        self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        """Pass on what the frames of a batch led to."""
        for key, flow_frames in batch.to_flows.items():
            flow = batch.port.flows.get(key)
            if flow is None or not tell_alive(flow, FramesToFlow(flow_frames)):
                self._counters.add("gateway.lost_to_ended_flows", len(flow_frames))
        if batch.replies:
            tell_alive(self._switch, FramesFromGateway(batch.replies))
        if self._ipv6 is not None:
            self._ipv6.publish()
        self.poll_at = min(self._look_at, self._contests.poll_at)

    def _port(self, number: int) -> PortState:
        port = self._ports.get(number)
        if port is None:
            port = self._ports[number] = PortState(self._settings, self._buffers, self.now())
        return port

    def _report(self, frame: bytes, error: IcmpError, batch: Batch) -> None:
        if not batch.port.errors.take(batch.now):
            self._counters.add("gateway.icmp_errors_suppressed")
            return
        reply = self._replies.icmp_error(frame, error)
        if reply is not None:
            self._counters.add("gateway.icmp_errors")
            batch.replies.append(reply)

    def _arp(self, frame: bytes, batch: Batch) -> str:
        packet = parse_arp(frame)
        if packet.sender_mac != frame[6:12]:
            raise Dropped("arp_sender")
        if packet.sender_ip != _UNSPECIFIED:
            self._admit(packet.sender_mac, packet.sender_ip, batch)
            self._contests.answered(packet.sender_ip, packet.sender_mac, batch.now)
        if packet.operation != REQUEST or packet.target_ip not in self._own:
            return "gateway.ignored"
        batch.replies.append(self._replies.arp_reply(packet))
        return "gateway.answered"

    def _ipv4(self, frame: bytes, batch: Batch) -> str:
        if frame[:6] != self._settings.gateway_mac:
            return self._services.broadcast(frame, self._move_to, batch)
        if frame[FLAGS : FLAGS + 2] not in NOT_FRAGMENTED:
            return self._ipv4_fragment(frame, batch)
        packet = parse_ipv4(frame)
        mac, destination = frame[6:12], packet.destination
        if not self._pool.uses(mac, packet.source) or self._port_of.get(mac) != batch.number:
            self._admit(mac, packet.source, batch)
        if destination in self._served:
            return self._to_gateway(frame, packet, batch)
        if destination[0] >= _FIRST_MULTICAST or destination[0] == 0 or destination == self._broadcast:
            raise Dropped("not_routable")
        if packet.ttl <= 1:
            raise Dropped("ttl_exceeded", IcmpError.TTL_EXCEEDED)
        if self._is_on_link(destination) and destination not in self._own:
            return self._to_guest(frame, packet, batch)
        handle = self._TO_NET.get(packet.protocol)
        if handle is None:
            raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)
        return handle(self, frame, packet, batch)

    def _ipv4_fragment(self, frame: bytes, batch: Batch) -> str:
        """Keep a fragment, or handle the packet that it completes (RFC 4787 REQ-14)."""
        if not batch.port.fragments.take(batch.now):
            raise Dropped("fragment_rate")
        whole = self._reassembler.accept(batch.number, parse_fragment(frame), batch.now)
        if whole is None:
            return "gateway.fragments"
        before = len(batch.replies)
        outcome = self._ipv4(build_whole(whole), batch)
        batch.replies[before:] = [piece for reply in batch.replies[before:] for piece in fragment(reply)]
        return outcome

    def _is_on_link(self, address: bytes) -> bool:
        return int.from_bytes(address, "big") & self._netmask == self._network

    def _to_gateway(self, frame: bytes, packet: Ipv4Packet, batch: Batch) -> str:
        if packet.protocol == PROTOCOL_ICMP:
            if parse_icmp(packet.payload).type != ECHO_REQUEST:
                return "gateway.ignored"
            batch.replies.append(self._replies.echo_reply(frame))
            return "gateway.answered"
        if packet.protocol == PROTOCOL_UDP:
            return self._forwards.udp(frame, packet) or self._services.udp(frame, packet, batch)
        if packet.protocol == PROTOCOL_TCP:
            addresses = (packet.source, packet.destination)
            dial = self._services.dial(packet.payload, batch.number)
            return self._tcp.route(frame, addresses, packet.payload, batch, dial)
        raise Dropped("protocol", IcmpError.PROTOCOL_UNREACHABLE)

    def _to_guest(self, frame: bytes, packet: Ipv4Packet, batch: Batch) -> str:
        """Route from guest to guest: the sender believes its neighbour to be behind the gateway."""
        if self._settings.isolated:
            raise Dropped("isolated", IcmpError.PROHIBITED)
        neighbour = self._pool.holder_of(packet.destination)
        if neighbour is None:
            raise Dropped("no_such_guest", IcmpError.HOST_UNREACHABLE)
        ttl_and_protocol = int.from_bytes(frame[22:24], "big")
        checksum = update(int.from_bytes(frame[24:26], "big"), ttl_and_protocol, ttl_and_protocol - 0x100)
        hop = (ttl_and_protocol - 0x100).to_bytes(2, "big") + checksum.to_bytes(2, "big")
        batch.replies.append(neighbour + self._settings.gateway_mac + frame[12:22] + hop + frame[26:])
        return "gateway.routed"

    # -- IPv6 ---------------------------------------------------------------------------------------

    def _to_ipv6(self, frame: bytes, batch: Batch) -> str:
        return "gateway.ignored" if self._ipv6 is None else self._ipv6.handle(frame, batch)

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        now = self.now()
        self._contests.step(now)
        if self._ipv6 is not None and now >= self._look_at:
            self._look_at = now + UPLINK_INTERVAL
            self._advertise(self._ipv6, now)
        self.poll_at = min(self._look_at, self._contests.poll_at)

    def _advertise(self, ipv6: Gateway6, now: float) -> None:
        """Remind every guest of its router, with the MTU that its path takes by now.

        Guests hear at once, and a few times more, that the host has lost or got its IPv6 uplink (RFC 7084
        G-5); and those whose path turns out to take other packets, that it does.
        """
        if ipv6.uplink_changed():
            self._changes_to_tell = UPLINK_REPEATS
        is_due = self._changes_to_tell > 0 or now >= self._advertise_at
        if self._changes_to_tell:
            self._changes_to_tell -= 1
        if is_due:
            self._advertise_at = now + RA_INTERVAL
        frames = ipv6.advertisements(self._ports.values(), to_all=is_due)
        if frames:
            tell_alive(self._switch, FramesFromGateway(frames))

    # -- flows --------------------------------------------------------------------------------------

    def _udp_to_net(self, frame: bytes, packet: Ipv4Packet, batch: Batch) -> str:
        datagram = parse_udp(packet)
        guest = Guest(frame[6:12], packet.source, datagram.source_port)
        return self._forwards.to_client(frame, datagram) or self._flows.pass_on(
            UdpFlowActor, PROTOCOL_UDP, guest, frame, batch
        )

    def _icmp_to_net(self, frame: bytes, packet: Ipv4Packet, batch: Batch) -> str:
        message = parse_icmp(packet.payload)
        if message.type != ECHO_REQUEST:
            raise Dropped("icmp_type")
        if not self._outside.can_ping:
            raise Dropped("no_ping", IcmpError.PROHIBITED)
        guest = Guest(frame[6:12], packet.source, message.identifier)
        return self._flows.pass_on(IcmpFlowActor, PROTOCOL_ICMP, guest, frame, batch)

    def _tcp_to_net(self, frame: bytes, packet: Ipv4Packet, batch: Batch) -> str:
        addresses = (packet.source, packet.destination)
        return self._tcp.route(frame, addresses, packet.payload, batch, self._dial_outside)

    def _dial_outside(self, guest: Guest, remote: Remote) -> Callable[[Mailbox], TcpSocket]:
        address = (format_ipv4(remote.ip), remote.port)
        return lambda flow: self._outside.open_tcp(flow, address, (guest.ip, guest.number))

    @handles(FlowClosed)
    def _flow_closed(self, message: FlowClosed) -> None:
        port = self._ports.get(int.from_bytes(message.key[:8], "big"))
        if port is not None:
            self._end_flow(port, message.key)

    def _end_flow(self, port: PortState, key: bytes) -> None:
        connections = self._flows.end(port, key)
        if connections is not None:
            self._tcp_forwards.ended(connections, key)

    @handles(FlowRests)
    def _flow_rests(self, message: FlowRests) -> None:
        port = self._ports.get(int.from_bytes(message.key[:8], "big"))
        if port is not None and message.key in port.flows:
            self._counters.add("tcp.time_waits")
            if port.time_waits.add(message.key, message.entry, self.now()):
                self._counters.add("tcp.time_waits_cut_short")

    @handles(FramesReturned)
    def _frames_returned(self, message: FramesReturned) -> None:
        if message.port in self._ports:
            self._from_lan(FramesToGateway(*message))
        else:
            self._counters.add("gateway.lost_to_ended_flows", len(message.frames))

    @handles(FlowEstablished)
    def _flow_established(self, message: FlowEstablished) -> None:
        port = self._ports.get(int.from_bytes(message.key[:8], "big"))
        if port is not None:
            port.half_open.pop(message.key, None)
            connections = port.forwarded.get(message.key)
            if connections is not None:
                self._tcp_forwards.answered(connections, message.key)

    @handles(FlowAnswered)
    def _flow_answered(self, message: FlowAnswered) -> None:
        port = self._ports.get(int.from_bytes(message.key[:8], "big"))
        if port is not None:
            port.unanswered.pop(message.key, None)

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

    def _is_forwarded_to(self, number: int) -> bool:
        return self._port(number).policy.is_forwarded_to

    def _address6_of(self, mac: bytes) -> bytes | None:
        return None if self._ipv6 is None else self._ipv6.address_of(mac)

    @handles(GuestWanted)
    def _guest_wanted(self, message: GuestWanted) -> None:
        self._forwards.tell_place(message)

    @handles(TcpForGuest)
    def _tcp_for_guest(self, message: TcpForGuest) -> None:
        self._tcp_forwards.serve(message)

    @handles(PortLimited)
    def _port_limited(self, message: PortLimited) -> None:
        self._ports[message.port] = PortState(self._settings, self._buffers, self.now(), message.policy)

    # -- addresses ----------------------------------------------------------------------------------

    @handles(AssignAddress)
    def _assign_address(self, message: AssignAddress) -> None:
        port = self._port(message.port)
        port.link_mtu = message.link_mtu
        port.line = message.line or port.line
        port.client = message.client
        port.registration = message
        port.fixed_name = message.name if message.name_is_fixed else ""
        if self._move(message.mac, message.port, port):
            self._services.expire_leases(self.now())
            self._leases.assign(message)
        else:
            self._leases.refuse(message)

    @handles(LeasesChanged)
    def _leases_changed(self, _: LeasesChanged) -> None:
        self._leases.tell_changed(self._ports, self._port_of)

    def _admit(self, mac: bytes, address: bytes, batch: Batch) -> None:
        """Let a guest use an address that it took by hand, unless another has it. Raises Dropped.

        The other one is asked whether it still has it: see ``actors.gateway.address_contests``.
        """
        self._move_to(mac, batch)
        claim = self._pool.claim(mac, address)
        if claim.accepted:
            if claim is Claim.GRANTED:
                logger.debug("{} uses {}", format_mac(mac), format_ipv4(address))
            return
        if claim is Claim.TAKEN:
            self._contests.begin(address, mac, batch)
        raise Dropped(_CLAIM_DROPS[claim])

    def _address_moved(self, address: bytes, mac: bytes) -> None:
        """Stop the flows of the guest that had ``address``: answers are the new holder's from now on."""
        self._services.address_moved(address)
        if self._ipv6 is not None:
            self._ipv6.publish(mac, self._bindings.holder_of(address) or mac)
        number = self._port_of.get(mac)
        port = None if number is None else self._ports.get(number)
        if port is not None:
            for key in [key for key in port.flows if is_key_of(key, address)]:
                self._end_flow(port, key)

    def _move_to(self, mac: bytes, batch: Batch) -> None:
        """Note that ``mac`` is behind the port of this batch. Raises Dropped when there are too many."""
        if not self._move(mac, batch.number, batch.port):
            raise Dropped("too_many_macs")

    def _locate(self, mac: bytes, number: int) -> bool:
        """As :meth:`_move`, asked by the switch's guard: frames of one batch are not to outrun the count."""
        return self._move(mac, number, self._port(number))

    def _move(self, mac: bytes, number: int, port: PortState) -> bool:
        """Note that ``mac`` is behind this port now (the switch saw to that); False if there are too many."""
        before = self._port_of.get(mac)
        if before == number:
            return True
        if len(port.macs) >= MAX_MACS_PER_PORT:
            return False
        if before is not None and before in self._ports:
            self._ports[before].macs.discard(mac)
        self._port_of[mac] = number
        port.macs.add(mac)
        return True

    @handles(PortClosed)
    def _port_closed(self, message: PortClosed) -> None:
        port = self._ports.pop(message.port, None)
        if port is None:
            return
        self._reassembler.forget(message.port)
        self._flows.end_all(message.port, port)
        self._counters.add("gateway.flows_closed", len(port.flows))
        self._services.forget(message.port, port.macs)
        for mac in port.macs:
            self._forget(mac)
        for key, connections in port.forwarded.items():
            self._tcp_forwards.ended(connections, key)

    @handles(AddressUsed)
    def _address_used(self, message: AddressUsed) -> None:
        """Follow what the switch has seen on frames that do not come here."""
        now = self.now()
        batch = Batch(message.port, self._port(message.port), now)
        if self._move(message.mac, message.port, batch.port):
            if message.contested:
                self._contests.begin(message.address, message.mac, batch)
            elif self._ipv6 is not None:
                self._ipv6.taken(message.mac, message.address)
                self._ipv6.publish()
        self.poll_at = min(self._look_at, self._contests.poll_at)

    @handles(MacAgedOut)
    def _mac_aged_out(self, message: MacAgedOut) -> None:
        """Forget a guest behind a bridge, so that another may take its place."""
        port = self._ports.get(message.port)
        if port is None or self._port_of.get(message.mac) != message.port:
            return
        port.macs.discard(message.mac)
        self._services.forget_guest(message.mac)
        self._forget(message.mac)

    def _forget(self, mac: bytes) -> None:
        """Give back what a guest has of the LAN; its flows end by themselves, or with their port."""
        del self._port_of[mac]
        self._leases.keep(mac)
        self._pool.release(mac)
        self._contests.forget(mac)
        if self._ipv6 is not None:
            self._ipv6.forget(mac)

    @handles(PeerListRequest)
    def _peer_list_request(self, message: PeerListRequest) -> None:
        tell_alive(message.peer, PeerList(self._pool.held() if self._settings.peer_list else ()))

    _BY_ETHERTYPE: ClassVar[dict[bytes, Callable[[GatewayActor, bytes, Batch], str]]] = {
        ETHERTYPE_ARP: _arp,
        ETHERTYPE_IPV4: _ipv4,
        ETHERTYPE_IPV6: _to_ipv6,
    }
    """Who handles a frame; the handler returns the counter for what became of it, or raises."""

    _TO_NET: ClassVar[dict[int, Callable[[GatewayActor, bytes, Ipv4Packet, Batch], str]]] = {
        PROTOCOL_TCP: _tcp_to_net,
        PROTOCOL_UDP: _udp_to_net,
        PROTOCOL_ICMP: _icmp_to_net,
    }
    """Protocols that the NAT knows."""
