"""What the gateway's parts share: the state of a port, and the frames of one message on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from actors.line import Line
from actors.messages import full_mtu
from actors.port_policy import usual_policy
from actors.token_bucket import TokenBucket
from netstack.buffer_budget import BufferBudget
from netstack.tcp_time_wait import TimeWaits

if TYPE_CHECKING:
    from collections.abc import Callable

    import pykka

    from actors.messages import AssignAddress, DnsQuestion, FlowKey
    from actors.port_policy import PortPolicy
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.icmp import IcmpError

ERRORS_PER_SECOND = 100.0
"""ICMP errors of the gateway's own per port (RFC 1812 section 4.3.2.8)."""

FRAGMENTS_PER_SECOND = 20_000.0
"""Fragments of one port that are put together: 240 Mbit/s in full frames, some 15 µs of work each."""

FRAGMENT_BURST = 1_500.0
"""How many at once: the largest packet in the smallest pieces, or 30 large ones."""

TO_FLOWS = "gateway.to_flows"
"""Counter of the frames that went to a flow, and so the outcome of handling one."""


class Opener(Protocol):
    """Who has opened flows that are no guest's: a port forward, for its clients."""

    def answered(self, key: FlowKey) -> None:
        """Note that the guest has taken a connection."""

    def ended(self, key: FlowKey) -> None:
        """Note that a connection is no more."""


class PortState:
    """What the gateway keeps for one port of the switch."""

    __slots__ = (
        *("advertised_mtu", "buffers", "client", "drops", "errors", "fixed_name"),
        *("flows", "forwarded", "fragments", "half_open", "line", "unanswered"),
        *("link_mtu", "macs", "new_flows", "number", "policy", "registration", "time_waits"),
    )

    def __init__(
        self,
        number: int,
        settings: LanSettings,
        buffers: BufferBudget,
        now: float,
        policy: PortPolicy | None = None,
    ) -> None:
        """``buffers`` is the memory that the TCP connections of all sessions have."""
        self.number = number
        self.policy = usual_policy(settings) if policy is None else policy
        """What the session's guests may."""
        self.macs: set[bytes] = set()
        self.client = ""
        """The network that the session's client is in; empty when that is not known."""
        self.drops: dict[str, int] = {}
        """What of the guest's frames was dropped, by the names of the counters."""
        self.fixed_name: str | None = None
        """What the session's guests are called, whatever they say; empty leaves it to them, None is for a
        session that has not registered yet."""
        self.registration: AssignAddress | None = None
        """The latest one of the session: who is to hear of its guest's address."""
        self.link_mtu: Callable[[], int] = full_mtu
        """Largest IP packet that the port's guests should be sent at present."""
        self.advertised_mtu = 0
        """What the guests' latest router advertisement said; 0 before the first."""
        self.line = Line()
        """How much more the port's session takes at present."""
        self.buffers = BufferBudget(settings.tcp_buffers_per_peer, buffers)
        """Memory that the session's TCP connections have."""
        self.flows: dict[FlowKey, pykka.ActorRef[Any]] = {}
        self.forwarded: dict[FlowKey, Opener] = {}
        """Of the flows, those that clients outside opened through a forward."""
        self.unanswered: dict[FlowKey, float] = {}
        """Keys of the UDP and ICMP flows that nobody has answered, with the time at which the guest used each
        last, the one used longest ago first."""
        self.half_open: dict[FlowKey, float] = {}
        """Keys of the TCP flows that the guests open, with the time of each SYN, the oldest first."""
        self.time_waits: TimeWaits[FlowKey] = TimeWaits()
        """TCP connections that are over but for what the guest may repeat."""
        self.new_flows = TokenBucket(self.policy.new_flows_per_second, self.policy.max_flows, now)
        self.errors = TokenBucket(ERRORS_PER_SECOND, ERRORS_PER_SECOND, now)
        self.fragments = TokenBucket(FRAGMENTS_PER_SECOND, FRAGMENT_BURST, now)

    def change_policy(self, policy: PortPolicy, now: float) -> None:
        """Let the guests have something else from now on; what they have open stays."""
        if policy != self.policy:
            self.policy = policy
            self.new_flows = TokenBucket(policy.new_flows_per_second, policy.max_flows, now)

    def mtu(self) -> int:
        """Tell the largest IP packet of TCP's for guests at present, whichever session they have.

        Where the path is too narrow for IPv6's MTU it is less than that, so that segments need no chunks.
        """
        fits = self.line.packet_limit
        return self.link_mtu() if fits is None else fits()


class Batch:
    """One message's frames on their way: the sender's port, the time, and where what comes of them goes."""

    __slots__ = ("latest", "now", "port", "questions", "replies", "to_flows", "to_forwards")

    def __init__(self, port: PortState, now: float) -> None:
        self.port = port
        self.now = now
        self.replies: list[bytes] = []
        self.to_flows: dict[FlowKey, list[bytes]] = {}
        self.to_forwards: dict[Mailbox, list[bytes]] = {}
        self.latest: list[bytes] = []
        """Of these two, the frames to which one was added last."""
        self.questions: list[DnsQuestion] = []


class Dropped(Exception):  # noqa: N818 - an outcome, not an error
    """A frame goes no further; ``counter`` says why, ``report`` what the guest is told."""

    def __init__(self, reason: str, report: IcmpError | None = None) -> None:
        super().__init__(reason)
        self.counter = f"gateway.drop.{reason}"
        self.report = report
        self.whole: bytes | None = None
        """The packet that it is about, where that came in fragments."""
