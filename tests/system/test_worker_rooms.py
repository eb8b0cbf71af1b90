"""One room over the processes of a relay: guests of different workers are on one LAN."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from simulated_host import Host
from waiting import until
from worker_relays import Guests, Workers, play

from guest.client import ConnectError
from guest.vm_client import vm_client


async def join_both_workers(guests):
    """Have guests join until both workers have some, for chance decides; tell each guest's worker."""
    while True:
        await guests.join(3)
        workers = await guests.workers()
        if set(workers) == {0, 1}:
            return workers


@pytest.fixture(scope="module")
def relay():
    relay = Workers()
    yield relay
    relay.stop()


def test_guests_of_two_workers_have_addresses_of_their_own_and_ping_each_other(relay):
    async def scenario():
        async with Guests(relay) as guests:
            await join_both_workers(guests)
            assert len({nic.assigned.ip for nic in guests.nics}) == len(guests.nics)
            hosts = [Host(nic) for nic in guests.nics]
            await asyncio.gather(*(a.ping(b) for a in hosts for b in hosts if a is not b))
            for host in hosts:
                host.stop()

    play(scenario)
    assert relay.counters()["trunk.frames_sent"] > 0


def test_fifty_guests_that_come_at_one_instant_have_addresses_of_their_own(relay):
    async def scenario():
        async with asyncio.TaskGroup() as tasks:
            done = asyncio.Event()
            joined = []

            async def stay(number):
                mac = bytes((2, 7, 0, 0, number * 5 % 256, number))
                async with vm_client(relay.url, cert_hash=relay.hash, mac=mac) as nic:
                    joined.append(nic)
                    await done.wait()

            for number in range(50):
                tasks.create_task(stay(number))
            await until(lambda: len(joined) == 50, patience=40)
            await asyncio.sleep(1.0)  # nobody is told another address afterwards
            assert len({nic.assigned.ip for nic in joined}) == 50
            done.set()

    play(scenario)


def test_when_a_worker_is_killed_its_guests_find_those_of_the_other_again(relay):
    async def scenario():
        async with Guests(relay) as guests:
            workers = await join_both_workers(guests)
            hosts = [Host(nic) for nic in guests.nics]
            there = [host for host, worker in zip(hosts, workers, strict=True) if worker == 0]
            here = [host for host, worker in zip(hosts, workers, strict=True) if worker == 1]
            await here[0].ping(there[0])
            os.kill(relay.pid_of(0), signal.SIGKILL)
            await asyncio.gather(*(a.ping(b) for a in here for b in there))
            assert [host.ip for host in hosts] == [nic.assigned.ip.packed for nic in guests.nics]
            for host in hosts:
                host.stop()

    play(scenario)
    relay.is_again(0)


def test_rooms_are_bounded_over_all_workers_and_whoever_is_let_into_one_is_so_everywhere():
    relay = Workers("--max-rooms", 2)

    async def scenario():
        async with Guests(relay, relay.room("lab").url) as guests:
            await guests.join(1)
            await asyncio.sleep(0.5)  # the other worker hears of it
            for _ in range(8):  # of which worker they ask, chance decides
                with pytest.raises(ConnectError, match="2 rooms already"):
                    await vm_client(relay.room("other").url, cert_hash=relay.hash).__aenter__()
            await guests.join_both()

    try:
        play(scenario)
    finally:
        relay.stop()
