"""TCP through port forwards: how many clients of each are let in, and which flow serves them.

A client that connects waits in the accept queue of its port until it is taken, and is taken only when there
is room for it: a forward has at most ``max_connections_per_forward`` connections, of which at most
``max_half_open_per_peer`` wait for the guest's answer. So a crowd is slowed down and not turned away, and
what clients outside do costs the guest nothing of what it may open itself. But no address (IPv6: no /64) has
all of them: who has its share (``netstack.shares``) is refused, for others wait behind it.

Liveness: a port is either watched, and tells when somebody connects, or its forward is full; then each of
the forward's flows that gets its answer or ends lets the next clients in, and so do other settings. Every
flow has a timer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.flows.flow import Guest, Remote
from actors.flows.forwarded_tcp import ForwardedTcpFlowActor
from actors.flows.tcp_flow import Link
from actors.gateway.tcp_routing import tcp_key
from netstack.family import pack_ip
from netstack.forward import FIRST_PORT, LAST_PORT, Clients, can_be_shown
from netstack.proxy_protocol import build_proxy_header
from netstack.shares import Shares, client_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.flows.batch import PortState
    from actors.flows.flow import FlowContext
    from actors.flows.flow_table import FlowTable
    from actors.gateway.forwards import Place
    from actors.messages import FlowKey, TcpForGuest
    from actors.ports import Accepted, WaitingClients
    from netstack.forward import Forward

TAKEN_AT_ONCE = 64
"""Clients taken in one go, so that the others' frames get their turn in between."""

SHARED_CONNECTIONS = 64
"""Connections from which on no client address may have all: fewer are for clients that are known."""


class ForwardedConnections:
    """The connections of one forward: those that stand, by their flows' keys, and who waits.

    Implements ``actors.flows.batch.Opener``.
    """

    __slots__ = ("_let_in", "clients", "forward", "half_open", "is_full", "open", "shares")

    def __init__(
        self,
        forward: Forward,
        clients: WaitingClients,
        let_in: Callable[[ForwardedConnections], None],
    ) -> None:
        """``let_in`` takes the next clients."""
        self.forward = forward
        self.clients = clients
        self._let_in = let_in
        self.open: dict[FlowKey, str] = {}
        """With the networks of their clients."""
        self.shares = Shares(0)
        """The same by network."""
        self.half_open: set[FlowKey] = set()
        """Those that the guest has not answered yet."""
        self.is_full = False
        """Whether nobody watches the port until one of the connections gets its answer or ends."""

    def answered(self, key: FlowKey) -> None:
        """Note that the guest has taken a connection; perhaps there is room for others now."""
        self.half_open.discard(key)
        if self.is_full:
            self._let_in(self)

    def ended(self, key: FlowKey) -> None:
        """Note that a connection is no more; perhaps there is room for others now."""
        client = self.open.pop(key, None)
        if client is not None:
            self.shares.give_back(client)
        self.answered(key)


class TcpForwards:
    """TCP forwards of one LAN."""

    def __init__(
        self,
        context: FlowContext,
        locate: Callable[[bytes | str], Place | None],
        flows: FlowTable,
    ) -> None:
        """``locate`` finds a guest."""
        self._context = context
        self._locate = locate
        self._flows = flows
        self._by_index: dict[int, ForwardedConnections] = {}
        self._next_port = FIRST_PORT

    def serve(self, wanted: TcpForGuest) -> None:
        """Take clients that wait at a forward's port, as far as there is room for them."""
        connections = self._by_index.get(wanted.index)
        if connections is None or connections.forward != wanted.forward:
            connections = ForwardedConnections(wanted.forward, wanted.clients, self._let_in)
            self._by_index[wanted.index] = connections
        connections.clients = wanted.clients  # the port may have been given back and taken anew
        self._let_in(connections)

    def follow(self) -> None:
        """Let clients in that wait for room which other settings have made."""
        for connections in self._by_index.values():
            if connections.is_full:
                self._let_in(connections)

    def _let_in(self, connections: ForwardedConnections) -> None:
        settings, clients = self._context.settings, connections.clients
        connections.is_full = False
        most = settings.max_connections_per_forward
        connections.shares.resize(most, settings.client_share if most >= SHARED_CONNECTIONS else 0)
        for _ in range(TAKEN_AT_ONCE):
            if len(connections.open) >= most or len(connections.half_open) >= settings.max_half_open_per_peer:
                self._context.counters.add("forward.full")
                connections.is_full = True
                return
            client = clients.take()
            if client is None:
                break
            self._open(connections, client)
        clients.watch()

    def _open(self, connections: ForwardedConnections, client: Accepted) -> None:
        """Connect a client to its guest, or refuse it."""
        forward, context = connections.forward, self._context
        network = client_network(client.client[0])
        if not connections.shares.may_take(network):
            self._refuse(client, "client_share")
            return
        place = self._locate(forward.vm)
        port = None if place is None else self._flows.ports.get(place.port)
        if place is None or port is None:
            self._refuse(client, "no_guest")
            return
        shown = self._shown(forward, client)
        ip = place.ip if shown is None or len(shown.ip) == len(place.ip) else place.ip6
        if ip is None:
            self._refuse(client, "no_ipv6_guest")
            return
        guest = Guest(place.mac, ip, forward.vm_port)
        if shown is None:
            key, remote = self._free_key(port, guest)
        else:
            key, remote = tcp_key(port, guest, shown), shown
        if not self._flows.may_forward:
            self._refuse(client, "flow_share")
            return
        if key in port.flows:  # by another forward, or the guest's own: the client takes another port
            self._refuse(client, "client_twice")
            return
        link = Link(port.line, port.mtu, port.buffers)
        try:
            preface = _proxy_header(client) if forward.clients is Clients.PROXY else b""
            dial = partial(client.attach, preface=preface)
            start = partial(ForwardedTcpFlowActor.start, key, guest, context, remote, link=link, dial=dial)
            self._flows.start_forwarded(key, start, connections)
        except OSError:  # it ended before anything could be done with it
            self._refuse(client, "lost")
            return
        connections.open[key] = network
        connections.shares.add(network)
        connections.half_open.add(key)
        context.counters.add("forward.connections")

    def _shown(self, forward: Forward, client: Accepted) -> Remote | None:
        """Tell as what the guest sees the client; None for one at the gateway."""
        if forward.clients is not Clients.TRANSPARENT:
            return None
        settings, (host, port) = self._context.settings, client.client
        address = pack_ip(host)
        return (
            Remote(address, port) if can_be_shown(address, settings.network, settings.ipv6_prefix) else None
        )

    def _refuse(self, client: Accepted, reason: str) -> None:
        self._context.counters.add(f"forward.drop.{reason}")
        client.refuse()

    def _free_key(self, port: PortState, guest: Guest) -> tuple[FlowKey, Remote]:
        """Choose the port at which the guest sees the client. There are more of them than connections."""
        while True:
            remote = Remote(self._context.settings.gateway_ip, self._next_port)
            self._next_port = FIRST_PORT if self._next_port == LAST_PORT else self._next_port + 1
            key = tcp_key(port, guest, remote)
            if key not in port.flows and key not in port.time_waits:
                return key, remote


def _proxy_header(client: Accepted) -> bytes:
    host, port = client.client
    local, local_port = client.local
    return build_proxy_header("tcp", (pack_ip(host), port), (pack_ip(local), local_port))
