"""Where the frames of a LAN go: the switch's part that every frame comes by, compiled by mypyc.

Frames come in batches per port and leave in batches per destination port. Most frames of a batch have the
same header as the one before, so the decision (destination, source allowed) is kept from frame to frame and
taken anew only when what it was taken by changes. ``switch.py`` tells what is decided, and by which rules.

Offsets are written as numbers: slices with names are objects, whose look-up costs more than all else here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.handler_errors import HandlerErrors
from actors.messages import (
    AddressUsed,
    FramesToGateway,
    FramesToPeer,
    MacAgedOut,
    PortOpened,
    SourceRefused,
)
from actors.port_policy import HEARS, TAKES, Guard, Role, gateway_policy
from actors.runtime import NEVER, Nobody, tell_alive
from actors.token_bucket import TokenBucket
from netstack import ra_guard
from netstack.address_pool import Claim
from netstack.dhcp import CLIENT_PORT, is_for_client, is_for_server
from netstack.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    HEADER_LENGTH,
    is_link_control,
)
from netstack.mac_table import MAX_MACS, MacTable, Verdict, may_move
from netstack.multicast import MulticastGroups, Said, may_be_membership
from netstack.neighbour_proxy import answer_for
from netstack.vlan import TAGS, hides_protocol, without_priority_tags, without_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from actors.port_policy import PortPolicy
    from actors.settings import LanSettings
    from netstack.counters import Counters
    from netstack.multicast import Queries
    from netstack.neighbour_proxy import NeighbourProxy
    from netstack.source_guard import SourceGuard

GATEWAY: Final = -1
"""The gateway's port; sessions count from 0."""

FIRST_TRUNK: Final = -2
"""The port that stands for worker 0, by the trunk; the others follow downwards."""

CLAIMS_PER_SECOND: Final = 20.0
"""Frames of one port that may name a sender's address which is not known as its own; above it they are
dropped."""

CLAIM_BURST: Final = 100.0
"""How many at once: a bridge comes up with all its guests and their addresses."""

FLOOD_BURST: Final = 2.0
"""Seconds' worth of flooded frames that a port may send at once: a guest boots, a paused tab catches up."""

REPORT_BYTES: Final = 128
"""Bytes of a membership report for which another flooded frame is counted: a long one names 180 groups."""

MULTICAST_COPIES: Final = 8
"""Ports that a group's frame may go to without counting as flooded."""

LEAVES_PER_SECOND: Final = 1.0
LEAVE_BURST: Final = 4.0
"""Queries that a port is sent because somebody behind it left a group; other memberships expire with time."""

COMPLAINT_EVERY: Final = 10.0
"""Seconds between two words to a peer about sources that it may not use; between them frames only count."""

_ISOLATED: Final[int] = Role.ISOLATED.value
_PLAIN_IPV4: Final = 0x45
"""First byte of IPv4 without options. Of all others every frame is looked at: the next one may say something
else of who somebody is."""
_DHCP_CLIENT_PORT: Final = CLIENT_PORT.to_bytes(2, "big")

_DROPS: Final = {
    Verdict.OWNED_ELSEWHERE: "switch.drop.spoofed_source",
    Verdict.INVALID: "switch.drop.invalid_source",
    Verdict.FORBIDDEN: "switch.drop.forbidden_source",
    Verdict.PORT_FULL: "switch.drop.too_many_macs",
    Verdict.TABLE_FULL: "switch.drop.mac_table_full",
}

_NEWS: Final = frozenset({Claim.GRANTED, Claim.TAKEN})
_CLAIM_DROPS: Final = {
    Claim.TAKEN: "switch.drop.spoofed_address",
    Claim.RESERVED: "switch.drop.reserved_address",
    Claim.FOREIGN: "switch.drop.foreign_source",
    Claim.OVER_SHARE: "switch.drop.address_share",
}

_REFUSALS: Final = {
    Verdict.OWNED_ELSEWHERE: "another session uses this MAC address",
    Verdict.INVALID: "this MAC address is not one that a guest may have",
    Verdict.FORBIDDEN: "the token of this session is for other MAC addresses",
    Verdict.PORT_FULL: "this session has registered too many MAC addresses",
    Verdict.TABLE_FULL: "the switch knows too many MAC addresses",
}


def _keep(_mac: bytes, _now: float) -> bool:
    return False


def _unannounced(_mac: bytes, _port: int) -> None:
    pass


def _still_announced(_mac: bytes) -> None:
    pass


class Port:
    """What is attached to the switch: a session, or another worker."""

    __slots__ = (
        *("asked", "claims", "client", "drops", "floods", "last_heard", "leaves", "line", "link_mtu"),
        *("guards_dhcp", "guards_router", "guards_sources", "hears", "isolated", "role", "takes"),
        *("macs", "max_macs", "next_complaint", "opened_as", "owner", "peer", "policy"),
    )

    def __init__(self, opened: PortOpened, owner: Hashable, usual: PortPolicy, now: float) -> None:
        """``usual`` is the policy of ports that bring none."""
        self.owner = owner
        """As whose the port is counted."""
        self.asked = False
        """Whether the port was asked which multicast groups it wants."""
        self.claims = TokenBucket(CLAIMS_PER_SECOND, CLAIM_BURST, now)
        self.leaves = TokenBucket(LEAVES_PER_SECOND, LEAVE_BURST, now)
        self.client = opened.client
        self.drops: dict[str, int] = {}
        """What of the guest's frames was dropped, by the names of the counters."""
        self.peer = opened.peer
        self.last_heard = opened.last_heard
        self.link_mtu = opened.link_mtu
        self.line = opened.line
        self.next_complaint = 0.0
        self.opened_as = opened.port
        """The number with which its present session began."""
        self.go_by(usual if opened.policy is None else opened.policy, now)

    def go_by(self, policy: PortPolicy, now: float) -> None:
        """Let what is attached do what a policy says, from its next frame on."""
        self.policy = policy
        rate = policy.floods_per_second
        self.floods = TokenBucket(rate, rate * FLOOD_BURST, now)
        # What every frame is held against, without a look-up in the policy.
        self.macs = policy.macs
        self.max_macs = policy.max_macs
        role = Role.ISOLATED if policy.isolated and policy.role is Role.GUEST else policy.role
        self.isolated = role is Role.ISOLATED
        self.role: int = role.value
        self.hears: int = HEARS[role]
        """The roles of the ports whose floods and groups it gets, as bits."""
        self.takes: int = TAKES[role]
        """The roles of the ports whose frames for one NIC it gets."""
        self.guards_sources = Guard.SOURCES in policy.guards
        self.guards_dhcp = Guard.DHCP in policy.guards
        self.guards_router = Guard.ROUTER in policy.guards

    def change_session(self, opened: Port) -> None:
        """Have the session of another port: the client is the same, and so is what is on the line."""
        self.owner, self.opened_as = opened.owner, opened.opened_as
        self.peer, self.client = opened.peer, opened.client
        self.last_heard, self.link_mtu = opened.last_heard, opened.link_mtu

    def pass_on(self, message: FramesToPeer, _sender: int) -> bool:
        """Let frames leave by the port; False where nobody is there."""
        return tell_alive(self.peer, message)


class GatewayPort(Port):
    """The gateway's port, which is there before the gateway is. It is told which port frames come from."""

    def __init__(self, counters: Counters, settings: LanSettings) -> None:
        policy = gateway_policy(settings)
        super().__init__(PortOpened(GATEWAY, Nobody(), lambda: NEVER), "", policy, 0.0)
        self._counters = counters

    def pass_on(self, message: FramesToPeer, sender: int) -> bool:
        """As for other ports; counts itself what is lost."""
        if not tell_alive(self.peer, FramesToGateway(sender, message.frames)):
            self._counters.add("gateway.drop.absent", len(message.frames))
        return True


class Forwarding:
    """The ports of one LAN, and where their frames go; the switch's actor keeps it up to date."""

    def __init__(self, counters: Counters, settings: LanSettings) -> None:
        self.gateway = GatewayPort(counters, settings)
        self.ports: dict[int, Port] = {GATEWAY: self.gateway}
        self.former: dict[int, int] = {}
        """Numbers that sessions had before they took over ports, with those of the ports."""
        self.free_mac: Callable[[bytes, float], bool] = _keep
        """Called with a MAC that another port has and the time; whether that port has gone for it."""
        self.learned: Callable[[bytes, int], None] = _unannounced
        """Called with each MAC that was learned behind a port."""
        self.forgotten: Callable[[bytes], None] = _still_announced
        """Called with each MAC that aged out."""
        self.trunks: list[int] = []
        """Ports that stand for other workers which have guests of this room."""
        self.neighbours: NeighbourProxy | None = None
        self.table = MacTable(reserved={settings.gateway_mac: GATEWAY})
        self.groups = MulticastGroups(counters)
        self.sources: SourceGuard | None = None
        """What knows whose an address is; none before the gateway has come, or where nobody is to ask."""
        self.queries: Queries | None = None
        self._counters = counters
        self._gateway_mac = settings.gateway_mac
        self._gateway_mac_refusal = settings.gateway_mac_refusal
        self._gateway_ips = settings.gateway_ips
        self._gateway_ip6 = frozenset({settings.gateway_ip6, settings.gateway_link_local})
        self._handler_errors = HandlerErrors("switch", counters)

    @property
    def sessions(self) -> int:
        """How many ports sessions have."""
        return len(self.ports) - len(self.trunks) - 1

    def from_peer(self, sender: int, frames: list[bytes], now: float) -> None:
        """Pass on the frames that a session has sent."""
        counters = self._counters
        counters.add("switch.received", len(frames))
        port = self.ports.get(sender)
        if port is None and sender in self.former:
            sender = self.former[sender]  # sent before the session knew of its port
            port = self.ports.get(sender)
        if port is None:
            counters.add("switch.drop.unknown_port", len(frames))
            return
        batch = _Batch(sender, port.role, self.ports)
        # Frames that are alike in these, and are not for a DHCP client, go into the same list.
        head = source = b""
        alike: list[bytes] | None = None
        for frame in frames:
            if (
                alike is not None
                and frame[:15] == head
                and frame[26:30] == source
                and frame[36:38] != _DHCP_CLIENT_PORT
            ):
                alike.append(frame)
                continue
            try:
                if frame[12:14] in TAGS:
                    frame = without_priority_tags(frame)  # noqa: PLW2901 - whatever is done is done without them
                drop, alike = self._decide(frame, port, batch, now)
            except Exception as error:  # noqa: BLE001 - a bug costs one frame, never the LAN
                self._handler_errors.note(error, now)
                batch.dropped += 1
                alike = None
                continue
            if drop is not None:
                batch.dropped += 1
                counters.add(drop)
                port.drops[drop] = port.drops.get(drop, 0) + 1
            elif alike is not None:
                head, source = frame[:15], frame[26:30]
        self._deliver(batch, len(frames))

    def _decide(
        self, frame: bytes, port: Port, batch: _Batch, now: float
    ) -> tuple[str | None, list[bytes] | None]:
        """Put a frame where it belongs, or say why it is dropped.

        Returns the counter of the drop, or None, and the list that takes all that are alike, if there is one.
        """
        drop = self._refusal(frame, batch.sender, port, now)
        if drop is not None:
            return drop, None
        destination = frame[:6]
        if is_link_control(destination):
            return "switch.drop.link_control", None
        if destination[0] & 1:
            return self._decide_multicast(frame, port, batch, now), None
        return self._decide_unicast(frame, port, batch, now)

    def _decide_unicast(
        self, frame: bytes, port: Port, batch: _Batch, now: float
    ) -> tuple[str | None, list[bytes] | None]:
        """As :meth:`_decide`, for a frame that is for one NIC."""
        target = self.table.lookup(frame[:6], now)
        if target is None:
            if port.isolated:
                return "switch.drop.isolated", None
            if not port.floods.take(now):
                return "switch.drop.flood_rate", None
            batch.flood(frame)
            return None, None
        drop = self._barred(target, port.role)
        if drop is not None:
            return drop, None
        if target == batch.sender:
            return "switch.drop.same_port", None
        into = batch.unicast_to(target)
        into.append(frame)
        holds = frame[12:14] == ETHERTYPE_IPV4 and len(frame) > HEADER_LENGTH and frame[14] == _PLAIN_IPV4
        return None, into if holds else None

    def _decide_multicast(self, frame: bytes, port: Port, batch: _Batch, now: float) -> str | None:
        """As :meth:`_decide`, for a frame that is not for one NIC."""
        if port.isolated:
            # What is for all is for the gateway here, such as ARP requests and DHCP.
            batch.multicast_to([], frame)
            return None
        if self.trunks and self._ask_elsewhere(frame, port, batch, now):
            return None
        if may_be_membership(frame):
            if not port.floods.take(now):
                return "switch.drop.flood_rate"
            port.floods.charge(len(frame) // REPORT_BYTES)
            said = self.groups.hear(frame, batch.sender, now)
            if said is Said.LEAVE and self.queries is not None and port.leaves.take(now):
                tell_alive(port.peer, FramesToPeer(self.queries.urgent))
            if said in (Said.REPORT, Said.LEAVE):
                batch.multicast_to(list({*self.groups.routers(now), *self.trunks}), frame)
            else:
                batch.flood(frame)
            return None
        ports = self.groups.members(frame, now)
        if (ports is None or len(ports) > MULTICAST_COPIES) and not port.floods.take(now):
            return "switch.drop.flood_rate"
        if ports is None:
            batch.flood(frame)
        else:
            batch.multicast_to(ports, frame)
        return None

    def _ask_elsewhere(self, frame: bytes, port: Port, batch: _Batch, now: float) -> bool:
        """Answer for guests of other workers who asks where they are; let who is asked for here hear it."""
        holder = None if self.neighbours is None else self.neighbours.holder(frame)
        owner = None if holder is None else self.table.lookup(holder, now)
        if self.neighbours is None or holder is None or owner is None or owner == batch.sender:
            return False
        if owner > FIRST_TRUNK:
            batch.multicast_to([owner], frame)
            return True
        tell_alive(port.peer, FramesToPeer([answer_for(holder, frame)]))
        batch.multicast_to([], frame)
        return True

    def from_trunk(self, trunk: int, frames: list[bytes], now: float) -> None:
        """Pass on what guests of another worker have sent, which that has checked.

        It goes to guests here only: each worker has a gateway for its own, and has sent all others theirs.
        """
        counters = self._counters
        counters.add("switch.received", len(frames))
        batch = _Batch(trunk, Role.TRUNK.value, self.ports)
        for frame in frames:
            try:
                drop = self._decide_from_trunk(frame, batch, now)
            except Exception as error:  # noqa: BLE001 - a bug costs one frame, never the LAN
                self._handler_errors.note(error, now)
                batch.dropped += 1
                continue
            if drop is not None:
                batch.dropped += 1
                counters.add(drop)
        self._deliver(batch, len(frames))

    def _decide_from_trunk(self, frame: bytes, batch: _Batch, now: float) -> str | None:
        """Put a frame where it belongs, or name the counter under which it is dropped."""
        if len(frame) < HEADER_LENGTH:
            return "switch.drop.runt"
        if may_move(frame[6:12]):
            self.table.learn(frame[6:12], batch.sender, now, limit=MAX_MACS)
        destination = frame[:6]
        if destination[0] & 1:
            ports = None
            if may_be_membership(frame):
                # Its worker asks only who is behind the port of the guest that leaves.
                said = self.groups.hear(frame, batch.sender, now, others_stay=True)
                if said is Said.REPORT:
                    ports = self.groups.routers(now)
            else:
                ports = self.groups.members(frame, now)
            if ports is None:
                batch.flood(frame)
            else:
                batch.multicast_to(ports, frame)
            return None
        target = self.table.last_port_of(destination)
        if target is None:
            batch.flood(frame)
            return None
        drop = self._barred(target, batch.role)
        if drop is None:
            batch.unicast_to(target).append(frame)
        return drop

    def _barred(self, target: int, role: int) -> str | None:
        """Name the counter under which a port's frames for another are dropped, if they may not go there."""
        port = self.ports.get(target)
        if port is None or port.takes & role:
            return None
        return "switch.drop.isolated" if (port.role | role) & _ISOLATED else "switch.drop.split_horizon"

    def _refusal(self, frame: bytes, sender: int, port: Port, now: float) -> str | None:
        """Name the counter under which a frame is dropped for what it says of its sender."""
        if len(frame) < HEADER_LENGTH:
            return "switch.drop.runt"
        source = frame[6:12]
        if port.macs is None or source in port.macs:
            verdict = self.table.learn(source, sender, now, limit=port.max_macs)
        else:
            verdict = Verdict.FORBIDDEN
        if verdict is not Verdict.KNOWN:
            if verdict is Verdict.OWNED_ELSEWHERE and self.free_mac(source, now):
                verdict = self.table.learn(source, sender, now, limit=port.max_macs)
            if verdict is Verdict.LEARNED:
                self.tell_aged_out()
                self.learned(source, sender)
            if not verdict.accepted:
                self._tell_of_refusal(source, port, verdict, now)
                from_gateway = source == self._gateway_mac
                return "switch.drop.gateway_source" if from_gateway else _DROPS[verdict]
        inside = without_tags(frame) if frame[12:14] in TAGS else frame
        if inside is None or hides_protocol(inside):
            return "switch.drop.hidden_protocol"
        drop = self._pretends(inside, port)
        if drop is None and inside is frame and self.sources is not None and port.guards_sources:
            return self._refuse_source(self.sources, frame, sender, port, now)
        return drop

    def _refuse_source(
        self, sources: SourceGuard, frame: bytes, sender: int, port: Port, now: float
    ) -> str | None:
        """Name the counter for a frame that names a sender's address which is not its sender's."""
        mac = frame[6:12]
        # A frame may name two addresses: its own, and one that it advertises.
        while (suspicion := sources.look(frame)) is not None:
            if suspicion.drop:
                if suspicion.answer:
                    tell_alive(port.peer, FramesToPeer([suspicion.answer]))
                return f"switch.drop.{suspicion.drop}"
            if not port.claims.take(now):
                return "switch.drop.claim_rate"
            claim = sources.claim(mac, suspicion.address, sender)
            if claim in _NEWS:
                self.tell_gateway(AddressUsed(sender, mac, suspicion.address, claim is Claim.TAKEN))
            if not claim.accepted:
                if is_for_server(frame):
                    # A client that goes on with a lease of elsewhere, or one that is another's by now: the
                    # gateway is to tell it so (RFC 2131 section 4.3.2), and nobody else to hear of it.
                    self.gateway.pass_on(FramesToPeer([frame]), sender)
                return _CLAIM_DROPS[claim]
        return None

    def _pretends(self, frame: bytes, port: Port) -> str | None:
        """As :meth:`_refusal`, for an untagged frame that poses as the gateway's or a server's."""
        ethertype = frame[12:14]
        if ethertype == ETHERTYPE_IPV4:
            return "switch.drop.rogue_dhcp" if port.guards_dhcp and is_for_client(frame) else None
        if not port.guards_router:
            return None
        if ethertype == ETHERTYPE_ARP and frame[28:32] in self._gateway_ips:
            return "switch.drop.gateway_arp"
        if ethertype == ETHERTYPE_IPV6:
            rogue = ra_guard.refusal(frame, self._gateway_ip6)
            return None if rogue is None else f"switch.drop.{rogue}"
        return None

    def _tell_of_refusal(self, source: bytes, port: Port, verdict: Verdict, now: float) -> None:
        """Have the peer say, now and then, whose frames are dropped."""
        if now >= port.next_complaint:
            port.next_complaint = now + COMPLAINT_EVERY
            tell_alive(port.peer, SourceRefused(self.reason(verdict, source), source))

    def reason(self, verdict: Verdict, mac: bytes) -> str:
        """Say why a MAC is refused."""
        return self._gateway_mac_refusal if mac == self._gateway_mac else _REFUSALS[verdict]

    def tell_aged_out(self) -> None:
        """Let the gateway forget the guests whose MACs made room for a new one."""
        for number, mac in self.table.take_aged_out():
            self.forgotten(mac)
            self.tell_gateway(MacAgedOut(number, mac))

    def tell_gateway(self, message: object) -> bool:
        """Tell the gateway something; False where there is none."""
        return tell_alive(self.gateway.peer, message)

    def from_gateway(self, frames: list[bytes]) -> None:
        """Pass on the frames that the gateway has sent."""
        self._counters.add("switch.received", len(frames))
        batch = _Batch(GATEWAY, self.gateway.role, self.ports)
        decided = b""
        into: list[bytes] | None = None
        for frame in frames:
            destination = frame[:6]
            if destination != decided:
                decided = destination
                # A guest that was silent for long may wait for just this; its neighbours do not.
                target = None if destination[0] & 1 else self.table.last_port_of(destination)
                into = None if target is None or target == GATEWAY else batch.unicast_to(target)
            if into is not None:
                into.append(frame)
            elif destination[0] & 1:
                batch.flood(frame)
            else:
                batch.dropped += 1
        if batch.dropped:
            self._counters.add("switch.drop.unknown_destination", batch.dropped)
        self._deliver(batch, len(frames))

    def to_port(self, number: int, frames: list[bytes]) -> None:
        """Pass on the gateway's frames for one port, those for all too."""
        self._counters.add("switch.received", len(frames))
        batch = _Batch(GATEWAY, self.gateway.role, self.ports)
        if number in self.ports:
            batch.unicast_to(number).extend(frames)
        else:
            batch.dropped = len(frames)
            self._counters.add("switch.drop.unknown_destination", len(frames))
        self._deliver(batch, len(frames))

    def _deliver(self, batch: _Batch, received: int) -> None:
        counters, flooded = self._counters, batch.flooded
        unicast = received - len(flooded) - batch.dropped - batch.multicast
        if unicast:
            counters.add("switch.unicast", unicast)
        if batch.multicast:
            counters.add("switch.multicast", batch.multicast)
        for target, frames in batch.by_port.items():
            port = self.ports.get(target)
            if port is None or not port.pass_on(FramesToPeer(frames), batch.sender):
                counters.add("peer.drop.closed", len(frames))
        if not flooded:
            return
        counters.add("switch.flooded", len(flooded))
        to_all = FramesToPeer(flooded)
        for number, hearer in self.ports.items():
            if hearer.hears & batch.role and number != batch.sender and number not in batch.by_port:
                hearer.pass_on(to_all, batch.sender)


class _Batch:
    """Where the frames of one message go. Every port gets its frames in the order in which they came."""

    __slots__ = ("_ports", "by_port", "dropped", "flooded", "multicast", "role", "sender")

    def __init__(self, sender: int, role: int, ports: dict[int, Port]) -> None:
        """``role`` is that of the sender's port, ``ports`` are all there are."""
        self.sender, self.role, self._ports = sender, role, ports
        self.dropped = 0
        self.multicast = 0
        self.flooded: list[bytes] = []
        """Frames for everyone; whoever is not in ``by_port`` gets this list, all the same one."""
        self.by_port: dict[int, list[bytes]] = {}
        """Frames by destination, unicast and flooded."""

    def unicast_to(self, port: int) -> list[bytes]:
        """Return the list that takes frames for ``port``."""
        frames = self.by_port.get(port)
        if frames is None:
            heard = self.flooded and self._is_heard_by(port)
            frames = self.by_port[port] = self.flooded.copy() if heard else []
        return frames

    def multicast_to(self, ports: list[int], frame: bytes) -> None:
        """Take a frame for some ports, but not its sender's, and for the gateway, as far as they hear it."""
        self.multicast += 1
        for port in (*ports, GATEWAY):
            if port != self.sender and self._is_heard_by(port):
                self.unicast_to(port).append(frame)

    def flood(self, frame: bytes) -> None:
        """Take a frame for all ports but the sender's."""
        self.flooded.append(frame)
        for port, frames in self.by_port.items():
            if self._is_heard_by(port):
                frames.append(frame)

    def _is_heard_by(self, number: int) -> bool:
        port = self._ports.get(number)
        return port is None or port.hears & self.role != 0
