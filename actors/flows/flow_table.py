"""The NAT's flows: who may have one, from the start to the end.

A flow is keyed by port, protocol, guest address and UDP port or echo identifier (RFC 4787 REQ-1), so two
guests never share one. A session has ``max_flows_per_peer`` of them at most; of the flows of all LANs, and of
the host's UDP ports, it has its share.

Where one of these limits is reached, the session's UDP or ICMP flow that nobody has answered, of several the
one that was used longest ago, gives way to the new one: hosts that are dead, or name servers that are silent,
must not keep a guest from all others. What has been answered stays for as long as the RFCs ask, and what may
be answered yet (UNANSWERED_KEPT) stays too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.flows.batch import TO_FLOWS, Dropped
from actors.flows.udp_flow import UdpFlowActor
from actors.mishaps import LOG_WINDOW
from netstack.checksum import PROTOCOL_UDP
from netstack.family import family_of
from netstack.icmp import IcmpError
from netstack.shares import Shares
from netstack.udp import read_udp

if TYPE_CHECKING:
    from collections.abc import Callable

    import pykka

    from actors.flows.batch import Batch, PortState
    from actors.flows.flow import FlowContext, Guest
    from actors.flows.forwarded_tcp import ForwardedConnections
    from actors.flows.icmp_flow import IcmpFlowActor

UNANSWERED_KEPT = 1.0
"""Seconds since it was used last for which a flow that waits for an answer does not give way: hosts that are
alive answer within that time (RFC 6298 section 2 takes it as the first timeout)."""


FORWARDED = -1
"""As whose all flows of forwards are counted: they take none from the guest that they lead to."""


class FlowTable:
    """Starts and ends the flows of a gateway's ports, and counts them."""

    def __init__(self, context: FlowContext, flows: Shares | None, udp_flows: Shares | None) -> None:
        """``flows`` and ``udp_flows`` are what the gateways of all LANs share; None for a LAN alone."""
        self._context = context
        self.total = Shares(context.settings.max_flows) if flows is None else flows
        """All flows, by session."""
        self._udp = Shares(context.outside.udp_ports) if udp_flows is None else udp_flows
        """Of these, those that have a UDP port of the host to themselves."""
        self._warn_again = 0.0

    def pass_on(
        self,
        kind: type[UdpFlowActor | IcmpFlowActor],
        protocol: int,
        guest: Guest,
        frame: bytes,
        batch: Batch,
    ) -> str:
        """Add a frame to those of its flow, which is started where there is none. Raises Dropped."""
        key = _flow_key(batch.number, protocol, guest)
        frames = batch.to_flows.get(key)
        if frames is None:
            if key not in batch.port.flows:
                self._check_destination(kind, frame, guest)
                batch.port.flows[key] = self.start(
                    lambda: kind.start(key, guest, self._context), batch, is_udp=kind is UdpFlowActor
                )
                batch.port.unanswered[key] = batch.now
            elif batch.port.unanswered.pop(key, None) is not None:
                batch.port.unanswered[key] = batch.now
            frames = batch.to_flows[key] = []
        frames.append(frame)
        batch.latest = frames
        return TO_FLOWS

    def _check_destination(
        self, kind: type[UdpFlowActor | IcmpFlowActor], frame: bytes, guest: Guest
    ) -> None:
        """Open no socket for a destination that is not allowed. Raises Dropped.

        Of a flow that exists its socket asks, for each datagram.
        """
        family = family_of(guest.ip)
        if kind is UdpFlowActor:
            _, _, destination, port, _ = read_udp(frame)
            allowed = self._context.outside.allows_udp((family.format(destination), port))
        else:
            allowed = self._context.outside.allows_echo(family.format(family.parse(frame).destination))
        if not allowed:
            raise Dropped("denied", IcmpError.PROHIBITED)

    def start(
        self, start: Callable[[], pykka.ActorRef[Any]], batch: Batch, *, is_udp: bool = False
    ) -> pykka.ActorRef[Any]:
        """Open a mapping. Where there are no resources the guest is told so (RFC 5508 REQ-8)."""
        lack = self._lack(batch, is_udp=is_udp)
        gives_way = self._least_valuable(batch, udp_only=lack == "port_share") if lack else None
        if lack and gives_way is None:
            raise Dropped(lack, IcmpError.PROHIBITED)
        if not batch.port.new_flows.take(batch.now):
            raise Dropped("flow_rate", IcmpError.PROHIBITED)
        if gives_way is not None:
            self.end(batch.port, gives_way)
            self._context.counters.add("gateway.flows_gave_way")
        try:
            flow = start()
        except OSError as error:
            if batch.now >= self._warn_again:
                self._warn_again = batch.now + LOG_WINDOW
                logger.warning("no socket for a new flow: {}", error)
            raise Dropped("no_socket", IcmpError.PROHIBITED) from error
        self.total.add(batch.number)
        if is_udp:
            self._udp.add(batch.number)
        self._context.counters.add("gateway.flows_opened")
        return flow

    def _lack(self, batch: Batch, *, is_udp: bool) -> str:
        """Name what a session has no more of for a new flow, if anything."""
        port = batch.port
        if is_udp:
            self._udp.limit = self._context.outside.udp_ports
            if not self._udp.may_take(batch.number):
                return "port_share"
        if len(port.flows) - len(port.forwarded) >= port.policy.max_flows:
            return "flow_limit"
        return "" if self.total.may_take(batch.number) else "flow_share"

    def _least_valuable(self, batch: Batch, *, udp_only: bool) -> bytes | None:
        """Choose the flow that may give way: of those that wait for an answer the one used longest ago."""
        for key, used in batch.port.unanswered.items():
            if batch.now - used < UNANSWERED_KEPT:
                break
            if key[8] == PROTOCOL_UDP or not udp_only:
                return key
        return None

    def end(self, port: PortState, key: bytes) -> ForwardedConnections | None:
        """End a flow, if it is there; return to whose connections it belonged if a forward opened it."""
        flow = port.flows.pop(key, None)
        if flow is None:
            return None
        port.half_open.pop(key, None)
        port.unanswered.pop(key, None)
        number = int.from_bytes(key[:8], "big")
        self.total.give_back(FORWARDED if key in port.forwarded else number)
        if key[8] == PROTOCOL_UDP:
            self._udp.give_back(number)
        self._context.counters.add("gateway.flows_closed")
        flow.stop(block=False)
        return port.forwarded.pop(key, None)

    def end_all(self, number: int, port: PortState) -> None:
        """End all flows of a port that goes."""
        for flow in port.flows.values():
            flow.stop(block=False)
        self.total.forget(number)
        self._udp.forget(number)
        for _ in port.forwarded:
            self.total.give_back(FORWARDED)


_KEY_LENGTHS = {4: {15, 21}, 16: {27, 45}}
"""Bytes of a flow's key by those of its guest's address: without a remote end (UDP, ICMP), and with (TCP)."""


def is_key_of(key: bytes, address: bytes) -> bool:
    """Whether a flow is of the guest's ``address``."""
    return len(key) in _KEY_LENGTHS[len(address)] and key[9 : 9 + len(address)] == address


def _flow_key(port: int, protocol: int, guest: Guest) -> bytes:
    """Name a mapping: port (8 bytes, so that it can be found again), protocol, address, number."""
    return port.to_bytes(8, "big") + bytes((protocol,)) + guest.ip + guest.number.to_bytes(2, "big")
