"""One LAN of the relay: what its sessions share, and nobody else.

Start: way out, switch, name server, gateway, forwards; each needs the ones before it. The end is the reverse.
What LANs have in common because the machine has it once, sockets and the watch on them, they are handed.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from actors.flows.buffer_budget import TOTAL, BufferBudget
from actors.flows.port_forward import PortForwardActor
from actors.gateway.dns import DnsActor
from actors.gateway.gateway import GatewayActor
from actors.lan.peer import PeerActor
from actors.lan.switch import SwitchActor
from actors.messages import ClosePeer
from actors.runtime import NEVER, run_ready, tell_alive
from netstack.counters import Counters
from netstack.shares import Shares
from transport.host.outside import EchoIdentifiers, HostNetwork
from transport.host.readiness import Readiness
from transport.host.upstream_dns import HostResolvers, NoResolvers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pykka

    from actors.close_codes import CloseCode
    from actors.ports import Session
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.egress import EgressPolicy
    from netstack.forward import Forward
    from netstack.name_servers import NameServer
    from transport.turns import Turns


class ForwardError(Exception):
    """A port of this machine that is to lead to a guest cannot be had; the message is one line."""


class LanPlan(NamedTuple):
    """What a LAN is to be."""

    settings: LanSettings
    policy: Callable[[], EgressPolicy]
    """Makes the egress policy: it keeps what it has learned of the machine's addresses."""
    name_servers: Sequence[NameServer] = ()
    """Those that its guests' questions go to; none for those of the host."""
    offline: bool = False
    """Whether nothing leaves the LAN, questions to name servers included."""
    forwards: Sequence[Forward] = ()
    port_hold: float = 0.0
    ports_held: int = 0


class Shared:
    """What all LANs of a process draw from."""

    def __init__(self, turns: Turns, *, max_flows: int, max_questions: int, tcp_buffers: int = TOTAL) -> None:
        """Share sockets of flows, questions to name servers and TCP buffers (bytes); needs a running loop."""
        self.turns = turns
        self.ready = Readiness(turns)
        self.flows = Shares(max_flows)
        self.udp_flows = Shares(max_flows)
        """Of these, those that have a UDP port of the host; the gateways keep the limit."""
        self.buffers = BufferBudget(tcp_buffers)
        self.questions = asyncio.Semaphore(max_questions)
        """Those to name servers at a time: each has a few sockets."""
        self.identifiers = EchoIdentifiers()
        self.port_numbers = count(1)
        """Numbers of the switches' ports: no two sessions of the process have the same, in logs too."""

    def close(self) -> None:
        """Watch nothing any more."""
        self.ready.close()


class Lan:
    """Switch, gateway, name server and forwards of one LAN, and the sessions on it."""

    def __init__(self, name: str, plan: LanPlan, shared: Shared) -> None:
        """Start everything. Raises ForwardError."""
        self.name = name
        self.settings = plan.settings
        self.counters = Counters()
        """Of what happens on this LAN; the relay's totals are the sum of these."""
        self._shared = shared
        self._peers: WeakSet[pykka.ActorRef[PeerActor]] = WeakSet()
        """Their actors and sessions keep them, and nobody else."""
        self._started: list[pykka.ActorRef[Any]] = []
        try:
            self._start(plan)
        except BaseException:
            self.stop()
            raise

    def _start(self, plan: LanPlan) -> None:
        settings, counters, shared = self.settings, self.counters, self._shared
        policy = plan.policy()
        self.network = HostNetwork(
            policy,
            counters,
            shared.turns,
            port_hold=plan.port_hold,
            ports_held=plan.ports_held,
            ready=shared.ready,
            identifiers=shared.identifiers,
        )
        self._switch = SwitchActor.start(counters, settings)
        self._started.append(self._switch)
        name_servers = (
            NoResolvers()
            if plan.offline
            else HostResolvers(plan.name_servers, policy, counters, turnstile=shared.questions)
        )
        dns = DnsActor.start(name_servers, counters, settings)
        self._started.append(dns)
        self._gateway = GatewayActor.start(
            self._switch,
            self.network,
            counters,
            settings,
            dns,
            flows=shared.flows,
            udp_flows=shared.udp_flows,
            buffers=shared.buffers,
        )
        self._started.append(self._gateway)
        self._vital = (self._switch, self._gateway, dns)
        run_ready()
        for index, forward in enumerate(plan.forwards):
            self._open_forward(forward, index)
        run_ready()

    def _open_forward(self, forward: Forward, index: int) -> None:
        try:
            actor = PortForwardActor.start(
                forward,
                index,
                gateway=self._gateway,
                switch=self._switch,
                listeners=self.network,
                counters=self.counters,
                settings=self.settings,
            )
        except OSError as error:
            raise ForwardError(f"cannot forward {forward}: {error.strerror or error}") from None
        self._started.append(actor)

    @property
    def is_alive(self) -> bool:
        """Whether all that a LAN needs still runs."""
        return all(actor.is_alive() for actor in self._vital)

    @property
    def is_empty(self) -> bool:
        """Whether no session is on it."""
        return not any(peer.is_alive() for peer in self._peers)

    def next_port(self) -> int:
        """Return a number for a session, which is its port of the switch; no other session had it."""
        return next(self._shared.port_numbers)

    def attach(self, session: Session, *, name: str = "", expires: float = NEVER) -> Mailbox:
        """Give a session its port; return who is told what its client sends.

        ``name`` is its guest's, whatever the client says; ``expires``, by the actors' clock, ends it.
        """
        peer = PeerActor.start(
            session, self._switch, self.counters, self.settings, name=name, expires=expires
        )
        self._peers.add(peer)
        return peer

    def close_sessions(self, code: CloseCode, reason: str) -> None:
        """Tell every client why its session ends."""
        for peer in list(self._peers):
            tell_alive(peer, ClosePeer(code, reason))
        run_ready()

    def stop(self) -> None:
        """Stop all actors, the last one first, each with all that follows from it."""
        while self._started:
            self._started.pop().stop(block=False)
            run_ready()
