"""Port forwards of a room over workers: one worker listens at a time, and it is the guest's."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from waiting import PATIENCE, until
from workers_of_one_loop import Worker, workers

from actors.flows.port_forward import KEPT_FOR, LOOK_EVERY, PortForwardActor
from actors.runtime import NEVER
from netstack.forward import parse_forwards


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(protocol, scenario, folder, monkeypatch, vm="web"):
    """Play a scenario with a forward to a guest called web, at workers that know each other well."""
    monkeypatch.setattr("relay.trunk.DEAD_AFTER", 0.0)
    port = free_port(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)

    async def main():
        (forward,) = parse_forwards(f"{protocol}::{port}:{vm}:80")
        async with workers(folder, 2, forward=(forward,)) as started:
            for worker in started:
                worker.lan()
                await asyncio.sleep(LOOK_EVERY / 2)  # so that they do not look at one moment
            return await scenario(port, *started)

    return asyncio.run(main())


def listening(started):
    """Tell which workers have the port, and do not leave it to another."""
    forwards = {worker.number: worker.lan().forwards[0]._actor_weakref() for worker in started}
    return [number for number, actor in forwards.items() if actor._port and actor._left_since == NEVER]


async def until_only(number, *started):
    await until(lambda: listening(started) == [number])


def send(port, payload):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(payload, ("127.0.0.1", port))


async def reaches(guest, port, payload):
    """Whether datagrams come to the guest, sent until one does."""

    def arrived():
        send(port, payload)
        return any(UDP in frame and bytes(frame[UDP].payload) == payload for frame in guest.frames())

    await until(arrived, every=0.05)


def test_the_lowest_worker_listens_while_the_guest_is_nowhere(tmp_path, monkeypatch):
    async def scenario(port, one, two):
        await until_only(0, one, two)
        await until(lambda: send(port, b"x") or one.total("forward.drop.no_guest"), every=0.05)
        return two.total("forward.drop.no_guest")

    assert run("udp", scenario, tmp_path, monkeypatch) == 0


def test_datagrams_reach_the_guest_by_its_own_worker_wherever_it_goes(tmp_path, monkeypatch):
    async def scenario(port, one, two):
        guest = await two.guest(1, host="192.0.2.1").joins(name="web")
        await until_only(1, one, two)
        await reaches(guest, port, b"first")
        again = await one.guest(1, host="192.0.2.1").joins(name="web")
        await until_only(0, one, two)
        await reaches(again, port, b"second")
        again.leaves()
        back = await two.guest(1, host="192.0.2.1").joins(name="web")
        await until_only(1, one, two)
        await reaches(back, port, b"third")
        return one.total("trunk.frames_sent") + two.total("trunk.frames_sent")

    assert run("udp", scenario, tmp_path, monkeypatch) == 0


def test_a_client_that_comes_back_elsewhere_is_reached_where_its_port_is(tmp_path, monkeypatch):
    async def scenario(port, one, two):
        guest = await two.guest(1).joins(name="web")
        await until_only(1, one, two)
        await reaches(guest, port, b"first")
        again = await one.guest(1, host="198.51.100.7").joins(name="web", resume=guest.resume)
        await reaches(again, port, b"second")
        assert listening((one, two)) == [1]

    run("udp", scenario, tmp_path, monkeypatch)


def test_clients_connect_to_the_guest_by_its_own_worker_after_it_has_moved_twice(tmp_path, monkeypatch):
    async def scenario(port, one, two):
        for turn in (0, 1, 0):
            worker = (one, two)[turn]
            guest = await worker.guest(1, host="192.0.2.1").joins(name="web")
            await until_only(turn, one, two)
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await guest.hears(lambda frame: TCP in frame and frame[TCP].flags == "S")
            writer.close()
            guest.leaves()

    run("tcp", scenario, tmp_path, monkeypatch)


async def goes_from_worker_to_worker(one, two, while_there):
    """Have the guest come to a worker, and leave; then to the other, and again."""
    await until_only(0, one, two)
    for worker in (two, one, two):
        guest = await worker.guest(1, host="192.0.2.1").joins(name="web")
        await until_only(worker.number, one, two)
        await while_there(guest)
        await asyncio.sleep(KEPT_FOR + 2 * LOOK_EVERY)  # the former worker gives the port back meanwhile
        await while_there(guest)
        guest.leaves()


def test_while_its_guest_moves_a_udp_port_is_never_nobodys(tmp_path, monkeypatch):
    async def writes(port):
        """Send all the time: where nobody listens the next call fails."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            while True:
                client.send(b"x")
                await asyncio.sleep(0.002)

    async def scenario(port, one, two):
        async with asyncio.TaskGroup() as tasks:
            await until_only(0, one, two)
            writing = tasks.create_task(writes(port))
            await goes_from_worker_to_worker(one, two, lambda guest: reaches(guest, port, b"hello"))
            writing.cancel()

    run("udp", scenario, tmp_path, monkeypatch)


async def read(port):
    reader, _ = await asyncio.open_connection("127.0.0.1", port)
    return await reader.read()


async def connects_always(port, tasks):
    """Connect again and again, and be reset: by the guest, which refuses all, or where it is not any more."""

    async def connects():
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionResetError):
                await read(port)

    while True:
        tasks.create_task(connects())
        await asyncio.sleep(0.01)


async def refuses(guest, refused):
    """Have a guest refuse whoever connects, until it leaves; ``refused`` counts them by its worker."""
    while guest.peer.is_alive():
        for frame in guest.frames():
            if TCP in frame and frame[TCP].flags == "S":
                reset = TCP(sport=80, dport=frame[TCP].sport, flags="RA", ack=frame[TCP].seq + 1)
                guest.sends(Ether(src=frame.dst, dst=frame.src) / IP(src=guest.ip, dst=frame[IP].src) / reset)
                refused[guest] += 1
        await asyncio.sleep(0.005)


def test_while_its_guest_moves_who_connects_is_led_to_it_or_reset(tmp_path, monkeypatch):
    async def scenario(port, one, two):
        refused = Counter()
        async with asyncio.TaskGroup() as tasks:

            async def is_reached(guest):
                if guest not in refused:
                    tasks.create_task(refuses(guest, refused))
                enough = refused[guest] + 20
                await until(lambda: refused[guest] >= enough)

            await until_only(0, one, two)
            connecting = tasks.create_task(connects_always(port, tasks))
            await goes_from_worker_to_worker(one, two, is_reached)
            connecting.cancel()

    run("tcp", scenario, tmp_path, monkeypatch)


def test_the_port_of_a_worker_that_died_is_another_ones(tmp_path, monkeypatch):
    async def scenario(port, one, two):
        await one.guest(1).joins(name="web")
        await until_only(0, one, two)
        one.dies()
        two.trunk.lost(0)
        guest = await two.guest(1).joins(name="web")
        await reaches(guest, port, b"hello")

    run("udp", scenario, tmp_path, monkeypatch)


def test_a_worker_that_is_started_again_leaves_the_port_to_the_one_that_has_the_guest(tmp_path, monkeypatch):
    """The lowest is to have ports whose guests are nowhere; at first it knows of none."""
    looks, listens = [], []
    take_or_leave, listen = PortForwardActor._take_or_leave_port, PortForwardActor._listen
    monkeypatch.setattr(
        PortForwardActor,
        "_take_or_leave_port",
        lambda actor, link, found: (looks.append(link.number), take_or_leave(actor, link, found)),
    )
    monkeypatch.setattr(
        PortForwardActor, "_listen", lambda actor: (listens.append(actor._link.number), listen(actor))
    )

    async def main():
        (forward,) = parse_forwards(f"udp::{free_port(socket.SOCK_DGRAM)}:web:80")
        async with workers(tmp_path, 2, forward=(forward,)) as (one, two):
            one.dies()
            two.trunk.lost(0)
            await two.guest(1).joins(name="web")
            again = Worker(0, 2, tmp_path, one.settings)
            again.lan()
            await again.trunk.until_known([1], PATIENCE)
            await until(lambda: looks.count(0) > 2 and listens)
            again.stop()

    asyncio.run(main())
    assert set(listens) == {1}


@pytest.mark.parametrize("vm", ["web", "10.0.2.77", "52:54:15:ee:00:01"])
def test_the_guest_is_found_elsewhere_however_it_is_named(tmp_path, monkeypatch, vm):
    async def scenario(_port, one, two):
        guest = await two.guest(1).joins(name="web")
        guest.sends(guest.to(guest) / IP(src="10.0.2.77") / UDP())
        await until_only(1, one, two)

    run("udp", scenario, tmp_path, monkeypatch, vm)


def test_a_port_that_another_program_has_is_told_and_taken_once_it_is_free(tmp_path, monkeypatch, lines):
    monkeypatch.setattr("actors.flows.port_forward.PORT_AWAITED", 0.1)

    async def scenario(port, one, two):
        await until_only(0, one, two)
        one.lan().forwards[0].stop(block=False)  # whoever has the port is no worker that would give it back
        await until(lambda: not one.lan().forwards[0].is_alive())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))
            guest = await two.guest(1).joins(name="web")
            await until(lambda: any("cannot forward" in line and "in use" in line for line in lines))
            tries = []
            listen = PortForwardActor._listen
            monkeypatch.setattr(
                PortForwardActor, "_listen", lambda actor: (tries.append(actor), listen(actor))
            )
            await until(lambda: len(tries) > 2)
        await reaches(guest, port, b"hello")
        assert sum("cannot forward" in line for line in lines) == 1
        assert any(f"the forward udp:127.0.0.1:{port}:web:80 is open" in line for line in lines)

    run("udp", scenario, tmp_path, monkeypatch)
