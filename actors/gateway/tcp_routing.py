"""Which TCP flow a guest's segment belongs to, and when a new one is started."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.flows.batch import TO_FLOWS, Dropped
from actors.flows.flow import Guest
from actors.flows.tcp_flow import Link, Remote, TcpFlowActor
from netstack.tcp_segment import ACK, FIN, PROTOCOL_TCP, RST, SYN, parse_tcp, read_tcp, reset_for
from netstack.tcp_time_wait import NEW_START, Reaction

if TYPE_CHECKING:
    from collections.abc import Callable

    import pykka

    from actors.flows.batch import Batch
    from actors.flows.flow import FlowContext
    from actors.ports import TcpSocket
    from actors.runtime import Mailbox
    from netstack.shares import Shares
    from netstack.tcp_time_wait import TimeWait

    Dial = Callable[[Mailbox], TcpSocket]
    Start = Callable[[Callable[[], pykka.ActorRef[Any]], Batch], pykka.ActorRef[Any]]

HALF_OPEN_KEPT = 3.0
"""Seconds for which an attempt to connect keeps its place among ``max_half_open``, though others
want it: the host has sent its SYN three times by then (RFC 6298: after 1 s, and 2 s later)."""

OVER_LIMITS = frozenset({f"gateway.drop.flow_{what}" for what in ("limit", "rate", "share")})
"""Why a SYN is dropped that may be taken when it is repeated."""

_KINDS = SYN | ACK | FIN | RST


class TcpRouter:
    """Finds and starts the TCP flows of a LAN."""

    def __init__(self, context: FlowContext, start: Start, flows: Shares) -> None:
        """``start`` opens a flow within the limits, and counts it among ``flows``; else it raises Dropped."""
        self._flows = flows
        self._context = context
        self._start = start

    def route(
        self,
        frame: bytes,
        addresses: tuple[bytes, bytes],
        segment: bytes,
        batch: Batch,
        dial: Callable[[Guest, Remote], Dial] | None,
    ) -> str:
        """Put a frame into its flow's batch, starting the flow for a SYN; return the counter for it.

        ``addresses`` are source and destination, 4 or 16 bytes each; ``segment`` is the packet's whole
        payload; ``dial`` says how a new flow reaches its remote end; without it there are none. Raises
        MalformedPacket, Dropped.
        """
        source, destination = addresses
        head = parse_tcp(source, destination, segment)
        guest = Guest(frame[6:12], source, head.source_port)
        remote = Remote(destination, head.destination_port)
        key = flow_key(batch.number, guest, remote)
        frames = batch.to_flows.get(key)
        if frames is None:
            if key not in batch.port.flows:
                first = None
                entry = batch.port.time_waits.find(key, batch.now)
                if entry is not None and entry.answer[:6] == guest.mac:  # else the address has moved
                    reaction = batch.port.time_waits.react(key, entry, read_tcp(frame), batch.now)
                    if reaction is not Reaction.OPEN:
                        return _repeat(entry, reaction, batch)
                    first = entry.sent + NEW_START + secrets.randbits(24) & 0xFFFF_FFFF
                if dial is None or head.flags & _KINDS != SYN:
                    return _reset(frame, batch)
                link = Link(batch.port.line, batch.port.mtu, batch.port.buffers)
                flow = partial(TcpFlowActor.start, key, guest, self._context, remote, first=first)
                self._open(key, partial(flow, syn=frame, link=link, dial=dial(guest, remote)), batch)
            frames = batch.to_flows[key] = []
        frames.append(frame)
        return TO_FLOWS

    def _open(self, key: bytes, start: Callable[[], pykka.ActorRef[Any]], batch: Batch) -> None:
        """Start a flow within the limits. Raises Dropped.

        A SYN over a limit is dropped in silence: the guest repeats it, by when there may be room, and an
        ICMP error would end its attempt.
        """
        port = batch.port
        if len(port.half_open) >= port.policy.max_half_open:
            self._make_room(batch)
        try:
            flow = self._start(start, batch)
        except Dropped as dropped:
            if dropped.counter in OVER_LIMITS:
                dropped.report = None
            raise
        port.flows[key] = flow
        port.half_open[key] = batch.now

    def _make_room(self, batch: Batch) -> None:
        """Give up the attempt that has waited longest, if hosts that answer would have answered by then.

        Its guest repeats the SYN and so gets another turn. Else destinations that are silent would keep the
        guests from all others. Raises Dropped where all attempts are young.
        """
        port = batch.port
        key, opened = next(iter(port.half_open.items()))
        if batch.now - opened < HALF_OPEN_KEPT:
            raise Dropped("half_open_limit")
        del port.half_open[key]
        port.flows.pop(key).stop(block=False)
        self._flows.give_back(batch.number)
        self._context.counters.add("tcp.gave_way")
        self._context.counters.add("gateway.flows_closed")


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


def flow_key(port: int, guest: Guest, remote: Remote) -> bytes:
    """Name a connection: port (8 bytes, so that it can be found again), protocol, both ends."""
    return b"".join(
        (
            port.to_bytes(8, "big"),
            bytes((PROTOCOL_TCP,)),
            guest.ip,
            guest.number.to_bytes(2, "big"),
            remote.ip,
            remote.port.to_bytes(2, "big"),
        )
    )
