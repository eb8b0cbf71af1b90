"""Asks the actors of all LANs what they are, for whoever operates the relay.

Each actor describes itself (``actors.descriptions``); here the answers are collected, some at a time, so that
thousands of flows do not keep the event loop from its packets.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pykka

from actors.descriptions import Describe, DescribeHolder
from actors.runtime import ask_async
from netstack.counters import Counters
from relay.room_labels import OTHER
from transport.turns import sockets_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.descriptions import (
        FlowDescription,
        ForwardDescription,
        GatewayDescription,
        HolderDescription,
        LeaseDescription,
        MacDescription,
        NamesDescription,
        PeerDescription,
        SwitchDescription,
    )
    from relay.lan import Lan
    from relay.lans import Lans

AT_A_TIME = 100
"""Actors asked in one turn of the event loop: some 3 ms."""

_DESCRIBE = Describe()


@dataclass(frozen=True, slots=True)
class RoomDescription:
    """A room at a glance."""

    name: str
    network: str
    gateway: str
    sessions: int
    macs: int
    leases: int
    pool: int
    """Addresses that there are for guests."""
    flows: int
    forwards: int


class Snapshots:
    """What there is at the moment, room by room."""

    def __init__(self, lans: Lans) -> None:
        self._lans = lans

    def rooms_named(self, room: str | None) -> list[Lan]:
        """Return one LAN, or all for None. Raises KeyError for one that there is not."""
        if room is None:
            return list(self._lans)
        lan = self._lans.find(room)
        if lan is None:
            raise KeyError(room)
        return [lan]

    async def rooms(self, room: str | None = None) -> list[RoomDescription]:
        """Describe rooms. All of these methods raise KeyError for a room that there is not."""
        found = []
        for lan in self.rooms_named(room):
            switch: SwitchDescription | None = await _ask(lan.switch)
            gateway: GatewayDescription | None = await _ask(lan.gateway)
            if switch is None or gateway is None:
                continue
            found.append(
                RoomDescription(
                    lan.name,
                    gateway.network,
                    gateway.gateway,
                    sessions=switch.ports,
                    macs=len(switch.macs),
                    leases=len(gateway.leases),
                    pool=gateway.pool_size,
                    flows=sum(map(len, gateway.flows.values())),
                    forwards=len(lan.forwards),
                )
            )
        return found

    async def peers(self, room: str | None = None) -> list[PeerDescription]:
        """Describe the sessions, the oldest first."""
        lans = self.rooms_named(room)
        found: list[PeerDescription] = await _ask_all(peer for lan in lans for peer in lan.peers)
        # What switch and gateway dropped of a guest's frames is its session's as well, and so are its flows.
        drops: dict[int, Counter[str]] = {}
        flows: dict[int, int] = {}
        for lan in lans:
            switch: SwitchDescription | None = await _ask(lan.switch)
            gateway: GatewayDescription | None = await _ask(lan.gateway)
            for answer in (switch, gateway):
                for port, dropped in ({} if answer is None else answer.drops).items():
                    drops.setdefault(port, Counter()).update(dropped)
            if gateway is not None:
                flows |= {port: len(actors) for port, actors in gateway.flows.items()}
        told = (
            replace(peer, drops={**peer.drops, **drops.get(peer.port, {})}, flows=flows.get(peer.port, 0))
            for peer in found
        )
        return sorted(told, key=lambda peer: peer.port)

    async def macs(self, room: str | None = None) -> dict[str, tuple[MacDescription, ...]]:
        """Tell the MAC tables, by room."""
        answers = {lan.name: await _ask(lan.switch) for lan in self.rooms_named(room)}
        return {name: answer.macs for name, answer in answers.items() if answer is not None}

    async def leases(self, room: str | None = None) -> dict[str, tuple[LeaseDescription, ...]]:
        """Tell who holds which address, by room."""
        answers = {lan.name: await _ask(lan.gateway) for lan in self.rooms_named(room)}
        return {name: answer.leases for name, answer in answers.items() if answer is not None}

    async def holder(self, room: str, sought: bytes) -> HolderDescription | None:
        """Tell which guest of a room has an address (4 or 16 bytes) or MAC (6), at whichever worker it is."""
        [lan] = self.rooms_named(room)
        found: HolderDescription | None = await _ask(lan.gateway, DescribeHolder(sought))
        return found

    async def flows(
        self, room: str | None = None, port: int | None = None, at_most: int | None = None
    ) -> dict[str, list[FlowDescription]]:
        """Describe the flows, of one session only for ``port``, by room; ``at_most`` so many."""
        found = {}
        left = at_most
        for lan in self.rooms_named(room):
            gateway: GatewayDescription | None = await _ask(lan.gateway)
            if gateway is not None:
                of_ports = gateway.flows.values() if port is None else (gateway.flows.get(port, ()),)
                actors = list(itertools.chain.from_iterable(of_ports))
                found[lan.name] = await _ask_all(actors[:left])
                if left is not None:
                    left -= len(found[lan.name])
        return found

    async def names(self, room: str | None = None) -> dict[str, NamesDescription]:
        """Describe the name servers, by room."""
        answers = {lan.name: await _ask(lan.names) for lan in self.rooms_named(room)}
        return {name: answer for name, answer in answers.items() if answer is not None}

    async def forwards(self, room: str | None = None) -> dict[str, list[ForwardDescription]]:
        """Describe the forwards, by room."""
        return {lan.name: await _ask_all(lan.forwards) for lan in self.rooms_named(room)}

    def counters(self, room: str | None = None) -> dict[str, int]:
        """Tell the counters of one room, or of the whole relay."""
        counters = self._lans.totals() if room is None else self.rooms_named(room)[0].counters
        return dict(sorted(counters.items()))

    def label(self, room: str) -> str:
        """Tell the label that a room has in the metrics."""
        return self._lans.labels.of(room)

    def counters_by_label(self) -> dict[str, Counters]:
        """Tell the counters of rooms by the rooms' labels, and under "" those that are of no room."""
        of_others = self._lans.labels.of_others
        found = {"": self._lans.counters, **({OTHER: Counters(of_others)} if of_others else {})}
        for lan in self._lans:
            into = found.setdefault(self.label(lan.name), Counters())
            for name, count in lan.counters.items():
                into.add(name, count)
        return found

    def drops(self, room: str | None = None) -> dict[str, int]:
        """Tell what was dropped, by reason, the most frequent first."""
        drops = {name: count for name, count in self.counters(room).items() if ".drop." in name}
        return dict(sorted(drops.items(), key=lambda item: -item[1]))


async def _ask(actor: pykka.ActorRef[Any], question: object = _DESCRIBE) -> Any:
    """Ask one actor; None if it has ended meanwhile."""
    try:
        return await ask_async(actor, question)
    except pykka.ActorDeadError:
        return None


async def _ask_all(actors: Iterable[pykka.ActorRef[Any]]) -> list[Any]:
    """Ask actors, and leave out those that have ended."""
    waiting, answers = list(actors), []
    for start in range(0, len(waiting), AT_A_TIME):
        answers += await asyncio.gather(*map(_ask, waiting[start : start + AT_A_TIME]))
        await sockets_first()
    return [answer for answer in answers if answer is not None]
