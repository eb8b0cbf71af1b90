"""Addresses of one LAN: who has which, and who gets the same one again.

Every address of the pool is in exactly one state: *fresh* (never given, or a hand-taken one given back),
*held* by a MAC, or *remembered* for the MAC that released it. A new MAC gets a fresh address, chosen by a
hash of the MAC, so that most guests get theirs again from a pool that has lost its memory; if there is none,
the one released longest ago. Only what is held or remembered costs memory: a pool of 65,000 addresses is
empty at first. Guests that configured an address by hand claim it, first come first served; the one that a
guest used longest ago makes room when it claims too many. An address moves to another guest when the gateway
found that its holder does not answer for it any more (``netstack.contests``). Addresses that the
operator fixed for a MAC are outside the pool: nobody else gets or takes them.

An address counts as *shown* once its holder has used it. A guest that comes back uses the one that it had,
whatever it is told: so the first address that a MAC shows is its own, even if somebody else was given it and
never showed it; and becomes its lease if it asks for that. A guest of whom nothing is known here may also ask
for the address that it had before it uses it, and gets it if it is fresh. The hash alone cannot do better
than one place among m: a guest shares it with (n - 1) / m others on average, of whom the first has it
(``docs/state.md`` has the bound).

A MAC has one lease of its own. DHCP clients that share it get *further* leases (``netstack.dhcp_clients``
decides that): these are held by the MAC like all others, and fresh again as soon as they are given back.
"""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_CLAIMS_PER_MAC = 4
"""Hand-taken addresses beside the assigned one: aliases on a NIC, not a subnet swept by one guest."""

MAX_REMEMBERED = 4096
"""Released leases, of 400 bytes each: a client that keeps coming with other MACs fills no memory."""


MAX_DECLINED = 64
"""Addresses that are given last: hosts that nobody knows of are few."""

_PROBES = 16
"""Places in which a MAC's address may be, the likeliest first; who finds all taken gets any."""


class Claim(Enum):
    """Answer to a guest that uses an address it took by hand."""

    GRANTED = "granted"
    OWN = "own"
    """The MAC had it already."""
    TAKEN = "taken"
    """Another MAC holds it."""
    RESERVED = "reserved"
    """The network's, the broadcast, the gateway's or another service's address."""
    FOREIGN = "foreign"
    """Not in this LAN's network."""
    OVER_SHARE = "over_share"
    """Others need what is left."""

    @property
    def accepted(self) -> bool:
        """Whether the guest may use the address."""
        return self in (Claim.GRANTED, Claim.OWN)


def _anyone(_mac: bytes) -> bool:
    return True


def _nothing(_mac: bytes, _address: bytes | None) -> None:
    pass


def _unnoted(_mac: bytes) -> None:
    pass


class AddressPool:
    """IPv4 addresses (4 bytes) by MAC (6 bytes)."""

    def __init__(
        self,
        network: str = "10.0.2.0/24",
        first: str = "10.0.2.10",
        last: str = "10.0.2.254",
        reserved: frozenset[bytes] = frozenset({bytes((10, 0, 2, 2)), bytes((10, 0, 2, 4))}),
        fixed: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Serve ``first`` to ``last`` of ``network``, and to the MACs in ``fixed`` the address there.

        Raises ValueError when the range is not inside the network, or a fixed address cannot be a guest's.
        """
        lan = IPv4Network(network)
        low, high = IPv4Address(first), IPv4Address(last)
        if low not in lan or high not in lan or low > high:
            raise ValueError(f"the pool {first} to {last} is not inside {network}")
        self._lan = lan
        self._reserved = reserved | {lan.network_address.packed, lan.broadcast_address.packed}
        self._fixed = dict(fixed or {})
        self._fixed_owners = {address: mac for mac, address in self._fixed.items()}
        self._no_pool = self._reserved | self._check_fixed()
        self._range = range(int(low), int(high) + 1)
        self.size = len(self._range) - sum(int.from_bytes(each) in self._range for each in self._no_pool)
        """Addresses that new MACs could get if nobody had any."""
        self._used: set[bytes] = set()
        """Those of the pool that are held or remembered; all others are fresh."""
        self._unshown: dict[bytes, bool] = {}
        """Of those that are held, the ones that their holder was given, and has not used yet; and whether
        they are known to be its own, as it had them before or asked for them."""
        self._declined: dict[bytes, None] = {}
        """Addresses that a host without our knowledge may have, the one declined longest ago first."""
        self._next_index = 0
        """Where in the range to look for any fresh one."""
        self._leases: dict[bytes, bytes] = {}
        self.admits: Callable[[bytes], bool] = _anyone
        """Whether a MAC may have one more address; the gateway knows what its session has already."""
        self.lease_changed: Callable[[bytes, bytes | None], None] = _nothing
        """Told a MAC that has or uses another lease than it was given, and what it was given, if anything."""
        # Claims and further leases: per MAC the one used longest ago first.
        self.changed: Callable[[bytes], None] = _unnoted
        """Told each MAC that holds other addresses than before, at no other worker."""
        self._elsewhere: dict[bytes, tuple[bytes, ...]] = {}
        """Addresses that guests of other workers hold, their leases first."""
        self._granted_further: dict[bytes, bytes | None] = {}
        """What the next further leases of MACs are to be."""
        self._claims: dict[bytes, dict[bytes, None]] = {}
        self._further: dict[bytes, dict[bytes, None]] = {}
        self._holders: dict[bytes, bytes] = {}
        # Released leases, oldest first.
        self._remembered: dict[bytes, bytes] = {}
        self._remembered_for: dict[bytes, bytes] = {}

    def _check_fixed(self) -> frozenset[bytes]:
        addresses = frozenset(self._fixed.values())
        for address in addresses:
            if address in self._reserved or IPv4Address(address) not in self._lan:
                raise ValueError(f"{IPv4Address(address)} is not an address for a guest of {self._lan}")
        if len(addresses) < len(self._fixed):
            raise ValueError("one address is fixed for two guests")
        return addresses

    def count_of(self, mac: bytes) -> int:
        """How many addresses ``mac`` holds."""
        beside = len(self._claims.get(mac, ())) + len(self._further.get(mac, ()))
        return (mac in self._leases) + beside

    @property
    def free(self) -> int:
        """Addresses that a new MAC could get."""
        return self.size - len(self._used) + len(self._remembered)

    def assign(self, mac: bytes, wanted: bytes | None = None) -> bytes | None:
        """Give ``mac`` the address it holds, else the one it had, else another; None when it gets none.

        ``wanted`` is the one that it says it had, for when nothing is known of it here.
        """
        address = self._leases.get(mac) or self._fixed.get(mac)
        is_known = address is not None or mac in self._remembered
        if address is None and self.admits(mac):
            address = self._remembered.get(mac)
            if address is None:
                address = wanted if self.is_open(wanted) else self._next(mac)
        if address is not None:
            self._claims.get(mac, {}).pop(address, None)  # a fixed one, which it used beside another lease
            self._give(address, mac, is_known=is_known)
            self._leases[mac] = address
        return address

    def is_open(self, address: bytes | None) -> TypeGuard[bytes]:
        """Whether a guest of whom nothing is known may have this address, for no more than asking."""
        return address is not None and self._is_fresh(address) and address not in self._declined

    def remember(self, mac: bytes, address: bytes) -> None:
        """Keep an address that nobody has for a MAC that had it once, as if it had been released now.

        Of several that had it, it is kept for the one of which that was said last.
        """
        if mac in self._leases or mac in self._fixed:
            return
        former = self._remembered_for.get(address)
        if former is not None:
            self._forget(former)
        if self._is_fresh(address):
            self._used.add(address)
            self._keep_for(mac, address)

    # -- other workers ------------------------------------------------------------------------------

    def candidates(self, mac: bytes, count: int, wanted: bytes | None = None) -> tuple[bytes, ...]:
        """List addresses that ``mac`` might be given, the one that it should have first.

        ``wanted`` is as of :meth:`assign`.
        """
        known = self._remembered.get(mac)
        if known is None and self.is_open(wanted):
            known = wanted
        found = dict.fromkeys([] if known is None else [known])
        for address in self._places(mac):
            if self._is_fresh(address) and address not in self._declined:
                found[address] = None
        first = int.from_bytes(blake2b(mac, digest_size=8).digest()) % len(self._range)
        for number in range(len(self._range)):
            if len(found) >= count:
                break
            address = self._range[(first + number) % len(self._range)].to_bytes(4)
            if self._is_fresh(address) and address not in self._declined:
                found[address] = None
        if not found:
            found = dict.fromkeys(list(self._remembered.values())[:count])
        return tuple(found)[:count]

    def assign_granted(self, mac: bytes, address: bytes) -> bytes | None:
        """As :meth:`assign`, and ``address`` for a MAC that has none, if it is still to be had."""
        free = self._is_fresh(address) or address in self._remembered_for
        if mac not in self._leases and mac not in self._fixed and free and self.admits(mac):
            self._give(address, mac, is_known=mac in self._remembered)
            self._leases[mac] = address
        return self.assign(mac)

    def grant_further(self, mac: bytes, address: bytes | None) -> None:
        """Have the next further lease of ``mac`` be this one, if it is still to be had; any for None."""
        self._granted_further[mac] = address

    def is_granted_further(self, mac: bytes) -> bool:
        """Whether it is known what the next further lease of ``mac`` is to be."""
        return mac in self._granted_further

    def begin_at(self, number: int, count: int) -> None:
        """Look for any fresh address from another part of the pool on than other workers do."""
        self._next_index = len(self._range) * number // count

    def has_place(self, mac: bytes) -> bool:
        """Whether ``mac`` has an address that is its own, without being given one."""
        return mac in self._leases or mac in self._fixed

    def is_elsewhere(self, mac: bytes) -> bool:
        """Whether ``mac`` is a guest of another worker's."""
        return mac in self._elsewhere

    def hold_elsewhere(self, mac: bytes, addresses: tuple[bytes, ...]) -> None:
        """Note what a guest of another worker holds, the lease first.

        What is held here is left out, and what cannot be that guest's: other machines have settings of their
        own, and may give what is reserved here, or fixed for another MAC.
        """
        self._free_elsewhere(mac)
        kept = tuple(address for address in addresses if self._may_be_elsewhere(address, mac))
        self._elsewhere[mac] = kept
        for address in kept:
            self._mark_held(address, mac)

    def forget_elsewhere(self, mac: bytes) -> None:
        """Note that a guest is at no other worker any more; its lease is remembered for when it returns."""
        if mac not in self._elsewhere:
            return
        addresses = self._free_elsewhere(mac)
        if addresses and self._is_fresh(addresses[0]):
            self.remember(mac, addresses[0])

    def arrive(self, mac: bytes) -> None:
        """Let a guest that was at another worker keep here what it held there."""
        addresses = self._free_elsewhere(mac)
        for address in addresses:
            if self._is_fresh(address) and mac not in self._leases and mac not in self._fixed:
                self._give(address, mac, is_known=True)
                self._leases[mac] = address

    def _may_be_elsewhere(self, address: bytes, mac: bytes) -> bool:
        is_anothers = self._holders.get(address, mac) != mac or self._fixed_for_another(address, mac)
        return not is_anothers and address not in self._reserved

    def give_up(self, mac: bytes, address: bytes) -> bool:
        """Take an address from a guest here: another worker's has the right to it. False if it is fixed."""
        if self._fixed.get(mac) == address:
            return False
        was_lease = self._leases.get(mac) == address
        self._take_back(address, mac)
        if was_lease:
            self.lease_changed(mac, address)
        return True

    def fixed_of(self, mac: bytes) -> bytes | None:
        """Tell the address that the operator fixed for ``mac``."""
        return self._fixed.get(mac)

    def addresses_of(self, mac: bytes) -> tuple[bytes, ...]:
        """List what ``mac`` holds here, the address at which it is found first."""
        place = self.place_of(mac)
        first = {} if place is None else {place: None}
        lease = self._leases.get(mac)
        rest = [] if lease is None else [lease]
        return tuple(first | dict.fromkeys([*rest, *self._claims.get(mac, ()), *self._further.get(mac, ())]))

    def _free_elsewhere(self, mac: bytes) -> tuple[bytes, ...]:
        addresses = self._elsewhere.pop(mac, ())
        for address in addresses:
            # A fixed address is its guest's as soon as that is here, whoever has it elsewhere.
            if self._holders.get(address) == mac:
                del self._holders[address]
                self._used.discard(address)
        return addresses

    # -- further leases and claims --------------------------------------------------------------------

    def assign_further(self, mac: bytes, wanted: bytes | None = None) -> bytes | None:
        """Give ``mac`` one more address beside its own, ``wanted`` if it is free; None when all are held."""
        if not self.admits(mac):
            return None
        wanted = self._granted_further.pop(mac, None) or wanted
        free = wanted is not None and (self._is_fresh(wanted) or wanted in self._remembered_for)
        address = wanted if free else self._any()
        if address is not None:
            self._give(address, mac, is_known=True)
            self._further.setdefault(mac, {})[address] = None
        return address

    def _next(self, mac: bytes) -> bytes | None:
        """Find an address, the same for the same MAC if possible."""
        if len(self._used) == self.size:
            return self._any()
        for address in self._places(mac):
            if self._is_fresh(address) and address not in self._declined:
                return address
        return self._any()

    def _places(self, mac: bytes) -> Iterator[bytes]:
        """List where the address of ``mac`` may be, the likeliest place first."""
        first, stride = _place(mac, len(self._range))
        for number in range(_PROBES):
            yield self._range[(first + number * stride) % len(self._range)].to_bytes(4)

    def _any(self) -> bytes | None:
        """Find a fresh address, from behind the last one on, else the one released longest ago."""
        if len(self._used) == self.size:
            return next(iter(self._remembered.values()), None)
        for _ in self._range:
            address = self._range[self._next_index].to_bytes(4)
            self._next_index = (self._next_index + 1) % len(self._range)
            if self._is_fresh(address) and address not in self._declined:
                return address
        return next(filter(self._is_fresh, self._declined))

    def is_of_lan(self, address: bytes) -> bool:
        """Whether an address is of the LAN's network, whoever may have it."""
        return IPv4Address(address) in self._lan

    def _is_of_pool(self, address: bytes) -> bool:
        return int.from_bytes(address) in self._range and address not in self._no_pool

    def _is_fresh(self, address: bytes) -> bool:
        return address not in self._used and self._is_of_pool(address)

    def further_of(self, mac: bytes) -> tuple[bytes, ...]:
        """List the further leases of ``mac``, the one used longest ago first."""
        return tuple(self._further.get(mac, ()))

    def give_back(self, mac: bytes, address: bytes) -> None:
        """Take a further lease back, if ``mac`` has it."""
        further = self._further.get(mac, {})
        if address in further:
            self._give_up(address, further)
            if not further:
                del self._further[mac]

    def claim(self, mac: bytes, address: bytes) -> Claim:
        """Let ``mac`` use an address that nobody gave it. In the pool and its first, it becomes its lease."""
        if self.uses(mac, address):
            return Claim.OWN
        holder = self._holders.get(address)
        if address in self._reserved or self._fixed_for_another(address, mac):
            return Claim.RESERVED
        is_first = not self._has_shown(mac)
        if holder is not None and not (is_first and address in self._unshown):
            return Claim.TAKEN
        if not self.is_of_lan(address):
            return Claim.FOREIGN
        if len(self._claims.get(mac, ())) < MAX_CLAIMS_PER_MAC and not self.admits(mac):
            return Claim.OVER_SHARE
        if holder is not None:
            self._dispossess(holder, address)
        if mac not in self._leases and (self._is_of_pool(address) or address == self._fixed.get(mac)):
            self._leases[mac] = address
            self.lease_changed(mac, None)
        else:
            claims = self._claims.setdefault(mac, {})
            if len(claims) >= MAX_CLAIMS_PER_MAC:
                self._give_up(next(iter(claims)), claims)
            claims[address] = None
            if is_first and mac in self._leases:
                self.lease_changed(mac, self._leases[mac])
        self._hold(address, mac)
        return Claim.GRANTED

    def _has_shown(self, mac: bytes) -> bool:
        """Whether a MAC has used an address, or has one that is fixed."""
        lease = self._leases.get(mac)
        shown = lease is not None and lease not in self._unshown
        return shown or bool(self._claims.get(mac)) or mac in self._fixed

    def place_of(self, mac: bytes) -> bytes | None:
        """Tell the address at which ``mac`` is found: its lease, unless it uses only another one."""
        lease = self._leases.get(mac)
        if lease is None or (lease in self._unshown and mac not in self._fixed):
            return next(filter(self._is_of_pool, reversed(self._claims.get(mac, {}))), lease)
        return lease

    def _dispossess(self, holder: bytes, address: bytes) -> None:
        """Take an address from who never used it; what it uses instead, if anything, is its lease then."""
        self._take_back(address, holder)
        used = self.place_of(holder)
        if holder not in self._leases and used is not None:
            del self._claims[holder][used]
            self._leases[holder] = used
        self.lease_changed(holder, address)

    def prefer(self, mac: bytes, address: bytes) -> None:
        """Make an address that ``mac`` uses its lease, in place of one that it was given and never used."""
        claims, lease = self._claims.get(mac, {}), self._leases.get(mac)
        if (
            address in claims
            and self._is_of_pool(address)
            and lease in self._unshown
            and mac not in self._fixed
        ):
            del claims[address]
            self._take_back(lease, mac)
            self._leases[mac] = address
            self.lease_changed(mac, lease)

    def request(self, mac: bytes, address: bytes) -> None:
        """Make a fresh address the lease of ``mac``, which says that it had it, if nothing is known of that.

        So its present one, if any, was chosen by the hash, and not used since.
        """
        lease = self._leases.get(mac)
        is_known = mac in self._fixed or mac in self._remembered
        if lease is not None:
            is_known = is_known or self._unshown.get(lease, True) or bool(self._claims.get(mac))
        if is_known or not self.is_open(address) or not (lease or self.admits(mac)):
            return
        if lease is not None:
            self._take_back(lease, mac)
        self._give(address, mac, is_known=True)
        self._leases[mac] = address
        if lease is not None:
            self.lease_changed(mac, lease)

    def settle(self, mac: bytes) -> None:
        """Take note that ``mac`` has accepted its lease."""
        lease = self._leases.get(mac)
        if lease is not None and lease in self._unshown:
            self._unshown[lease] = True

    def uses(self, mac: bytes, address: bytes) -> bool:
        """Whether ``mac`` holds ``address``, which it uses at this moment."""
        if self._holders.get(address) != mac:
            return False
        self._unshown.pop(address, None)
        for beside in (self._claims.get(mac), self._further.get(mac)):
            if beside is not None and address in beside:
                del beside[address]
                beside[address] = None
        return True

    def move(self, address: bytes, mac: bytes) -> None:
        """Give a held address to ``mac``: whoever held it does not answer for it any more."""
        holder = self._holders.get(address)
        if holder is None or self._fixed_for_another(address, mac):
            return
        self._take_back(address, holder)
        self.claim(mac, address)

    def _take_back(self, address: bytes, holder: bytes) -> None:
        """Free an address, whatever it is to its holder."""
        claims = self._claims.get(holder, {})
        if address in claims:
            self._give_up(address, claims)
        elif self._leases.get(holder) != address:
            self.give_back(holder, address)
        else:
            del self._leases[holder]
            self._free(address)

    def _give_up(self, address: bytes, beside: dict[bytes, None]) -> None:
        """Free one of the claims or the further leases of a MAC."""
        del beside[address]
        self._free(address)

    def _free(self, address: bytes) -> None:
        holder = self._holders.pop(address)
        self._used.discard(address)
        self._unshown.pop(address, None)
        self.changed(holder)

    def release(self, mac: bytes) -> None:
        """Give back all addresses of ``mac``; its lease is remembered for when it returns."""
        self._granted_further.pop(mac, None)
        for beside in (self._claims.pop(mac, {}), self._further.pop(mac, {})):
            for address in list(beside):
                self._give_up(address, beside)
        lease = self._leases.pop(mac, None)
        if lease is not None:
            self._unshown.pop(lease, None)
            del self._holders[lease]
            if self._is_of_pool(lease):
                self._keep_for(mac, lease)
            self.changed(mac)

    def _keep_for(self, mac: bytes, address: bytes) -> None:
        self._forget(mac)
        self._remembered[mac] = address
        self._remembered_for[address] = mac
        if len(self._remembered) > MAX_REMEMBERED:
            self._forget(next(iter(self._remembered)))

    def decline(self, mac: bytes) -> None:
        """Take the lease of ``mac`` back, since another host uses it; it is the last to be given anew.

        A fixed address stays: the operator wants it so.
        """
        lease = self._leases.get(mac)
        if lease is not None and self._is_of_pool(lease):
            del self._leases[mac]
            self._free(lease)
            self._declined.pop(lease, None)
            self._declined[lease] = None
            if len(self._declined) > MAX_DECLINED:
                del self._declined[next(iter(self._declined))]
            self.lease_changed(mac, lease)

    def _fixed_for_another(self, address: bytes, mac: bytes) -> bool:
        return self._fixed_owners.get(address, mac) != mac

    def address_of(self, mac: bytes) -> bytes | None:
        """Tell the lease of ``mac``, if it holds one."""
        return self._leases.get(mac)

    def holder_of(self, address: bytes) -> bytes | None:
        """Tell which MAC holds ``address`` (assigned or claimed), if any."""
        return self._holders.get(address)

    def held(self) -> tuple[tuple[bytes, bytes], ...]:
        """List (address, MAC) of all that is held, in the order it was given."""
        return tuple(self._holders.items())

    def _give(self, address: bytes, mac: bytes, *, is_known: bool) -> None:
        """Let ``mac`` hold an address that it need not know of yet."""
        if address not in self._holders:
            self._unshown[address] = is_known
        self._hold(address, mac)

    def _hold(self, address: bytes, mac: bytes) -> None:
        """Move ``address`` from fresh or remembered to held."""
        self._mark_held(address, mac)
        self.changed(mac)

    def _mark_held(self, address: bytes, mac: bytes) -> None:
        self._holders[address] = mac
        if self._is_of_pool(address):
            self._used.add(address)
        rememberer = self._remembered_for.get(address)
        if rememberer is not None:
            self._forget(rememberer)

    def _forget(self, mac: bytes) -> None:
        """Drop what is remembered for ``mac``; the address, unless held, is fresh again."""
        address = self._remembered.pop(mac, None)
        if address is not None:
            del self._remembered_for[address]
            if address not in self._holders:
                self._used.discard(address)


def _place(mac: bytes, size: int) -> tuple[int, int]:
    """Say where in a range of ``size`` addresses to look for a MAC's, and in which steps to go on.

    MACs that follow each other, as those of one lab's machines do, have addresses that follow each other, and
    so never the same one; any others have places that are as good as random.
    """
    block = blake2b(mac[:-1], digest_size=8).digest()
    own = blake2b(mac, digest_size=8).digest()
    return (int.from_bytes(block) + mac[-1]) % size, 1 + int.from_bytes(own) % max(size - 1, 1)
