"""The gateway's way to find out who has an address that two guests use: see ``netstack.contests``.

Only the guests' words are weighed here: an address that the operator fixed for a MAC, and the gateway's own,
are never contested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from actors.messages import FramesFromGateway
from actors.runtime import tell_alive
from netstack.address_probes import AddressProbes
from netstack.contests import Contest, Contests
from netstack.ethernet import format_mac
from netstack.family import family_of
from netstack.ipv4 import IPV4_LENGTH
from netstack.neighbour import solicitation

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.flows.flow import FlowContext
    from netstack.address_pool import AddressPool
    from netstack.neighbour import AddressBindings


class AddressContests:
    """Contests of one LAN's addresses, IPv4 and IPv6."""

    def __init__(
        self,
        context: FlowContext,
        pool: AddressPool,
        bindings: AddressBindings,
        moved: Callable[[bytes, bytes], None],
    ) -> None:
        """Tell ``moved`` each address that another guest got, and the MAC that had it."""
        self.probes = AddressProbes()
        """Who is about to take which address, and cannot answer for it yet."""
        self._context = context
        self._pool = pool
        self._bindings = bindings
        self._moved = moved
        self.ask_elsewhere: Callable[[bytes, bytes, bytes], bool] = lambda *_: False
        """Takes holder, address and challenger; has another worker ask the holder if that is its guest."""
        self.is_here: Callable[[bytes], bool] = lambda _mac: True
        """Whether a MAC is a guest of this worker's."""
        self._contests = Contests()

    @property
    def poll_at(self) -> float:
        """When :meth:`step` is to be called next."""
        return self._contests.poll_at

    def table_of(self, address: bytes) -> AddressPool | AddressBindings:
        """Tell in which table an address stands."""
        return self._pool if len(address) == IPV4_LENGTH else self._bindings

    def begin(self, address: bytes, challenger: bytes, port: int, now: float) -> None:
        """Ask the holder of ``address``, unless it was asked just now: ``challenger`` uses it too."""
        holder = self.table_of(address).holder_of(address)
        if holder is None or self.probes.prober_of(address, now) == holder:
            return
        if self.ask_elsewhere(holder, address, challenger):
            return
        if self._contests.begin(Contest(address, holder, challenger, port), now):
            self._context.counters.add("gateway.contests")
            self.step(now)

    def answered(self, address: bytes, mac: bytes, now: float) -> None:
        """Note that ``mac`` said by ARP or neighbour discovery that it has ``address``."""
        if self._contests.answered(address, mac, now):
            self._context.counters.add("gateway.addresses_defended")

    def step(self, now: float) -> None:
        """Ask whom it is time to ask, and move what was not defended."""
        due = self._contests.due(now)
        if due.probes:
            tell_alive(self._context.switch, FramesFromGateway(list(map(self._probe, due.probes))))
        for contest in due.lost:
            table = self.table_of(contest.address)
            if table.holder_of(contest.address) != contest.holder:
                continue
            if self.is_here(contest.challenger):
                table.move(contest.address, contest.challenger)
            elif not table.give_up(contest.holder, contest.address):
                continue  # else the challenger's worker will say that it has the address
            self._context.counters.add("gateway.addresses_moved")
            logger.info(
                "{} moved from {} to {}: its holder does not answer for it",
                family_of(contest.address).format(contest.address),
                format_mac(contest.holder),
                format_mac(contest.challenger),
            )
            self._moved(contest.address, contest.holder)

    def probed(self, address: bytes, mac: bytes, now: float) -> None:
        """Note that ``mac`` asks whether anybody has ``address``, to take it if it is not another's."""
        holder = self.table_of(address).holder_of(address)
        if holder == mac or (holder is None and self.probes.prober_of(address, now) in {b"", mac}):
            self.probes.begin(mac, address, now)

    def forget(self, mac: bytes) -> None:
        """End the contests of a guest that left."""
        self._contests.forget(mac)
        self.probes.forget(mac)

    def _probe(self, contest: Contest) -> bytes:
        if len(contest.address) == IPV4_LENGTH:
            return self._context.replies.arp_request(contest.holder, contest.address)
        settings = self._context.settings
        return solicitation(
            settings.gateway_mac, settings.gateway_link_local, contest.address, contest.holder
        )
