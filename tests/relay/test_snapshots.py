"""Snapshots of LANs as the relay makes them, with sessions that come and go meanwhile."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from lan_parts import FakeSession, control, mac, register
from waiting import counting_turns

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient
from actors.runtime import current_scheduler, run_ready
from netstack.counters import Counters
from relay.lan import Lan
from relay.lan_plan import lan_plan
from relay.lans import Bounds, Lans
from relay.settings import Settings
from relay.shared import Shared
from relay.snapshots import AT_A_TIME, Snapshots


@contextlib.contextmanager
def house():
    shared = Shared(current_scheduler(), max_flows=100, max_questions=100)
    lans = Lans(
        lambda name: Lan(name, lan_plan(Settings(), name), shared),
        Counters(),
        Bounds(256, 16, 10.0),
        asyncio.get_running_loop().time,
    )
    try:
        yield lans
    finally:
        lans.close_sessions(CloseCode.SHUTDOWN, "")
        lans.stop()
        shared.close()


def join(lan, number):
    session = FakeSession(lan.next_port())
    peer = lan.attach(session)
    peer.tell(DatagramsFromClient([register(mac(number))]))
    run_ready()
    return session, peer


def on_lans(scenario):
    async def main():
        with house() as lans:
            return await scenario(lans, Snapshots(lans))

    return asyncio.run(main())


def test_rooms_are_told_apart():
    async def scenario(lans, snapshots):
        kept = [join(lans.default, 1), join(lans.default, 2), join(lans.get("lab", "c"), 1)]
        rooms = {room.name: (room.sessions, room.leases, room.macs) for room in await snapshots.rooms()}
        peers = [(peer.room, peer.mac) for peer in await snapshots.peers("lab")]
        return rooms, peers, await snapshots.leases("lab"), len(kept)

    rooms, peers, leases, _ = on_lans(scenario)
    assert rooms == {"default": (2, 2, 2), "lab": (1, 1, 1)}
    assert peers == [("lab", mac(1).hex(":"))]
    assert [lease.mac for lease in leases["lab"]] == [mac(1).hex(":")]


def test_a_room_that_is_not_there_is_an_error():
    async def scenario(_, snapshots):
        for ask in (snapshots.rooms, snapshots.peers, snapshots.macs, snapshots.flows, snapshots.forwards):
            with pytest.raises(KeyError):
                await ask("nope")
        with pytest.raises(KeyError):
            snapshots.counters("nope")

    on_lans(scenario)


def test_others_get_their_turns_while_many_are_asked():
    async def scenario(lans, snapshots):
        kept = [join(lans.default, number) for number in range(1, 3 * AT_A_TIME // 2)]
        peers, turns = await counting_turns(snapshots.peers())
        return len(peers) == len(kept), turns

    complete, turns = on_lans(scenario)
    assert complete
    assert turns >= 2


def test_a_session_that_ends_meanwhile_is_left_out():
    async def scenario(lans, snapshots):
        kept = [join(lans.default, number) for number in range(1, AT_A_TIME + 10)]
        asking = asyncio.create_task(snapshots.peers())
        await asyncio.sleep(0)
        kept[-1][1].stop(block=False)
        return len(await asking), len(kept)

    told, there = on_lans(scenario)
    assert told == there - 1


def test_one_session_is_ended_by_its_port_wherever_it_is():
    async def scenario(lans, snapshots):
        session, peer = join(lans.get("lab", "c"), 1)
        other, _ = join(lans.default, 2)
        assert await lans.close_session(session.id, CloseCode.REFUSED, "go")
        assert not await lans.close_session(session.id, CloseCode.REFUSED, "go")
        return session.closed, other.closed, peer.is_alive()

    assert on_lans(scenario) == ((CloseCode.REFUSED, "go"), None, False)


def test_a_client_that_came_back_is_ended_by_the_port_that_it_has_again():
    async def scenario(lans, snapshots):
        first, _ = join(lans.default, 1)
        secret = next(told["resume"] for told in first.controls() if told["type"] == "Assigned")
        session = FakeSession(lans.default.next_port())
        peer = lans.default.attach(session)
        peer.tell(DatagramsFromClient([control(type="Register", mac=list(mac(1)), resume=secret)]))
        run_ready()
        (told,) = await snapshots.peers()
        assert told.port == first.id != session.id
        assert await lans.close_session(told.port, CloseCode.REFUSED, "go")
        return session.closed

    assert on_lans(scenario) == (CloseCode.REFUSED, "go")


def test_blocked_macs_get_no_address_also_in_rooms_that_come_later():
    async def scenario(lans, snapshots):
        before = join(lans.default, 1)
        lans.block_macs(frozenset({mac(1)}))
        later = [join(lans.default, 1), join(lans.get("lab", "c"), 1)]
        refused = [session.controls()[-1]["type"] for session, _ in later]
        lans.block_macs(frozenset())
        allowed, _ = join(lans.get("lab", "c"), 1)
        return refused, allowed.controls()[-1]["type"], before[0].closed

    assert on_lans(scenario) == (["Error", "Error"], "Assigned", None)
