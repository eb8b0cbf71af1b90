"""Relays of several machines that share their rooms through a NATS server, which is Debian's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

import pytest
from cut_wire import CutWire
from operators import OperatedRelay
from processes import PATIENCE, ROOT, Program, free_port
from simulated_host import Host
from waiting import until
from worker_relays import OfWorkers

from guest import vm_client as vm_client_module
from guest.nic_changes import Attached
from guest.vm_client import vm_client
from netstack.address_pool import AddressPool

PATH = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}


class NatsServer(Program):
    """Debian's, on a port of an address; it takes up the same port again."""

    def __init__(self, port, *options, address="127.0.0.1", before=()):
        self.port = port
        super().__init__(*before, "nats-server", "-a", address, "-p", port, *options, environment=PATH)
        self.wait_for("Server is ready")


class Machine(OfWorkers, OperatedRelay):
    """A relay that is one of a cluster."""

    def __init__(self, folder, name, port, *options, key="cluster.key", user=""):
        mine = folder / name
        mine.mkdir()
        super().__init__(
            mine,
            *("--cluster", f"nats://{user}127.0.0.1:{port}", "--cluster-key", folder / key),
            *("--cluster-node", name, *options),
        )

    async def hears(self, pattern, count=1):
        await asyncio.to_thread(self.wait_for, pattern, count=count)

    async def counts(self, name):
        """Wait until it has counted something."""
        await until(lambda: self.counters()[name], every=0.2)


class Cluster:
    """Machines around one server, and guests on them; part of the running loop."""

    def __init__(self, folder):
        (folder / "cluster.key").write_text("11" * 32)
        (folder / "other.key").write_text("22" * 32)
        self.folder = folder
        self.nats = NatsServer(free_port())
        self.machines = []
        self._stack = contextlib.AsyncExitStack()
        self._numbers = iter(range(250))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()
        for program in (*self.machines, self.nats):
            await asyncio.to_thread(program.stop)

    async def machine(self, *options, port=None, **more):
        """Start one more, and wait until it has joined."""
        name = f"m{len(self.machines)}"
        made = await asyncio.to_thread(Machine, self.folder, name, port or self.nats.port, *options, **more)
        self.machines.append(made)
        await made.hears("joined the cluster")
        return made

    async def guest(self, machine, mac=None):
        mac = mac or bytes.fromhex(f"5254000b00{next(self._numbers):02x}")
        client = vm_client(machine.url, cert_hash=machine.hash, mac=mac, reconnect=True)
        return await self._stack.enter_async_context(client)

    async def host(self, machine):
        made = Host(await self.guest(machine))
        self._stack.callback(made.stop)
        return made


def play(folder, scenario):
    async def bounded():
        async with asyncio.timeout(3 * PATIENCE), Cluster(folder) as cluster:
            await scenario(cluster)

    asyncio.run(bounded())


async def all_ping_all(hosts):
    await asyncio.gather(*(a.ping(b) for a in hosts for b in hosts if a is not b))


def test_guests_of_three_machines_are_on_one_lan(tmp_path):
    async def scenario(cluster):
        machines = [await cluster.machine(), await cluster.machine("--workers", 2), await cluster.machine()]
        hosts = [await cluster.host(machine) for machine in machines for _ in range(3)]
        assert len({host.ip for host in hosts}) == len(hosts)
        await all_ping_all(hosts)
        here, there = hosts[0], hosts[-1]
        for machine, asks, answers in ((machines[0], here, there), (machines[2], there, here)):
            # Each is a guest of the room wherever one asks, and reaches the other.
            for sender in (asks, answers):
                target = answers if sender is asks else asks
                words = (socket.inet_ntoa(target.ip), "--from", socket.inet_ntoa(sender.ip))
                steps = await asyncio.to_thread(machine.explained, *words)
                assert all(step["ok"] for step in steps), steps
                places = ["session" in step["answer"] for step in steps]
                assert places == [sender is asks, target is asks], steps

    play(tmp_path, scenario)


def test_without_a_server_each_goes_on_alone_and_with_one_all_are_together_again(tmp_path):
    async def scenario(cluster):
        one, other = await cluster.machine(), await cluster.machine()
        here = [await cluster.host(one) for _ in range(2)]
        there = await cluster.host(other)
        await all_ping_all([*here, there])
        port = cluster.nats.port
        await asyncio.to_thread(cluster.nats.stop)
        await all_ping_all(here)
        here.append(await cluster.host(one))  # who comes meanwhile is served too
        await all_ping_all(here)
        cluster.nats = await asyncio.to_thread(NatsServer, port)
        for machine in (one, other):
            await machine.hears("joined the cluster", count=2)
        await all_ping_all([*here, there])
        assert len({host.ip for host in (*here, there)}) == 4

    play(tmp_path, scenario)


def two_macs_of_one_address():
    """Give two MACs that would get the same address of an empty pool."""
    seen = {}
    for number in range(1000):
        mac = bytes.fromhex("0207") + (number * 7919).to_bytes(4)
        address = AddressPool("10.0.2.0/24", "10.0.2.10", "10.0.2.254", frozenset()).assign(mac)
        if address in seen:
            return seen[address], mac
        seen[address] = mac
    raise AssertionError("a pool of 245 has room for 1000")


def test_of_two_who_got_one_address_in_a_partition_one_is_told_another(tmp_path):
    async def scenario(cluster):
        one = await cluster.machine()
        async with CutWire(cluster.nats.port) as wire:
            other = await cluster.machine(port=wire.port)
            hosts = [await cluster.host(one), await cluster.host(other)]
            await all_ping_all(hosts)
            wire.cut()
            first_mac, second_mac = two_macs_of_one_address()
            for machine in (one, other):
                await machine.counts("rooms.workers_lost")
            first = await cluster.guest(one, first_mac)
            second = await cluster.guest(other, second_mac)
            assert first.assigned.ip == second.assigned.ip
            wire.mend()
            await until(lambda: first.assigned.ip != second.assigned.ip)
            await all_ping_all(hosts)

    play(tmp_path, scenario)


def test_who_has_another_key_is_not_of_the_cluster(tmp_path):
    async def scenario(cluster):
        one, stranger = await cluster.machine(), await cluster.machine(key="other.key")
        await cluster.guest(one)
        for machine in (one, stranger):
            await machine.counts("trunk.drop.not_of_the_cluster")
        assert "rooms.workers_found" not in one.counters()

    play(tmp_path, scenario)


def test_two_machines_of_one_name_say_so(tmp_path):
    async def scenario(cluster):
        # A flag that is given again is the one that counts.
        one = await cluster.machine()
        two = await cluster.machine("--cluster-node", "m0", "--workers", 2)
        for machine in (one, two):
            await machine.hears("another relay of the cluster goes by this one's name")
            await machine.counts("trunk.drop.same_number")

    play(tmp_path, scenario)


def test_a_machine_that_is_lost_frees_its_guests_addresses_for_where_they_come_back(tmp_path):
    async def scenario(cluster):
        one, other = await cluster.machine(), await cluster.machine()
        mac = bytes.fromhex("5254000b00f0")
        async with vm_client(one.url, cert_hash=one.hash, mac=mac) as nic:
            address = nic.assigned.ip
            await cluster.host(other)
            await other.counts("rooms.workers_found")
            one.signal(signal.SIGKILL)
            await other.counts("rooms.workers_lost")
        again = await cluster.guest(other, mac)
        assert again.assigned.ip == address

    play(tmp_path, scenario)


def test_a_server_that_refuses_is_told_once_and_tried_again(tmp_path):
    async def scenario(cluster):
        await asyncio.to_thread(cluster.nats.stop)
        port = cluster.nats.port
        cluster.nats = await asyncio.to_thread(NatsServer, port, "--user", "vmrelay", "--pass", "secret")
        relay = await asyncio.to_thread(Machine, tmp_path, "m", port, user="vmrelay:wrong@")
        cluster.machines.append(relay)
        await relay.hears("the cluster cannot be reached at nats://127.0.0.1:.*Authorization")
        assert "wrong" not in relay.output
        await asyncio.to_thread(cluster.nats.stop)
        cluster.nats = await asyncio.to_thread(NatsServer, port, "--user", "vmrelay", "--pass", "wrong")
        await relay.hears("joined the cluster")

    play(tmp_path, scenario)


@pytest.mark.alone
@pytest.mark.parametrize(("number", "learned"), [(signal.SIGKILL, False), (signal.SIGSTOP, True)])
def test_clients_of_a_lost_machine_are_at_another_within_ten_seconds_with_the_same_address(
    tmp_path, number, learned, monkeypatch
):
    # Those would find it out: a session that is older has only the regular ones.
    monkeypatch.setattr(vm_client_module, "EARLY_HEARTBEATS", (0.2,))

    async def scenario(cluster):
        ports = [free_port(), free_port()]
        urls = [f"https://127.0.0.1:{port}" for port in ports]
        machines = []
        for url, port in zip(urls, ports, strict=True):
            machines.append(await cluster.machine("--port", port, *(("--url", url) if learned else ())))
        one, other = machines
        await cluster.host(other)
        await one.counts("rooms.workers_found")
        given = urls[:1] if learned else urls
        told = []

        def on_change(change):
            if isinstance(change, Attached):
                told.append(change.url)

        hashes = f"{one.hash},{other.hash}"
        client = vm_client(given, cert_hash=hashes, reconnect=True, on_change=on_change)
        async with client as nic:
            assert nic.url == f"{urls[0]}/"
            address = nic.assigned.ip
            if learned:
                await until(lambda: nic._places.has_others)
            await asyncio.sleep(0.5)  # the other machine has heard of it
            began = asyncio.get_running_loop().time()
            one.signal(number)
            await until(lambda: nic.attached and nic.url == f"{urls[1]}/")
            took = asyncio.get_running_loop().time() - began
            assert nic.assigned.ip == address
            assert took < 10
            if number == signal.SIGSTOP:
                one.signal(signal.SIGCONT)
                lost = "rooms.workers_lost"  # it has not heard the other for as long, and hears it again
                await until(
                    lambda: one.counters().get(lost) and one.counters()["rooms.workers_found"] > 1, every=0.2
                )
                await asyncio.sleep(1)
                assert told == [
                    f"{url}/" for url in urls
                ]  # the guest of the frozen machine is not there again

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cluster", "nats://127.0.0.1:4"), "--cluster needs --cluster-key"),
        (("--cluster-key", "/dev/null"), "--cluster-key needs --cluster"),
        (("--cluster", "nats://127.0.0.1:4", "--cluster-key", "/dev/null"), "must have 16 bytes at least"),
        (("--cluster", "nats://127.0.0.1:4", "--cluster-key", "/nowhere"), "No such file"),
        (("--cluster", "nats://127.0.0.1:4", "--cluster-key", sys.executable), "4096 bytes at most"),
        (
            (
                *("--workers", 2, "--cluster", "nats://127.0.0.1:4", "--cluster-key", ROOT / "LICENSE"),
                *("--cluster-credentials", "/gone"),
            ),
            "vmrelay: error: --cluster-credentials /gone: No such file",
        ),
    ],
)
def test_half_a_cluster_is_refused_with_one_line(options, words):
    program = Program(sys.executable, "-m", "relay.main", "--port", free_port(), *options)
    assert program.wait() == 2
    assert words in program.output
    assert "Traceback" not in program.output
    program.stop()
