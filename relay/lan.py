"""One LAN of the relay: what its sessions share, and nobody else.

Start: way out, switch, name server, gateway, forwards; each needs the ones before it. The end is the reverse.
What LANs have in common because the machine has it once, sockets and the watch on them, they are handed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from loguru import logger

from actors.flows.port_forward import PortForwardActor
from actors.gateway.dns import DnsActor
from actors.gateway.gateway import GatewayActor
from actors.lan.peer import PeerActor
from actors.lan.switch import SwitchActor
from actors.messages import (
    AnswersOutdated,
    BlockMacs,
    ClosePeer,
    FramesFromPeer,
    FramesToPeer,
    PeerAt,
    RelayDrains,
    SettingsChanged,
)
from actors.runtime import NEVER, Observe, ask_async, run_ready, tell_alive
from actors.settings import CHANGEABLE
from netstack.counters import Counters
from netstack.forward import MAX_FORWARDS, parse_forward
from netstack.ipv4 import format_ipv4
from relay.contradictions import why_no_forward
from relay.forward_changes import ForwardChanges, TooManyChangesError
from relay.observation import Observation
from transport.host.outside import HostNetwork
from transport.host.upstream_dns import HostResolvers, NoResolvers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import pykka

    from actors.close_codes import CloseCode
    from actors.messages import FlowOpened
    from actors.port_policy import PortPolicy
    from actors.ports import LeaseMemory, Session, SessionTerms
    from actors.runtime import EventLoopActor, Mailbox
    from actors.settings import LanSettings
    from netstack.egress import EgressPolicy
    from netstack.forward import Forward
    from netstack.name_servers import NameServer
    from relay.forward_changes import RoomForwards
    from relay.room_link import RoomLink
    from relay.shared import Shared

    Observer = Callable[[EventLoopActor, Any], AbstractContextManager[object]]


class ForwardError(Exception):
    """A port of this machine that is to lead to a guest cannot be had; the message is one line."""


class LanPlan(NamedTuple):
    """What a LAN is to be."""

    settings: LanSettings
    policy: Callable[..., EgressPolicy]
    """Makes the egress policy: it keeps what it has learned of the machine's addresses. Takes the address at
    which guests reach the machine, where that is not the one of ``settings``."""
    name_servers: Sequence[NameServer] = ()
    """Those that its guests' questions go to; none for those of the host."""
    offline: bool = False
    """Whether nothing leaves the LAN, questions to name servers included."""
    forwards: Sequence[Forward] = ()
    port_hold: float = 0.0
    ports_held: int = 0


class Lan:
    """Switch, gateway, name server and forwards of one LAN, and the sessions on it."""

    def __init__(
        self,
        name: str,
        plan: LanPlan,
        shared: Shared,
        memory: LeaseMemory | None = None,
        changes: RoomForwards | None = None,
    ) -> None:
        """Start everything but operators' forwards, for :meth:`follow_changes`. Raises ForwardError.

        ``memory`` knows the guests' former addresses, ``changes`` what operators did to the forwards.
        """
        self.name = name
        self._memory = memory
        self._changes = ForwardChanges().of_room(name) if changes is None else changes
        self.settings = plan.settings
        self.is_outdated = False
        """Whether it is to be made by another plan, which it cannot follow."""
        self.counters = Counters()
        """Of what happens on this LAN; the relay's totals are the sum of these."""
        self._journals: list[Callable[[FlowOpened], object]] = []
        """Who is told of each flow."""
        if shared.journal is not None:
            self._journals.append(partial(shared.journal, name))
        self._observer: Observer | None = None
        self.observation = Observation(self)
        """Captures and traces begin here."""
        self._shared = shared
        self._forwards: dict[str, tuple[int, pykka.ActorRef[PortForwardActor]]] = {}
        """Forwards as they are written, with their numbers."""
        self._planned: frozenset[str] = frozenset()
        """Those of the settings; others were added at run time, and stay."""
        self._peers: WeakSet[pykka.ActorRef[PeerActor]] = WeakSet()
        """Their actors and sessions keep them, and nobody else."""
        self._started: list[pykka.ActorRef[Any]] = []
        self._link: RoomLink | None = None
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
            mapped=None if shared.mapped is None else shared.mapped.of_room(self.name),
            processes=1 if shared.place is None else shared.place.count,
        )
        link = None if shared.trunk is None else shared.trunk.join(self.name)
        self._link = link
        self.switch = SwitchActor.start(counters, settings, link)
        self._started.append(self.switch)
        self._resolvers = (
            NoResolvers()
            if plan.offline
            else HostResolvers(plan.name_servers, policy, counters, turnstile=shared.questions)
        )
        self.name_servers = plan.name_servers
        """What guests' questions go to; those of resolv.conf where there are none."""
        self.names = dns = DnsActor.start(self._resolvers, counters, settings, shared.answers)
        self._started.append(dns)
        self.gateway = GatewayActor.start(
            self.switch,
            self.network,
            counters,
            settings,
            dns,
            flows=shared.flows,
            udp_flows=shared.udp_flows,
            buffers=shared.buffers,
            memory=self._memory,
            journals=self._journals,
            link=link,
        )
        self._started.append(self.gateway)
        self._vital = (self.switch, self.gateway, dns)
        run_ready()
        if link is not None:
            link.accept_by(self._attach_carried)
        for forward in self._plan_forwards(plan):
            self._open_forward(forward)
        run_ready()

    def add_forward(self, forward: Forward) -> None:
        """Open a port of the host that leads to a guest, as an operator wants it. Raises ForwardError."""
        text, settings = str(forward), self.settings
        network, ipv6 = IPv4Network(settings.network), settings.ipv6_prefix is not None
        why = why_no_forward(forward, network, ipv6=ipv6)
        if why is not None:
            raise ForwardError(f"cannot forward {why}")
        self._open_forward(forward)
        try:
            self._changes.open(text, configured=text in self._planned)
        except TooManyChangesError as error:
            self._close_forward(text)
            raise ForwardError(f"cannot forward {forward}: {error}") from None

    def remove_forward(self, text: str) -> None:
        """Close a forward, named as it is written; connections that stand stay. Raises ForwardError."""
        try:
            self._changes.close(text, configured=text in self._planned)
        except TooManyChangesError as error:
            raise ForwardError(f"cannot remove {text}: {error}") from None
        if text in self._forwards:
            self._close_forward(text)

    def follow_changes(self) -> None:
        """Open and close forwards as operators want them by now."""
        wanted = self._planned - self._changes.closed | {str(forward) for forward in self._changes.added}
        for text in self._forwards.keys() - wanted:
            self._close_forward(text)
        for text in sorted(wanted - self._forwards.keys()):
            self._open_or_log(parse_forward(text))

    def _plan_forwards(self, plan: LanPlan) -> list[Forward]:
        """Take over the forwards of the settings; return those of them that are to be open."""
        self._planned = frozenset(map(str, plan.forwards))
        self._changes.follow(self._planned)
        closed = self._changes.closed
        for text in sorted(closed):
            logger.info("room {}: the forward {} stays closed, for it was removed", self.name, text)
        return [forward for forward in plan.forwards if str(forward) not in closed]

    def _open_or_log(self, forward: Forward) -> None:
        try:
            self._open_forward(forward)
        except ForwardError as error:
            logger.error("room {}: {}", self.name, error)

    def _open_forward(self, forward: Forward) -> None:
        """Open a port of the host that leads to a guest. Raises ForwardError."""
        taken = {index for index, _ in self._forwards.values()}
        if str(forward) in self._forwards or len(taken) >= MAX_FORWARDS:
            why = f"there are {MAX_FORWARDS}" if len(taken) >= MAX_FORWARDS else "it is forwarded"
            raise ForwardError(f"cannot forward {forward}: {why} already")
        index = next(index for index in range(MAX_FORWARDS) if index not in taken)
        try:
            actor = PortForwardActor.start(
                forward,
                index,
                gateway=self.gateway,
                switch=self.switch,
                listeners=self.network,
                counters=self.counters,
                settings=self.settings,
                link=self._link,
            )
        except OSError as error:
            raise ForwardError(f"cannot forward {forward}: {error.strerror or error}") from None
        self._forwards[str(forward)] = index, actor
        self._started.append(actor)
        run_ready()

    def _close_forward(self, text: str) -> None:
        _, actor = self._forwards.pop(text)
        self._started.remove(actor)
        actor.stop(block=False)
        run_ready()

    def replan(self, plan: LanPlan) -> None:
        """Take over what of a plan can change, for the sessions that stand too.

        Forwards that are gone are closed; those that are new are opened by :meth:`follow_changes`, once their
        ports are no other LAN's any more.
        """
        changed = {name: getattr(plan.settings, name) for name in CHANGEABLE}
        self.settings = replace(self.settings, **changed)
        is_offline = isinstance(self._resolvers, NoResolvers)
        self.is_outdated = (self.settings, is_offline) != (plan.settings, plan.offline)
        # The network stays as it is, and so does the address at which guests reach the host.
        policy = plan.policy(format_ipv4(self.settings.host_ip))
        policy.own_addresses = self.network.policy.own_addresses
        self.network.policy = policy
        if isinstance(self._resolvers, HostResolvers):
            self._resolvers.follow(plan.name_servers, policy)
        tell_alive(self.names, AnswersOutdated())
        told: list[pykka.ActorRef[Any]] = [self.switch, self.gateway, *self.forwards, *self.peers]
        for actor in told:
            tell_alive(actor, SettingsChanged(self.settings))
        run_ready()
        before = self._planned
        self._plan_forwards(plan)
        for text in (before - self._planned) & self._forwards.keys():
            self._close_forward(text)

    @property
    def forwards(self) -> list[pykka.ActorRef[PortForwardActor]]:
        """The forwards' actors."""
        return [actor for _, actor in self._forwards.values()]

    @property
    def forwards_by_text(self) -> list[str]:
        """The forwards as they are written, and those that were added and cannot be opened at present."""
        return list(dict.fromkeys([*self._forwards, *map(str, self._changes.added)]))

    @property
    def peers(self) -> list[pykka.ActorRef[PeerActor]]:
        """The sessions' actors."""
        return [peer for peer in self._peers if peer.is_alive()]

    def observe(self, observer: Observer | None) -> None:
        """Have somebody look on while the LAN's actors, and later ones of it, handle messages."""
        if (observer is None) != (self._observer is None):
            tell = self._journals.append if self._observer is None else self._journals.remove
            tell(self.observation.see_flow)
        self._observer = observer
        actors: list[pykka.ActorRef[Any]] = [self.switch, self.gateway, self.names, *self.peers]
        for actor in actors:
            tell_alive(actor, Observe(observer))
        run_ready()

    def block_macs(self, macs: frozenset[bytes]) -> None:
        """Let nobody have these MACs, and anybody those that were blocked before."""
        tell_alive(self.switch, BlockMacs(macs))
        run_ready()

    @property
    def is_alive(self) -> bool:
        """Whether all that a LAN needs still runs."""
        return all(actor.is_alive() for actor in self._vital)

    @property
    def is_empty(self) -> bool:
        """Whether no session is on it."""
        return not self.peers

    def next_port(self) -> int:
        """Return a number for a session, which is its port of the switch; no other session had it."""
        self._shared.last_port = next(self._shared.port_numbers)
        return self._shared.last_port

    def attach(
        self,
        session: Session,
        *,
        name: str = "",
        expires: float = NEVER,
        policy: PortPolicy | None = None,
        token: str = "",
        stays: bool = False,
    ) -> Mailbox:
        """Give a session its port; return who is told what its client sends.

        ``name`` is its guest's, whatever the client says; ``expires``, by the actors' clock, ends it.
        ``policy`` is what the port may; None for what the settings say. ``token`` is the id of its token.
        ``stays`` as PeerActor is told.
        """
        peer = PeerActor.start(
            session,
            self.switch,
            self.counters,
            self.settings,
            name=name,
            expires=expires,
            policy=policy,
            token=token,
            urls=self._shared.urls,
            stays=stays,
        )
        self._peers.add(peer)
        if self._observer is not None:
            peer.tell(Observe(self._observer))
        return peer

    def _attach_carried(self, session: Session, terms: SessionTerms) -> Mailbox:
        """Give a port to a session that another worker carries."""
        return self.attach(session, **terms._asdict(), stays=True)

    async def close_session(self, port: int, code: CloseCode, reason: str) -> bool:
        """End one session, and tell its client why; whether it is here."""
        peer = await self._peer_at(port)
        ends = peer is not None and tell_alive(peer, ClosePeer(code, reason))
        run_ready()
        return ends

    async def inject(self, port: int, frames: list[bytes], *, to_guest: bool) -> bool:
        """Take frames as a session's, or give them to it; whether it is here."""
        peer = await self._peer_at(port)
        if peer is None:
            return False
        if to_guest:
            tell_alive(peer, FramesToPeer(frames))
        else:
            tell_alive(self.switch, FramesFromPeer(port, frames))
        run_ready()
        return True

    async def _peer_at(self, port: int) -> Mailbox | None:
        """Ask the switch: a client that came back has the port that it had, whatever its session's number."""
        found: Mailbox | None = await ask_async(self.switch, PeerAt(port))
        return found

    def tell_of_drain(self, seconds: float | None) -> None:
        """Tell every client that the relay drains, and how long it has, if that is known."""
        for peer in list(self._peers):
            tell_alive(peer, RelayDrains(seconds))
        run_ready()

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
        if self._link is not None:
            self._link.close()
