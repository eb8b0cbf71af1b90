"""Who may have one more of the LAN's addresses: no session, and no client's network, gets all of them.

Theory of operation. Every session may have one, and some more (a bridge has many guests, a guest may take
addresses by hand) while there are plenty: fewer than a part of what is free, and none of the last LAST_PART.
Of the sessions whose clients share an address, or an IPv6 /64, the same holds as for connections
(``netstack.shares``). A pool of fewer than SHARED_POOL addresses is for guests that are known; there whoever
comes first has what it asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack.shares import reserve_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actors.flows.batch import PortState
    from netstack.address_pool import AddressPool

SHARED_POOL = 64
"""Addresses of a pool from which on nobody may take all."""
LAST_PART = 8
"""One address in so many is for sessions that have none, and a session may have that part of what is free."""
ALIASES = 5
"""Addresses that a session may have in any case, until the last part: a guest's own and its aliases."""


class AddressShares:
    """Counts the addresses of sessions and of client networks."""

    def __init__(
        self,
        pool: AddressPool,
        ports: Mapping[int, PortState],
        port_of: Mapping[bytes, int],
        percent: int,
    ) -> None:
        """``ports`` are the sessions, ``port_of`` says where a MAC is; ``percent`` is a network's share."""
        self._pool = pool
        self._ports = ports
        self._port_of = port_of
        self._percent = percent
        self.elsewhere: Callable[[str], int] = lambda _client: 0
        """How many addresses a client's network has at other workers."""

    def admits(self, mac: bytes) -> bool:
        """Whether ``mac`` may have one more address. A MAC that is nowhere yet may have its first."""
        pool, number = self._pool, self._port_of.get(mac)
        port = None if number is None else self._ports.get(number)
        if pool.size < SHARED_POOL or port is None:
            return True
        held, free = self._held(port), pool.free
        if held and (free <= pool.size // LAST_PART or held >= max(ALIASES, free // LAST_PART)):
            return False
        if not port.client or free > reserve_of(pool.size, self._percent):
            return True
        return self._percent == 0 or not self._has(port.client, free)

    def _has(self, client: str, count: int) -> bool:
        """Whether a client's sessions hold ``count`` addresses; looks at no more of them than it must."""
        count -= self.elsewhere(client)
        for port in self._ports.values():
            if count <= 0:
                break
            if port.client == client:
                count -= self._held(port)
        return count <= 0

    def _held(self, port: PortState) -> int:
        return sum(map(self._pool.count_of, port.macs))
