"""The gateway's part in rooms that span workers: whose guests have which addresses, and who gets a new one.

What guests of other workers hold stands in the same tables as what ours do, so that nobody else gets it,
names lead to it, and who asks for it is answered; it goes with what their worker says. What ours hold is
announced.

Guests of two workers may have one address or one name, when they took it at one instant or while their
workers did not hear each other. Of addresses ``netstack.room_state`` says whose it is; of names, whom
``RoomLink.keeps_name`` prefers, and the other's worker takes it back. Until then whoever was first here has
it here, and the other is taken over as soon as it is free.

A MAC that has no address yet waits for the room's home to grant one of some that are free here, MAX_WAITING
at a time. Without an answer, or where the home says that all of those are taken for ATTEMPTS times, it is
decided here alone: what two workers gave to two guests is settled when they hear of each other.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actors.ports import GuestAddresses
from actors.runtime import NEVER
from netstack.ipv4 import IPV4_LENGTH
from netstack.room_wire import MAX_CANDIDATES, Flag
from netstack.shares import client_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.gateway.guests import Guests
    from actors.gateway.leases import Leases
    from actors.gateway.services import LanServices
    from actors.ports import RoomLink
    from actors.runtime import Mailbox
    from actors.trunk_messages import AddressGranted, AddressTaken
    from netstack.counters import Counters
    from netstack.room_wire import Binding

MAX_WAITING = 512
"""MACs that wait for an address."""

WAITING_PER_MAC = 4
"""Registrations and DHCP messages of one MAC that wait with it; clients send more again."""

ATTEMPTS = 4

ASKED_AGAIN_AFTER = 0.05
"""Seconds after which the home is asked for the same addresses again: by then it is known who has them."""


class _Waiting:
    """What waits for the address of a MAC."""

    def __init__(self, wanted: bytes | None, *, further: bool) -> None:
        self.wanted = wanted
        self.further = further
        """Whether it is one beside the MAC's own."""
        self.then: list[Callable[[], None]] = []
        self.attempts = 0
        self.asked: set[bytes] = set()
        """Addresses that the home was asked for."""


class GuestsElsewhere:
    """One LAN's guests at other workers, and what these are told of ours."""

    def __init__(
        self,
        link: RoomLink,
        gateway: Mailbox,
        guests: Guests,
        services: LanServices,
        leases: Leases,
        *,
        counters: Counters,
    ) -> None:
        self._link = link
        self._gateway = gateway
        self._guests = guests
        self._services = services
        self._counters = counters
        self._waiting: dict[bytes, _Waiting] = {}
        self._ask_at: dict[bytes, float] = {}
        """MACs for which the home is asked again, and when, the next one first."""
        self._refused: set[bytes] = set()
        """MACs that have no address although it was decided about."""
        self._left_out: dict[bytes, Binding] = {}
        """Guests elsewhere that have something which another has here; no more than there are such guests."""
        self._addresses_of: Counter[str] = Counter()
        """IPv4 addresses of these guests, by their clients' networks."""
        self._counted: dict[bytes, tuple[str, int]] = {}
        """As whose they were counted, and how many, by MAC."""
        guests.pool.begin_at(*link.share)
        guests.arrived = self._let_go
        guests.shares.elsewhere = self._addresses_of.__getitem__
        guests.pool.changed = guests.bindings.changed = services.renamed = link.touch
        services.waits = leases.waits = self.waits
        services.replay = gateway.tell
        guests.contests.ask_elsewhere = self._ask_holder
        guests.contests.is_here = guests.port_of.__contains__
        link.describe_by(self._describe)

    def _describe(self, mac: bytes) -> GuestAddresses:
        guests = self._guests
        name, granted = self._services.names.label_of(mac)
        flags = int(Flag.GRANTED_NAME) if granted else 0
        ipv6 = tuple(reversed(guests.bindings.addresses_of(mac)))
        return GuestAddresses(
            guests.pool.addresses_of(mac),
            ipv6,
            name,
            flags,
            is_pending=mac in self._waiting,
            fixed=guests.pool.fixed_of(mac),
        )

    # -- new addresses --------------------------------------------------------------------------------

    def waits(
        self, mac: bytes, then: Callable[[], None], wanted: bytes | None = None, *, further: bool = False
    ) -> bool:
        """Whether a MAC has to wait for its address; then ``then`` is called when that is decided.

        Or for a ``further`` one, beside its own.
        """
        pool = self._guests.pool
        has_it = pool.is_granted_further(mac) if further and pool.has_place(mac) else pool.has_place(mac)
        if has_it or mac in self._refused or not pool.admits(mac):
            return False
        waiting = self._waiting.get(mac)
        if waiting is None:
            candidates = pool.candidates(mac, MAX_CANDIDATES, wanted)
            if len(self._waiting) >= MAX_WAITING or not candidates:
                return False
            waiting = self._waiting[mac] = _Waiting(wanted, further=further and pool.has_place(mac))
            self._ask(mac, waiting, candidates)
        if len(waiting.then) < WAITING_PER_MAC:
            waiting.then.append(then)
        else:
            self._counters.add("gateway.drop.waiting_for_address")
        return True

    def _ask(self, mac: bytes, waiting: _Waiting, candidates: tuple[bytes, ...]) -> None:
        waiting.attempts += 1
        waiting.asked.update(candidates)
        self._link.ask(mac, candidates, self._gateway)

    @property
    def poll_at(self) -> float:
        """When :meth:`step` is to be called next."""
        return next(iter(self._ask_at.values()), NEVER)

    def step(self, now: float) -> None:
        """Ask the home again for whom it is time."""
        for mac in [mac for mac, at in self._ask_at.items() if now >= at]:
            del self._ask_at[mac]
            waiting = self._waiting[mac]
            self._ask(mac, waiting, self._more_candidates(mac, waiting))

    def _more_candidates(self, mac: bytes, waiting: _Waiting) -> tuple[bytes, ...]:
        """List addresses for the next attempt, others than before where there are."""
        most = MAX_CANDIDATES * (waiting.attempts + 1)
        return self._guests.pool.candidates(mac, most)[-MAX_CANDIDATES:]

    def granted(self, message: AddressGranted, now: float) -> None:
        """Go on with what waited, with what the home has said."""
        mac, pool = message.mac, self._guests.pool
        waiting = self._waiting.get(mac)
        if waiting is None:
            return
        if mac not in self._guests.port_of:  # it has left
            del self._waiting[mac]
            return
        if message.address == b"" and waiting.attempts < ATTEMPTS:
            candidates = self._more_candidates(mac, waiting)
            if waiting.asked.issuperset(candidates):
                self._ask_at[mac] = now + ASKED_AGAIN_AFTER
            else:
                self._ask(mac, waiting, candidates)
            return
        del self._waiting[mac]
        if not message.address:
            self._counters.add("rooms.addresses_chosen_alone")
        if waiting.further:
            pool.grant_further(mac, message.address or None)
        elif message.address:
            pool.assign_granted(mac, message.address)
        else:
            pool.assign(mac, waiting.wanted)
        self._refused.add(mac)  # if it has none by now, there is none
        for then in waiting.then:
            then()
        self._refused.discard(mac)

    # -- others' guests -------------------------------------------------------------------------------

    def note(self, binding: Binding) -> None:
        """Take over what is known of another worker's guest."""
        self._take_over(binding)
        self._take_over_left_out(binding.mac)

    def _take_over_left_out(self, mac: bytes) -> None:
        """Take over what other guests may have, since ``mac`` has given something up, perhaps."""
        for other in [binding for binding in self._left_out.values() if binding.mac != mac]:
            self._take_over(other)

    def _take_over(self, binding: Binding) -> None:
        mac, guests = binding.mac, self._guests
        self._let_go(mac)
        if mac in guests.port_of:  # behind a port here by now
            return
        ipv4 = tuple(address for address in binding.addresses if len(address) == IPV4_LENGTH)
        ipv6 = tuple(address for address in binding.addresses if len(address) != IPV4_LENGTH)
        self._count(mac, client_network(binding.client), len(ipv4))
        guests.pool.hold_elsewhere(mac, ipv4)
        guests.bindings.hold_elsewhere(mac, tuple(reversed(ipv6)))
        is_named = self._take_over_name(binding, ipv4)
        guests.ipv6.publish(mac)
        holders = {guests.pool.holder_of(address) for address in ipv4}
        holders |= {guests.bindings.holder_of(address) for address in ipv6}
        if not is_named or holders - {mac}:
            self._left_out[mac] = binding

    def _let_go(self, mac: bytes) -> None:
        """Keep account of a guest no longer: it is here, or nowhere."""
        self._left_out.pop(mac, None)
        self._count(mac)

    def _count(self, mac: bytes, client: str = "", addresses: int = 0) -> None:
        """Count a guest's addresses as its client's, or no longer."""
        former, counted = self._counted.pop(mac, ("", 0))
        if counted:
            self._addresses_of[former] -= counted
            if not self._addresses_of[former]:
                del self._addresses_of[former]
        if client and addresses:
            self._counted[mac] = client, addresses
            self._addresses_of[client] += addresses

    def _take_over_name(self, binding: Binding, ipv4: tuple[bytes, ...]) -> bool:
        """Have a guest found by its name; False if that is another guest's here."""
        mac, services = binding.mac, self._services
        if not ipv4 or not binding.name:
            if services.names.label_of(mac)[0]:
                services.forget_elsewhere(mac)
            return True
        holder = services.names.holder_of(binding.name)
        if holder is not None and holder != mac and self._has_to_give_name(holder, mac):
            services.lose_name(holder, to=mac)
            self._guests.ipv6.publish(holder)
        granted = bool(binding.flags & Flag.GRANTED_NAME)
        services.name_elsewhere(mac, ipv4[0], binding.name, granted=granted)
        return services.names.holder_of(binding.name) in (None, mac)  # None where it is the LAN's own

    def _has_to_give_name(self, holder: bytes, mac: bytes) -> bool:
        """Whether a guest of ours (or a DHCP client behind it) has the name of one elsewhere."""
        return holder[: len(mac)] in self._guests.port_of and not self._link.keeps_name(holder, mac)

    def forget(self, mac: bytes) -> None:
        """Forget another worker's guest; its address is remembered for it."""
        guests = self._guests
        self._let_go(mac)
        guests.pool.forget_elsewhere(mac)
        if mac not in guests.port_of:
            guests.bindings.hold_elsewhere(mac, ())
            self._services.forget_elsewhere(mac)
        self._take_over_left_out(mac)

    def give_up(self, message: AddressTaken) -> None:
        """Take an address from a guest of ours: another worker's guest has had it for longer."""
        guests, mac, address = self._guests, message.mac, message.address
        if mac not in guests.port_of:
            return
        if not guests.contests.table_of(address).give_up(mac, address):
            return
        guests.address_lost(address, mac)
        elsewhere = self._link.elsewhere(message.holder)
        if elsewhere is not None:
            self.note(elsewhere[1])

    def _ask_holder(self, holder: bytes, address: bytes, challenger: bytes) -> bool:
        """Have the worker of an address's holder ask it whether it still has it; False if that is here."""
        found = None if holder in self._guests.port_of else self._link.elsewhere(holder)
        if found is None:
            return False
        self._link.contest(found[0], address, challenger)
        return True
