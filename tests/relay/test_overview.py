from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from test_snapshots import join, on_lans

from relay.admin.overview import MAX_ASKED, MAX_ROWS, overview


def test_rooms_sessions_and_their_traffic_are_in_one_answer():
    async def scenario(lans, snapshots):
        kept = [join(lans.default, 1), join(lans.default, 2), join(lans.get("lab", "c"), 3)]
        return await overview(snapshots, None), await overview(snapshots, "lab"), len(kept)

    everything, lab, _ = on_lans(scenario)
    assert [(room.name, room.sessions) for room in everything.rooms] == [("default", 2), ("lab", 1)]
    assert everything.peers_found == len(everything.peers) == 3
    assert everything.traffic.bytes_out == sum(peer.bytes_out for peer in everything.peers)
    assert [room.name for room in lab.rooms] == ["default", "lab"]
    assert [peer.room for peer in lab.peers] == ["lab"]
    assert lab.flows_found == 0


def test_sessions_are_found_by_what_people_know_of_them():
    async def scenario(lans, snapshots):
        kept = [join(lans.default, number) for number in (1, 2)]
        [first, second] = await snapshots.peers()
        return (
            first,
            second,
            [
                [peer.port for peer in (await overview(snapshots, None, text)).peers]
                for text in (first.mac.upper(), second.address, "", "nobody")
            ],
            len(kept),
        )

    first, second, found, _ = on_lans(scenario)
    assert found == [[first.port], [second.port], [first.port, second.port], []]


def test_a_room_that_there_is_not_is_said():
    async def scenario(_, snapshots):
        with pytest.raises(KeyError):
            await overview(snapshots, "nowhere")

    on_lans(scenario)


class Crowded:
    """Snapshots of a room with more than is shown."""

    def __init__(self, number):
        self.number = number
        self.asked = None

    async def rooms(self):
        return [SimpleNamespace(name="default", flows=self.number)]

    async def peers(self, _):
        fields = {"mac": None, "address": None, "remote": "r", "bytes_in": 1, "bytes_out": 2}
        return [SimpleNamespace(port=port, name=f"vm{port}", **fields) for port in range(self.number)]

    async def flows(self, _, *, at_most):
        self.asked = at_most
        flows = [
            SimpleNamespace(age=float(-number % 7), port=number, remote=f"192.0.2.{number}:443")
            for number in range(self.number)
        ]
        return {"default": flows}

    async def forwards(self, _):
        return {}

    def drops(self, _):
        return {}


def test_the_answer_is_bounded_and_says_how_much_there_is():
    crowd: Any = Crowded(5 * MAX_ROWS)
    seen = asyncio.run(overview(crowd, None))
    assert (len(seen.peers), seen.peers_found) == (MAX_ROWS, 5 * MAX_ROWS)
    assert (len(seen.flows), seen.flows_found, crowd.asked) == (MAX_ROWS, 5 * MAX_ROWS, MAX_ASKED)
    ages = [flow.age for _, flow in seen.flows]
    assert ages == sorted(ages)
    assert ages[0] == 0
    assert seen.traffic.bytes_out == 2 * 5 * MAX_ROWS


def test_flows_are_found_by_their_session_and_by_where_they_go():
    crowd: Any = Crowded(5)
    of_session, to_host, none = (
        asyncio.run(overview(crowd, None, text)) for text in ("VM3", "192.0.2.4", "nobody")
    )
    assert [flow.port for _, flow in of_session.flows] == [3]
    assert [flow.port for _, flow in to_host.flows] == [4]
    assert (none.flows, none.flows_found, none.traffic.bytes_out) == ([], 0, 10)
