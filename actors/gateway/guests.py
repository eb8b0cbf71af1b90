"""Who is on the LAN: behind which port of the switch each MAC is, and which addresses it has.

A guest sends from addresses that are its own: the one assigned to its MAC, or one that it took by hand while
nobody else had it. Of two that use one address the holder keeps it while it answers for it
(``address_contests``). Everything of a port goes when the switch says PortClosed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.flows.batch import Dropped
from actors.gateway.address_contests import AddressContests
from actors.gateway.address_shares import AddressShares
from actors.gateway.ipv6_addresses import Ipv6Addresses
from netstack.address_pool import AddressPool
from netstack.ethernet import MAC_LENGTH
from netstack.ipv4 import IPV4_LENGTH, format_ipv4
from netstack.neighbour import AddressBindings

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.flows.batch import PortState
    from actors.flows.flow import FlowContext
    from actors.flows.flow_table import FlowTable
    from actors.gateway.leases import Leases
    from actors.gateway.services import LanServices
    from actors.settings import LanSettings

MAX_MACS_PER_PORT = 16
"""MACs of one port that may have addresses: twice what the switch takes at a time, since there they age."""

NOWHERE = -1
"""No port of the switch."""


def address_pool(settings: LanSettings) -> AddressPool:
    """Make the pool of a LAN's IPv4 addresses, with nothing given out yet."""
    return AddressPool(
        settings.network,
        format_ipv4(settings.pool_first),
        format_ipv4(settings.pool_last),
        frozenset({settings.gateway_ip, settings.dns_ip, settings.host_ip}),
        {lease.mac: lease.ip for lease in settings.fixed_leases},
    )


class Guests:
    """MACs, ports and addresses of one LAN's guests."""

    def __init__(
        self,
        context: FlowContext,
        pool: AddressPool,
        flows: FlowTable,
        services: LanServices,
        leases: Leases,
    ) -> None:
        """``pool`` has the IPv4 addresses; ``services`` hear what guests are reached by."""
        self._leases = leases
        self.pool = pool
        self.bindings = AddressBindings()
        """Who uses which IPv6 address."""
        self.port_of: dict[bytes, int] = {}
        """Where a MAC is, as far as its addresses go."""
        self.arrived: Callable[[bytes], None] = lambda _mac: None
        """Told each MAC that is behind a port here from now on."""
        self._flows = flows
        self._services = services
        self.ipv6 = Ipv6Addresses(self.bindings, context.settings.ipv6_prefix, services.set_ipv6)
        self.contests = AddressContests(context, pool, self.bindings, self.address_lost)
        self.shares = AddressShares(pool, flows.ports, self.port_of, context.settings.client_share)
        pool.admits = self.shares.admits

    def move_to(self, mac: bytes, port: PortState) -> None:
        """Note that ``mac`` is behind this port. Raises Dropped when there are too many."""
        if not self.moves_to(mac, port):
            raise Dropped("too_many_macs")

    def moves_to(self, mac: bytes, port: PortState) -> bool:
        """Note that ``mac`` is behind this port now (the switch saw to that); False if there are too many."""
        before = self.port_of.get(mac)
        if before == port.number:
            return True
        if len(port.macs) >= MAX_MACS_PER_PORT:
            return False
        ports = self._flows.ports
        if before is not None and before in ports:
            ports[before].macs.discard(mac)
        if before is None:
            self.pool.arrive(mac)
            self.arrived(mac)
        self.port_of[mac] = port.number
        port.macs.add(mac)
        return True

    def holder_of(self, sought: bytes) -> bytes | None:
        """Tell the MAC of the guest, here or elsewhere, that has an address; or that is this MAC."""
        if len(sought) == MAC_LENGTH:
            return sought if sought in self.port_of or self.pool.is_elsewhere(sought) else None
        return self.contests.table_of(sought).holder_of(sought)

    def is_forwarded_to(self, number: int) -> bool:
        """Whether forwards may lead to the guests behind a port."""
        port = self._flows.ports.get(number)
        return port is not None and port.policy.is_forwarded_to

    def is_isolated(self, mac: bytes) -> bool:
        """Whether a guest's port keeps it from all others."""
        port = self._flows.ports.get(self.port_of.get(mac, NOWHERE))
        return port is not None and port.policy.isolated

    def address_lost(self, address: bytes, mac: bytes) -> None:
        """Stop the flows of the guest that had ``address``: answers are the new holder's from now on."""
        self._services.address_moved(address)
        self.ipv6.publish(mac, self.bindings.holder_of(address) or mac)
        number = self.port_of.get(mac)
        if number is not None:
            self._flows.end_those_of(address, number)

    def probed6(self, mac: bytes, address: bytes, now: float) -> None:
        """Let a guest have the address for which it looks for duplicates, if it is nobody's (RFC 6620)."""
        if self.ipv6.is_of_lan(address):
            self.bindings.claim(mac, address)
            self.ipv6.announced(mac, address)
            self.contests.probed(address, mac, now)

    def used(self, mac: bytes, address: bytes, port: PortState, now: float, *, contested: bool) -> None:
        """Take note of an address that the switch has seen in use, the guest's own or contested."""
        if not self.moves_to(mac, port):
            return
        if contested:
            self.contests.begin(address, mac, port.number, now)
        else:
            if len(address) == IPV4_LENGTH:
                self.took(mac, port)
            self.ipv6.taken(mac, address)
            self.ipv6.publish()

    def took(self, mac: bytes, port: PortState) -> None:
        """Take note that a guest uses an IPv4 address from now on."""
        self._leases.name_again(mac, port)

    def left(self, port: PortState) -> None:
        """Forget all guests of a port that is gone."""
        self._services.forget(port.number, port.macs)
        for mac in port.macs:
            self._forget(mac)

    def aged_out(self, mac: bytes, number: int) -> None:
        """Forget a guest behind a bridge, so that another may take its place."""
        port = self._flows.ports.get(number)
        if port is None or self.port_of.get(mac) != number:
            return
        port.macs.discard(mac)
        self._services.forget_guest(mac)
        self._forget(mac)

    def _forget(self, mac: bytes) -> None:
        """Give back what a guest has of the LAN; its flows end by themselves, or with their port."""
        del self.port_of[mac]
        self._leases.keep(mac)
        self.pool.release(mac)
        self.contests.forget(mac)
        self.ipv6.forget(mac)
