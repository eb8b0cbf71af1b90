"""The LAN's switch: which port a frame goes to, and which source addresses a port may use.

Theory of operation
-------------------
A port is a session, numbered by its id; the gateway has a port from the start, with a MAC that is reserved
for it. Frames come in batches per port and leave in batches per destination port (``actors.lan.forwarding``,
which decides about each by the rules below); this module keeps the ports.

Who may use a MAC is in ``netstack.mac_table``: a registration binds it, source addresses are learned, frames
never move one. A Register takes one over, and ends the older session, if it comes from the same client: from
its host, or with the secret that Assigned told (``netstack.resume``). Anyone else, and a frame of an
unregistered session, gets it only if the older session has been silent for SILENT_AFTER: a tab that was
reloaded must not wait until QUIC gives up on the old one.

With the secret the newer session gets the older one's port, with its MACs, addresses and flows, and that
one's PeerActor ends. So does a client that comes back after its session was lost: its port is kept for a
while (PortAbsent). Such ports are counted by themselves, one for PORTS_PER_ABSENT others at most; who else
uses a MAC of one, by a Register or by its frames, ends it. Where another worker of this machine has that
port, the session is carried there (PortElsewhere), and has none here.

Guests do not serve DHCP: what is for a client's port is dropped, whoever it is from or for. Tags that only
carry a priority are taken off first, and all checks look through those of VLANs (``netstack.vlan``).

A guest sends from its own addresses only (``netstack.source_guard``); the gateway, which keeps the tables, is
told of those that it did not hold. The gateway's own frames are flooded only if they are for all, and not for
whoever is behind one port (FramesToPort).

Multicast frames go to the ports that asked for their group (``netstack.multicast``), and to the gateway, in
whose name the switch asks for reports: all ports now and then, a new one once it is known. What goes to many
ports counts against the sender's floods.

A room may have parts at other workers (``netstack.room_state``). Each worker with ports of the room is a port
here (``actors.lan.trunk``), behind which its guests' MACs are bound as it announces them; what comes from
there it has checked. It goes to guests here, never on to another worker, and not to the gateway: each worker
has one for its own guests. A MAC of another worker's guest is taken over by the same rules, decided here with
what was announced of it; its worker is told by the higher ``seq``, and ends its session.

What a port may is in its policy (``actors.port_policy``), which comes with it: MACs, floods, which of these
guards there are, and its role, by which tables say whom it hears (HEARS) and what reaches it (TAKES). Where
it isolates its guests, all that they send is for the gateway or dropped, and what other guests send does not
reach them.

Accounting: ``switch.received`` = ``switch.unicast`` + ``switch.multicast`` + ``switch.flooded`` +
``switch.drop.*``, in frames.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from loguru import logger

from actors.close_codes import CloseCode
from actors.descriptions import Describe, MacDescription, SwitchDescription
from actors.lan.forwarding import FIRST_TRUNK, GATEWAY, Forwarding, Port
from actors.lan.trunk import Elsewhere
from actors.messages import (
    AddressWanted,
    AssignAddress,
    BlockMacs,
    ClosePeer,
    FramesFromGateway,
    FramesFromPeer,
    FramesToPeer,
    FramesToPort,
    GatewayAttached,
    MacAgedOut,
    PeerAt,
    PeerList,
    PeerListRequest,
    PortAbsent,
    PortClosed,
    PortLimited,
    PortOpened,
    PortResumed,
    PortTaken,
    RegisterMac,
    RegistrationRefused,
    SettingsChanged,
)
from actors.port_policy import usual_policy
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from actors.trunk_messages import (
    AddressContested,
    AddressNeededElsewhere,
    AddressTaken,
    FramesFromTrunk,
    GuestElsewhere,
    GuestNowhereElse,
    PortElsewhere,
    WorkersChanged,
)
from netstack.ethernet import format_mac
from netstack.mac_table import Verdict, may_move
from netstack.multicast import QUERY_INTERVAL
from netstack.resume import is_secret_of, secret_of
from netstack.room_wire import Flag
from netstack.shares import Shares, client_network

if TYPE_CHECKING:
    from collections.abc import Hashable

    from actors.ports import RoomLink
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.counters import Counters

SHARED_PORTS = 64
"""Ports from which on no client address may have all: with fewer, those who come are few, and expected."""

PORTS_PER_ABSENT = 4
"""For so many ports that there may be, one more may wait for its client."""

SILENT_AFTER = 45.0
"""Seconds without any packet, three QUIC keep-alives, after which a session gives way to its successor."""

ANNOUNCED_EVERY = 5.0
"""Seconds between looks at what other workers should know of our ports: who is silent, where clients are."""

GIVEN_UP_WITHIN = 0.2
"""Seconds that another worker has to let a client go that is away, for an address that is needed here."""

MAX_WANTED = 512
"""Registrations that wait for that."""

ADDRESS_NEEDED = "its address is needed"

FIRST_QUERY_AFTER = 1.0
"""Seconds after its registration until a port is asked for multicast groups: clients configure their NIC."""


def _shared_ports(settings: LanSettings) -> tuple[tuple[int, int], tuple[int, int]]:
    """Tell how many ports there are, those of clients that are away too, and the percent for one address."""
    share = settings.client_share if settings.max_peers >= SHARED_PORTS else 0
    return (settings.max_peers, share), (max(1, settings.max_peers // PORTS_PER_ABSENT), share)


class SwitchActor(EventLoopActor):
    """Forwards frames between the ports of one LAN."""

    def __init__(self, counters: Counters, settings: LanSettings, link: RoomLink | None = None) -> None:
        """``link`` joins the parts of the room at other workers; None where there is only this one."""
        super().__init__()
        self._counters = counters
        self._settings = settings
        self._forwarding = Forwarding(counters, settings)
        self._usual = usual_policy(settings)
        self._ports, self._table, self._groups = (
            self._forwarding.ports,
            self._forwarding.table,
            self._forwarding.groups,
        )
        self._forwarding.free_mac = self._free_mac
        self._link = link
        key = None if link is None else link.key_of()
        self._key = key or secrets.token_bytes(32)
        (ports, share), (absent, _) = _shared_ports(settings)
        self._shares = Shares(ports, share)
        self._absent: dict[int, None] = {}
        """Ports whose clients are away."""
        self._absent_shares = Shares(absent, share)
        self._wanted: dict[bytes, tuple[AssignAddress, float]] = {}
        """Who waits for the address of a MAC elsewhere, and how long, the one that waits longest first."""
        self._former = self._forwarding.former
        self._silent: dict[int, None] = {}
        """Ports whose guests have not shown themselves, the oldest first."""
        self._query_at = NEVER
        self._announce_at = NEVER if link is None else self.now() + ANNOUNCED_EVERY
        self._new_ports: dict[int, float] = {}
        """Ports that are to be asked for the first time, with when; the next one first."""

        self._elsewhere: Elsewhere | None = None
        if link is not None:
            self._elsewhere = Elsewhere(
                link, self._forwarding, self._usual, self._shares, self._absent_shares
            )
            self._forwarding.learned = self._announce
            self._forwarding.forgotten = link.absent

    # -- frames -------------------------------------------------------------------------------------

    @handles(FramesFromPeer)
    def _from_peer(self, message: FramesFromPeer) -> None:
        self._forwarding.from_peer(message.port, message.frames, self.now())

    @handles(FramesFromGateway)
    def _from_gateway(self, message: FramesFromGateway) -> None:
        self._forwarding.from_gateway(message.frames)

    @handles(FramesToPort)
    def _to_port(self, message: FramesToPort) -> None:
        self._forwarding.to_port(message.port, message.frames)

    @handles(SettingsChanged)
    def _settings_changed(self, message: SettingsChanged) -> None:
        """Have other limits for the sessions that come, and for ports what they have not of their own."""
        self._settings = message.settings
        present, absent = _shared_ports(message.settings)
        self._shares.resize(*present)
        self._absent_shares.resize(*absent)
        usual = usual_policy(message.settings)
        if usual == self._usual:
            return
        self._usual, now = usual, self.now()
        for number, port in self._ports.items():
            if number > GATEWAY:
                port.go_by(port.policy.following(usual), now)
        if self._elsewhere is not None:
            self._elsewhere.go_by(usual, now)

    # -- other workers ------------------------------------------------------------------------------

    @handles(FramesFromTrunk)
    def _from_trunk(self, message: FramesFromTrunk) -> None:
        self._forwarding.from_trunk(FIRST_TRUNK - message.worker, message.frames, self.now())

    @handles(WorkersChanged)
    def _workers_changed(self, message: WorkersChanged) -> None:
        if self._elsewhere is not None and self._elsewhere.set_workers(message.ports, self.now()):
            # Which groups our guests want has to be known there too.
            self._new_ports |= dict.fromkeys(
                [number for number, port in self._ports.items() if port.asked], self.now() + FIRST_QUERY_AFTER
            )
            self._set_timer()

    @handles(GuestElsewhere)
    def _guest_elsewhere(self, message: GuestElsewhere) -> None:
        """Let frames for a guest go to its worker, and end our session that has its MAC."""
        if self._elsewhere is None or self._link is None:
            return
        mac, now = message.binding.mac, self.now()
        owner = self._table.last_port_of(mac)
        if owner is not None and owner > GATEWAY:
            if not message.lost and self._link.is_here(mac):
                return  # it was taken over here meanwhile
            self._link.absent(mac)
            self._forwarding.tell_gateway(MacAgedOut(owner, mac))
        displaced = self._elsewhere.bind(message.worker, message.binding, now)
        if displaced in self._absent:
            self._end_absence(displaced, f"{format_mac(mac)} is used by another session")
        elif displaced is not None and displaced > GATEWAY and displaced in self._ports:
            self._tell_taken_over(displaced, mac)
        self._forwarding.tell_gateway(message)

    @handles(GuestNowhereElse)
    def _guest_nowhere_else(self, message: GuestNowhereElse) -> None:
        if self._elsewhere is not None:
            self._elsewhere.unbind(message.mac)
        self._forwarding.tell_gateway(message)
        if message.mac in self._wanted:
            self._ask_again(message.mac)

    @handles(AddressTaken, AddressContested)
    def _for_gateway(self, message: AddressTaken | AddressContested) -> None:
        self._forwarding.tell_gateway(message)

    def _announce(self, mac: bytes, number: int) -> None:
        """Tell the other workers of a MAC that is behind a port here."""
        port = self._ports.get(number)
        if self._link is None or self._elsewhere is None or port is None or may_move(mac):
            return
        self._elsewhere.taken(mac)
        silent = number in self._absent or self.now() - port.last_heard() >= SILENT_AFTER
        flags = Flag.SILENT if silent else Flag(0)
        if number in self._absent:
            flags |= Flag.AWAY
        if port.macs is not None and mac in port.macs:
            flags |= Flag.NAMED_BY_TOKEN
        self._link.present(mac, number, port.client(), int(flags))

    def _announce_again(self) -> None:
        """Tell the other workers whose sessions have fallen silent, or move; forget MACs that aged out."""
        self._table.expire(self.now())
        self._forwarding.tell_aged_out()
        for number in list(self._ports):
            if number > GATEWAY:
                for mac in self._table.macs_of(number):
                    self._announce(mac, number)

    def _count_ports(self) -> None:
        if self._link is not None:
            self._link.set_ports(self._forwarding.sessions)

    # -- ports and registrations ----------------------------------------------------------------------

    @handles(GatewayAttached)
    def _gateway_attached(self, message: GatewayAttached) -> None:
        forwarding = self._forwarding
        forwarding.gateway.peer, forwarding.sources = message.gateway, message.sources
        forwarding.queries, forwarding.neighbours = message.queries, message.neighbours
        if self._link is not None:  # now the gateway hears too who is elsewhere
            self._link.attach(self.actor_ref)
        self._query_at = self.now()
        self._set_timer()

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        now = self.now()
        due = [number for number, at in self._new_ports.items() if now >= at]
        for number in due:
            del self._new_ports[number]
        if now >= self._query_at:
            self._query_at = now + QUERY_INTERVAL
            self._groups.expire(now)
            due = [
                number for number, port in self._ports.items() if port.asked and number not in self._new_ports
            ]
        self._ask_for_groups(due)
        for mac in [mac for mac, (_, until) in self._wanted.items() if now >= until]:
            self._ask_again(mac)
        if now >= self._announce_at:
            self._announce_at = now + ANNOUNCED_EVERY
            self._announce_again()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._forwarding.queries is not None:
            given_up = next((until for _, until in self._wanted.values()), NEVER)
            first_query = next(iter(self._new_ports.values()), NEVER)
            self.poll_at = min(self._query_at, self._announce_at, first_query, given_up)

    def _ask_for_groups(self, numbers: list[int]) -> None:
        """Have guests say which multicast groups they want."""
        queries = self._forwarding.queries
        if queries is not None:
            message = FramesToPeer(queries.general)
            for number in numbers:
                if number in self._ports:
                    tell_alive(self._ports[number].peer, message)

    @handles(PortOpened)
    def _port_opened(self, message: PortOpened) -> None:
        owner = client_network(message.client()) or message.port
        if self._shares.is_tight:
            self._make_room(owner)
        if not self._shares.may_take(owner):
            limit = self._settings.max_peers
            full = self._shares.total >= limit
            self._counters.add("switch.ports_refused" if full else "switch.ports_refused_to_one_address")
            reason = f"this LAN is full: it has {limit} ports" if full else "too many sessions of one address"
            tell_alive(message.peer, ClosePeer(CloseCode.FULL, reason))
            return
        self._shares.add(owner)
        self._silent[message.port] = None
        self._ports[message.port] = Port(message, owner, self._usual, self.now())
        self._count_ports()
        if message.policy is not None:
            self._forwarding.tell_gateway(PortLimited(message.port, message.policy))

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
        number = message.port if message.port in self._ports else self._former.get(message.port)
        port = None if number is None else self._ports.get(number)
        if number is None or port is None:
            return
        if message.peer is not None and message.peer is not port.peer:
            return  # another session has the port by now
        del self._ports[number]
        self._give_share_back(number, port.owner)
        self._former.pop(port.opened_as, None)
        self._forget(number)

    def _give_share_back(self, number: int, owner: Hashable) -> None:
        """Note that a client has a port less: one that waits for its session, or one with a session."""
        if number in self._absent:
            del self._absent[number]
            self._absent_shares.give_back(owner)
        else:
            self._shares.give_back(owner)

    def _forget(self, number: int) -> None:
        """Let go of all that is known of a port."""
        self._silent.pop(number, None)
        self._new_ports.pop(number, None)
        macs = self._table.forget_port(number)
        if self._link is not None:
            for mac in macs:
                self._link.absent(mac)
            self._count_ports()
        self._groups.forget_port(number)
        self._forwarding.tell_gateway(PortClosed(number))

    # -- clients that are away ------------------------------------------------------------------------

    @handles(PortAbsent)
    def _port_absent(self, message: PortAbsent) -> None:
        port = self._ports.get(message.port)
        if port is None or port.peer is not message.peer:
            return
        if not self._absent_shares.take(port.owner):
            self._counters.add("switch.absences_refused")
            self._end_absence(message.port, "too many clients are away")
            return
        self._shares.give_back(port.owner)
        self._absent[message.port] = None
        if self._new_ports.pop(message.port, None) is not None:
            port.asked = False  # it is asked when it is back
        for mac in self._table.macs_of(message.port):
            self._announce(mac, message.port)

    def _end_absence(self, number: int, reason: str) -> None:
        tell_alive(self._ports[number].peer, ClosePeer(CloseCode.SILENT, reason))
        self._port_closed(PortClosed(number))

    @handles(AddressWanted)
    def _address_wanted(self, message: AddressWanted) -> None:
        """Let those who are here go before those who are away, and ask for the address again."""
        registration = message.registration
        own = (number for number in self._absent if self._ports[number].owner == registration.client)
        number = next(own, None)
        if number is None and not message.share:
            number = next(iter(self._absent), None)
        attempts_left = 0
        if number is not None:
            self._counters.add("switch.absences_cut_short")
            self._end_absence(number, ADDRESS_NEEDED)
            attempts_left = registration.attempts_left - 1
        elif self._elsewhere is not None and len(self._wanted) < MAX_WANTED:
            mac = self._elsewhere.ask_who_is_away(registration.client, only_own=message.share)
            if mac is not None:
                self._wanted[mac] = registration, self.now() + GIVEN_UP_WITHIN
                self._set_timer()
                return
        if registration.port in self._ports:
            self._forwarding.tell_gateway(replace(registration, attempts_left=attempts_left))

    def _ask_again(self, mac: bytes) -> None:
        """Ask for an address again: a guest elsewhere has given its own up, or does not."""
        registration, _ = self._wanted.pop(mac)
        if registration.port in self._ports:
            left = registration.attempts_left - 1
            self._forwarding.tell_gateway(replace(registration, attempts_left=left))

    @handles(AddressNeededElsewhere)
    def _address_needed_elsewhere(self, message: AddressNeededElsewhere) -> None:
        """Let a client that is away go for one that is at another worker."""
        owner = self._table.last_port_of(message.mac)
        if owner in self._absent:
            self._counters.add("switch.absences_cut_short")
            self._end_absence(owner, ADDRESS_NEEDED)

    def _free_mac(self, mac: bytes, now: float) -> bool:
        """End the absence of a client whose MAC another uses, who is there; whether there was one."""
        owner = self._table.lookup(mac, now)
        if owner is None or owner not in self._absent:
            return False
        self._end_absence(owner, f"{format_mac(mac)} is used by another session")
        return True

    def _resumes(self, message: RegisterMac, now: float) -> int | None:
        """Tell the port that a session may have again, by the secret of its MAC.

        Not one that may do something else: limits and rights go with the port.
        """
        owner = self._table.lookup(message.mac, now)
        if owner is None or owner <= GATEWAY or owner == message.port:
            return None
        if not message.explicit or owner not in self._ports:
            return None
        if self._ports[owner].policy != self._ports[message.port].policy:
            return None
        return owner if is_secret_of(self._key, message.mac, owner, message.resume) else None

    def _resume(self, number: int, newer: int) -> Port:
        """Give the port ``number`` to the session that was opened as ``newer``."""
        port, opened = self._ports[number], self._ports.pop(newer)
        tell_alive(opened.peer, PortResumed(number, port.line))
        tell_alive(port.peer, PortTaken(opened.peer))
        self._give_share_back(number, port.owner)
        self._forget(newer)
        self._former.pop(port.opened_as, None)
        self._former[newer] = number
        port.change_session(opened)
        self._counters.add("switch.resumed")
        return port

    def _is_carried(self, message: RegisterMac, port: Port) -> bool:
        """Have a session that has nothing here passed on to the worker which keeps its client's port."""
        if self._elsewhere is None or self._link is None or self._table.macs_of(message.port):
            return False
        worker = self._elsewhere.holder(message)
        if worker is None:
            return False
        logger.info("peer {} is carried to worker {}, which has its port", message.port, worker)
        self._counters.add("switch.carried")
        self._port_closed(PortClosed(message.port))
        tell_alive(port.peer, PortElsewhere(worker, self._link))
        return True

    @handles(RegisterMac)
    def _register_mac(self, message: RegisterMac) -> None:
        port = self._ports.get(message.port)
        if port is None:
            return
        now = self.now()
        number = message.port
        verdict, displaced = Verdict.FORBIDDEN, None
        if port.macs is None or message.mac in port.macs:
            if self._is_carried(message, port):
                return
            resumed = self._resumes(message, now)
            if resumed is not None:
                port, number = self._resume(resumed, number), resumed
            takes_over = self._may_take(message, port, now)
            # Who only was heard to use the MAC of a virtual router has it until another is.
            binds = message.explicit or not may_move(message.mac)
            verdict, displaced = self._table.register(
                message.mac, number, now, explicit=takes_over, binds=binds, limit=port.max_macs
            )
        self._forwarding.tell_aged_out()
        if not verdict.accepted:
            tell_alive(
                port.peer, RegistrationRefused(self._forwarding.reason(verdict, message.mac), message.mac)
            )
            return
        self._silent.pop(number, None)
        if not port.asked:
            port.asked = True
            self._new_ports[number] = now + FIRST_QUERY_AFTER
            self._set_timer()
        if displaced is not None and displaced in self._ports:
            logger.info("peer {} takes {} over from {}", number, format_mac(message.mac), displaced)
            self._counters.add("switch.takeovers")
            if displaced > GATEWAY:
                self._tell_taken_over(displaced, message.mac)
        self._announce(message.mac, number)
        assign = AssignAddress(
            number,
            message.mac,
            port.peer,
            message.name,
            port.link_mtu,
            port.line,
            secret_of(self._key, message.mac, number),
            client_network(port.client()),
            name_is_fixed=message.name_is_fixed,
            wanted=message.wanted,
        )
        if not self._forwarding.tell_gateway(assign):
            tell_alive(port.peer, RegistrationRefused("this LAN has no gateway", message.mac))

    def _tell_taken_over(self, number: int, mac: bytes) -> None:
        reason = f"another session registered {format_mac(mac)}"
        tell_alive(self._ports[number].peer, ClosePeer(CloseCode.TAKEN_OVER, reason))

    def _may_take(self, message: RegisterMac, port: Port, now: float) -> bool:
        """Whether a session may have a MAC that is another's, if it is.

        Of a session that nothing was heard of for a while, or that was lost, anyone; else the same client,
        which a Register shows by where it comes from, or by the secret that came with the address; and whose
        token names it, of a session whose token does not. Where it is the other way round, only the secret
        counts: many clients may come from one host.
        """
        owner = self._table.lookup(message.mac, now)
        if owner is not None and owner < GATEWAY and self._elsewhere is not None:
            return self._elsewhere.may_be_taken(message, port)
        other = None if owner is None else self._ports.get(owner)
        if other is None or owner in self._absent:
            return True
        if now - other.last_heard() >= SILENT_AFTER:
            return True
        if not message.explicit:
            return False
        is_named = other.macs is not None and message.mac in other.macs
        names_it = port.macs is not None  # else the MAC would not be asked for
        if names_it and not is_named:
            return True
        is_same_client = port is other or port.client() == other.client() != ""
        if is_same_client and names_it == is_named:
            return True
        if owner is None or owner <= GATEWAY:
            return False
        return is_secret_of(self._key, message.mac, owner, message.resume)

    @handles(PeerAt)
    def _peer_at(self, message: PeerAt) -> Mailbox | None:
        port = self._ports.get(message.port) if message.port > GATEWAY else None
        return None if port is None else port.peer

    @handles(BlockMacs)
    def _block_macs(self, message: BlockMacs) -> None:
        for number, mac in self._table.block(message.macs):
            self._forwarding.forgotten(mac)
            self._forwarding.tell_gateway(MacAgedOut(number, mac))

    @handles(Describe)
    def _describe(self, _: Describe) -> SwitchDescription:
        macs = self._table.entries(self.now())
        return SwitchDescription(
            ports=self._forwarding.sessions,
            macs=tuple(
                MacDescription(format_mac(mac), port, registered=silent is None, silent=silent)
                for mac, port, silent in macs
                if port > GATEWAY  # others are in the description of their worker
            ),
            drops={number: dict(port.drops) for number, port in self._ports.items() if port.drops},
        )

    @handles(PeerListRequest)
    def _peer_list_request(self, message: PeerListRequest) -> None:
        if not self._forwarding.tell_gateway(message):
            tell_alive(message.peer, PeerList(()))
