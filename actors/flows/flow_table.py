"""The NAT's flows: who may have one, from the start to the end.

A flow is named by its ``FlowKey``. A port of the switch has as many as its policy says; of the flows of all
LANs, and of the host's UDP ports, it has its share.

Where one of these limits is reached, the port's UDP or ICMP flow that nobody has answered, of several the
one that was used longest ago, gives way to the new one: hosts that are dead, or name servers that are silent,
must not keep a guest from all others. What has been answered stays for as long as the RFCs ask, and what may
be answered yet (UNANSWERED_KEPT) stays too. Of TCP connections that are opening the same holds
(HALF_OPEN_KEPT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loguru import logger

from actors.flows.batch import TO_FLOWS, Dropped, PortState
from actors.flows.flow import Guest
from actors.flows.udp_flow import UdpFlowActor
from actors.handler_errors import LOG_WINDOW
from actors.messages import ConnectionForbidden
from actors.port_policy import usual_policy
from actors.runtime import tell_alive
from netstack.buffer_budget import TOTAL, BufferBudget
from netstack.checksum import PROTOCOL_UDP
from netstack.family import family_of
from netstack.icmp import IcmpError
from netstack.shares import Shares
from netstack.tcp_segment import PROTOCOL_TCP

if TYPE_CHECKING:
    from collections.abc import Callable

    import pykka

    from actors.flows.batch import Batch, Opener
    from actors.flows.flow import FlowContext
    from actors.flows.icmp_flow import IcmpFlowActor
    from actors.messages import FlowKey
    from actors.port_policy import PortPolicy
    from actors.runtime import Observe
    from actors.settings import LanSettings
    from netstack.tcp_time_wait import TimeWait

    Start = Callable[[], pykka.ActorRef[Any]]

UNANSWERED_KEPT = 1.0
"""Seconds since it was used last for which a flow that waits for an answer does not give way: hosts that are
alive answer within that time (RFC 6298 section 2 takes it as the first timeout)."""

HALF_OPEN_KEPT = 3.0
"""Seconds for which an attempt to connect keeps its place among ``max_half_open``, though others want it: the
host has sent its SYN three times by then (RFC 6298: after 1 s, and 2 s later)."""

FORWARDED = -1
"""As whose all flows of forwards are counted: they take none from the guest that they lead to."""

OVER_LIMITS = frozenset({f"gateway.drop.flow_{what}" for what in ("limit", "rate", "share")})
"""Why a SYN is dropped that may be taken when it is repeated."""


class FlowTable:
    """What a LAN's gateway keeps for the ports of the switch, and their flows."""

    def __init__(
        self,
        context: FlowContext,
        flows: Shares | None = None,
        udp_flows: Shares | None = None,
        buffers: BufferBudget | None = None,
    ) -> None:
        """Share ``flows``, ``udp_flows`` and ``buffers`` with other LANs; None for a LAN alone."""
        self._context = context
        self._buffers = BufferBudget(TOTAL) if buffers is None else buffers
        self.ports: dict[int, PortState] = {}
        self.total = Shares(context.settings.max_flows) if flows is None else flows
        """All flows, by port."""
        self._udp = Shares(context.outside.udp_ports) if udp_flows is None else udp_flows
        """Of these, those that have a UDP port of the host to themselves."""
        self._warn_again = 0.0
        self._observed: Observe | None = None
        """What new flows are told while somebody looks on."""

    def port(self, number: int, now: float) -> PortState:
        """Give the state of a port, which begins when it is first asked for."""
        port = self.ports.get(number)
        if port is None:
            port = self.ports[number] = PortState(number, self._context.settings, self._buffers, now)
        return port

    def limit(self, number: int, policy: PortPolicy, now: float) -> None:
        """Let a port, of which nothing came yet, have what its policy says."""
        self.ports[number] = PortState(number, self._context.settings, self._buffers, now, policy)

    def observe(self, message: Observe) -> None:
        """Have somebody look on at the flows, or nobody any more."""
        self._observed = None if message.observer is None else message
        for port in self.ports.values():
            for flow in port.flows.values():
                tell_alive(flow, message)

    def follow(self, settings: LanSettings, now: float) -> None:
        """Go by other settings, and by another egress policy, which ends connections that it forbids.

        The flows of these say so to both ends, and then that they have ended.
        """
        self._context.settings = settings
        usual = usual_policy(settings)
        for port in self.ports.values():
            port.change_policy(port.policy.following(usual), now)
            for key, flow in port.flows.items():
                if self._is_forbidden(key, port):
                    self._context.counters.add("tcp.forbidden")
                    tell_alive(flow, ConnectionForbidden())

    def _is_forbidden(self, key: FlowKey, port: PortState) -> bool:
        """Whether a connection may not be any more; of all other flows the socket asks for each datagram."""
        if key.protocol != PROTOCOL_TCP or key in port.forwarded:
            return False
        if key.remote_ip in self._context.settings.services:
            return False
        host = family_of(key.remote_ip).format(key.remote_ip)
        return not self._context.outside.allows_tcp((host, key.remote_port))

    # -- start --------------------------------------------------------------------------------------

    def pass_on(
        self,
        kind: type[UdpFlowActor | IcmpFlowActor],
        key: FlowKey,
        remote: tuple[bytes, int],
        frame: bytes,
        batch: Batch,
    ) -> str:
        """Add a frame for ``remote`` to those of its flow, which is started where there is none.

        Raises Dropped.
        """
        frames = batch.to_flows.get(key)
        if frames is None:
            port = batch.port
            if key not in port.flows:
                self._check_destination(kind, remote)
                guest = Guest(frame[6:12], key.guest_ip, key.guest_port)
                self.start(key, lambda: kind.start(key, guest, self._context), batch)
                port.unanswered[key] = batch.now
            elif port.unanswered.pop(key, None) is not None:
                port.unanswered[key] = batch.now
            frames = batch.to_flows[key] = []
        frames.append(frame)
        batch.latest = frames
        return TO_FLOWS

    def _check_destination(self, kind: type[UdpFlowActor | IcmpFlowActor], remote: tuple[bytes, int]) -> None:
        """Open no socket for a destination that is not allowed. Raises Dropped.

        Of a flow that exists its socket asks, for each datagram.
        """
        (address, port), outside = remote, self._context.outside
        host = family_of(address).format(address)
        if not (outside.allows_udp((host, port)) if kind is UdpFlowActor else outside.allows_echo(host)):
            raise Dropped("denied", IcmpError.PROHIBITED)

    def start(self, key: FlowKey, start: Start, batch: Batch) -> None:
        """Open a flow within the limits. Raises Dropped.

        Where there are no resources the guest is told so (RFC 5508 REQ-8).
        """
        port = batch.port
        lack = self._lack(key, port)
        gives_way = self._least_valuable(batch, udp_only=lack == "port_share") if lack else None
        if lack and gives_way is None:
            raise Dropped(lack, IcmpError.PROHIBITED)
        if not port.new_flows.take(batch.now):
            raise Dropped("flow_rate", IcmpError.PROHIBITED)
        if gives_way is not None:
            self.end(gives_way)
            self._context.counters.add("gateway.flows_gave_way")
        try:
            flow = start()
        except OSError as error:
            if batch.now >= self._warn_again:
                self._warn_again = batch.now + LOG_WINDOW
                logger.warning("no socket for a new flow: {}", error)
            raise Dropped("no_socket", IcmpError.PROHIBITED) from error
        self.total.add(key.port)
        if key.protocol == PROTOCOL_UDP:
            self._udp.add(key.port)
        self._add(port, key, flow)

    def start_tcp(self, key: FlowKey, start: Start, batch: Batch) -> None:
        """Open a connection that is half-open until the guest has completed it. Raises Dropped.

        A SYN over a limit is dropped in silence: the guest repeats it, by when there may be room, and an
        ICMP error would end its attempt.
        """
        port = batch.port
        if len(port.half_open) >= port.policy.max_half_open:
            self._make_room(batch)
        try:
            self.start(key, start, batch)
        except Dropped as dropped:
            if dropped.counter in OVER_LIMITS:
                dropped.report = None
            raise
        port.half_open[key] = batch.now

    def start_forwarded(self, key: FlowKey, start: Start, opener: Opener) -> None:
        """Open a connection to a guest, whose port is there. Raises OSError."""
        flow = start()
        port = self.ports[key.port]
        self.total.add(FORWARDED)
        port.forwarded[key] = opener
        self._add(port, key, flow)

    def _add(self, port: PortState, key: FlowKey, flow: pykka.ActorRef[Any]) -> None:
        port.flows[key] = flow
        self._context.counters.add("gateway.flows_opened")
        if self._observed is not None:
            flow.tell(self._observed)

    # -- limits -------------------------------------------------------------------------------------

    @property
    def may_forward(self) -> bool:
        """Whether there may be one more connection of a forward."""
        return self.total.may_take(FORWARDED)

    def _lack(self, key: FlowKey, port: PortState) -> str:
        """Name what a port has no more of for a new flow, if anything."""
        if key.protocol == PROTOCOL_UDP:
            self._udp.limit = self._context.outside.udp_ports
            if not self._udp.may_take(key.port):
                return "port_share"
        if len(port.flows) - len(port.forwarded) >= port.policy.max_flows:
            return "flow_limit"
        return "" if self.total.may_take(key.port) else "flow_share"

    def _least_valuable(self, batch: Batch, *, udp_only: bool) -> FlowKey | None:
        """Choose the flow that may give way: of those that wait for an answer the one used longest ago."""
        for key, used in batch.port.unanswered.items():
            if batch.now - used < UNANSWERED_KEPT:
                break
            if key.protocol == PROTOCOL_UDP or not udp_only:
                return key
        return None

    def _make_room(self, batch: Batch) -> None:
        """Give up the attempt that has waited longest, if hosts that answer would have answered by then.

        Its guest repeats the SYN and so gets another turn. Else destinations that are silent would keep the
        guests from all others. Raises Dropped where all attempts are young.
        """
        key, opened = next(iter(batch.port.half_open.items()))
        if batch.now - opened < HALF_OPEN_KEPT:
            raise Dropped("half_open_limit")
        self.end(key)
        self._context.counters.add("tcp.gave_way")

    # -- what becomes of them -----------------------------------------------------------------------

    def answered(self, key: FlowKey) -> None:
        """Note that somebody outside has answered: the flow does not give way any more."""
        port = self.ports.get(key.port)
        if port is not None:
            port.unanswered.pop(key, None)

    def established(self, key: FlowKey) -> None:
        """Note that both sides of a connection have taken it."""
        port = self.ports.get(key.port)
        if port is not None:
            port.half_open.pop(key, None)
            opener = port.forwarded.get(key)
            if opener is not None:
                opener.answered(key)

    def rests(self, key: FlowKey, entry: TimeWait, now: float) -> None:
        """Keep what TIME-WAIT asks for of a connection that is about to end."""
        port = self.ports.get(key.port)
        if port is not None and key in port.flows:
            self._context.counters.add("tcp.time_waits")
            if port.time_waits.add(key, entry, now):
                self._context.counters.add("tcp.time_waits_cut_short")

    def end(self, key: FlowKey) -> None:
        """End a flow, if it is there."""
        port = self.ports.get(key.port)
        flow = None if port is None else port.flows.pop(key, None)
        if port is None or flow is None:
            return
        port.half_open.pop(key, None)
        port.unanswered.pop(key, None)
        opener = port.forwarded.pop(key, None)
        self.total.give_back(key.port if opener is None else FORWARDED)
        if key.protocol == PROTOCOL_UDP:
            self._udp.give_back(key.port)
        self._context.counters.add("gateway.flows_closed")
        flow.stop(block=False)
        if opener is not None:
            opener.ended(key)

    def end_those_of(self, address: bytes, number: int) -> None:
        """End the flows that the guest behind a port has with one of its addresses."""
        port = self.ports.get(number)
        if port is not None:
            for key in [key for key in port.flows if key.guest_ip == address]:
                self.end(key)

    def close(self, number: int) -> PortState | None:
        """Forget a port, and end all of its flows; return what was known of it."""
        port = self.ports.pop(number, None)
        if port is None:
            return None
        self._end_all(port)
        self._context.counters.add("gateway.flows_closed", len(port.flows))
        for key, opener in port.forwarded.items():
            opener.ended(key)
        return port

    def stop(self) -> None:
        """End all flows, and give back what of the host's they had."""
        for port in self.ports.values():
            self._end_all(port)

    def _end_all(self, port: PortState) -> None:
        for flow in port.flows.values():
            flow.stop(block=False)
        self.total.forget(port.number)
        self._udp.forget(port.number)
        for _ in port.forwarded:
            self.total.give_back(FORWARDED)
