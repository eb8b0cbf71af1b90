"""Where each guest is reached by IPv6, for names and forwards: guests choose their addresses (RFC 4862)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack.ipv6 import is_link_local, link_local_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from netstack.neighbour import AddressBindings


class Ipv6Addresses:
    """Follows the guests' addresses in the LAN's prefix."""

    def __init__(
        self,
        bindings: AddressBindings,
        prefix: bytes | None,
        tell: Callable[[bytes, tuple[bytes, ...]], None],
    ) -> None:
        """``prefix`` is 8 bytes, None for a LAN without IPv6; ``tell`` hears what a MAC is reached by."""
        self._bindings = bindings
        self._prefix = prefix
        self._tell = tell
        self._announced: dict[bytes, bytes] = {}
        """The address that each known MAC was about to take, when it last looked for duplicates."""
        self._changed: set[bytes] = set()
        """Guests with new addresses, of this batch of frames."""

    def is_of_lan(self, address: bytes) -> bool:
        """Whether an address is one that a guest may have."""
        return is_link_local(address) or address[:8] == self._prefix

    def announced(self, mac: bytes, address: bytes) -> None:
        """Note that a guest asks whether anybody has ``address``, before it takes it."""
        if address[:8] == self._prefix:
            self._announced[mac] = address
            self._changed.add(mac)

    def taken(self, mac: bytes, address: bytes) -> None:
        """Note that an address is new to a guest: :meth:`publish` is to be called."""
        if address[:8] == self._prefix:
            self._changed.add(mac)

    def forget(self, mac: bytes) -> None:
        """Forget the addresses of a guest that left."""
        self._bindings.release(mac)
        self._announced.pop(mac, None)
        self._changed.discard(mac)

    def publish(self, *macs: bytes) -> None:
        """Let these guests, and those with new addresses, be found by name."""
        if self._prefix is None:
            return
        self._changed.update(macs)
        while self._changed:
            mac = self._changed.pop()
            self._tell(mac, self.addresses_of(mac))

    def address_of(self, mac: bytes) -> bytes | None:
        """Tell where in the prefix a guest is best reached."""
        return next(iter(self.addresses_of(mac)), None)

    def addresses_of(self, mac: bytes) -> tuple[bytes, ...]:
        """List where in the prefix a guest is reached: its lasting address, then the one used last.

        A guest that has not used any yet has announced one, when it looked for duplicates (RFC 4862).
        """
        if self._prefix is None:
            return ()
        used = [address for address in self._bindings.addresses_of(mac) if address[:8] == self._prefix]
        lasting = self._prefix + link_local_of(mac)[8:]
        used.sort(key=lasting.__eq__)
        announced = self._announced.get(mac)
        if not used and announced is not None and self._bindings.holder_of(announced) in {None, mac}:
            used.append(announced)
        return tuple(reversed(used))
