"""What all flows have in common: one NAT mapping, one host socket, an end when it is idle.

A flow opens its socket in its constructor, so that whoever starts it learns at once when there is none. It
ends in one of three ways: idle (it tells the gateway FlowClosed, which stops it; frames already on their way
are still sent), by failure (FlowClosed as well), or stopped by the gateway because its guest is gone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from actors.descriptions import Describe, FlowDescription
from actors.messages import ErrorsFromNet, FlowAnswered, FlowClosed, FlowOpened, FramesFromGateway
from actors.ports import SendResult
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from actors.token_bucket import TokenBucket
from netstack.ethernet import HEADER_LENGTH, LAN_MTU
from netstack.family import IPV4, IPV6, endpoint_text, family_of
from netstack.icmp import IcmpError
from netstack.ipv4 import DEFAULT_TTL

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from types import TracebackType

    from actors.messages import ErrorFromNet, FlowKey
    from actors.ports import EchoSocket, Outside, UdpSocket
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.counters import Counters
    from netstack.gateway_replies import GatewayReplies

MAX_REMOTES = 256
"""Addresses that a flow remembers as written to; the one unused for longest makes room (a DHT client
writes to thousands, and only waits for the last ones)."""

ERRORS_PER_SECOND = 10.0
"""ICMP errors per flow: enough for a program to notice, no echo of a flood (RFC 1812 section 4.3.2.8)."""

FORWARDED_ERRORS_PER_SECOND = 100.0
"""ICMP errors from the network per flow: a traceroute has 16 probes under way at a time."""

MAX_HEADS = 64
"""Packets whose start a flow remembers, the latest to each destination: errors quote it to the guest."""

HEAD = slice(HEADER_LENGTH, HEADER_LENGTH + 68)
"""Of a frame: its longest header and 8 bytes, what an error must quote (RFC 792); for IPv6 a bit more."""

MTU_HINT = 1280
"""Told with "fragmentation needed" where the host does not say what the path takes: every path takes this."""

ICMP_ERRORS = {
    SendResult.DENIED: IcmpError.PROHIBITED,
    SendResult.TOO_BIG: IcmpError.FRAGMENTATION_NEEDED,
    SendResult.NO_ROUTE: IcmpError.NETWORK_UNREACHABLE,
    SendResult.UNREACHABLE: IcmpError.HOST_UNREACHABLE,
    SendResult.REFUSED: IcmpError.PORT_UNREACHABLE,
}
"""What the guest is told when a datagram could not be sent, or a connection not be made."""


class Guest(NamedTuple):
    """The inner end of a flow: MAC (6 bytes), address (4 or 16 bytes), port or echo identifier."""

    mac: bytes
    ip: bytes
    port: int


class Remote(NamedTuple):
    """The outer end of a flow as the guest names it: 4 or 16 bytes, and a port (0 of a ping)."""

    ip: bytes
    port: int


@dataclass(slots=True)
class FlowContext:
    """What a flow needs of its LAN; one for all flows."""

    gateway: Mailbox
    switch: Mailbox
    outside: Outside
    replies: GatewayReplies
    counters: Counters
    settings: LanSettings
    """Those of the moment; only the gateway changes them."""
    journals: Sequence[Callable[[FlowOpened], object]] = ()
    """Who is told of each flow, at the moment; mostly nobody."""

    def tell_journals(self, opened: FlowOpened) -> None:
        """Tell them of one; what there is to be said is only made where there are any."""
        for journal in self.journals:
            journal(opened)


class FlowActor(EventLoopActor):
    """One mapping; subclasses know the protocol."""

    part = "flow"
    """First word of the counters' names."""

    def __init__(self, key: FlowKey, guest: Guest, context: FlowContext, idle_timeout: float) -> None:
        """Open the flow's socket. Raises OSError when the host gives none."""
        super().__init__()
        self._key = key
        self._guest = guest
        self._family = family_of(guest.ip)
        self._context = context
        self._counters = context.counters
        self._macs = guest.mac + context.settings.gateway_mac
        self._idle_timeout = idle_timeout
        self._ended = False
        self._is_answered = False
        self._identification = 0
        self._remotes: dict[str, None] = {}
        """Addresses that the guest wrote to, the latest last: only they may answer (RFC 4787 REQ-8)."""
        self._heads: dict[Hashable, bytes] = {}
        """How the packets began that errors may be about, by what errors say of them."""
        self._bytes_out = self._bytes_in = 0
        now = self.now()
        self._opened_at = now
        self._forwarded = TokenBucket(FORWARDED_ERRORS_PER_SECOND, FORWARDED_ERRORS_PER_SECOND, now)
        self._errors = TokenBucket(ERRORS_PER_SECOND, ERRORS_PER_SECOND, now)
        self._idle_at = self.poll_at = now + idle_timeout
        self._socket = self._open()

    @abstractmethod
    def _open(self) -> UdpSocket | EchoSocket: ...

    @abstractmethod
    def _sent_as(self, error: ErrorFromNet) -> Hashable:
        """Tell as what the packet was remembered that ``error`` is about."""

    @property
    def port(self) -> int:
        """The port of the switch that its guest is behind."""
        return self._key.port

    def on_stop(self) -> None:
        """Give the socket back."""
        self._ended = True
        self._socket.close()

    def on_failure(
        self,
        _exception_type: type[BaseException] | None,
        _exception_value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Give the socket back, and let the gateway open another flow for the next frame."""
        self._socket.close()
        self._end()

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        if self.now() >= self._idle_at:
            self._end()
        else:
            self.poll_at = self._idle_at

    @handles(Describe)
    def _describe(self, _: Describe) -> FlowDescription:
        now, guest = self.now(), self._guest
        return FlowDescription(
            protocol=self.part,
            port=self._key.port,
            guest=endpoint_text(self._family.format(guest.ip), guest.port),
            remote=self._latest_remote(),
            state="open" if self._is_answered else "unanswered",
            age=now - self._opened_at,
            ends_in=max(0.0, self._idle_at - now),
            bytes_out=self._bytes_out,
            bytes_in=self._bytes_in,
        )

    def _latest_remote(self) -> str:
        """Where the guest wrote to last."""
        return next(reversed(self._remotes), "")

    def _end(self) -> None:
        """Tell the gateway, once; by then the key may belong to a new flow."""
        if not self._ended:
            self._ended = True
            self.poll_at = NEVER
            tell_alive(self._context.gateway, FlowClosed(self._key))

    def _used(self) -> None:
        """Note that the guest sent something: that, and nothing else, keeps a mapping (RFC 4787 REQ-6)."""
        self._idle_at = self.now() + self._idle_timeout
        if not self._ended:
            self.poll_at = self._idle_at

    def _answered(self) -> None:
        """Tell the gateway, once, that this mapping is of use: others give way before it."""
        if not self._is_answered and not self._ended:
            self._is_answered = True
            tell_alive(self._context.gateway, FlowAnswered(self._key))

    def _remember(self, remote: str, sent_as: Hashable, frame: bytes, port: int = 0) -> None:
        """Note that ``frame`` was sent to ``remote``, and its start for errors that may come.

        ``port`` is the remote one, of protocols that have ports.
        """
        heads = self._heads
        if sent_as not in heads and len(heads) >= MAX_HEADS:
            del heads[next(iter(heads))]
        heads[sent_as] = frame[HEAD]
        remotes = self._remotes
        if remote in remotes:
            del remotes[remote]
        else:
            if self._context.journals:
                self._context.tell_journals(self._opened(remote, port))
            if len(remotes) >= MAX_REMOTES:
                del remotes[next(iter(remotes))]
        remotes[remote] = None

    def _opened(self, remote: str, port: int) -> FlowOpened:
        guest = self._guest
        return FlowOpened(
            self._key.port,
            guest.mac,
            self.part,
            endpoint_text(self._family.format(guest.ip), guest.port),
            endpoint_text(remote, port) if port else remote,
            getattr(self._socket, "port", None),
        )

    def _report(self, frame: bytes, result: SendResult) -> None:
        """Count what kept a frame from being sent, and tell the guest where ICMP has a word for it."""
        self._counters.add(f"{self.part}.drop.{result.value}")
        error = ICMP_ERRORS.get(result)
        if error is None or not self._errors.take(self.now()):
            return
        mtu = (self._socket.path_mtu or MTU_HINT) if error is IcmpError.FRAGMENTATION_NEEDED else 0
        reply = self._context.replies.icmp_error(frame, error, mtu)
        if reply is not None:
            self._counters.add(f"{self.part}.icmp_errors")
            self._send_to_guest([reply])

    @handles(ErrorsFromNet)
    def _errors_from_net(self, message: ErrorsFromNet) -> None:
        frames = [frame for frame in map(self._translate, message.errors) if frame is not None]
        if frames:
            self._counters.add(f"{self.part}.errors_from_net", len(frames))
            self._send_to_guest(frames)

    def _translate(self, error: ErrorFromNet) -> bytes | None:
        """Build the error that the guest would have got without a NAT (RFC 5508 REQ-4 and REQ-5).

        It quotes what the guest sent. It comes from the router that sent it, where guests may know that
        one, else from the gateway.
        """
        head = self._heads.get(self._sent_as(error))
        drop = None
        if error.type not in self._family.errors:
            drop = "error_type"
        elif head is None:
            drop = "error_unmatched"
        elif not self._forwarded.take(self.now()):
            drop = "error_rate"
        if drop is not None or head is None:
            self._counters.add(f"{self.part}.drop.{drop}")
            return None
        family, settings = self._family, self._context.settings
        if error.router:
            source = family.pack(error.router)
        else:
            source = settings.gateway_ip if family is IPV4 else settings.gateway_ip6
        message = family.build_error(error.type, error.code, error.rest, _of_packet(head))
        return family.build_icmp(self._macs, source, self._guest.ip, message, DEFAULT_TTL, 0)

    def _next_identification(self) -> int:
        """Count up the number in the IP header that tells fragments of different packets apart."""
        self._identification = (self._identification + 1) & 0xFFFF
        return self._identification

    def _send_to_guest(self, frames: list[bytes]) -> None:
        """Send frames to the LAN, in pieces where they are longer than the guest's MTU."""
        if max(map(len, frames)) > HEADER_LENGTH + LAN_MTU:
            fragment = self._family.fragment
            frames = [piece for frame in frames for piece in fragment(frame)]
        tell_alive(self._context.switch, FramesFromGateway(frames))


def _of_packet(head: bytes) -> bytes:
    """Give what is the packet's of a frame's beginning from the IP header on: short frames are padded."""
    if head[0] >> 4 == IPV4.version:
        return head[: int.from_bytes(head[2:4], "big")]
    return head[: IPV6.header_length + int.from_bytes(head[4:6], "big")]
