"""A port of the relay's machine that leads to a guest's (``netstack.forward``).

UDP: every client outside gets a port of the gateway's, or is seen at its own address (``transparent``), so
that the guest's answers find it again. The guest is looked up once a second at most, since it may come, go
and change. A client that is silent for ``udp_idle_timeout`` is forgotten, and after CLIENT_KEPT when another
needs its place. Clients of one address have half of the places at most (``netstack.shares``). Who writes to
several addresses of this machine is a client for each, as far as the listener can tell: the answers leave
from there.
TCP clients are the gateway's to take, which opens a flow for each.

In a room over several workers all have the forward, and one listens: the one that has the guest, so that all
of a client's data stays within one process; while the guest is nowhere, the lowest worker that lives. Each
looks every LOOK_EVERY whether it is the one. When the guest moves its new worker opens the port at once, from
when on all that is new comes there; the former one keeps it open for KEPT_FOR, so that it is never nobody's,
and resets whoever came too early.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loguru import logger

from actors.descriptions import Describe, ForwardDescription
from actors.messages import (
    ClientGone,
    ClientShown,
    ClientsWaiting,
    DatagramsFromNet,
    ForwardOpened,
    FramesFromGateway,
    FramesToFlow,
    GuestFound,
    GuestWanted,
    SettingsChanged,
    TcpForGuest,
)
from actors.ports import SendResult
from actors.runtime import NEVER, EventLoopActor, Tick, handles, tell_alive
from netstack.family import IPV4, family_of, pack_ip
from netstack.forward import CLIENTS, FIRST_PORT, Clients, can_be_shown, ends_of
from netstack.ipv4 import format_ipv4
from netstack.proxy_protocol import build_proxy_header
from netstack.shares import Shares, client_network
from netstack.udp import MAX_PAYLOAD, UdpFrameTemplate, read_udp

if TYPE_CHECKING:
    from actors.messages import DatagramFromNet
    from actors.ports import Listener, Listeners, RoomLink, UdpListener
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.counters import Counters
    from netstack.forward import Forward

PLACE_LIFETIME = 1.0
"""Seconds for which it is taken for granted that the guest is where it was."""

MAX_WAITING = 256
"""Datagrams kept while the gateway is asked for the guest, which takes no time."""

CLIENT_KEPT = 10.0
"""Seconds for which a client's place is its own even when all are taken: a flood must not end the others."""


LOOK_EVERY = 0.25
"""Seconds between looks at which worker the guest is."""

KEPT_FOR = 1.0
"""Seconds for which a port is kept open for the worker that takes it over, which looks meanwhile too."""

PORT_AWAITED = 3.0
"""Seconds that a port may be another program's before that is said: one may be about to end."""


class _Client:
    """A UDP client outside: the listener's name for it, how the guest sees it, when it was last used."""

    __slots__ = ("address", "ends", "preface", "seen_as", "template", "used")

    def __init__(
        self, address: tuple[str, int], seen_as: tuple[bytes, int], preface: bytes, now: float
    ) -> None:
        self.address = address
        self.seen_as = seen_as
        self.ends = b""
        """What the gateway knows of it (ClientShown), if anything."""
        self.preface = preface
        """What each of the client's datagrams begins with for the guest."""
        self.used = now
        self.template: UdpFrameTemplate | None = None


class PortForwardActor(EventLoopActor):
    """One forward; ``index`` is its number in the operator's list."""

    def __init__(
        self,
        forward: Forward,
        index: int,
        *,
        gateway: Mailbox,
        switch: Mailbox,
        listeners: Listeners,
        counters: Counters,
        settings: LanSettings,
        link: RoomLink | None = None,
    ) -> None:
        """Listen. Raises OSError when the port cannot be had. ``link`` leads to the other workers."""
        super().__init__()
        self._forward = forward
        self._index = index
        self._gateway = gateway
        self._switch = switch
        self._counters = counters
        self._settings = settings
        self._first_port = FIRST_PORT + index * CLIENTS
        self._clients: dict[tuple[str, int], _Client] = {}
        """By address, the one unused for longest first."""
        self._seen_as: dict[tuple[bytes, int], _Client] = {}
        """By address and port that the guest sees."""
        self._shares = Shares(CLIENTS)
        """Clients by their networks."""
        self._free = list(range(self._first_port + CLIENTS - 1, self._first_port - 1, -1))
        self._place: GuestFound | None = None
        self._place_until = 0.0
        self._asked = False
        self._waiting: list[DatagramFromNet] = []
        self._identification = 0
        self._idle_at = NEVER
        """When the next client may be forgotten."""
        self._link = link
        self._listeners = listeners
        self._udp: UdpListener | None = None
        self._port: Listener | None = None
        """None while another worker has it."""
        self._left_since = NEVER
        """Since when the port is another worker's to take."""
        self._awaited_since = NEVER
        """Since when the port is wanted that another worker, or another program, has yet."""
        self._told_taken = False
        """Whether it was said that another program has it."""
        self._look_at = NEVER if link is None else self.now()
        if link is None or (link.is_lowest and link.is_settled):
            self._listen()
        listeners.lead_to_guests(forward.protocol, forward.host, forward.port)

    def _listen(self) -> None:
        """Take the port. Raises OSError."""
        forward = self._forward
        shared = self._link is not None and self._link.has_siblings
        if forward.protocol == "udp":
            self._udp = self._listeners.listen_udp(self.actor_ref, forward.host, forward.port, shared=shared)
            self._port = self._udp
        else:
            self._port = self._listeners.listen_tcp(self.actor_ref, forward.host, forward.port, shared=shared)

    def _give_port_back(self) -> None:
        if self._port is not None:
            self._port.close()
        self._port = self._udp = None
        self._left_since = NEVER

    def on_start(self) -> None:
        """Tell the gateway where frames for the clients go."""
        tell_alive(self._gateway, ForwardOpened(self._index, self.actor_ref))
        self._set_timer()

    def on_stop(self) -> None:
        """Give the port back, which leads nowhere now; what the guest sends to its clients is not ours."""
        self._give_port_back()
        for client in self._clients.values():
            self._hide(client)
        forward = self._forward
        self._listeners.lead_no_more(forward.protocol, forward.host, forward.port)

    @handles(SettingsChanged)
    def _settings_changed(self, message: SettingsChanged) -> None:
        self._settings = message.settings

    @handles(Describe)
    def _describe(self, _: Describe) -> ForwardDescription:
        # Else the worker that listens says more, if it is one of this machine.
        listens = self._port is not None and self._left_since == NEVER
        address = None if self._place is None else self._place.ip
        return ForwardDescription(
            forward=str(self._forward),
            guest=None if address is None else format_ipv4(address),
            clients=len(self._clients) if listens and self._forward.protocol == "udp" else None,
        )

    # -- TCP ----------------------------------------------------------------------------------------

    @handles(ClientsWaiting)
    def _clients_waiting(self, message: ClientsWaiting) -> None:
        tell_alive(self._gateway, TcpForGuest(self._index, self._forward, message.clients))

    # -- UDP ----------------------------------------------------------------------------------------

    @handles(DatagramsFromNet)
    def _from_net(self, message: DatagramsFromNet) -> None:
        room = MAX_WAITING - len(self._waiting)
        self._waiting += message.datagrams[:room]
        self._count("waiting", len(message.datagrams) - room)
        if self.now() < self._place_until:
            self._send_waiting()
        elif not self._asked:
            self._asked = tell_alive(self._gateway, GuestWanted(self._forward.vm, self.actor_ref))

    @handles(GuestFound)
    def _found(self, message: GuestFound) -> None:
        self._asked = False
        if self._link is not None:
            self._take_or_leave_port(self._link, message)
            message = replace(message, elsewhere=False)
        self._place_until = self.now() + PLACE_LIFETIME
        if message != self._place:
            self._place = message
            for client in self._clients.values():
                self._hide(client)
        self._send_waiting()

    def _take_or_leave_port(self, link: RoomLink, found: GuestFound) -> None:
        """Listen while the guest is here, or is nowhere and this worker is to say so."""
        now = self.now()
        if found.mac is None and (found.elsewhere or not link.is_lowest):
            self._awaited_since, self._told_taken = NEVER, False
            self._left_since = min(self._left_since, now)
            if now - self._left_since >= KEPT_FOR:
                self._give_port_back()
            return
        if self._port is not None and self._left_since == NEVER:
            return
        self._give_port_back()  # to be the last again to have opened it, so that what is new comes here
        try:
            self._listen()
        except OSError as error:
            self._awaited_since = min(self._awaited_since, now)
            if now - self._awaited_since >= PORT_AWAITED and not self._told_taken:
                self._told_taken = True
                logger.error("cannot forward {}: {}", self._forward, error.strerror or error)
        else:
            if self._told_taken:
                logger.info("the forward {} is open: its port is free again", self._forward)
            self._awaited_since, self._told_taken = NEVER, False

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        place, now = self._place, self.now()
        if place is None or place.mac is None or place.ip is None:
            self._count("no_guest", len(waiting))
            return
        frames: list[bytes] = []
        for payload, address, ttl in waiting:
            client = self._clients.get(address) or self._admit(address, now)
            if client is None:
                self._count("too_many_clients", 1)
                continue
            self._note_use(client, now)
            data = client.preface + payload
            if len(data) > MAX_PAYLOAD:  # IPv6 carries a little more than IPv4, and there is the header
                self._count("too_long", 1)
                continue
            template = client.template or self._show(client, place)
            if template is None:
                self._count("no_ipv6_guest", 1)
                continue
            self._identification = (self._identification + 1) & 0xFFFF
            frames += family_of(client.seen_as[0]).fragment(template.build(data, self._identification, ttl))
        if frames:
            self._counters.add("forward.frames_to_guest", len(frames))
            tell_alive(self._switch, FramesFromGateway(frames))

    @handles(FramesToFlow)
    def _from_guest(self, message: FramesToFlow) -> None:
        place, now = self._place, self.now()
        for frame in message.frames:
            source, source_port, destination, port, payload = read_udp(frame)
            client = self._seen_as.get((destination, port))
            expected = (
                place is not None and source in {place.ip, place.ip6} and source_port == self._forward.vm_port
            )
            if client is None or not expected:
                self._count("filtered", 1)
            elif self._udp is None:
                self._count("no_port", 1)
            elif self._udp.answer(payload, client.address) is SendResult.SENT:
                self._note_use(client, now)
                self._counters.add("forward.datagrams_to_net")
            else:
                self._count("unsendable", 1)

    def _admit(self, address: tuple[str, int], now: float) -> _Client | None:
        network = _network_of(address)
        if not self._shares.may_take(network):
            # Who has less than others takes a place of anybody's, and who has more one of its own.
            has_less = self._shares.held_by(network) * self._shares.owners < self._shares.total
            oldest = next(
                client
                for client in self._clients.values()
                if has_less or _network_of(client.address) == network
            )
            if now - oldest.used < CLIENT_KEPT:
                return None
            self._forget(oldest)
        seen_as = self._own_end(address) or (self._settings.gateway_ip, self._free.pop())
        if seen_as in self._seen_as:  # it wrote to another address of this machine before
            self._forget(self._seen_as[seen_as])
        client = _Client(address, seen_as, self._preface(address), now)
        self._clients[address] = self._seen_as[seen_as] = client
        self._shares.add(network)
        self._counters.add("forward.clients_opened")
        if len(self._clients) == 1:
            self._idle_at = now + self._settings.udp_idle_timeout
            self._set_timer()
        return client

    def _own_end(self, address: tuple[str, int]) -> tuple[bytes, int] | None:
        """Tell a client's own address and port where the guest is to see these; None where it cannot."""
        if self._forward.clients is not Clients.TRANSPARENT:
            return None
        client = pack_ip(address[0].partition(">")[0].partition("%")[0])
        settings = self._settings
        shown = can_be_shown(client, settings.network, settings.ipv6_prefix)
        return (client, address[1]) if shown else None

    def _show(self, client: _Client, place: GuestFound) -> UdpFrameTemplate | None:
        """Prepare a client's way to the guest and back; None for a guest without its IP version."""
        source, port = client.seen_as
        family, settings, vm_port = family_of(source), self._settings, self._forward.vm_port
        guest = place.ip if family is IPV4 else place.ip6
        if guest is None or place.mac is None:
            return None
        macs = place.mac + settings.gateway_mac
        client.template = UdpFrameTemplate(macs, source, port, guest, vm_port)
        if source != settings.gateway_ip:
            client.ends = ends_of((guest, vm_port), client.seen_as)
            tell_alive(self._gateway, ClientShown(client.ends, self.actor_ref))
        return client.template

    def _hide(self, client: _Client) -> None:
        client.template = None
        if client.ends:
            tell_alive(self._gateway, ClientGone(client.ends, self.actor_ref))
            client.ends = b""

    def _preface(self, address: tuple[str, int]) -> bytes:
        """Build what tells the guest a client's address, where that is asked for."""
        if self._forward.clients is not Clients.PROXY:
            return b""
        host, _, local = address[0].partition(">")
        ends = [pack_ip(end.partition("%")[0]) for end in (host, local or self._forward.host)]
        return build_proxy_header("udp", (ends[0], address[1]), (ends[1], self._forward.port))

    def _note_use(self, client: _Client, now: float) -> None:
        client.used = now
        del self._clients[client.address]
        self._clients[client.address] = client

    def _forget(self, client: _Client) -> None:
        del self._clients[client.address]
        del self._seen_as[client.seen_as]
        self._shares.give_back(_network_of(client.address))
        self._hide(client)
        address, port = client.seen_as
        if address == self._settings.gateway_ip:
            # Last in the line, so that a port rests as long as others can be had.
            self._free.insert(0, port)
        self._counters.add("forward.clients_closed")

    @handles(Tick)
    def _tick(self, _: Tick) -> None:
        now = self.now()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            if not self._asked:
                self._asked = tell_alive(self._gateway, GuestWanted(self._forward.vm, self.actor_ref))
        if now >= self._idle_at:
            self._idle_at = self._forget_idle(now)
        self._set_timer()

    def _set_timer(self) -> None:
        self.poll_at = min(self._look_at, self._idle_at)

    def _forget_idle(self, now: float) -> float:
        """Forget clients that were silent for long; tell when to do so again."""
        timeout = self._settings.udp_idle_timeout
        for client in list(self._clients.values()):
            if client.used + timeout > now:
                return client.used + timeout
            self._forget(client)
        return NEVER

    def _count(self, reason: str, number: int) -> None:
        if number > 0:
            self._counters.add(f"forward.drop.{reason}", number)


def _network_of(address: tuple[str, int]) -> str:
    """Tell by which network a client is counted; the listener's name for it may have our own address too."""
    return client_network(address[0].partition(">")[0])
