"""Which TCP flow a guest's segment belongs to, and when a new one is started."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from actors.flows.batch import TO_FLOWS, Dropped
from actors.flows.flow import Guest, Remote
from actors.flows.tcp_flow import Link, TcpFlowActor
from actors.messages import FlowKey, GuestRefused, SegmentTooBig
from actors.runtime import tell_alive
from netstack.family import family_of
from netstack.tcp_segment import ACK, FIN, PROTOCOL_TCP, RST, SYN, parse_tcp, read_quote, read_tcp, reset_for
from netstack.tcp_time_wait import NEW_START, Reaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.flows.batch import Batch, PortState
    from actors.flows.flow import FlowContext
    from actors.flows.flow_table import FlowTable
    from actors.flows.tcp_flow import Dial
    from actors.gateway.services import LanServices
    from netstack.family import Family
    from netstack.icmp import IcmpMessage
    from netstack.ipv4 import Ipv4Packet
    from netstack.ipv6 import Ipv6Packet
    from netstack.tcp_time_wait import TimeWait

_KINDS = SYN | ACK | FIN | RST


class TcpRouter:
    """Finds and starts the TCP flows of a LAN, of both IP versions."""

    def __init__(self, context: FlowContext, flows: FlowTable, services: LanServices) -> None:
        """``services`` are what guests may connect to at the gateway itself."""
        self._context = context
        self._flows = flows
        self._services = services

    def to_net(self, frame: bytes, packet: Ipv4Packet | Ipv6Packet, batch: Batch) -> str:
        """Put a frame into its flow's batch, starting the flow for a SYN; return the counter for it.

        ``packet`` was parsed of the frame, which has no IPv6 extension headers. Raises MalformedPacket,
        Dropped.
        """
        return self._route(frame, packet, batch, self._dial_outside)

    def to_gateway(self, frame: bytes, packet: Ipv4Packet | Ipv6Packet, batch: Batch) -> str:
        """As :meth:`to_net`, for a connection to one of the gateway's own addresses."""
        return self._route(frame, packet, batch, self._dial_service)

    def error(self, message: IcmpMessage, family: Family, batch: Batch) -> str:
        """Tell a connection what its guest says of one of its segments; return the counter for it.

        That is "too big" or, where a forward opened it, that it is refused. For all else it is empty.
        """
        refuses, mtu = family.refuses(message.type, message.code), family.path_mtu(message)
        quoted = read_quote(message.data) if refuses or mtu else None
        if quoted is None:
            return ""
        remote, remote_port, guest, guest_port, sequence = quoted
        port = batch.port
        key = FlowKey(port.number, PROTOCOL_TCP, guest, guest_port, remote, remote_port)
        flow = port.flows.get(key)
        if flow is None or (refuses and key not in port.forwarded):
            return ""
        tell_alive(flow, GuestRefused(sequence) if refuses else SegmentTooBig(sequence, mtu))
        return TO_FLOWS

    def _route(
        self,
        frame: bytes,
        packet: Ipv4Packet | Ipv6Packet,
        batch: Batch,
        dial: Callable[[FlowKey], Dial | None],
    ) -> str:
        """Route; ``dial`` says how a new flow reaches its remote end, None when nobody is there."""
        source, destination = packet.source, packet.destination
        head = parse_tcp(source, destination, packet.payload)
        port = batch.port
        key = FlowKey(port.number, PROTOCOL_TCP, source, head.source_port, destination, head.destination_port)
        frames = batch.to_flows.get(key)
        if frames is None:
            if key not in port.flows:
                outcome = self._open(key, frame, head.flags, batch, dial)
                if outcome:
                    return outcome
            frames = batch.to_flows[key] = []
        frames.append(frame)
        return TO_FLOWS

    def _open(
        self, key: FlowKey, frame: bytes, flags: int, batch: Batch, dial: Callable[[FlowKey], Dial | None]
    ) -> str:
        """Start a flow for a SYN, or answer what belongs to none; then return the counter for that."""
        port, first = batch.port, None
        entry = port.time_waits.find(key, batch.now)
        if entry is not None and entry.answer[:6] == frame[6:12]:  # else the address has moved
            reaction = port.time_waits.react(key, entry, read_tcp(frame), batch.now)
            if reaction is not Reaction.OPEN:
                return _repeat(entry, reaction, batch)
            first = entry.sent + NEW_START + secrets.randbits(24) & 0xFFFF_FFFF
        dials = dial(key) if flags & _KINDS == SYN else None
        if dials is None:
            return _reset(frame, batch)
        start = partial(
            TcpFlowActor.start,
            key,
            Guest(frame[6:12], key.guest_ip, key.guest_port),
            self._context,
            Remote(key.remote_ip, key.remote_port),
            syn=frame,
            first=first,
            link=Link(port.line, port.mtu, port.buffers),
            dial=dials,
        )
        self._flows.start_tcp(key, start, batch)
        return ""

    def _dial_outside(self, key: FlowKey) -> Dial:
        address = (family_of(key.remote_ip).format(key.remote_ip), key.remote_port)
        owner = (key.guest_ip, key.guest_port)
        return lambda flow: self._context.outside.open_tcp(flow, address, owner)

    def _dial_service(self, key: FlowKey) -> Dial | None:
        return self._services.dial(key.remote_port, self._flows.ports[key.port])


def _repeat(entry: TimeWait, reaction: Reaction, batch: Batch) -> str:
    """Say to a guest what it may not have heard of a connection that is in TIME-WAIT."""
    if reaction is Reaction.IGNORE:
        return "gateway.ignored"
    if not batch.port.errors.take(batch.now):
        raise Dropped("time_wait")
    batch.replies.append(entry.answer)
    return "gateway.answered"


def _reset(frame: bytes, batch: Batch) -> str:
    """Say that there is no such connection (RFC 9293 section 3.10.7.1), unless that was said often."""
    if not batch.port.errors.take(batch.now):
        raise Dropped("no_such_connection")
    reply = reset_for(frame)
    if reply is None:
        return "gateway.ignored"
    batch.replies.append(reply)
    return "gateway.answered"


def tcp_key(port: PortState, guest: Guest, remote: Remote) -> FlowKey:
    """Name a connection between a guest behind ``port`` and ``remote``."""
    return FlowKey(port.number, PROTOCOL_TCP, guest.ip, guest.port, remote.ip, remote.port)
