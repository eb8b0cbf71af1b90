"""Names of the LAN: ``web.vm.internal`` for the guest that called itself so, and back.

A name is one label, of letters, digits and hyphens, in lower case. The first guest that takes a name keeps it
until its session ends; the LAN's own names (the gateway's, names of fixed leases) are nobody's to take. A
guest has one name at a time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RESERVED_NAMES = frozenset({"gateway", "host", "dns", "localhost", "wpad", "isatap"})
"""Not for guests: the LAN's own, and those by which clients look for someone to trust."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def clean_label(name: str) -> str:
    """Make a label of what a client calls itself: all before the first dot; empty when it cannot be one."""
    label = name.partition(".")[0].strip().lower().replace("_", "-").replace(" ", "-")
    return label if _LABEL.fullmatch(label) else ""


class Zone:
    """Addresses (4 bytes) by name, and names by address."""

    def __init__(self, own: Mapping[str, bytes]) -> None:
        """Begin with the LAN's own names; where two share an address, the first is its name."""
        self._own = dict(own)
        self._own_names = {address: name for name, address in reversed(list(own.items()))}
        self._guests: dict[str, tuple[bytes, bytes]] = {}
        """(MAC, address) by name."""
        self._name_of: dict[bytes, str] = {}
        """A guest's name by its MAC."""
        self._names: dict[bytes, str] = {}
        """A guest's name by its address."""

    def bind(self, mac: bytes, address: bytes, name: str) -> str:
        """Give the guest ``mac`` a name for its address; return the name that it has now.

        Without a usable name it keeps the one it had, for the new address.
        """
        label = clean_label(name)
        holder = self._guests.get(label)
        if label in RESERVED_NAMES or label in self._own or (holder is not None and holder[0] != mac):
            label = ""
        label = label or self._name_of.get(mac, "")
        self.forget(mac)
        if label:
            self._guests[label] = (mac, address)
            self._name_of[mac] = label
            self._names[address] = label
        return label

    def forget(self, mac: bytes) -> None:
        """Take the guest's name back."""
        label = self._name_of.pop(mac, None)
        if label is not None:
            _, address = self._guests.pop(label)
            self._names.pop(address, None)

    def address_of(self, name: str) -> bytes | None:
        """Look a label up, in lower case."""
        own = self._own.get(name)
        if own is not None:
            return own
        guest = self._guests.get(name)
        return None if guest is None else guest[1]

    def name_of(self, address: bytes) -> str | None:
        """Look an address up."""
        return self._own_names.get(address) or self._names.get(address)
