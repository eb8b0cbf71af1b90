"""Ping through the NAT (RFC 5508): one mapping of a guest's address and echo identifier to one host socket.

The guest's own payload, sequence number and TTL go out, one hop poorer, for the gateway is a router; the
host's socket has an identifier of its own, and the guest's is put back into what returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.flow import FlowActor, FlowContext, Guest
from actors.messages import DatagramsFromNet, FramesToFlow
from actors.ports import SendResult
from actors.runtime import handles
from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Hashable

    from actors.messages import DatagramFromNet, ErrorFromNet, FlowKey
    from actors.ports import EchoSocket


class IcmpFlowActor(FlowActor):
    """One guest's echo identifier: mostly one ``ping``."""

    part = "icmp"
    _socket: EchoSocket

    def __init__(self, key: FlowKey, guest: Guest, context: FlowContext) -> None:
        """Open the flow's socket. Raises OSError when the host gives none."""
        super().__init__(key, guest, context, context.settings.icmp_idle_timeout)

    def _open(self) -> EchoSocket:
        return self._context.outside.open_echo(self.actor_ref, self._family.version)

    def _sent_as(self, error: ErrorFromNet) -> Hashable:
        return error.address[0], int.from_bytes(error.quoted[6:8], "big")

    @handles(FramesToFlow)
    def _to_net(self, message: FramesToFlow) -> None:
        self._idle_timeout = self._context.settings.icmp_idle_timeout
        self._used()
        family = self._family
        for frame in message.frames:
            packet = family.parse(frame)
            request = family.read_icmp(packet.payload)
            remote = family.format(packet.destination)
            result = self._socket.send_echo(
                request.sequence, request.data, remote, packet.ttl - 1, packet.dont_fragment
            )
            if result is SendResult.SENT:
                self._counters.add("icmp.frames_to_net")
                self._bytes_out += len(request.data)
                self._remember(remote, (remote, request.sequence), frame)
            else:
                self._report(frame, result)

    @handles(DatagramsFromNet)
    def _from_net(self, message: DatagramsFromNet) -> None:
        frames = [frame for frame in map(self._reply, message.datagrams) if frame is not None]
        if frames:
            self._counters.add("icmp.frames_from_net", len(frames))
            self._send_to_guest(frames)
            self._answered()

    def _reply(self, datagram: DatagramFromNet) -> bytes | None:
        """Build the guest's echo reply from the host's; None, and a count, where it is none."""
        remote = datagram.address[0]
        if remote not in self._remotes:
            self._counters.add("icmp.drop.filtered")
            return None
        try:
            reply = self._family.read_icmp(datagram.payload)
        except MalformedPacket as malformed:
            self._counters.add(f"icmp.drop.{malformed.reason}")
            return None
        family = self._family
        if reply.type != family.echo_reply:
            self._counters.add("icmp.drop.not_echo")
            return None
        self._bytes_in += len(reply.data)
        return family.build_icmp(
            self._macs,
            family.pack(remote),
            self._guest.ip,
            family.build_echo(family.echo_reply, self._guest.port, reply.sequence, reply.data),
            max(1, datagram.ttl - 1),
            self._next_identification(),
        )
