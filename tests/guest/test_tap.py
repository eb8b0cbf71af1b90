"""The kernels of two namespaces, TAP devices with a cable between them: with offloads and without."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket

import pytest
from namespaces import Namespace
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from guest import tap
from guest.tap import Tap
from netstack.counters import Counters

MTU = 1280
ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
SIZE = 2_000_000


class Cable:
    """Two namespaces whose TAP devices are joined by tasks that carry, and keep, the frames."""

    def __init__(self, stack):
        self.counters = Counters()
        self.namespaces = [Namespace(f"tap{end}") for end in range(2)]
        for namespace in self.namespaces:
            stack.callback(namespace.delete)
        self.taps = [Tap("t0", self.counters, namespace.name) for namespace in self.namespaces]
        for end, (namespace, device) in enumerate(zip(self.namespaces, self.taps, strict=True)):
            stack.callback(device.close)
            device.set_mtu(MTU)
            namespace.run("ip", "address", "add", f"{ADDRESSES[4][end]}/24", "dev", "t0")
            device.bring_up()
            namespace.run("ip", "address", "add", f"{ADDRESSES[6][end]}/64", "dev", "t0", "nodad")
        self.frames = []

    async def carry(self, start, end):
        while True:
            frames = await self.taps[start].read()
            self.frames += frames
            self.taps[end].write(frames)

    @contextlib.asynccontextmanager
    async def joined(self):
        ways = [asyncio.create_task(self.carry(0, 1)), asyncio.create_task(self.carry(1, 0))]
        try:
            yield
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def socket(self, end, version, kind):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        opened = self.namespaces[end].socket(kind, family=family)
        opened.setblocking(False)
        return opened


@pytest.fixture(params=[True, False], ids=["offload", "plain"])
def cable(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(tap, "_features", lambda _: 0)
    with contextlib.ExitStack() as stack:
        cable = Cable(stack)
        assert [device.offload for device in cable.taps] == [request.param] * 2
        yield cable


async def transfer(cable, version, data):
    """Send ``data`` by TCP from one kernel to the other; return what arrives."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        with (
            cable.socket(1, version, socket.SOCK_STREAM) as listener,
            cable.socket(0, version, socket.SOCK_STREAM) as sender,
        ):
            listener.bind((ADDRESSES[version][1], 5000))
            listener.listen()
            await loop.sock_connect(sender, (ADDRESSES[version][1], 5000))
            receiver, _ = await loop.sock_accept(listener)
            with receiver:
                sending = asyncio.create_task(loop.sock_sendall(sender, data))
                arrived = bytearray()
                while len(arrived) < len(data):
                    arrived += await loop.sock_recv(receiver, 1 << 18)
                await sending
                return bytes(arrived)


def assert_sound(frame):
    """Length and checksums of a frame are what they are on the wire."""
    assert len(frame) <= MTU + 14
    packet = Ether(frame)
    for layer in (IP, TCP, UDP):
        if layer in packet:
            told, packet[layer].chksum = packet[layer].chksum, None
            assert Ether(bytes(packet))[layer].chksum == told


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_between_two_kernels_arrives_whole_in_frames_of_the_lan(cable, version):
    data = random.Random(1).randbytes(SIZE)

    async def scenario():
        async with cable.joined():
            assert (
                hashlib.sha256(await transfer(cable, version, data)).digest() == hashlib.sha256(data).digest()
            )

    asyncio.run(scenario())
    tcp = [frame for frame in cable.frames if frame[23 if version == 4 else 20] == 6]
    assert len(tcp) > SIZE / MTU
    for frame in random.Random(2).sample(tcp, 50) + sorted(tcp, key=len)[-5:]:
        assert_sound(frame)
    assert not cable.counters.total("tap.drop.")


@pytest.mark.parametrize("version", [4, 6])
def test_udp_has_its_checksum(cable, version):
    async def scenario():
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30), cable.joined():
            with (
                cable.socket(1, version, socket.SOCK_DGRAM) as receiver,
                cable.socket(0, version, socket.SOCK_DGRAM) as sender,
            ):
                receiver.bind((ADDRESSES[version][1], 5000))
                for size in (0, 1, 1000, 1001):
                    await loop.sock_sendto(sender, bytes(size), (ADDRESSES[version][1], 5000))
                    assert len(await loop.sock_recv(receiver, 2000)) == size

    asyncio.run(scenario())
    found = [frame for frame in cable.frames if UDP in Ether(frame)]
    assert len(found) >= 4
    for frame in found:
        assert_sound(frame)


@pytest.fixture
def offloading(monkeypatch):
    """A cable, and how many frames each write to a device has carried."""
    counts = []
    merge = tap.merge

    def counted(frames):
        merged = merge(frames)
        counts.extend(count for _, count in merged)
        return merged

    monkeypatch.setattr(tap, "merge", counted)
    with contextlib.ExitStack() as stack:
        yield Cable(stack), counts


def test_reads_and_writes_carry_many_segments_at_once(offloading):
    cable, counts = offloading
    data = bytes(SIZE)

    async def scenario():
        async with cable.joined():
            assert await transfer(cable, 4, data) == data

    asyncio.run(scenario())
    assert max(counts) > 20
    # Bare acknowledgements aside, which are as many or as few as the kernel likes.
    assert sum(counts) / len(counts) > 2


def test_a_turn_reads_no_more_than_a_sessions_queue_has_room_for(offloading):
    cable, _ = offloading

    async def scenario():
        async with cable.joined():
            sizes = []
            read = cable.taps[0].read

            async def noted():
                frames = await read()
                sizes.append(sum(map(len, frames)))
                return frames

            cable.taps[0].read = noted
            await transfer(cable, 4, bytes(SIZE))
            assert max(sizes) > tap.BYTES_PER_TURN / 2
            # The last read may bring another 64 KB, and each segment has headers of its own.
            assert max(sizes) < 2.2 * tap.BYTES_PER_TURN

    asyncio.run(scenario())


def test_writes_that_fail_count_every_frame_in_them(offloading):
    cable, _ = offloading
    segments = [
        bytes(
            Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02")
            / IP(src="10.77.0.9", dst="10.77.0.1", flags="DF", id=number)
            / TCP(flags="A", seq=1000 * number)
            / bytes(1000)
        )
        for number in range(10)
    ]
    cable.namespaces[0].run("ip", "link", "set", "t0", "down")
    cable.taps[0].write([*segments, bytes(60)])
    assert cable.counters == {"tap.drop.write_failed": 11}


def test_a_pattern_takes_names_that_are_free():
    namespace = Namespace("pattern")
    taps = []
    try:
        taps += [Tap("t%d", Counters(), namespace.name) for _ in range(2)]
        assert [device.name for device in taps] == ["t0", "t1"]
        assert len({device.mac for device in taps}) == 2
    finally:
        for device in taps:
            device.close()
        namespace.delete()
