"""What the dashboard shows at a time, in one answer whose size does not grow with the relay.

It is asked for every second or so: of sessions and flows it has MAX_ROWS at most, and tells how many there
are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.descriptions import FlowDescription, ForwardDescription, PeerDescription
    from relay.snapshots import RoomDescription, Snapshots

_Told = TypeVar("_Told")

MAX_ROWS = 200
"""Sessions, and flows, in one answer: 8 ms of writing JSON."""

MAX_ASKED = 2000
"""Flows that are asked what they are, of which the newest are shown: 60 ms in slices of 3."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that the sessions of now have moved so far: ``_in`` from their guests, ``_out`` to them."""

    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Rooms, sessions, flows, forwards and drops."""

    rooms: list[RoomDescription]
    """All of them, whichever is looked at."""
    traffic: Traffic
    peers: list[PeerDescription]
    """Oldest first; ``peers_found`` is how many there are."""
    peers_found: int
    flows: list[tuple[str, FlowDescription]]
    """Each with its room, the newest first."""
    flows_found: int
    forwards: list[tuple[str, ForwardDescription]]
    drops: dict[str, int]


async def overview(snapshots: Snapshots, room: str | None, sought: str = "") -> Overview:
    """Look at one room, or at all; at sessions in whose name or addresses ``sought`` stands.

    Of flows, those of these sessions, and those to what is sought. Raises KeyError for an unknown room.
    """
    rooms = await snapshots.rooms()
    peers = await snapshots.peers(room)
    text = sought.lower()
    found = [peer for peer in peers if _is_sought(peer, text)]
    flows = _with_rooms(await snapshots.flows(room, at_most=MAX_ASKED))
    flows_found = sum(each.flows for each in rooms if room in (None, each.name))
    if text:
        ports = {peer.port for peer in found}
        flows = [each for each in flows if each[1].port in ports or text in each[1].remote]
        flows_found = len(flows)
    return Overview(
        rooms=rooms,
        traffic=Traffic(sum(peer.bytes_in for peer in peers), sum(peer.bytes_out for peer in peers)),
        peers=found[:MAX_ROWS],
        peers_found=len(found),
        flows=sorted(flows, key=lambda each: each[1].age)[:MAX_ROWS],
        flows_found=flows_found,
        forwards=_with_rooms(await snapshots.forwards(room)),
        drops=snapshots.drops(room),
    )


def _is_sought(peer: PeerDescription, text: str) -> bool:
    return any(text in (told or "").lower() for told in (peer.name, peer.mac, peer.address, peer.remote))


def _with_rooms(found: Mapping[str, Sequence[_Told]]) -> list[tuple[str, _Told]]:
    return [(room, each) for room, several in found.items() for each in several]
