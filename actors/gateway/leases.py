"""Who has which IPv4 address, as the guests and the LAN's memory are told.

A guest that registers is told its address at once, and again when it turns out to have another one: it went
on with the one that it had before the relay was started anew, or a neighbour did so with the one that this
guest had been given and had not used (``netstack.address_pool``). What is told is kept by a ``LeaseMemory``,
with the guest's name: from there a gateway that starts knows who had what.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actors.messages import AddressAssigned, AddressWanted, RegistrationRefused
from actors.runtime import tell_alive
from netstack.dns_zone import clean_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.flows.batch import PortState
    from actors.gateway.services import LanServices
    from actors.messages import AssignAddress
    from actors.ports import LeaseMemory
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from netstack.address_pool import AddressPool
    from netstack.counters import Counters


class NoMemory:
    """Keeps nothing; implements ``actors.ports.LeaseMemory``."""

    def recall(self) -> tuple[()]:
        """Know of nobody."""
        return ()

    def name_of(self, mac: bytes) -> str:  # noqa: ARG002
        """Know of no name."""
        return ""

    def keep(self, mac: bytes, address: bytes, name: str = "") -> None:
        """Forget it."""


class Leases:
    """The leases of one LAN's guests."""

    def __init__(
        self,
        pool: AddressPool,
        services: LanServices,
        counters: Counters,
        settings: LanSettings,
        *,
        switch: Mailbox,
        memory: LeaseMemory,
        call_later: Callable[[], None],
    ) -> None:
        """``call_later`` has :meth:`tell_changed` called when the handler that is at work is done."""
        self._pool = pool
        self._services = services
        self._counters = counters
        self._settings = settings
        self._switch = switch
        self._memory = memory
        self._call_later = call_later
        self.waits: Callable[[bytes, Callable[[], None], bytes | None], bool] = lambda *_: False
        """Whether a MAC, which may want a certain address, has to wait for one; then a function is called."""
        self._changed: dict[bytes, bytes | None] = {}
        """MACs with other leases than they were given, and what they were given."""
        for mac, address, _ in memory.recall():
            pool.remember(mac, address)
        pool.lease_changed = self._note_change
        services.on_name = memory.keep

    def assign(self, registration: AssignAddress) -> None:
        """Give a guest its address, and tell it and its peer; at once, or once it has waited for that."""
        mac = registration.mac
        if self.waits(mac, partial(self.assign, registration), registration.wanted):
            return
        address = self._pool.assign(mac, registration.wanted)
        if address is None:
            self.refuse(registration)
            return
        place = self._pool.place_of(mac) or address  # it may use another one than it is given
        self._memory.keep(mac, place)
        self._name(registration, place)
        self._tell(registration, address)

    def refuse(self, registration: AssignAddress) -> None:
        """Tell a guest that it gets no address; not before those who are away were asked for theirs."""
        has_share = self._pool.free > 0
        if registration.attempts_left:
            tell_alive(self._switch, AddressWanted(registration, has_share))
            return
        self._counters.add("gateway.pool_full")
        reason = "this client has too many addresses" if has_share else "address pool is full"
        tell_alive(registration.peer, RegistrationRefused(reason, registration.mac))

    def _name(self, registration: AssignAddress, address: bytes) -> None:
        """Let a guest be found by its name; by the one that it had before, if it says none."""
        granted = registration.name_is_fixed
        name = registration.name or ("" if granted else self._memory.name_of(registration.mac))
        if name:
            self._services.name(registration.mac, address, name, granted=granted)

    def name_again(self, mac: bytes, port: PortState) -> None:
        """Let a guest without a name be found by the one that it had before.

        One behind a bridge does not register, and asks by DHCP no earlier than half its lease. Which name a
        token gives is another question, and so is who may have none.
        """
        address = self._pool.place_of(mac)
        if address is None or port.fixed_name != "" or self._services.names.label_of(mac)[0]:
            return
        name = self._memory.name_of(mac)
        if name:
            self._services.name(mac, address, name, granted=False)

    def _tell(self, registration: AssignAddress, address: bytes) -> None:
        mac, settings = registration.mac, self._settings
        assigned = AddressAssigned(
            mac,
            address,
            settings.gateway_ip,
            settings.netmask,
            settings.dns,
            registration.link_mtu(),
            registration.resume,
        )
        tell_alive(registration.peer, assigned)

    def _note_change(self, mac: bytes, before: bytes | None) -> None:
        """Tell the guest later: now the pool is in the middle of it."""
        if not self._changed:
            self._call_later()
        self._changed.setdefault(mac, before)

    def tell_changed(self, ports: Mapping[int, PortState], port_of: Mapping[bytes, int]) -> list[bytes]:
        """Tell guests what addresses they have now; return those whose names lead to none of IPv6 now."""
        moved = []
        changed, self._changed = self._changed, {}
        for mac, before in changed.items():
            port = ports.get(port_of.get(mac, -1))
            if port is not None and self.waits(mac, partial(self._note_change, mac, before), None):
                continue
            address = None if port is None else self._pool.assign(mac)
            place = self._pool.place_of(mac)
            if port is None or address is None or place is None:
                continue
            self._memory.keep(mac, place)
            if before not in (None, place) and self._services.names.owner_of(before) == mac:
                self._services.address_moved(before)  # else it is another guest's by now
                moved.append(mac)
            registration = port.registration
            if registration is not None and registration.mac == mac:
                self._name(registration, place)
                if address != before:
                    self._counters.add("gateway.leases_changed")
                    self._tell(registration, address)
        return moved

    def former_address(self, vm: bytes | str) -> bytes | None:
        """Tell the address that a guest had last, by its MAC (6 bytes), its name, or that address (4)."""
        found = None
        for mac, address, name in self._memory.recall():
            # Most names are told apart by their first letter.
            is_called_so = isinstance(vm, str) and vm.startswith(name[:1].lower()) and clean_label(name) == vm
            if (is_called_so or vm in (mac, address)) and any(address):
                found = address
        return found

    def keep(self, mac: bytes) -> None:
        """Keep in mind what a guest has that leaves."""
        address = self._pool.place_of(mac)
        if address is not None:
            self._memory.keep(mac, address)
