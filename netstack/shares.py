"""Who may have how much of what there is only so much of: handshakes, connections, sessions, flows.

Theory of operation. A part of everything is a reserve: with a share of 50 % half of it, with 98 % the last
fiftieth. Until then an owner takes what it likes, so that one classroom behind one address finds room; of the
reserve an owner gets one more only while it holds less than is free. So one owner alone never gets more than
its share, each further one that wants all gets half of what is left, and there is something for who comes
next. (The second rule is the dynamic threshold of switches that share their packet memory: Choudhury and
Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998.)

Clients are told apart by their network: an IPv4 address, or an IPv6 /64, which is what one host gets.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

HALF = 50
"""Percent that one owner may have of what nobody needs for long."""
WHOLE = 100
"""Percent that stand for no limit but the total."""

IPV6_PREFIX = 8
"""Bytes of an IPv6 address that are the network's."""


class Shares:
    """What is held of a resource, by owner."""

    __slots__ = ("_held", "_percent", "limit", "total")

    def __init__(self, limit: int, percent: int = HALF) -> None:
        """Share ``limit`` units, of which one owner alone may have ``percent``; 0 turns that off."""
        self.limit = limit
        self.total = 0
        self._percent = percent
        self._held: Counter[Hashable] = Counter()

    def resize(self, limit: int, percent: int) -> None:
        """Share another number of units from now on; nobody loses what he has."""
        self.limit = limit
        self._percent = percent

    def held_by(self, owner: Hashable) -> int:
        """Units that an owner has."""
        return self._held[owner]

    def may_take(self, owner: Hashable) -> bool:
        """Whether there is one more for this owner."""
        free = self.limit - self.total
        reserve = reserve_of(self.limit, self._percent)
        return free > reserve or (reserve > 0 and self._held[owner] < free)

    def take(self, owner: Hashable) -> bool:
        """Take a unit for an owner, if there is one for it."""
        if not self.may_take(owner):
            return False
        self.add(owner)
        return True

    def add(self, owner: Hashable) -> None:
        """Count a unit that an owner has in any case."""
        self._held[owner] += 1
        self.total += 1

    def give_back(self, owner: Hashable) -> None:
        """Take a unit back; an owner without any is forgotten."""
        held = self._held[owner]
        if held > 1:
            self._held[owner] = held - 1
        else:
            del self._held[owner]
        self.total -= min(held, 1)

    def forget(self, owner: Hashable) -> None:
        """Take everything back that an owner has."""
        self.total -= self._held.pop(owner, 0)

    @property
    def is_tight(self) -> bool:
        """Whether there is no more than the reserve."""
        return self.limit - self.total <= reserve_of(self.limit, self._percent)

    @property
    def owners(self) -> int:
        """Owners that have anything."""
        return len(self._held)


def reserve_of(limit: int, percent: int) -> int:
    """Tell how many of ``limit`` units are a reserve where an owner alone may have ``percent`` (0: all)."""
    return 0 if percent in {0, WHOLE} else max(1, limit * (WHOLE - percent) // WHOLE)


def client_network(host: str) -> str:
    """Tell the network by which clients are told apart; ``host`` is an address, in brackets or not.

    IPv4-mapped addresses are IPv4; scopes are no part of an address; what is none stands for itself.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(address.packed[:IPV6_PREFIX].ljust(16, bytes(1)))}/64"
