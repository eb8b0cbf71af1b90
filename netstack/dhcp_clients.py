"""Which DHCP client gets which address of its MAC: RFC 2131 section 2 knows clients by their identifier.

A MAC's own address, the one that Assigned names, is for whoever names no identifier, and for boot loaders
(PXE, HTTP boot) whatever they name: the firmware and the system that it starts are one machine. Of the
clients that do name one (option 61) the first gets the MAC's own address too. It is the *owner* until it
releases the address, or until a lease time after it was last acknowledged. The hardware address as identifier
(01 and the MAC) and the first DUID (type 255, RFC 4361) are taken for one client: an initial RAM disk and the
system behind it, which has an identifier of its own. Each other identifier gets a further address, for its
lease time.

Bounds: a MAC has :data:`MAX_FURTHER_PER_MAC` further leases, and the one whose address was used longest ago
makes room for another; so a machine that makes up a new identifier at each boot replaces only old leases of
its own. A switch port has :data:`MAX_FURTHER_PER_PORT`. What ended is remembered for a client that comes
back, as after a lost connection (RFC 2131 section 4.3.1): the last :data:`MAX_REMEMBERED`.

No clock: times are monotonic seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from netstack.address_pool import AddressPool
    from netstack.dhcp import DhcpMessage

MAX_FURTHER_PER_MAC = 8
"""Containers that share their host's MAC (ipvlan), not a pool used up by one guest."""

MAX_FURTHER_PER_PORT = 16
"""As many as a port may have MACs."""

MAX_REMEMBERED = 512
"""Former owners of one LAN, and as many former further leases."""

OFFERED_FOR = 60.0
"""Seconds for which an offer stands that is not requested."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_HARDWARE = b"\1"
_DUID = b"\xff"


class Client(NamedTuple):
    """A MAC (6 bytes) and what its client calls itself; ``identifier`` is empty for the MAC's own client."""

    mac: bytes
    identifier: bytes


class _Lease(NamedTuple):
    address: bytes
    port: int
    until: float


class _Owner(NamedTuple):
    identifier: bytes
    until: float


def client_of(message: DhcpMessage) -> Client:
    """Tell who says this."""
    return Client(message.mac, b"" if message.is_boot_loader else message.client_identifier)


class DhcpClients:
    """The clients of one LAN and their addresses in its pool."""

    def __init__(
        self,
        pool: AddressPool,
        lease_time: float,
        further_ended: Callable[[bytes, bytes], None] = lambda _mac, _address: None,
    ) -> None:
        """``further_ended`` hears of each further lease that ends: the MAC and the address."""
        self._pool = pool
        self._further_ended = further_ended
        self._lease_time = lease_time
        self._owners: dict[bytes, _Owner] = {}
        self._further: dict[Client, _Lease] = {}
        self._former_owners: dict[bytes, _Owner] = {}
        self._former: dict[Client, bytes] = {}

    def assign(self, client: Client, port: int, now: float, wanted: bytes | None = None) -> bytes | None:
        """Give a client behind a switch port its address; None when there is none left for it.

        ``wanted`` is the one that it says it had, for when nothing is known of it here.
        """
        self.expire(now)
        if wanted is not None and self._identifier_of_owner(client.mac) in (None, client.identifier):
            self._pool.request(client.mac, wanted)
        own = self._pool.assign(client.mac)
        if own is None or not client.identifier:
            return own
        lease = self._further.get(client)
        if lease is not None:
            self._further[client] = lease._replace(port=port)
            return lease.address
        if self._owns(client, now):
            return own
        return self._assign_further(client, port, now, wanted)

    def wants_further(self, client: Client, now: float) -> bool:
        """Whether :meth:`assign` would give a client one more address, beside its MAC's own."""
        if not client.identifier or client in self._further:
            return False
        owner = self._owners.get(client.mac) or self._former_owners.get(client.mac)
        return owner is not None and owner.until > now and not _is_one(owner.identifier, client)

    def prefer(self, client: Client, address: bytes) -> None:
        """Let a client go on with an address that it had before the pool was made, and uses already."""
        if client not in self._further:
            self._pool.prefer(client.mac, address)

    def acknowledge(self, client: Client, now: float) -> None:
        """Begin a client's lease time again."""
        until = now + self._lease_time
        lease = self._further.get(client)
        if lease is not None:
            self._further[client] = lease._replace(until=until)
            return
        self._pool.settle(client.mac)
        if client.identifier == self._identifier_of_owner(client.mac):
            self._owners[client.mac] = _Owner(client.identifier, until)

    def release(self, client: Client, address: bytes) -> None:
        """End a client's lease. The MAC's own address stays the MAC's, for whoever asks next."""
        lease = self._further.get(client)
        if lease is not None and lease.address == address:
            self._end(client)
        elif client.identifier == self._identifier_of_owner(client.mac):
            del self._owners[client.mac]

    def decline(self, client: Client, address: bytes | None) -> None:
        """Take an address back that its client found in use (RFC 2131 section 4.3.3)."""
        lease = self._further.get(client)
        if lease is not None:
            if lease.address == address:
                self._end(client)
                del self._former[client]
        elif address == self._pool.address_of(client.mac):
            self._pool.decline(client.mac)

    def forget(self, mac: bytes) -> None:
        """End the further leases of a guest that left, which may come back."""
        owner = self._owners.pop(mac, None)
        if owner is not None:
            _remember(self._former_owners, mac, owner)
        for client in [client for client in self._further if client.mac == mac]:
            self._end(client)

    def expire(self, now: float) -> None:
        """Take back what is over, and forget what moved to another guest."""
        for client, lease in list(self._further.items()):
            if lease.until <= now or lease.address not in self._pool.further_of(client.mac):
                self._end(client)

    def _end(self, client: Client) -> None:
        address = self._further.pop(client).address
        self._pool.give_back(client.mac, address)
        _remember(self._former, client, address)
        self._further_ended(client.mac, address)

    def _owns(self, client: Client, now: float) -> bool:
        """Whether the MAC's own address is for this client, which it becomes if it is nobody's."""
        owner = self._owners.get(client.mac) or self._former_owners.pop(client.mac, None)
        if owner is not None:
            self._owners[client.mac] = owner
        if owner is None or owner.until <= now:
            self._owners[client.mac] = _Owner(client.identifier, now + OFFERED_FOR)
            return True
        if owner.identifier == _HARDWARE + client.mac and client.identifier.startswith(_DUID):
            self._owners[client.mac] = owner._replace(identifier=client.identifier)
        return _is_one(owner.identifier, client)

    def _identifier_of_owner(self, mac: bytes) -> bytes | None:
        owner = self._owners.get(mac)
        return None if owner is None else owner.identifier

    def _assign_further(self, client: Client, port: int, now: float, wanted: bytes | None) -> bytes | None:
        mine = self._pool.further_of(client.mac)
        behind_port = sum(lease.port == port for lease in self._further.values())
        if mine and (len(mine) >= MAX_FURTHER_PER_MAC or behind_port >= MAX_FURTHER_PER_PORT):
            self._pool.give_back(client.mac, mine[0])
            self.expire(now)
        elif behind_port >= MAX_FURTHER_PER_PORT:
            return None
        asked = wanted if self._pool.is_open(wanted) else None
        address = self._pool.assign_further(client.mac, self._former.pop(client, asked))
        if address is not None:
            self._further[client] = _Lease(address, port, now + OFFERED_FOR)
        return address


def _is_one(owner: bytes, client: Client) -> bool:
    """Whether the owner of a MAC's address and a client behind that MAC are taken for one."""
    hardware = _HARDWARE + client.mac
    if client.identifier == hardware:
        return owner == hardware or owner.startswith(_DUID)
    return owner == client.identifier or (owner == hardware and client.identifier.startswith(_DUID))


def _remember(table: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]
