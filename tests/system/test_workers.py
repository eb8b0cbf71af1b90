"""A relay of two processes: one to its clients, and one of the two can be lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import THIS_TREE, Program, free_port, run
from scapy.utils import RawPcapNgReader
from waiting import until, wait_until
from worker_relays import ETHERTYPE, MOST_GUESTS, SOON, Guests, OperatedWorkers, Workers, play

from guest.client import ConnectError
from guest.nic_changes import Attached, Detached
from guest.vm_client import vm_client


@pytest.fixture(scope="module")
def relay():
    relay = Workers()
    yield relay
    relay.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_connections_are_spread_and_stay_where_they_are(host):
    relay = Workers(bind="::")
    try:

        async def scenario():
            async with Guests(relay, relay.url_at(host)) as guests:
                await guests.join_both()
                await guests.join(8)
                return len(guests.nics)

        count = play(scenario)
        counters = relay.counters()
        assert counters["endpoint.accepted"] == count, "of both together"
        assert counters["endpoint.passed_on"] == 0, "the kernel knew whose they were"
    finally:
        relay.stop()


@pytest.mark.alone
def test_guests_of_a_killed_worker_are_back_within_a_second_and_others_notice_nothing(relay):
    async def scenario():
        async with Guests(relay) as guests:
            await guests.join_both()
            await guests.join(6)
            lost = {number for number, worker in enumerate(await guests.workers()) if worker == 0}
            addresses = [nic.assigned.ip for nic in guests.nics]
            moment = time.monotonic()
            os.kill(relay.pid_of(0), signal.SIGKILL)
            await until(lambda: guests.since(moment, Attached).keys() >= lost)
            assert max(guests.since(moment, Attached).values()) < SOON
            assert guests.since(moment, Detached).keys() == lost
            assert [nic.assigned.ip for nic in guests.nics] == addresses

    play(scenario)
    relay.wait_for("worker 0 .*SIGKILL.* started again at once")
    relay.is_again(0)


@pytest.mark.alone
def test_guests_of_a_worker_that_hangs_are_elsewhere_within_five_seconds(relay):
    async def scenario():
        async with Guests(relay) as guests:
            await guests.join_both()
            lost = {number for number, worker in enumerate(await guests.workers()) if worker == 1}
            moment = time.monotonic()
            os.kill(relay.pid_of(1), signal.SIGSTOP)
            await until(lambda: guests.since(moment, Attached).keys() >= lost)
            assert max(guests.since(moment, Attached).values()) < 5
            assert guests.since(moment, Detached).keys() == lost

    play(scenario)
    relay.wait_for("worker 1 is silent for 2 s: it is killed")
    relay.is_again(1)


def test_a_second_relay_on_the_port_is_refused(relay):
    for workers in (1, 2):
        command = (
            *THIS_TREE,
            "--workers",
            workers,
            "--bind",
            "127.0.0.1",
            "--port",
            relay.port,
            "--state",
            "none",
        )
        done = run(*command, check=False)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {relay.port}" in done.stderr
        assert "Traceback" not in done.stderr


def test_workers_that_have_lost_their_supervisor_end():
    relay = Workers()
    pids = [relay.pid_of(worker) for worker in (0, 1)]
    relay.signal(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    relay.stop()


@pytest.fixture(scope="module")
def operated(tmp_path_factory):
    relay = OperatedWorkers(tmp_path_factory.mktemp("operated"), "--workers", 2)
    yield relay
    relay.stop()


def test_commands_show_and_change_all_workers_as_one(operated):
    async def scenario():
        async with Guests(operated) as guests:
            one, two = await guests.join_both()
            count = len(guests.nics)
            ask: Any = partial(asyncio.to_thread, operated.asked)

            status = await ask("status")
            assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]
            assert sum(worker["sessions"] for worker in status["workers"]) <= count
            [room] = status["rooms"]
            assert room["sessions"] == len(status["peers"]) == count
            shown = await asyncio.to_thread(operated.vmrelay, "status")
            assert re.search(r"^ +1 +\d+ +ready ", shown, re.MULTILINE)

            peers = {peer["mac"]: peer for peer in await ask("peers")}
            assert {peers[nic.mac.hex(":")]["worker"] for nic in (one, two)} == {0, 1}
            leases = (await ask("leases"))["default"]
            assert {lease["mac"] for lease in leases} == peers.keys()
            words = ("198.51.100.7", "--from", two.mac.hex(":"), "--to-port", "80")
            steps = await asyncio.to_thread(operated.explained, *words)
            assert steps[0]["ok"], steps

            assert (await ask("ban", f"mac={two.mac.hex(':')}"))["ended"] == 1
            assert [ban["what"] for ban in await ask("ban")] == [two.mac.hex(":")]
            await ask("disconnect", str(peers[one.mac.hex(":")]["port"]))
            assert (await ask("drain"))["draining"]
            for _ in range(4):  # of which worker they ask, nobody knows
                with pytest.raises(ConnectError, match="no new sessions"):
                    await vm_client(operated.url, cert_hash=operated.hash).__aenter__()
            assert not (await ask("drain", "--end"))["draining"]
            await ask("ban", "--lift", f"mac:{two.mac.hex(':')}")
            assert (await ask("reload"))["errors"] == []

    play(scenario)


def test_why_knows_guests_at_other_workers_and_looks_in_the_room_it_is_asked_about(operated):
    one, two = operated.room("one"), operated.room("two")

    async def explained(*words):
        return await asyncio.to_thread(operated.explained, *words)

    async def at():
        """Tell each guest's worker and session, by room and MAC."""
        peers = await asyncio.to_thread(operated.asked, "peers")
        return {(peer["room"], peer["mac"]): (peer["worker"], peer["port"]) for peer in peers}

    async def scenario():
        async with Guests(operated, one.url) as first, Guests(operated, two.url) as second:
            pair = await first.join_both()
            for guest, other in (pair, pair[::-1]):
                words = (str(other.assigned.ip), "--from", guest.mac.hex(":"), "--room", "one")
                steps = await explained(*words)
                while not steps[-1]["ok"]:  # the workers tell each other of them at some time
                    steps = await explained(*words)
                assert "session" in steps[0]["answer"]
                assert "at another worker" in steps[-1]["answer"]
            await second.join(len(first.nics))
            # Worker 0 is asked first: the guest that is meant is at the other, its namesake at worker 0.
            while True:
                known = await at()
                macs = {mac for room, mac in known if room == "two" and known[room, mac][0] == 1}
                if found := [mac for mac in macs if known.get(("one", mac), (None,))[0] == 0]:
                    break
                assert len(first.nics) < MOST_GUESTS
                await asyncio.gather(first.join(1), second.join(1))
            steps = await explained("198.51.100.7", "--from", found[0], "--room", "two")
            assert steps[0]["answer"].endswith(f", session {known['two', found[0]][1]}")

    play(scenario)


def test_a_worker_that_comes_later_knows_bans_and_draining(operated):
    banned = "52:54:00:0b:ad:01"
    operated.vmrelay("ban", f"mac={banned}")
    operated.vmrelay("drain")
    os.kill(operated.pid_of(0), signal.SIGKILL)
    operated.wait_for("worker 0 is ready", count=2)
    assert [ban["what"] for ban in operated.asked_of(0, "ban")] == [banned]
    assert operated.asked_of(0, "status")["draining"]
    operated.vmrelay("drain", "--end")
    operated.vmrelay("ban", "--lift", f"mac:{banned}")


def test_captures_and_events_are_of_all_workers(operated, tmp_path):
    file = tmp_path / "all.pcapng"
    where = ("--admin", operated.admin)
    events = Program(*THIS_TREE, "events", "--json", *where)
    capture = Program(*THIS_TREE, "capture", "-w", file, *where)

    async def scenario():
        async with Guests(operated) as guests:
            await asyncio.to_thread(operated.wait_for, "captures all rooms", count=2)
            heard: dict[int, Any] = {}  # nobody says when the events of both are followed
            while set(heard) != {0, 1}:
                await guests.join(1)
                joined = zip(await guests.workers(), guests.nics, strict=True)
                heard = {worker: nic for worker, nic in joined if nic.mac.hex(":") in events.output}
            pair = list(heard.values())
            for nic in pair:
                nic.send([b"\xff" * 6 + nic.mac + ETHERTYPE + bytes(50)])
            await until(lambda: all(nic.mac + ETHERTYPE in file.read_bytes() for nic in pair))

    try:
        play(scenario)
    finally:
        for program in (capture, events):
            program.signal(signal.SIGINT)
            program.stop()


def test_a_forward_that_is_added_outlives_the_worker_that_listens(operated):
    port = free_port()
    text = f"tcp:127.0.0.1:{port}:db:80"

    def forwards():
        return [(each["forward"], each["worker"]) for each in operated.asked("forwards").get("default", ())]

    def is_open():
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    operated.vmrelay("forwards", "--add", text)
    wait_until(lambda: forwards() == [(text, 0)])
    assert "already" in operated.vmrelay("forwards", "--add", text, status=1)
    os.kill(operated.pid_of(0), signal.SIGKILL)
    wait_until(is_open)  # at worker 1, for less time than a command may take to ask
    wait_until(lambda: forwards() == [(text, 0)])
    operated.vmrelay("forwards", "--remove", text)
    wait_until(lambda: not forwards())


def test_an_operator_has_the_workers_replaced(operated):
    before = {operated.pid_of(worker) for worker in (0, 1)}
    assert operated.asked("restart")["restarting"] == [0, 1]
    operated.wait_for("all workers have been replaced")
    status = operated.asked("status")
    assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]
    assert not {worker["pid"] for worker in status["workers"]} & before


def test_a_capture_goes_on_with_workers_and_rooms_that_come_later(operated, tmp_path):
    file = tmp_path / "later.pcapng"
    capture = Program(*THIS_TREE, "capture", "-w", file, "--admin", operated.admin)
    before = operated.output.count("captures all rooms")
    operated.wait_for("captures all rooms", count=before + 2)
    lives = operated.output.count("worker 0 is ready"), operated.output.count("worker 1 is ready")
    operated.vmrelay("restart")
    for worker in (0, 1):
        operated.is_again(worker, lives[worker] + 1)
    operated.wait_for("captures all rooms", count=before + 4)

    async def scenario():
        async with Guests(operated, operated.room("later").url) as guests:
            pair = await guests.join_both()
            for nic in pair:
                nic.send([b"\xff" * 6 + nic.mac + ETHERTYPE + bytes(50)])
            await until(lambda: all(nic.mac + ETHERTYPE in file.read_bytes() for nic in pair))
            return {nic.mac: f"later/peer{each['port']}" for nic in pair for each in await peers(nic)}

    async def peers(nic):
        found = await asyncio.to_thread(operated.asked, "peers", "--room", "later")
        return [each for each in found if each["mac"] == nic.mac.hex(":")]

    try:
        names = play(scenario)
    finally:
        capture.signal(signal.SIGINT)
        capture.stop()
    with contextlib.closing(RawPcapNgReader(str(file))) as packets:
        seen = {(bytes(data[6:12]), told.ifname.decode()) for data, told in packets}
    assert names.items() <= seen


def test_a_trace_goes_on_with_workers_that_come_later_and_with_the_guests_next_session(operated):
    mac, room, seen = bytes.fromhex("525400007e01"), operated.room("traced").url, "traces 52:54:00:00:7e:01"

    async def look_for_the_gateway(nic):
        sought = socket.inet_aton("10.0.2.2")
        ask = bytes.fromhex("0001080006040001") + nic.mac + nic.assigned.ip.packed + bytes(6) + sought
        nic.send([b"\xff" * 6 + nic.mac + b"\x08\x06" + ask])

    async def scenario():
        async with vm_client(room, cert_hash=operated.hash, mac=mac) as nic:
            words = ("trace", mac.hex(":"), "10.0.2.2", "--json", "--admin", operated.admin)
            trace = Program(*THIS_TREE, *words)
            await asyncio.to_thread(operated.wait_for, seen)
            await look_for_the_gateway(nic)
            first = await asyncio.to_thread(trace.wait_for, r"switch, from peer (\d+)")
        before = operated.output.count(seen)
        lives = operated.output.count("worker 0 is ready"), operated.output.count("worker 1 is ready")
        await asyncio.to_thread(operated.vmrelay, "restart")
        for worker in (0, 1):
            await asyncio.to_thread(operated.is_again, worker, lives[worker] + 1)
        try:
            async with vm_client(room, cert_hash=operated.hash, mac=mac) as nic:
                await asyncio.to_thread(operated.wait_for, seen, count=before + 1)
                await look_for_the_gateway(nic)
                await asyncio.to_thread(trace.wait_for, rf"switch, from peer (?!{first[1]}\b)\d+")
        finally:
            trace.signal(signal.SIGINT)
            trace.stop()

    play(scenario)


def test_who_tells_all_its_processes_to_end_while_it_starts_hears_of_no_error():
    started = Program(*THIS_TREE, "--workers", 2, "--bind", "127.0.0.1", "--port", 0, "--state", "none")
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    wait_until(lambda: len(children.read_text().split()) == 2)
    for pid in (started.pid, *map(int, children.read_text().split())):  # the main one first, as systemd does
        os.kill(pid, signal.SIGTERM)
    assert started.wait() == 0
    assert "error" not in started.output


def test_a_forward_that_the_configuration_names_by_now_is_no_longer_kept(tmp_path):
    text = f"tcp:127.0.0.1:{free_port()}:web:80"
    file = tmp_path / "forwards.json"
    file.write_text(json.dumps([{"room": "default", "forward": text, "change": "added"}]))
    Workers("--state", tmp_path, "--forward", text).stop()
    assert json.loads(file.read_text()) == []


def test_a_forward_whose_port_is_taken_is_told_at_the_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"tcp:127.0.0.1:{taken.getsockname()[1]}:web:80"
        command = (*THIS_TREE, "--workers", 2, "--bind", "127.0.0.1", "--port", 0, "--state", "none")
        done = run(*command, "--forward", text, check=False)
    assert done.returncode == 1
    assert f"vmrelay: error: cannot forward {text}: Address already in use" in done.stderr
