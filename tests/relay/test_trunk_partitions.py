"""Workers that did not hear each other for a while, and gave the same to guests of theirs meanwhile."""

from __future__ import annotations

import time
from types import SimpleNamespace

from lan_parts import mac
from trunk_parts import cut, heal, run
from waiting import until

from actors.close_codes import CloseCode


def same_address_macs(worker):
    """Find two guests that would have the same address."""
    pool = worker.lan().gateway._actor_weakref()._guests.pool
    first = pool.candidates(mac(1), 1)
    return 1, next(n for n in range(256, 60_000, 256) if pool.candidates(mac(n), 1) == first)


def test_after_a_partition_the_guest_that_came_later_is_told_another_address(tmp_path, monkeypatch):
    monkeypatch.setattr("netstack.room_state.DEAD_AFTER", 0.6)
    clock = SimpleNamespace(time=time.time)
    monkeypatch.setattr("relay.room_link.time", clock)

    async def scenario(one, two):
        first, second = same_address_macs(one)
        await cut(one, two)
        older = await two.guest(first).joins()
        clock.time = lambda: time.time() + 1  # the announced times are whole seconds
        younger = await one.guest(second).joins()
        before = older.ip, younger.ip
        heal(one, two)
        await until(lambda: younger.look() and younger.ip != before[1])
        older.look()
        await younger.pings(older)
        return before, older.ip, younger.ip, one.total("rooms.addresses_lost")

    before, older, younger, lost = run(scenario, tmp_path)
    assert before == (older, older)
    assert younger != older
    assert lost >= 1


def test_after_a_partition_one_of_two_sessions_with_one_mac_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("netstack.room_state.DEAD_AFTER", 0.6)

    async def scenario(one, two):
        await cut(one, two)
        guests = [await one.guest(1).joins(), await two.guest(1, host="198.51.100.7").joins()]
        heal(one, two)
        await until(lambda: any(guest.session.closed for guest in guests))
        await until(lambda: len(two.trunk.state.all_elsewhere("default")) == 1)
        return [guest.session.closed and guest.session.closed[0] for guest in guests]

    assert run(scenario, tmp_path) == [None, CloseCode.TAKEN_OVER]
