"""Addresses that guests are about to take: they ask whether anybody has one, and do not answer for it yet.

By ARP (RFC 5227 section 2.1) or neighbour solicitation (RFC 4862 section 5.4). Who hears meanwhile that
another has the address, or wants it too, does without it. So for that while others are kept from saying so,
and the guest is not asked to defend what it does not have yet (RFC 6620: first come, first served).
"""

from __future__ import annotations

PROBED_FOR = 3.0
"""Seconds from a probe on: until the next one, or the use of the address (RFC 5227: ANNOUNCE_WAIT is 2 s)."""

MAX_PER_MAC = 8
"""A guest that boots looks at some four at once."""


class AddressProbes:
    """Addresses (4 or 16 bytes) by MAC (6 bytes); times are monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[bytes, dict[bytes, float]] = {}
        """By MAC, the address asked for longest ago first."""
        self._probers: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Addresses kept, those of which the time is over too."""
        return len(self._probers)

    def begin(self, mac: bytes, address: bytes, now: float) -> None:
        """Note that ``mac``, which may have ``address`` as far as anybody knows, looks whether it is free."""
        other = self._probers.get(address, mac)
        if other != mac:
            self._drop(other, address)
        own = self._until.setdefault(mac, {})
        own.pop(address, None)
        if len(own) >= MAX_PER_MAC:
            self._drop(mac, next(iter(own)))
        own[address] = now + PROBED_FOR
        self._probers[address] = mac

    def prober_of(self, address: bytes, now: float) -> bytes:
        """Tell the MAC that is about to take an address; empty for none."""
        mac = self._probers.get(address)
        return mac if mac is not None and now < self._until[mac][address] else b""

    def forget(self, mac: bytes) -> None:
        """Forget a guest that left."""
        for address in self._until.pop(mac, ()):
            del self._probers[address]

    def _drop(self, mac: bytes, address: bytes) -> None:
        del self._until[mac][address], self._probers[address]
