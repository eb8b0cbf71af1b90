"""What a room tells the other workers, and when."""

from __future__ import annotations

import asyncio

from scapy.layers.inet import IP, UDP
from trunk_parts import run
from waiting import until

import relay.trunk
from actors.close_codes import CloseCode
from netstack.room_wire import Flag, Kind


def kinds_said(*both):
    """Have noted what kinds of messages workers send from now on, except that they live."""
    kinds = []
    for worker in both:

        def send(number, message, send=worker.trunk._unix.send):
            if message[1] != Kind.HELLO:
                kinds.append(Kind(message[1]))
            send(number, message)

        worker.trunk._unix.send = send
    return kinds


def test_a_guests_coming_is_one_message_at_the_home_of_its_room_and_three_elsewhere(tmp_path):
    async def scenario(one, two):
        is_one = one.trunk.state.home_of("default") == one.trunk.number
        home, other = (one, two) if is_one else (two, one)
        for number, worker in enumerate((home, other), 1):
            await worker.guest(number).joins()
        said = []
        for number, worker in ((3, home), (4, other)):
            await asyncio.sleep(2 * relay.trunk.TOLD_WITHIN)
            kinds = kinds_said(home, other)
            await worker.guest(number).joins()
            await until(lambda kinds=kinds: Kind.CHANGES in kinds)
            said.append(list(kinds))
        return said

    at_home, elsewhere = run(scenario, tmp_path)
    assert at_home == [Kind.CHANGES]
    assert elsewhere == [Kind.ASK, Kind.GRANT, Kind.CHANGES]


def test_that_clients_are_away_is_told_of_all_together(tmp_path):
    async def scenario(one, two):
        guests = [await one.guest(n).joins() for n in range(1, 6)]
        kinds = kinds_said(one)
        for guest in guests:
            guest.is_lost()
        state = two.trunk.state
        await until(lambda: all(state.elsewhere("default", g.mac)[1].flags & Flag.AWAY for g in guests))
        return list(kinds)

    assert run(scenario, tmp_path) == [Kind.CHANGES]


def test_no_frame_overtakes_what_waits_to_be_told(tmp_path, monkeypatch):
    monkeypatch.setattr(relay.trunk, "TOLD_WITHIN", 60.0)
    monkeypatch.setattr(relay.trunk, "HELLO_EVERY", 60.0)

    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await one.guest(2).joins()
        c = await two.guest(3).joins()
        await until(lambda: one.trunk.state.elsewhere("default", c.mac))
        kinds = kinds_said(one)
        a.is_lost()
        await asyncio.sleep(0)
        waits = list(kinds)
        b.sends(b.to(c) / IP(src=b.ip, dst=c.ip) / UDP())
        await c.hears(lambda frame: UDP in frame)
        return waits, list(kinds), two.trunk.state.elsewhere("default", a.mac)[1].flags

    waits, kinds, flags = run(scenario, tmp_path)
    assert (waits, kinds) == ([], [Kind.CHANGES, Kind.FRAMES])
    assert flags & Flag.AWAY


def test_nothing_is_left_of_a_room_that_ends(tmp_path):
    async def scenario(one, two):
        await one.guest(1, "lab").joins()
        await two.guest(2, "lab").joins()
        await until(lambda: one.trunk.state.all_elsewhere("lab"))
        lab = two.lans.pop("lab")
        lab.close_sessions(CloseCode.SHUTDOWN, "")
        lab.stop()
        await until(lambda: not one.trunk.state.all_elsewhere("lab"))
        return one.trunk.state.members("lab"), one.lan("lab").switch._actor_weakref()._forwarding.trunks

    assert run(scenario, tmp_path) == ({}, [])
