"""Names of the LAN: ``web.vm.internal`` for the guest that called itself so, and back.

A name is one label, of letters, digits and hyphens, in lower case. The first guest that takes a name keeps it
until its session ends, or until a guest comes whose token gives it that name; the LAN's own names (the
gateway's, names of fixed leases) are nobody's to take. A guest has one name at a time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LAN_DOMAIN = "vm.internal"
"""Where guests' names are, unless a LAN has another."""

MAX_DOMAIN = 180
"""Characters of a LAN's domain, which leave room for a guest's name (RFC 1035 section 2.3.4: 253 in all)."""

RESERVED_NAMES = frozenset({"gateway", "host", "dns", "localhost", "wpad", "isatap"})
"""Not for guests: the LAN's own, and those by which clients look for someone to trust."""

_DOMAIN = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def is_lan_domain(text: object) -> bool:
    """Whether a LAN can have this domain: in lower case, without the last dot, and safe in any file."""
    return isinstance(text, str) and len(text) <= MAX_DOMAIN and _DOMAIN.fullmatch(text) is not None


def clean_label(name: str) -> str:
    """Make a label of what a client calls itself: all before the first dot; empty when it cannot be one."""
    label = name.partition(".")[0].strip().lower().replace("_", "-").replace(" ", "-")
    return label if _LABEL.fullmatch(label) else ""


class Zone:
    """Addresses (4 or 16 bytes) by name, and names by address."""

    def __init__(
        self, own: Mapping[str, tuple[bytes, ...]], fixed: Mapping[str, bytes] | None = None
    ) -> None:
        """Begin with the LAN's own names; where two share an address, the first is its name.

        ``fixed`` has the MACs of guests whose names are among these, so that their IPv6 addresses are found.
        """
        self._own = dict(own)
        self._own_names: dict[bytes, str] = {}
        for name, addresses in own.items():
            for address in addresses:
                self._own_names.setdefault(address, name)
        self._fixed = dict(fixed or {})
        self._fixed_names = {mac: name for name, mac in self._fixed.items()}
        self._guests: dict[str, tuple[bytes, bytes]] = {}
        """(MAC, IPv4 address) by name."""
        self._name_of: dict[bytes, str] = {}
        """A guest's name by its MAC."""
        self._granted: set[bytes] = set()
        """MACs of the guests whose names are their tokens'."""
        self._names: dict[bytes, str] = {}
        """A guest's name by its IPv4 address."""
        self._ipv6: dict[bytes, tuple[bytes, ...]] = {}
        """A guest's IPv6 addresses by its MAC."""
        self._holders: dict[bytes, bytes] = {}
        """The MAC that has an IPv6 address."""

    def guests(self) -> dict[str, tuple[bytes, ...]]:
        """List the guests' names with their addresses, IPv4 first."""
        return {name: self.addresses_of(name) for name in (*self._fixed, *self._guests)}

    def bind(self, mac: bytes, address: bytes, name: str, *, granted: bool = False) -> str:
        """Give the guest ``mac`` a name for its address; return the name that it has now.

        One that is ``granted``, by a token, is taken from a guest that only calls itself so. Without a usable
        name the guest keeps the one it had, for the new address.
        """
        label = clean_label(name)
        holder = self.holder_of(label)
        if label in RESERVED_NAMES or label in self._own:
            label = ""
        elif holder is not None and holder != mac:
            if granted and holder not in self._granted:
                self._take_name(holder)
            else:
                label = ""
        granted = granted if label else mac in self._granted
        label = label or self._name_of.get(mac, "")
        self._take_name(mac)
        if label:
            self._guests[label] = (mac, address)
            self._name_of[mac] = label
            self._names[address] = label
            if granted:
                self._granted.add(mac)
        return label

    def holder_of(self, label: str) -> bytes | None:
        """Tell which guest, by its MAC, has a name."""
        guest = self._guests.get(label)
        return None if guest is None else guest[0]

    def label_of(self, mac: bytes) -> tuple[str, bool]:
        """Tell a guest's name, empty if it has none, and whether it is its token's."""
        return self._name_of.get(mac, ""), mac in self._granted

    def set_ipv6(self, mac: bytes, addresses: tuple[bytes, ...]) -> None:
        """Note the IPv6 addresses of a guest, all of them, the best first; nobody else has these now."""
        for address in self._ipv6.pop(mac, ()):
            if self._holders.get(address) == mac:
                del self._holders[address]
        if addresses:
            self._ipv6[mac] = addresses
            self._holders.update(dict.fromkeys(addresses, mac))

    def forget(self, mac: bytes) -> None:
        """Take the guest's name back, and forget its addresses."""
        self._take_name(mac)
        self.set_ipv6(mac, ())

    def _take_name(self, mac: bytes) -> None:
        self._granted.discard(mac)
        label = self._name_of.pop(mac, None)
        if label is not None:
            _, address = self._guests.pop(label)
            if self._names.get(address) == label:  # else it is another guest's by now
                del self._names[address]

    def address_of(self, name: str) -> bytes | None:
        """Look up the IPv4 address of a label in lower case."""
        return next(iter(self.addresses_of(name)), None)

    def addresses_of(self, name: str) -> tuple[bytes, ...]:
        """Look up the addresses of a label in lower case, IPv4 first; none where there is no such name."""
        own = self._own.get(name)
        if own is not None:
            return own + self._ipv6_of(self._fixed.get(name))
        guest = self._guests.get(name)
        return () if guest is None else (guest[1], *self._ipv6_of(guest[0]))

    def _ipv6_of(self, mac: bytes | None) -> tuple[bytes, ...]:
        if mac is None:
            return ()
        return tuple(address for address in self._ipv6.get(mac, ()) if self._holders.get(address) == mac)

    def owner_of(self, address: bytes) -> bytes | None:
        """Tell which guest's name, by its MAC, leads to an IPv4 address."""
        label = self._names.get(address)
        return None if label is None else self._guests[label][0]

    def name_of(self, address: bytes) -> str | None:
        """Look an address up."""
        name = self._own_names.get(address) or self._names.get(address)
        mac = None if name else self._holders.get(address)
        return name if mac is None else self._fixed_names.get(mac) or self._name_of.get(mac)
