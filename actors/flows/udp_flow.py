"""UDP through the NAT (RFC 4787): one mapping of a guest's address and port to one host socket.

Mapping is endpoint-independent: whatever the guest's port writes to leaves by the same socket (REQ-1), which
no other flow shares (REQ-3), so an answer cannot reach the wrong guest. Filtering is address-dependent
(REQ-8): a remote address may answer, from any port, once the guest has written to it; a setting lets anyone
write. Only what the guest sends keeps the mapping alive (REQ-6); errors never end it (REQ-12). A mapping
that was for name servers only ends sooner (REQ-5a), and sooner still once each question has its answer:
resolvers take a new port for each, and do not need it any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.flow import FlowActor, FlowContext, Guest
from actors.flows.udp_frames import FramesToGuest, runs_of
from actors.messages import DatagramsFromNet, FramesToFlow
from actors.ports import SendResult
from actors.runtime import handles
from netstack.ethernet import HEADER_LENGTH
from netstack.name_servers import DNS_PORT
from netstack.udp import UDP_HEADER_LENGTH

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from actors.flows.udp_frames import Run
    from actors.messages import DatagramFromNet, ErrorFromNet, FlowKey
    from actors.ports import UdpSocket


class UdpFlowActor(FlowActor):
    """One guest's UDP port."""

    part = "udp"
    _socket: UdpSocket

    def __init__(self, key: FlowKey, guest: Guest, context: FlowContext) -> None:
        """Open the flow's socket. Raises OSError when the host gives none."""
        settings = context.settings
        unanswered = max(settings.dns_idle_timeout, settings.dns_answered_timeout)
        super().__init__(key, guest, context, min(unanswered, settings.udp_idle_timeout))
        self._is_dns = True
        """Whether the guest wrote to name servers only."""
        self._questions = 0
        """Datagrams to name servers that are not answered yet."""
        self._open_to_all = settings.endpoint_independent_filtering
        self._headers = HEADER_LENGTH + self._family.header_length + UDP_HEADER_LENGTH
        self._to_guest = FramesToGuest(self._family, self._macs, guest.ip, guest.port)

    def _open(self) -> UdpSocket:
        return self._context.outside.open_udp(self.actor_ref, self._family.version)

    def _sent_as(self, error: ErrorFromNet) -> Hashable:
        return error.address

    @handles(FramesToFlow)
    def _to_net(self, message: FramesToFlow) -> None:
        sent = sum(map(self._send, runs_of(message.frames, self._family)))
        self._used()
        self._counters.add("udp.frames_to_net", sent)

    def _send(self, run: Run) -> int:
        (destination, port, ttl, dont_fragment), frames, payloads = run
        if port != DNS_PORT:
            self._is_dns = False
            self._idle_timeout = self._context.settings.udp_idle_timeout
        remote = self._family.format(destination)
        address = (remote, port)
        sent = self._socket.send_run(payloads, address, ttl, dont_fragment) if len(payloads) > 1 else 0
        latest = frames[sent - 1] if sent else None
        lost = 0
        for frame, payload in zip(frames[sent:], payloads[sent:], strict=True):
            result = self._socket.send_to(payload, address, ttl, dont_fragment)
            if result is SendResult.SENT:
                sent += 1
                latest = frame
            else:
                lost += len(payload)
                self._report(frame, result)
        if latest is not None:
            self._bytes_out += sum(map(len, payloads)) - lost
            self._remember(remote, address, latest, port)
            if self._is_dns:
                self._questions += sent
        return sent

    @handles(DatagramsFromNet)
    def _from_net(self, message: DatagramsFromNet) -> None:
        frames = self._to_guest.build(message.datagrams, None if self._open_to_all else self._remotes)
        filtered = len(message.datagrams) - len(frames)
        if filtered:
            self._counters.add("udp.drop.filtered", filtered)
        if frames:
            self._counters.add("udp.frames_from_net", len(frames))
            self._bytes_in += sum(map(len, frames)) - len(frames) * self._headers
            self._send_to_guest(frames)
            self._answered()
            if self._is_dns and self._questions:
                self._count_answers(message.datagrams)

    def _count_answers(self, datagrams: Sequence[DatagramFromNet]) -> None:
        """Let the mapping end soon after its last question has its answer; nothing ends later by that."""
        remotes = self._remotes
        answers = sum(port == DNS_PORT and host in remotes for _, (host, port), _ in datagrams)
        self._questions = max(0, self._questions - answers)
        if not self._questions:
            self._idle_at = min(self._idle_at, self.now() + self._context.settings.dns_answered_timeout)
            if not self._ended:
                self.poll_at = self._idle_at
