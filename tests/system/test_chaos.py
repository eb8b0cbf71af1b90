"""What fails around a relay: it goes on, tells, and recovers by itself when that is over.

The process is killed, the name server is down, the disk is full, the clock jumps, descriptors and memory run
out, the network goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from guests import GATEWAY_MAC, Guest, Neighbour
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import PATIENCE, ROOT, Program, Relay, free_port, run
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from waiting import wait_until

MEGABYTE = 1 << 20
DAY = 24 * 3600
STEADY = ROOT / "tests/system/steady_guest.py"
NAME_SERVER = ROOT / "tests/system/name_server.py"


def steady_guest(relay, start=Program):
    """A guest that comes back by itself and pings all the time."""
    return start("env", f"PYTHONPATH={ROOT}", sys.executable, STEADY, relay.url, relay.hash)


def pongs(guest):
    """Numbers of the pings that have returned."""
    return [int(number) for number in re.findall(r"^pong (\d+)$", guest.output, re.MULTILINE)]


def wait_for_pongs(guest, count=3):
    """Wait until further pings return."""
    guest.wait_for(r"^pong ", count=len(pongs(guest)) + count)


def ended_well(relay):
    """End a relay; it had no trouble that it did not know of."""
    assert relay.running
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    relay.stop()
    assert "Traceback" not in relay.output
    return True


def descriptors(relay):
    """How many a relay has open."""
    return sum(1 for _ in Path(f"/proc/{relay.pid}/fd").iterdir())


async def ask(guest, packet, wanted, patience=PATIENCE):
    """Send a packet to the gateway until a frame is the answer; give that."""
    frame = bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet)
    async with asyncio.timeout(patience):
        while True:
            guest.send_frames([frame])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    while True:
                        for got in await guest.next_frames():
                            if wanted(got := Ether(got)):
                                return got


# -- the relay is killed --------------------------------------------------------------------------


def test_a_killed_relay_that_starts_again_has_its_guest_back(certificate_options):
    """With its address; what the guest opens then works, though the relay knows nothing of before."""
    relay = Relay(*certificate_options)
    guest = steady_guest(relay)
    address = guest.wait_for(r"^attached as (\S+)")[1]
    for life in range(1, 3):
        wait_for_pongs(guest)
        relay.signal(signal.SIGKILL)
        relay.wait()
        relay.stop()
        relay = Relay(*certificate_options, "--port", relay.port)
        assert guest.wait_for(r"^attached as (\S+)", count=life + 1)[1] == address
    wait_for_pongs(guest)
    guest.stop()
    assert ended_well(relay)


# -- the name server is down ----------------------------------------------------------------------


def test_a_name_server_that_is_down_and_comes_back():
    """While it is down, guests are told (SERVFAIL), and names of the LAN and pings are answered as ever."""
    port = free_port()
    relay = Relay("--upstream-dns", f"127.0.0.1:{port}", "--dns-allow-private", "example.com")
    start = (sys.executable, NAME_SERVER, "127.0.0.1", port)

    async def resolve(guest, name, query):
        question = DNS(id=query, rd=1, qd=DNSQR(qname=name))
        packet = IP(src=guest.address, dst="10.0.2.2") / UDP(sport=4000 + query, dport=53) / question
        return (await ask(guest, packet, lambda got: DNS in got and got[DNS].id == query))[DNS]

    async def scenario():
        guest = await Guest.join(relay)
        names = Program(*start)
        names.wait_for("answering")
        assert (await resolve(guest, "one.example.com", 1)).ancount == 1
        names.stop()
        for query in range(2, 5):
            assert (await resolve(guest, f"{query}.example.com", query)).rcode == 2
        assert (await resolve(guest, "gateway.vm.internal", 5)).rcode == 0
        names = Program(*start)
        names.wait_for("answering")
        asked = 6
        async with asyncio.timeout(PATIENCE):
            while not (await resolve(guest, f"{asked}.example.com", asked)).ancount:
                asked += 1
        names.stop()
        guest.client.close()

    with Neighbour(relay) as neighbour:
        asyncio.run(scenario())
    assert neighbour.intact == neighbour.sent > 0
    assert ended_well(relay)


# -- the disk is full -----------------------------------------------------------------------------


def test_a_full_disk_costs_log_lines_and_nothing_else():
    """On a file system of its own; when there is room again, the log goes on and says what is missing."""
    script = 'mount -t tmpfs -o size=64k tmpfs /mnt && exec "$@" 2>/mnt/log'
    relay = Relay(before=("unshare", "--mount", "sh", "-c", script, "sh"))
    disk = Path(f"/proc/{relay.pid}/root/mnt")
    filler = (disk / "filler").open("wb", buffering=0)
    with contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    filler.close()
    full = (disk / "log").stat().st_size

    async def many_join():
        for _ in range(30):
            guest = await Guest.join(relay)
            relay.signal(signal.SIGUSR1)
            guest.client.close()

    with Neighbour(relay) as neighbour:
        asyncio.run(many_join())
        assert (disk / "log").stat().st_size < full + 4096
        (disk / "filler").unlink()
        relay.signal(signal.SIGHUP)
        read_log = (disk / "log").read_text
        wait_until(
            lambda: "the certificate has not changed" in (log := read_log()) and "are lost" in log,
            read_log,
        )
        log = read_log()
    assert neighbour.intact == neighbour.sent > 0
    messages, torn = [], 0
    for line in log.splitlines():
        try:
            messages.append(json.loads(line)["message"])
        except ValueError:
            torn += 1
    assert torn <= 1
    assert "the certificate has not changed" in messages
    assert any(re.fullmatch(r"\d+ lines for .+ are lost: .*", message) for message in messages)
    assert "Traceback" not in log
    assert ended_well(relay)


# -- the clock jumps ------------------------------------------------------------------------------


@pytest.fixture
def wall_clock(tmp_path):
    """How a relay is started whose wall clock this test sets, and the file that says how far it is ahead."""
    library, ahead = tmp_path / "wall_clock.so", tmp_path / "ahead"
    run("cc", "-shared", "-fPIC", "-O1", "-o", library, ROOT / "tests/system/wall_clock.c", "-ldl")
    ahead.write_text("0\n")
    return ("env", f"LD_PRELOAD={library}", f"WALL_CLOCK={ahead}"), ahead


@pytest.mark.parametrize("jump", [30 * DAY, -400 * DAY], ids=["ahead", "back"])
def test_a_clock_that_jumps(wall_clock, jump):
    """Sessions go on, timers run by another clock; the certificate follows, and newcomers are let in."""
    before, ahead = wall_clock
    relay = Relay("--cert-poll-interval", 1, before=before)
    with Neighbour(relay) as neighbour:
        sent = neighbour.sent
        ahead.write_text(f"{jump}\n")
        changed = relay.wait_for(r"Certificate SHA-256 Hash: ([0-9a-f]{64})$", count=2)
        assert changed[1] != relay.hash
        relay.hash = changed[1]
        newcomer = steady_guest(relay)
        wait_for_pongs(newcomer, 30)
        newcomer.stop()
    assert neighbour.intact == neighbour.sent > sent
    assert ended_well(relay)


# -- descriptors run out --------------------------------------------------------------------------


def test_descriptors_that_run_out_and_are_there_again():
    """Guests inside stay; what needs a socket fails until there is one, and works then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Relay("--allow-cidr", "127.0.0.0/8")

        async def connected(guest, port):
            syn = TCP(sport=port, dport=server.getsockname()[1], flags="S", seq=1)
            packet = IP(src=guest.address, dst="127.0.0.1") / syn
            return await ask(guest, packet, lambda got: TCP in got and got[TCP].dport == port)

        async def scenario():
            guest = await Guest.join(relay)
            assert (await connected(guest, 4001))[TCP].flags == "SA"
            soft, hard = resource.prlimit(relay.pid, resource.RLIMIT_NOFILE)
            held = descriptors(relay)
            resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (held, hard))
            datagram = UDP(sport=4002, dport=7) / Raw(b"x")
            syn = TCP(sport=4003, dport=server.getsockname()[1], flags="S", seq=1)
            for packet in (datagram, syn, ICMP(id=9) / Raw(b"x")):
                to = IP(src=guest.address, dst="127.0.0.1") / packet
                guest.send_frames([bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / to)])
            with contextlib.suppress(OSError), socket.create_connection((relay.host, relay.port), 1):
                pass
            other = await Guest.join(relay)
            other.client.close()
            counted = relay.counters()
            assert counted["gateway.drop.no_socket"] == counted["gateway.icmp_errors"] == 3
            assert counted["web.accept_failed"]
            resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert (await connected(guest, 4004))[TCP].flags == "SA"
            guest.client.close()

        with Neighbour(relay) as neighbour:
            asyncio.run(scenario())
        assert neighbour.intact == neighbour.sent > 0
        assert ended_well(relay)


# -- memory runs out ------------------------------------------------------------------------------


def test_a_bounded_load_stays_within_a_bounded_memory():
    """Guests that never finish their frames and read nothing cost no more than what they may hold."""
    relay = Relay()
    size = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{relay.pid}/status").read_text())[1]) * 1024
    _, hard = resource.prlimit(relay.pid, resource.RLIMIT_AS)
    resource.prlimit(relay.pid, resource.RLIMIT_AS, (size + 64 * MEGABYTE, hard))

    async def hoard():
        guests = [await Guest.join(relay) for _ in range(24)]
        for turn in range(60):
            for number, guest in enumerate(guests):
                chunks = [b"\2" + (turn * 16 + n & 0xFFFF).to_bytes(2, "big") + b"\0\2" for n in range(16)]
                guest.client.send([chunk + bytes(1000) for chunk in chunks])
                pieces = [
                    IP(src=guest.address, dst="10.0.2.2", id=turn * 8 + n, flags="MF", proto=17)
                    / Raw(bytes(1000))
                    for n in range(4 if number % 4 == 0 else 0)
                ]
                guest.send_frames([bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / piece) for piece in pieces])
            await asyncio.sleep(0.05)
        for guest in guests:
            guest.client.close()

    with Neighbour(relay) as neighbour:
        asyncio.run(hoard())
    assert neighbour.intact == neighbour.sent > 0
    assert "MemoryError" not in relay.output
    assert ended_well(relay)


# -- the network goes away ------------------------------------------------------------------------


@pytest.fixture
def lan():
    """A relay and a guest's machine, with a cable in between."""
    here, there = Namespace("relay"), Namespace("away")
    connect(here, "10.99.7.1/24", there, "10.99.7.2/24")
    relay = Relay(bind="10.99.7.1", before=here.prefix)
    yield relay, here, there
    relay.stop()
    here.delete()
    there.delete()


@pytest.mark.parametrize("seconds", [1.5, 8.0])
def test_a_network_that_is_away_for_a_while(lan, seconds):
    """Shorter than the session's patience (3 s here, 30 by default) it goes on, else a new one begins."""
    relay, here, there = lan
    guest = steady_guest(relay, there.start)
    address = guest.wait_for(r"^attached as (\S+)")[1]
    wait_for_pongs(guest)
    device = here.device_of("10.99.7.1")
    here.run("ip", "link", "set", device, "down")
    away_from = len(pongs(guest))
    time.sleep(seconds)
    here.run("ip", "link", "set", device, "up")
    wait_for_pongs(guest, 5)
    assert len(pongs(guest)) > away_from
    attached = re.findall(r"^attached as (\S+)", guest.output, re.MULTILINE)
    assert set(attached) == {address}
    assert len(attached) == (1 if seconds < 3 else 2)
    guest.stop()
    assert ended_well(relay)


MINUTE = 60.0
"""Seconds; a session's patience is 30 by default."""


@pytest.fixture
def boxes():
    """A relay, a machine outside, and one with a guest, on a cable each."""
    boxes = here, outside, there = [Namespace(role) for role in ("relay", "outside", "away")]
    connect(here, "10.99.7.1/24", there, "10.99.7.2/24")
    connect(here, "10.99.8.1/24", outside, "10.99.8.2/24")
    yield boxes
    for box in boxes:
        box.delete()


def serve(box, address):
    """Start the servers of tcp_server.py in a box; give them, and where the one is that sends back."""
    servers = box.start(sys.executable, ROOT / "tests/system/tcp_server.py", address)
    return servers, (address, int(servers.wait_for(r"echo on port (\d+)")[1]))


def read(connected, size):
    """Read so many bytes."""
    got = b""
    while len(got) < size and (data := connected.recv(size - len(got))):
        got += data
    return got


def test_a_network_that_is_away_for_a_minute_with_the_default_settings(boxes):
    """The relay's uplink and a guest's cable, at once. TCP goes on, with what was on its way: between guests,
    and from both to the outside, though the session of the one was lost meanwhile.
    """
    here, outside, there = boxes
    relay = Relay("--allow-cidr", "10.99.8.0/24", bind="10.99.7.1", before=here.prefix)
    stays, goes = KernelGuest("stays", relay, here), KernelGuest("goes", relay, there)
    address = goes.address
    far, server = serve(outside, "10.99.8.2")
    near, neighbour = serve(goes.namespace, address)
    with contextlib.ExitStack() as stack:
        connections = []
        for guest, to in ((stays, server), (stays, neighbour), (goes, server)):
            connected = stack.enter_context(guest.namespace.socket(socket.SOCK_STREAM))
            connected.settimeout(2 * MINUTE)
            connected.connect(to)
            connected.sendall(b"before")
            assert read(connected, 6) == b"before"
            connections.append(connected)
        devices = [here.device_of(end) for end in ("10.99.7.1", "10.99.8.1")]
        for device in devices:
            here.run("ip", "link", "set", device, "down")
        for connected in connections:
            connected.sendall(b"meanwhile")
        time.sleep(MINUTE)
        for device in devices:
            here.run("ip", "link", "set", device, "up")
        goes.wait_for_news(r"attached to \S+ as \S+, address ([\d.]+)", count=2, patience=MINUTE)
        for connected in connections:
            connected.sendall(b" and after")
            assert read(connected, 19) == b"meanwhile and after"
    assert goes.namespace.addresses("tap0")[0].startswith(f"{address}/")
    for program in (far, near):
        program.stop()
    for guest in (stays, goes):
        guest.leave()
    assert ended_well(relay)
