"""The LAN's switch: which port a frame goes to, and which source addresses a port may use.

Theory of operation
-------------------
A port is a session, numbered by its id; the gateway is a port of its own with a fixed MAC. Frames come in
batches per port and leave in batches per destination port. Most frames of a batch have the same header as
the one before, so the decision (destination list, source allowed) is kept from frame to frame and taken anew
only when the 14 header bytes change.

Who may use a MAC is in ``netstack.mac_table``: a registration binds it, source addresses are learned, frames
never move one. A Register takes one over, and ends the older session, if it comes from the same client: from
its host, or with the secret that Assigned told (``netstack.resume``). Anyone else, and a frame of an
unregistered session, gets it only if the older session has been silent for SILENT_AFTER: a tab that was
reloaded must not wait until QUIC gives up on the old one.

Guests do not serve DHCP: what is for a client's port is dropped, whoever it is from or for. Tags that only
carry a priority are taken off first, and all checks look through those of VLANs (``netstack.vlan``).

A guest sends from its own addresses only (``netstack.source_guard``); the gateway, which keeps the tables, is
told of those that it did not hold. The gateway's own frames are flooded only if they are for all.

Multicast frames go to the ports that asked for their group (``netstack.multicast``), and to the gateway, in
whose name the switch asks for reports: all ports now and then, a new one once it is known. What goes to many
ports counts against the sender's floods.

Where guests are isolated, all that they send is for the gateway or dropped.

Accounting: ``switch.received`` = ``switch.unicast`` + ``switch.multicast`` + ``switch.flooded`` +
``switch.drop.*``, in frames.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from loguru import logger

from actors.close_codes import CloseCode
from actors.descriptions import Describe, MacDescription, SwitchDescription
from actors.messages import (
    AddressUsed,
    AssignAddress,
    BlockMacs,
    ClosePeer,
    FramesFromGateway,
    FramesFromPeer,
    FramesToGateway,
    FramesToPeer,
    GatewayAttached,
    MacAgedOut,
    PeerList,
    PeerListRequest,
    PortClosed,
    PortLimited,
    PortOpened,
    RegisterMac,
    RegistrationRefused,
    SourceRefused,
)
from actors.mishaps import Mishaps
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from actors.token_bucket import TokenBucket
from netstack import ra_guard
from netstack.address_pool import Claim
from netstack.dhcp import CLIENT_PORT, is_for_client
from netstack.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    HEADER_LENGTH,
    format_mac,
    is_link_control,
)
from netstack.mac_table import MAX_MACS_PER_PORT, MacTable, Verdict
from netstack.multicast import QUERY_INTERVAL, MulticastGroups, Said, may_be_membership
from netstack.resume import is_secret_of, secret_of
from netstack.shares import Shares, client_network
from netstack.vlan import TAGS, hides_protocol, without_priority_tags, without_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.counters import Counters
    from netstack.multicast import Queries
    from netstack.source_guard import SourceGuard

GATEWAY = -1
"""The gateway's port; sessions count from 0."""

SHARED_PORTS = 64
"""Ports from which on no client address may have all: with fewer, those who come are few, and expected."""

SILENT_AFTER = 45.0
"""Seconds without any packet, three QUIC keep-alives, after which a session gives way to its successor."""

CLAIMS_PER_SECOND = 20.0
"""Frames of one port that may name a sender's address which is not known as its own; above it they are
dropped."""

CLAIM_BURST = 100.0
"""How many at once: a bridge comes up with all its guests and their addresses."""

FLOOD_BURST = 2.0
"""Seconds' worth of flooded frames that a port may send at once: a guest boots, a paused tab catches up."""

FIRST_QUERY_AFTER = 1.0
"""Seconds after its registration until a port is asked for multicast groups: clients configure their NIC."""

MULTICAST_COPIES = 8
"""Ports that a group's frame may go to without counting as flooded."""

LEAVES_PER_SECOND = 1.0
LEAVE_BURST = 4.0
"""Queries that a port is sent because somebody behind it left a group; other memberships expire with time."""

COMPLAINT_EVERY = 10.0
"""Seconds between two words to a peer about sources that it may not use; between them frames only count."""

_HEAD = slice(0, 15)
_SOURCE = slice(26, 30)
"""The Ethernet header with the first byte of IPv4, and its source address: frames that are alike in these,
and are not for a DHCP client, go the same way."""
_ETHERTYPE_AND_START = slice(12, 15)
_PLAIN_IPV4 = ETHERTYPE_IPV4 + b"\x45"
"""IPv4 without options. Of all others every frame is looked at: the next one may say something else of who
somebody is."""
_UDP_DESTINATION_PORT = slice(36, 38)
"""Where it stands in a frame, if the IPv4 header has no options."""
_DHCP_CLIENT_PORT = CLIENT_PORT.to_bytes(2, "big")

_DROPS = {
    Verdict.OWNED_ELSEWHERE: "switch.drop.spoofed_source",
    Verdict.INVALID: "switch.drop.invalid_source",
    Verdict.FORBIDDEN: "switch.drop.forbidden_source",
    Verdict.PORT_FULL: "switch.drop.too_many_macs",
    Verdict.TABLE_FULL: "switch.drop.mac_table_full",
}

_NEWS = frozenset({Claim.GRANTED, Claim.TAKEN})
_CLAIM_DROPS = {
    Claim.TAKEN: "switch.drop.spoofed_address",
    Claim.RESERVED: "switch.drop.reserved_address",
    Claim.FOREIGN: "switch.drop.foreign_source",
    Claim.OVER_SHARE: "switch.drop.address_share",
}

_REFUSALS = {
    Verdict.OWNED_ELSEWHERE: "another session uses this MAC address",
    Verdict.INVALID: "this MAC address is not one that a guest may have",
    Verdict.FORBIDDEN: "the token of this session is for other MAC addresses",
    Verdict.PORT_FULL: "this session has registered too many MAC addresses",
    Verdict.TABLE_FULL: "the switch knows too many MAC addresses",
}


class _Port:
    """An attached session."""

    __slots__ = (
        *("asked", "claims", "client", "floods", "last_heard", "leaves", "line", "link_mtu"),
        *("macs", "max_macs", "next_complaint", "owner", "peer"),
    )

    def __init__(self, opened: PortOpened, owner: Hashable, rate: float, now: float) -> None:
        self.owner = owner
        """As whose the port is counted."""
        self.asked = False
        """Whether the port was asked which multicast groups it wants."""
        self.claims = TokenBucket(CLAIMS_PER_SECOND, CLAIM_BURST, now)
        self.floods = TokenBucket(rate, rate * FLOOD_BURST, now)
        self.leaves = TokenBucket(LEAVES_PER_SECOND, LEAVE_BURST, now)
        self.client = opened.client
        self.peer = opened.peer
        self.last_heard = opened.last_heard
        self.link_mtu = opened.link_mtu
        self.line = opened.line
        self.next_complaint = 0.0
        policy = opened.policy
        self.macs = None if policy is None else policy.macs
        """MACs that there may be behind the port; None for any."""
        self.max_macs = MAX_MACS_PER_PORT if policy is None else policy.max_macs
        """How many of them."""


class SwitchActor(EventLoopActor):
    """Forwards frames between the ports of one LAN."""

    def __init__(self, counters: Counters, settings: LanSettings) -> None:
        super().__init__()
        self._counters = counters
        self._settings = settings
        self._gateway: Mailbox | None = None
        self._sources: SourceGuard | None = None
        self._key = secrets.token_bytes(32)
        self._ports: dict[int, _Port] = {}
        share = settings.client_share if settings.max_peers >= SHARED_PORTS else 0
        self._shares = Shares(settings.max_peers, share)
        self._silent: dict[int, None] = {}
        """Ports whose guests have not shown themselves, the oldest first."""
        self._gateway_ip6 = frozenset({settings.gateway_ip6, settings.gateway_link_local})
        self._table = MacTable(reserved=frozenset({settings.gateway_mac}))
        self._groups = MulticastGroups(counters)
        self._queries: Queries | None = None
        self._query_at = NEVER
        self._new_ports: list[int] = []
        """Ports that are to be asked for the first time."""
        self._mishaps = Mishaps("switch", counters)

    # -- frames -------------------------------------------------------------------------------------

    @handles(FramesFromPeer)
    def _from_peer(self, message: FramesFromPeer) -> None:
        sender, frames = message
        self._counters.add("switch.received", len(frames))
        port = self._ports.get(sender)
        if port is None:
            self._counters.add("switch.drop.unknown_port", len(frames))
            return
        batch = _Batch(sender)
        now = self.now()
        decided = b""
        forward: Callable[[bytes], None] = batch.flood
        for received in frames:
            frame = received
            if frame[_HEAD] + frame[_SOURCE] != decided or frame[_UDP_DESTINATION_PORT] == _DHCP_CLIENT_PORT:
                try:
                    if frame[12:14] in TAGS:
                        frame = without_priority_tags(frame)
                    drop, forward, decided = self._decide(frame, port, batch, now)
                except Exception as error:  # noqa: BLE001 - a bug costs one frame, never the LAN
                    self._mishaps.note(error, now)
                    batch.dropped += 1
                    decided = b""
                    continue
                if drop is not None:
                    batch.dropped += 1
                    self._counters.add(drop)
                    continue
            forward(frame)
        self._deliver(batch, len(frames))

    def _decide(
        self, frame: bytes, port: _Port, batch: _Batch, now: float
    ) -> tuple[str | None, Callable[[bytes], None], bytes]:
        """Say why to drop a frame, or None; else where to put it, and for which others that holds too."""
        drop = self._refusal(frame, batch.sender, port, now)
        if drop is not None:
            return drop, batch.flood, b""
        destination = frame[:6]
        if is_link_control(destination):
            return "switch.drop.link_control", batch.flood, b""
        if self._settings.isolated and destination != self._settings.gateway_mac:
            # What is for all is for the gateway here, such as ARP requests and DHCP.
            to_gateway = batch.multicast_to([])
            return None if destination[0] & 1 else "switch.drop.isolated", to_gateway, b""
        if destination[0] & 1:
            return *self._decide_multicast(frame, port, batch, now), b""
        if destination == self._settings.gateway_mac:
            target: int | None = GATEWAY
        else:
            target = self._table.lookup(destination, now)
        if target is None:
            return None if port.floods.take(now) else "switch.drop.flood_rate", batch.flood, b""
        if target == batch.sender:
            return "switch.drop.same_port", batch.flood, b""
        holds_for = frame[_HEAD] + frame[_SOURCE] if frame[_ETHERTYPE_AND_START] == _PLAIN_IPV4 else b""
        return None, batch.unicast_to(target), holds_for

    def _decide_multicast(
        self, frame: bytes, port: _Port, batch: _Batch, now: float
    ) -> tuple[str | None, Callable[[bytes], None]]:
        """As :meth:`_decide`, for a frame that is not for one NIC."""
        if may_be_membership(frame):
            if not port.floods.take(now):
                return "switch.drop.flood_rate", batch.flood
            said = self._groups.hear(frame, batch.sender, now)
            if said is Said.LEAVE and self._queries is not None and port.leaves.take(now):
                tell_alive(port.peer, FramesToPeer(self._queries.urgent))
            if said in (Said.REPORT, Said.LEAVE):
                return None, batch.multicast_to(self._groups.routers(now))
            return None, batch.flood
        ports = self._groups.members(frame, now)
        if (ports is None or len(ports) > MULTICAST_COPIES) and not port.floods.take(now):
            return "switch.drop.flood_rate", batch.flood
        return None, batch.flood if ports is None else batch.multicast_to(ports)

    def _refusal(self, frame: bytes, sender: int, port: _Port, now: float) -> str | None:
        """Name the counter under which a frame is dropped for what it says of its sender."""
        if len(frame) < HEADER_LENGTH:
            return "switch.drop.runt"
        source = frame[6:12]
        if port.macs is None or source in port.macs:
            verdict = self._table.learn(source, sender, now, limit=port.max_macs)
        else:
            verdict = Verdict.FORBIDDEN
        if verdict is Verdict.LEARNED:
            self._tell_aged_out()
        if not verdict.accepted:
            self._tell_of_refusal(source, sender, verdict, now)
            from_gateway = source == self._settings.gateway_mac
            return "switch.drop.gateway_source" if from_gateway else _DROPS[verdict]
        inside = without_tags(frame) if frame[12:14] in TAGS else frame
        if inside is None or hides_protocol(inside):
            return "switch.drop.hidden_protocol"
        drop = self._pretends(inside)
        if drop is None and inside is frame and self._sources is not None:
            return self._refuse_source(self._sources, frame, sender, port, now)
        return drop

    def _refuse_source(
        self, sources: SourceGuard, frame: bytes, sender: int, port: _Port, now: float
    ) -> str | None:
        """Name the counter for a frame that names a sender's address which is not its sender's."""
        mac = frame[6:12]
        # A frame may name two addresses: its own, and one that it advertises.
        while (suspicion := sources.look(frame)) is not None:
            if suspicion.drop:
                return f"switch.drop.{suspicion.drop}"
            if not port.claims.take(now):
                return "switch.drop.claim_rate"
            claim = sources.claim(mac, suspicion.address, sender)
            if self._gateway is not None and claim in _NEWS:
                contested = claim is Claim.TAKEN
                tell_alive(self._gateway, AddressUsed(sender, mac, suspicion.address, contested))
            if not claim.accepted:
                return _CLAIM_DROPS[claim]
        return None

    def _pretends(self, frame: bytes) -> str | None:
        """As :meth:`_refusal`, for an untagged frame that poses as the gateway's or a server's."""
        ethertype = frame[12:14]
        if ethertype == ETHERTYPE_ARP and frame[28:32] in self._settings.gateway_ips:
            return "switch.drop.gateway_arp"
        if ethertype == ETHERTYPE_IPV6:
            rogue = ra_guard.refusal(frame, self._gateway_ip6)
            return None if rogue is None else f"switch.drop.{rogue}"
        return "switch.drop.rogue_dhcp" if self._settings.dhcp and is_for_client(frame) else None

    def _tell_of_refusal(self, source: bytes, sender: int, verdict: Verdict, now: float) -> None:
        """Have the peer say, now and then, whose frames are dropped."""
        port = self._ports[sender]
        if now >= port.next_complaint:
            port.next_complaint = now + COMPLAINT_EVERY
            tell_alive(port.peer, SourceRefused(self._reason(verdict, source), source))

    def _reason(self, verdict: Verdict, mac: bytes) -> str:
        is_gateways = mac == self._settings.gateway_mac
        return self._settings.gateway_mac_refusal if is_gateways else _REFUSALS[verdict]

    @handles(FramesFromGateway)
    def _from_gateway(self, message: FramesFromGateway) -> None:
        frames = message.frames
        self._counters.add("switch.received", len(frames))
        batch = _Batch(GATEWAY)
        decided = b""
        forward: Callable[[bytes], None] = batch.flood
        for frame in frames:
            destination = frame[:6]
            if destination != decided:
                decided = destination
                if destination[0] & 1:
                    forward = batch.flood
                else:
                    # A guest that was silent for long may wait for just this; its neighbours do not.
                    target = self._table.last_port_of(destination)
                    forward = batch.drop if target is None else batch.unicast_to(target)
            forward(frame)
        if batch.dropped:
            self._counters.add("switch.drop.unknown_destination", batch.dropped)
        self._deliver(batch, len(frames))

    def _deliver(self, batch: _Batch, received: int) -> None:
        flooded = batch.flooded
        unicast = received - len(flooded) - batch.dropped - batch.multicast
        if unicast:
            self._counters.add("switch.unicast", unicast)
        if batch.multicast:
            self._counters.add("switch.multicast", batch.multicast)
        for target, frames in batch.by_port.items():
            if target == GATEWAY:
                self._tell_gateway(FramesToGateway(batch.sender, frames))
            elif (port := self._ports.get(target)) is None or not tell_alive(port.peer, FramesToPeer(frames)):
                self._counters.add("peer.drop.closed", len(frames))
        if not flooded:
            return
        self._counters.add("switch.flooded", len(flooded))
        to_all = FramesToPeer(flooded)
        for number, port in self._ports.items():
            if number != batch.sender and number not in batch.by_port:
                tell_alive(port.peer, to_all)
        if batch.sender != GATEWAY and GATEWAY not in batch.by_port:
            self._tell_gateway(FramesToGateway(batch.sender, flooded))

    def _tell_gateway(self, message: FramesToGateway) -> None:
        if self._gateway is None or not tell_alive(self._gateway, message):
            self._counters.add("gateway.drop.absent", len(message.frames))

    # -- ports and registrations ----------------------------------------------------------------------

    @handles(GatewayAttached)
    def _gateway_attached(self, message: GatewayAttached) -> None:
        self._gateway = message.gateway
        self._sources = message.sources
        self._queries = message.queries
        self._query_at = self.now()
        self._set_timer()

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        if self.now() < self._query_at:
            self._ask_for_groups(self._new_ports)
        else:
            self._query_at = self.now() + QUERY_INTERVAL
            self._groups.expire(self.now())
            self._ask_for_groups([number for number, port in self._ports.items() if port.asked])
        self._new_ports = []
        self._set_timer()

    def _set_timer(self) -> None:
        if self._queries is not None:
            new_at = self.now() + FIRST_QUERY_AFTER if self._new_ports else NEVER
            self.poll_at = min(self._query_at, new_at, self.poll_at if self._new_ports else NEVER)

    def _ask_for_groups(self, numbers: list[int]) -> None:
        """Have guests say which multicast groups they want."""
        if self._queries is not None:
            queries = FramesToPeer(self._queries.general)
            for number in numbers:
                if number in self._ports:
                    tell_alive(self._ports[number].peer, queries)

    @handles(PortOpened)
    def _port_opened(self, message: PortOpened) -> None:
        owner = client_network(message.client()) or message.port
        if self._shares.is_tight:
            self._make_room(owner)
        if not self._shares.may_take(owner):
            limit = self._settings.max_peers
            full = len(self._ports) >= limit
            self._counters.add("switch.ports_refused" if full else "switch.ports_refused_to_one_address")
            reason = f"this LAN is full: it has {limit} ports" if full else "too many sessions of one address"
            tell_alive(message.peer, ClosePeer(CloseCode.FULL, reason))
            return
        self._shares.add(owner)
        self._silent[message.port] = None
        rate = self._settings.floods_per_second
        self._ports[message.port] = _Port(message, owner, rate, self.now())
        if message.policy is not None and self._gateway is not None:
            tell_alive(self._gateway, PortLimited(message.port, message.policy))

    def _make_room(self, owner: Hashable) -> None:
        """Close the oldest session that never said anything, of an address that has more than half of all."""
        for number in self._silent:
            other = self._ports[number].owner
            if other != owner and self._shares.held_by(other) > self._shares.limit // 2:
                self._counters.add("switch.silent_ports_closed")
                reason = "others need the port of this session, which never said anything"
                tell_alive(self._ports[number].peer, ClosePeer(CloseCode.SILENT, reason))
                self._port_closed(PortClosed(number))
                return

    @handles(PortClosed)
    def _port_closed(self, message: PortClosed) -> None:
        port = self._ports.pop(message.port, None)
        if port is None:
            return
        self._shares.give_back(port.owner)
        self._silent.pop(message.port, None)
        self._table.forget_port(message.port)
        self._groups.forget_port(message.port)
        if self._gateway is not None:
            tell_alive(self._gateway, message)

    @handles(RegisterMac)
    def _register_mac(self, message: RegisterMac) -> None:
        port = self._ports.get(message.port)
        if port is None:
            return
        now = self.now()
        verdict, displaced = Verdict.FORBIDDEN, None
        if port.macs is None or message.mac in port.macs:
            takes_over = self._may_take(message, port, now)
            verdict, displaced = self._table.register(
                message.mac, message.port, now, explicit=takes_over, limit=port.max_macs
            )
        self._tell_aged_out()
        if not verdict.accepted:
            tell_alive(port.peer, RegistrationRefused(self._reason(verdict, message.mac), message.mac))
            return
        self._silent.pop(message.port, None)
        if not port.asked:
            port.asked = True
            self._new_ports.append(message.port)
            self._set_timer()
        if displaced is not None and displaced in self._ports:
            logger.info("peer {} takes {} over from {}", message.port, format_mac(message.mac), displaced)
            self._counters.add("switch.takeovers")
            reason = f"another session registered {format_mac(message.mac)}"
            tell_alive(self._ports[displaced].peer, ClosePeer(CloseCode.TAKEN_OVER, reason))
        assign = AssignAddress(
            message.port,
            message.mac,
            port.peer,
            message.name,
            port.link_mtu,
            port.line,
            secret_of(self._key, message.mac),
            client_network(port.client()),
            name_is_fixed=message.name_is_fixed,
        )
        if self._gateway is None or not tell_alive(self._gateway, assign):
            tell_alive(port.peer, RegistrationRefused("this LAN has no gateway", message.mac))

    def _tell_aged_out(self) -> None:
        """Let the gateway forget the guests whose MACs made room for a new one."""
        for number, mac in self._table.take_aged_out():
            if self._gateway is not None:
                tell_alive(self._gateway, MacAgedOut(number, mac))

    def _may_take(self, message: RegisterMac, port: _Port, now: float) -> bool:
        """Whether a session may have a MAC that is another's, if it is.

        Of a session that nothing was heard of for a while, anyone; else the same client, which a Register
        shows by where it comes from, or by the secret that came with the address; and whose token names it,
        of a session whose token does not.
        """
        owner = self._table.lookup(message.mac, now)
        other = None if owner is None else self._ports.get(owner)
        if other is None:
            return True
        if now - other.last_heard() >= SILENT_AFTER:
            return True
        if not message.explicit:
            return False
        if port.macs is not None and (other.macs is None or message.mac not in other.macs):
            return True
        return port.client() == other.client() != "" or is_secret_of(self._key, message.mac, message.resume)

    @handles(BlockMacs)
    def _block_macs(self, message: BlockMacs) -> None:
        for number, mac in self._table.block(message.macs):
            if self._gateway is not None:
                tell_alive(self._gateway, MacAgedOut(number, mac))

    @handles(Describe)
    def _describe(self, _: Describe) -> SwitchDescription:
        macs = self._table.entries(self.now())
        return SwitchDescription(
            ports=len(self._ports),
            macs=tuple(
                MacDescription(format_mac(mac), port, registered=silent is None, silent=silent)
                for mac, port, silent in macs
            ),
        )

    @handles(PeerListRequest)
    def _peer_list_request(self, message: PeerListRequest) -> None:
        if self._gateway is None or not tell_alive(self._gateway, message):
            tell_alive(message.peer, PeerList(()))


class _Batch:
    """Where the frames of one message go. Every port gets its frames in the order in which they came."""

    __slots__ = ("by_port", "dropped", "flooded", "multicast", "sender")

    def __init__(self, sender: int) -> None:
        self.sender = sender
        self.dropped = 0
        self.multicast = 0
        self.flooded: list[bytes] = []
        """Frames for everyone; whoever is not in ``by_port`` gets this list, all the same one."""
        self.by_port: dict[int, list[bytes]] = {}
        """Frames by destination, unicast and flooded."""

    def unicast_to(self, port: int) -> Callable[[bytes], None]:
        """Return what takes frames for ``port``."""
        frames = self.by_port.get(port)
        if frames is None:
            frames = self.by_port[port] = self.flooded.copy()
        return frames.append

    def multicast_to(self, ports: list[int]) -> Callable[[bytes], None]:
        """Return what takes frames for some ports, but not their sender's, and for the gateway."""

        def take(frame: bytes) -> None:
            self.multicast += 1
            for port in ports:
                if port != self.sender:
                    self.unicast_to(port)(frame)
            self.unicast_to(GATEWAY)(frame)

        return take

    def drop(self, _frame: bytes) -> None:
        """Count a frame that goes nowhere."""
        self.dropped += 1

    def flood(self, frame: bytes) -> None:
        """Take a frame for all ports but the sender's."""
        self.flooded.append(frame)
        for frames in self.by_port.values():
            frames.append(frame)
