"""What guests of two workers both have: IPv6 addresses, and names. All between the sessions is real."""

from __future__ import annotations

import asyncio

import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import Ether
from trunk_parts import cut, heal, inet, run
from waiting import PATIENCE, until

from actors.descriptions import Describe
from actors.runtime import ask_async

PREFIX = "fd76:6d72:656c:6179::"
SHARED, OTHER = f"{PREFIX}b", f"{PREFIX}c"


def uses(guest, address=SHARED):
    guest.sends(guest.to(guest) / IPv6(src=address, dst=OTHER) / UDP())


def holders(worker, address=SHARED):
    """Whose an address is by what the workers have told each other, and by the tables of the gateway here."""
    bindings = worker.lan().gateway._actor_weakref()._guests.bindings
    return worker.trunk.state.holders_of("default", inet(address)), bindings.holder_of(inet(address))


def is_of(guest, *workers, address=SHARED):
    return all(holders(worker, address) == ({guest.mac}, guest.mac) for worker in workers)


async def solicited(guest, address=SHARED):
    """Who answers that it has an IPv6 address."""
    ether = Ether(src=guest.mac.hex(":"), dst="33:33:ff:00:00:0b")
    guest.frames()
    guest.sends(ether / IPv6(src="fe80::1", dst="ff02::1:ff00:b", hlim=255) / ICMPv6ND_NS(tgt=address))
    return (await guest.hears(lambda frame: ICMPv6ND_NA in frame)).src


# -- IPv6 addresses -----------------------------------------------------------------------------------


def test_ipv6_addresses_move_with_a_guest_that_goes_to_another_worker(tmp_path):
    async def scenario(one, two, three):
        asker = await three.guest(9).joins()
        guest = await one.guest(1).joins(name="web")
        uses(guest)
        await until(lambda: is_of(guest, one, two, three))
        after = await two.guest(1, host="192.0.2.1").joins(name="web")
        await until(lambda: guest.session.closed)
        await until(lambda: is_of(after, one, two, three))
        await until(lambda: asker.worker.trunk.state.elsewhere("default", after.mac)[0] == 1)
        found = await ask_async(three.lan().names, Describe())
        assert await solicited(asker) == after.mac.hex(":")
        uses(after)
        return two.total("switch.drop.spoofed_address"), found.names["web"]

    dropped, names = run(scenario, tmp_path, 3)
    assert dropped == 0
    assert SHARED in names


def test_an_ipv6_address_that_its_holder_elsewhere_does_not_answer_for_moves(tmp_path):
    async def scenario(one, two, three):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        await three.guest(3).joins()
        uses(b)
        await until(lambda: is_of(b, one, two, three))

        def moved():
            uses(a)
            return is_of(a, one, two, three)

        await until(moved, every=0.1)
        b.frames()
        uses(b)
        return two.total("switch.drop.spoofed_address"), two.total("gateway.addresses_moved")

    assert run(scenario, tmp_path, 3) == (1, 1)


def test_an_ipv6_address_that_its_holder_elsewhere_answers_for_stays(tmp_path):
    async def scenario(one, two):
        a, b = await one.guest(1).joins(), await two.guest(2).joins()
        uses(b)
        await until(lambda: is_of(b, one, two))
        uses(a)
        asked = await b.hears(lambda frame: ICMPv6ND_NS in frame and frame[ICMPv6ND_NS].tgt == SHARED)
        answer = IPv6(src=SHARED, dst=asked[IPv6].src, hlim=255) / ICMPv6ND_NA(tgt=SHARED, S=1, R=0)
        b.sends(Ether(src=b.mac.hex(":"), dst=asked.src) / answer)
        await until(lambda: two.total("gateway.addresses_defended"))
        uses(a)
        assert await solicited(a) == b.mac.hex(":"), "what came before that is done"
        return is_of(b, one, two), two.total("gateway.addresses_moved")

    assert run(scenario, tmp_path) == (True, 0)


@pytest.mark.parametrize("older_first", [True, False])
def test_after_a_partition_an_ipv6_address_is_everywhere_of_who_had_it_longer(
    tmp_path, monkeypatch, older_first
):
    monkeypatch.setattr("netstack.room_state.DEAD_AFTER", 0.6)

    async def scenario(*started):
        places = started if older_first else (started[1], started[0], started[2])
        older, younger = (
            await places[0].guest(1).joins(name="old"),
            await places[1].guest(2).joins(name="new"),
        )
        asker = await started[2].guest(3).joins()
        await cut(*started)
        uses(older)
        await asyncio.sleep(1.1)  # the announced times are whole seconds
        uses(younger)
        heal(*started)
        await until(lambda: is_of(older, *started))
        assert await solicited(asker) == older.mac.hex(":")
        found = await ask_async(started[2].lan().names, Describe())
        uses(younger)
        lost = [worker.total("rooms.addresses_lost") for worker in places]
        return lost[0], lost[1] > 0, SHARED in found.names["old"], SHARED in found.names["new"]

    assert run(scenario, tmp_path, 3) == (0, True, True, False)


# -- names --------------------------------------------------------------------------------------------


async def asks(guest, name):
    """Ask the name server for an address; None where there is no such name."""
    question = DNS(id=1, rd=1, qd=DNSQR(qname=f"{name}.vm.internal"))
    gateway = Ether(src=guest.mac.hex(":"), dst="52:54:00:12:34:56")
    guest.frames()
    guest.sends(gateway / IP(src=guest.ip, dst="10.0.2.2") / UDP(sport=5353, dport=53) / question)
    answer = (await guest.hears(lambda frame: DNS in frame))[DNS]
    return answer.an[0].rdata if answer.ancount else None


def since(guest):
    """Since which second a guest is there, as its worker says it to all."""
    return min(guest.worker.trunk.state.own("default", guest.mac).since)


async def leads_to(worker, name):
    """Tell the first address that a name has at a worker; none where there is no such name."""
    return (await ask_async(worker.lan().names, Describe())).names.get(name, ("",))[0]


async def named(workers, name, ip):
    """Wait until the name servers of all workers say this of a name."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if {await leads_to(worker, name) for worker in workers} == {ip}:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("of_second", [0, 1])
def test_a_name_that_guests_of_two_workers_take_at_one_instant_is_one_guests_everywhere(tmp_path, of_second):
    async def scenario(*started):
        first, second = started[of_second].guest(1), started[1 - of_second].guest(2)
        asker = await started[2].guest(3).joins()
        for guest in (first, second):
            guest.registers(name="web")
        await until(lambda: first.look() and second.look())
        kept = await asks(asker, "web")
        assert kept in (first.ip, second.ip)
        await named(started, "web", kept)
        assert await asks(first, "web") == await asks(second, "web") == kept
        return True

    assert run(scenario, tmp_path, 3)


@pytest.mark.parametrize("seconds", [0, 1.1])
def test_after_a_partition_a_name_is_everywhere_of_the_guest_that_was_there_longer(
    tmp_path, monkeypatch, seconds
):
    monkeypatch.setattr("netstack.room_state.DEAD_AFTER", 0.6)

    async def scenario(*started):
        await cut(*started)
        older = await started[1].guest(1).joins(name="web")
        await asyncio.sleep(seconds)
        younger = await started[0].guest(2).joins(name="web")
        asker = await started[2].guest(3).joins()
        keeper = min(older, younger, key=lambda guest: (since(guest), guest.worker.number))
        assert keeper is older or seconds == 0
        heal(*started)
        await named(started, "web", keeper.ip)
        lost = [worker.total("rooms.names_lost") for worker in started]
        assert lost == [int(keeper is older), int(keeper is younger), 0]
        keeper.leaves()
        await named(started, "web", "")
        late = await asker.worker.guest(4).joins(name="web")
        await named(started, "web", late.ip)
        return True

    assert run(scenario, tmp_path, 3)


def test_a_guest_elsewhere_that_was_here_unheard_is_found_at_its_worker_again(tmp_path):
    """It was beaten, never heard so, and is the only one again."""

    async def scenario(one, two):
        there = await one.guest(1).joins(name="web")
        asker = await two.guest(2).joins()
        await named((one, two), "web", there.ip)
        two.trunk._unix.send = lambda *_: None
        here = await two.guest(1, host="192.0.2.1").joins()
        here.leaves()
        heal(two)
        await named((one, two), "web", there.ip)
        assert await asks(asker, "web") == there.ip
        await asker.pings(there)
        return here.ip == there.ip, there.session.closed

    assert run(scenario, tmp_path) == (True, None)
