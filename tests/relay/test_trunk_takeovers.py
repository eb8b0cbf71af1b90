"""A MAC that is registered while another worker has a guest with it."""

from __future__ import annotations

import pytest
from trunk_parts import run
from waiting import until

from actors.close_codes import CloseCode
from actors.descriptions import Describe
from actors.runtime import ask_async
from netstack.room_wire import Flag


def test_the_same_client_takes_its_mac_over_at_another_worker_and_keeps_its_address(tmp_path):
    async def scenario(one, two):
        before = await one.guest(1).joins()
        await until(lambda: two.trunk.state.all_elsewhere("default"))
        after = await two.guest(1, host="192.0.2.1").joins()
        await until(lambda: before.session.closed)
        assert before.ip == after.ip
        assert before.session.closed[0] == CloseCode.TAKEN_OVER
        await until(lambda: not two.trunk.state.all_elsewhere("default"))
        await until(lambda: one.trunk.state.all_elsewhere("default"))
        ((worker, binding),) = one.trunk.state.all_elsewhere("default")
        return worker, binding.seq, one.lan().switch._actor_weakref()._ports.keys()

    worker, seq, ports = run(scenario, tmp_path)
    assert (worker, seq) == (1, 1)
    assert all(port < 0 for port in ports)


def test_another_client_is_refused_a_mac_that_is_in_use_at_another_worker(tmp_path):
    async def scenario(one, two):
        await one.guest(1).joins()
        await until(lambda: two.trunk.state.all_elsewhere("default"))
        other = two.guest(1, host="198.51.100.7").registers()
        await until(lambda: not other.look() and other.told)
        return other.told

    ((error,)) = run(scenario, tmp_path)
    assert error["type"] == "Error"
    assert "another session uses this MAC" in error["message"]


def test_the_secret_of_one_worker_is_good_at_another(tmp_path):
    async def scenario(one, two):
        before = await one.guest(1).joins()
        await until(lambda: two.trunk.state.all_elsewhere("default"))
        wrong = two.guest(1, host="198.51.100.7").registers(resume="0" * 32)
        await until(lambda: not wrong.look() and wrong.told)
        after = await two.guest(1, host="198.51.100.7").joins(resume=before.resume)
        await until(lambda: before.session.closed)
        return before, after

    before, after = run(scenario, tmp_path)
    assert before.ip == after.ip
    assert before.session.closed[0] == CloseCode.TAKEN_OVER


@pytest.mark.parametrize("has_room", [True, False])
def test_a_guest_that_says_no_name_has_that_of_before_at_another_worker(tmp_path, has_room):
    """Most say theirs by DHCP alone, which they do not speak again when their session is a new one."""

    async def scenario(one, two):
        if has_room:
            two.lan()
        before = await one.guest(1).joins(name="web")
        await until(lambda: [b.name for _, b in two.trunk.state.all_elsewhere("default")] == ["web"])
        before.leaves()
        await until(lambda: not two.trunk.state.all_elsewhere("default"))
        after = await two.guest(1).joins()
        assert before.ip == after.ip
        return after.ip, (await ask_async(two.lan().names, Describe())).names

    address, names = run(scenario, tmp_path)
    assert names == {"web": (address,)}


def test_a_silent_sessions_mac_is_anybodys_at_another_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("actors.lan.switch.ANNOUNCED_EVERY", 0.05)

    async def scenario(one, two):
        before = await one.guest(1).joins()
        before.session.last_heard -= 60
        await until(lambda: any(b.flags & Flag.SILENT for _, b in two.trunk.state.all_elsewhere("default")))
        after = await two.guest(1, host="198.51.100.7").joins()
        await until(lambda: before.session.closed)
        return before.ip, after.ip

    before, after = run(scenario, tmp_path)
    assert before == after


def test_two_workers_that_take_a_mac_in_at_one_instant_agree_on_one(tmp_path):
    async def scenario(one, two):
        guests = [one.guest(1), two.guest(1, host="198.51.100.7")]
        for guest in guests:
            guest.registers()
        await until(lambda: two.trunk.state.all_elsewhere("default"))
        await until(lambda: not one.trunk.state.all_elsewhere("default"))
        return [guest.session.closed and guest.session.closed[0] for guest in guests]

    assert run(scenario, tmp_path) == [None, CloseCode.TAKEN_OVER]
