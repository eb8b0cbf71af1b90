"""One room over the processes of a relay: guests of different workers are on one LAN."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal

import pytest
from test_workers import Guests, Workers, play
from waiting import until

from guest.vm_client import vm_client
from netstack.arp import parse_arp
from netstack.checksum import PROTOCOL_ICMP
from netstack.ethernet import BROADCAST, ETHERTYPE_ARP
from netstack.icmp import ECHO_REPLY, ECHO_REQUEST, build_echo, parse_icmp
from netstack.ipv4 import build_ipv4, parse_ipv4
from netstack.malformed import MalformedPacket

REQUEST, REPLY = b"\0\1", b"\0\2"


class Host:
    """As much of a system as answers ARP requests and pings, and sends them."""

    def __init__(self, nic):
        self.nic = nic
        self.ip = nic.assigned.ip.packed
        self.neighbours = {}
        self.pongs = set()
        self._numbers = itertools.count(1)
        self._task = asyncio.create_task(self._run())

    def stop(self):
        self._task.cancel()

    async def _run(self):
        while True:
            for frame in await self.nic.recv_batch():
                self._take(frame)

    def _take(self, frame):
        if frame[12:14] == ETHERTYPE_ARP:
            packet = parse_arp(frame)
            if packet.operation == 2:
                self.neighbours[packet.sender_ip] = packet.sender_mac
            elif packet.target_ip == self.ip:
                self._arp(packet.sender_mac, REPLY, packet.sender_mac, packet.sender_ip)
            return
        try:
            packet = parse_ipv4(frame)
            message = parse_icmp(packet.payload)
        except MalformedPacket:
            return
        if packet.destination != self.ip:
            return
        if message.type == ECHO_REQUEST:
            self._echo(frame[6:12], packet.source, ECHO_REPLY, message.sequence)
        elif message.type == ECHO_REPLY:
            self.pongs.add((packet.source, message.sequence))

    def _arp(self, to, operation, target_mac, target):
        body = b"\0\1\x08\0\6\4" + operation + self.nic.mac + self.ip + target_mac + target
        self.nic.send([to + self.nic.mac + ETHERTYPE_ARP + body])

    def _echo(self, mac, destination, kind, number):
        echo = build_echo(kind, 7, number, b"hello")
        self.nic.send([build_ipv4(mac + self.nic.mac, self.ip, destination, PROTOCOL_ICMP, echo)])

    async def ping(self, other):
        """Find a host, and ping it until it has answered once."""
        number = next(self._numbers)

        def answered():
            mac = self.neighbours.get(other.ip)
            if mac is None:
                self._arp(BROADCAST, REQUEST, bytes(6), other.ip)
            else:
                self._echo(mac, other.ip, ECHO_REQUEST, number)
            return (other.ip, number) in self.pongs

        await until(answered, every=0.05)
        assert self.neighbours[other.ip] == other.nic.mac


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
