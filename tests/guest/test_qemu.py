from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import signal
import socket
import stat
import struct
import sys
import time

import pytest
from processes import ROOT, Program, Relay, run
from waiting import until

from guest import qemu
from guest.qemu import QemuError, StreamDecoder, open_socket
from netstack.counters import Counters
from netstack.ethernet import MAX_FRAME_LENGTH
from transport.quic.session import MOST_ROOM, QUEUE_BYTES

FRAMES = [bytes((number,)) * (60 + number) for number in range(5)]
PATIENCE = 10.0


def packed(*frames):
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


class Port:
    """A socket under test with what it has said and counted."""

    def __init__(self, path, mode):
        self.said = []
        self.counters = Counters()
        self.path = str(path)
        self.socket = open_socket(self.path, mode, self.counters, self.said.append)

    async def read(self, count=1):
        frames = []
        async with asyncio.timeout(PATIENCE):
            while len(frames) < count:
                frames += await self.socket.read()
        return frames


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    """Run a scenario with a port of this mode, and close it."""
    # What only Linux has is not needed: vfkit and krunkit run on macOS.
    monkeypatch.delattr(socket, "SOCK_NONBLOCK")

    def run_scenario(mode, steps):
        async def play():
            port = Port(tmp_path / "nic", mode)
            try:
                await steps(port)
            finally:
                port.socket.close()
            return port

        port = asyncio.run(play())
        if mode != "connect":
            assert not (tmp_path / "nic").exists()
        return port

    return run_scenario


def guest_of(path):
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    guest.settimeout(PATIENCE)
    guest.connect(path)
    return guest


class DatagramGuest(socket.socket):
    """Sends as QEMU does: from a path of its own, without being connected."""

    def __init__(self, path, own=None):
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.settimeout(PATIENCE)
        self.far = path
        if own:
            self.bind(str(own))

    def send(self, frame, flags=0, /):
        return self.sendto(frame, flags, self.far)


class ConnectedGuest(socket.socket):
    """Sends as vfkit and libkrun do: from a path of its own, connected, and perhaps with a word ahead."""

    def __init__(self, path, own, hello=b""):
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.settimeout(PATIENCE)
        self.bind(str(own))
        self.connect(path)
        if hello:
            self.send(hello)


async def receive(guest, size):
    """Read from a blocking socket, which must not hold the event loop up."""

    def read():
        data = b""
        while len(data) < size and (more := guest.recv(size - len(data))):
            data += more
        return data

    return await asyncio.to_thread(read)


# -- streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 4, 7, 1000])
def test_frames_come_whole_however_the_stream_is_cut(step):
    decoder = StreamDecoder(Counters())
    stream = packed(*FRAMES)
    found = [f for at in range(0, len(stream), step) for f in decoder.take(stream[at : at + step])]
    assert found == FRAMES
    assert not decoder.partial


@pytest.mark.parametrize("length", [MAX_FRAME_LENGTH + 1, 1 << 31, (1 << 32) - 1])
def test_a_length_that_cannot_be_breaks_the_stream(length):
    counters = Counters()
    decoder = StreamDecoder(counters)
    assert decoder.take(packed(*FRAMES) + length.to_bytes(4, "big") + bytes(100)) == FRAMES
    assert decoder.broken == length
    assert decoder.take(packed(*FRAMES)) == []
    assert counters == {"qemu.drop.bad_length": 1}


def test_the_largest_frame_passes_and_runts_are_stepped_over():
    counters = Counters()
    decoder = StreamDecoder(counters)
    largest = bytes(MAX_FRAME_LENGTH)
    assert decoder.take(packed(b"", bytes(13), largest, bytes(14))) == [largest, bytes(14)]
    assert counters == {"qemu.drop.runt": 2}


def test_a_listening_port_serves_one_guest_after_the_other(scenario):
    async def steps(port):
        for _ in range(2):
            with guest_of(port.path) as guest:
                guest.sendall(packed(*FRAMES))
                assert await port.read(len(FRAMES)) == FRAMES
                port.socket.write(FRAMES)
                assert await receive(guest, len(packed(*FRAMES))) == packed(*FRAMES)
        with guest_of(port.path) as first, guest_of(port.path) as second:
            first.sendall(packed(FRAMES[0]))
            second.sendall(packed(FRAMES[1]))
            assert await port.read() == [FRAMES[0]]
            first.close()
            assert await port.read() == [FRAMES[1]]

    port = scenario("listen", steps)
    assert port.said[:4] == [
        "waiting for QEMU to connect",
        "QEMU is connected",
        "QEMU has gone; waiting for it to connect again",
        "QEMU is connected",
    ]
    assert port.counters == {}


def test_a_stream_that_lies_is_ended_and_the_next_one_served(scenario):
    async def steps(port):
        with guest_of(port.path) as liar:
            liar.sendall(packed(FRAMES[0]) + b"GET / HTTP/1.1\r\n\r\n")
            assert await port.read() == [FRAMES[0]]
            # With bytes of its own unread, a closed unix socket resets its peer.
            with contextlib.suppress(ConnectionResetError):
                assert await receive(liar, 1) == b""
        with guest_of(port.path) as guest:
            guest.sendall(packed(FRAMES[1]))
            assert await port.read() == [FRAMES[1]]

    port = scenario("listen", steps)
    assert port.counters == {"qemu.drop.bad_length": 1}
    assert f"QEMU sent a frame length of {0x47455420}, which cannot be" in port.said[2]


def test_half_a_frame_is_counted_and_not_mixed_with_the_next_guests(scenario):
    async def steps(port):
        with guest_of(port.path) as guest:
            guest.sendall(packed(FRAMES[0])[:-1])
        with guest_of(port.path) as guest:
            guest.sendall(packed(FRAMES[1]))
            assert await port.read() == [FRAMES[1]]

    assert scenario("listen", steps).counters == {"qemu.drop.truncated": 1}


def test_a_connecting_port_waits_for_qemu_and_comes_back(scenario, tmp_path, monkeypatch):
    monkeypatch.setattr(qemu, "RETRY", 0.01)
    clear = (tmp_path / "nic").unlink

    async def steps(port):
        reading = asyncio.create_task(port.read())
        await asyncio.sleep(0)  # a first attempt, which finds nothing
        for frame in FRAMES[:2]:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(port.path)
                listener.listen()
                listener.settimeout(PATIENCE)
                guest, _ = await asyncio.to_thread(listener.accept)
            with guest:
                guest.settimeout(PATIENCE)
                guest.sendall(packed(frame))
                assert await reading == [frame]
                port.socket.write([frame])
                assert await receive(guest, len(packed(frame))) == packed(frame)
            clear()
            reading = asyncio.create_task(port.read())
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    port = scenario("connect", steps)
    assert port.said[0] == "no QEMU: No such file or directory; trying again"
    assert port.said.count("QEMU is connected") == 2
    assert port.counters == {}


def test_a_guest_that_does_not_read_costs_frames_and_not_memory(scenario):
    count = 3 * qemu.SEND_QUEUE
    frame = bytes(1514)

    async def steps(port):
        with guest_of(port.path) as guest:
            guest.sendall(packed(frame))
            await port.read()
            for _ in range(count):
                port.socket.write([frame])
            dropped = port.counters["qemu.drop.send_queue"]
            assert 0 < dropped < count - qemu.SEND_QUEUE
            # What was kept arrives whole, once it reads.
            size = (count - dropped) * len(packed(frame))
            assert await receive(guest, size) == packed(frame) * (count - dropped)

    scenario("listen", steps)


def test_frames_that_were_sent_together_and_in_parts_arrive_in_order(scenario):
    chance = random.Random(1)
    frames = [chance.randbytes(chance.randrange(14, 9000)) for _ in range(qemu.SEND_QUEUE)]
    wanted = b"".join(map(packed, frames))

    async def steps(port):
        with guest_of(port.path) as guest:
            guest.sendall(packed(bytes(60)))
            await port.read()
            port.socket.write(frames)
            assert await receive(guest, len(wanted)) == wanted
        assert not port.counters

    scenario("listen", steps)


def test_a_turn_brings_no_more_than_a_sessions_queue_has_room_for(scenario):
    count = 400

    async def steps(port):
        with guest_of(port.path) as guest:
            sending = asyncio.create_task(asyncio.to_thread(guest.sendall, packed(bytes(1514)) * count))
            sizes = []
            async with asyncio.timeout(PATIENCE):
                while sum(sizes) < count * 1514:
                    await asyncio.sleep(0.01)  # for the socket's buffer to fill
                    sizes.append(sum(map(len, await port.socket.read())))
            await sending
        assert max(sizes) <= QUEUE_BYTES - MOST_ROOM // 2

    scenario("listen", steps)


@pytest.mark.parametrize("mode", qemu.MODES)
def test_frames_for_nobody_are_counted(scenario, mode):
    async def steps(port):
        port.socket.write(FRAMES)

    assert scenario(mode, steps).counters == {"qemu.drop.no_guest": len(FRAMES)}


# -- datagrams ----------------------------------------------------------------------------------------


def test_datagrams_go_to_where_the_latest_came_from(scenario, tmp_path):
    async def steps(port):
        for number in range(2):
            own = str(tmp_path / f"vm{number}")
            with DatagramGuest(port.path, own) as guest:
                for frame in FRAMES:
                    guest.send(frame)
                assert await port.read(len(FRAMES)) == FRAMES
                port.socket.write(FRAMES)
                assert [await asyncio.to_thread(guest.recv, 2000) for _ in FRAMES] == FRAMES

    port = scenario("dgram", steps)
    assert port.said[1:] == [f"QEMU is at {tmp_path}/vm{number}" for number in range(2)]
    assert port.counters == {}


def test_a_restarted_qemu_at_the_same_path_gets_frames_at_once(scenario, tmp_path):
    own = tmp_path / "vm"

    async def steps(port):
        for _ in range(2):
            with DatagramGuest(port.path, own) as guest:
                guest.send(FRAMES[0])
                assert await port.read() == [FRAMES[0]]
                port.socket.write([FRAMES[1]])
                assert await asyncio.to_thread(guest.recv, 2000) == FRAMES[1]
            own.unlink()
        port.socket.write([FRAMES[1]])

    port = scenario("dgram", steps)
    assert port.counters == {"qemu.drop.no_guest": 1}
    assert port.said[-1] == "QEMU has gone; waiting for it to send again"


def test_a_burst_of_datagrams_waits_for_a_guest_that_is_slow(scenario, tmp_path):
    burst = [number.to_bytes(2, "big") * 30 for number in range(qemu.SEND_QUEUE)]

    async def steps(port):
        with DatagramGuest(port.path, tmp_path / "vm") as guest:
            guest.send(FRAMES[0])
            await port.read()
            port.socket.write(burst)
            assert [await asyncio.to_thread(guest.recv, 2000) for _ in burst] == burst

    assert scenario("dgram", steps).counters == {}


def test_datagrams_of_wrong_lengths_are_counted(scenario, tmp_path):
    async def steps(port):
        with DatagramGuest(port.path, tmp_path / "vm") as guest:
            reading = asyncio.create_task(port.read())
            for datagram in (b"", bytes(13), bytes(MAX_FRAME_LENGTH + 1), FRAMES[0]):
                await asyncio.to_thread(guest.send, datagram)
            assert await reading == [FRAMES[0]]

    assert scenario("dgram", steps).counters == {"qemu.drop.runt": 2, "qemu.drop.bad_length": 1}


def test_a_guest_without_a_path_can_send_and_not_receive(scenario):
    async def steps(port):
        with DatagramGuest(port.path) as guest:
            guest.send(FRAMES[0])
            assert await port.read() == [FRAMES[0]]
            port.socket.write([FRAMES[1]])

    assert scenario("dgram", steps).counters == {"qemu.drop.no_guest": 1}


def test_a_guest_that_cannot_be_sent_to_is_named(scenario, tmp_path):
    own = tmp_path / "vm"

    async def steps(port):
        with DatagramGuest(port.path, own) as guest:
            guest.send(FRAMES[0])
            own.unlink()
            assert await port.read() == [FRAMES[0]]
            port.socket.write([FRAMES[1]])

    port = scenario("dgram", steps)
    assert port.said[1:] == [f"no way to send to {own}: No such file or directory"]
    assert port.counters == {"qemu.drop.no_guest": 1}


# -- connected datagrams ------------------------------------------------------------------------------


@pytest.mark.parametrize("hello", [b"", qemu.HELLO])
def test_a_connected_guest_is_answered(scenario, tmp_path, hello):
    async def steps(port):
        with ConnectedGuest(port.path, tmp_path / "vm", hello) as guest:
            for frame in FRAMES:
                guest.send(frame)
            assert await port.read(len(FRAMES)) == FRAMES
            port.socket.write(FRAMES)
            assert [await asyncio.to_thread(guest.recv, 2000) for _ in FRAMES] == FRAMES

    port = scenario("dgram", steps)
    assert port.said[1:] == [f"QEMU is at {tmp_path}/vm"]
    assert port.counters == {}


def test_one_that_says_hello_gets_frames_before_it_sends_any(scenario, tmp_path):
    async def steps(port):
        reading = asyncio.create_task(port.read())
        with ConnectedGuest(port.path, tmp_path / "vm", qemu.HELLO) as guest:
            await until(lambda: len(port.said) == 2)
            port.socket.write(FRAMES[:1])
            assert await asyncio.to_thread(guest.recv, 2000) == FRAMES[0]
            guest.send(FRAMES[1])
            assert await reading == [FRAMES[1]]

    assert scenario("dgram", steps).counters == {}


def test_guests_of_every_kind_may_follow_each_other_at_one_path(scenario, tmp_path):
    own = tmp_path / "vm"
    kinds = [
        lambda path: ConnectedGuest(path, own, qemu.HELLO),
        lambda path: ConnectedGuest(path, own, qemu.HELLO),
        lambda path: DatagramGuest(path, own),
        lambda path: ConnectedGuest(path, own),
        lambda path: DatagramGuest(path, own),
        lambda path: ConnectedGuest(path, own, qemu.HELLO),
    ]

    async def steps(port):
        for kind in kinds:
            with kind(port.path) as guest:
                guest.send(FRAMES[0])
                assert await port.read() == [FRAMES[0]]
                port.socket.write(FRAMES)
                assert [await asyncio.to_thread(guest.recv, 2000) for _ in FRAMES] == FRAMES
            own.unlink()
        port.socket.write(FRAMES)

    port = scenario("dgram", steps)
    assert port.counters == {"qemu.drop.no_guest": len(FRAMES)}
    assert port.said[-1] == "QEMU has gone; waiting for it to send again"


def test_a_burst_waits_for_a_connected_guest_that_is_slow(scenario, tmp_path):
    """Also for one that has become unconnected, whose queue then takes a few and says no word of room."""
    burst = [number.to_bytes(2, "big") * 700 for number in range(qemu.SEND_QUEUE)]

    async def steps(port):
        with ConnectedGuest(port.path, tmp_path / "vm", qemu.HELLO) as guest:
            for send in (guest.send, lambda frame: guest.sendto(frame, port.path)):
                send(FRAMES[0])
                await port.read()
                port.socket.write(burst)
                assert [await asyncio.to_thread(guest.recv, 2000) for _ in burst] == burst
                unconnect(guest)

    assert scenario("dgram", steps).counters == {}


def unconnect(guest):
    """Connect a socket to nobody again, for which Python has no words (connect(2))."""
    nobody = ctypes.create_string_buffer(struct.pack("H14x", socket.AF_UNSPEC), 16)
    assert ctypes.CDLL(None).connect(guest.fileno(), nobody, 16) == 0


@pytest.mark.no_cover
def test_a_connected_guest_that_does_not_read_costs_frames_and_not_time(scenario, tmp_path):
    count = 3 * qemu.SEND_QUEUE

    async def steps(port):
        with ConnectedGuest(port.path, tmp_path / "vm", qemu.HELLO) as guest:
            guest.send(FRAMES[0])
            await port.read()
            for _ in range(count):
                port.socket.write([bytes(1514)])
            assert 0 < port.counters["qemu.drop.send_queue"] < count - qemu.SEND_QUEUE
            before = time.process_time()
            await asyncio.sleep(0.2)
            assert time.process_time() - before < 0.1, "it is asked now and then, not all the time"

    port = scenario("dgram", steps)
    assert port.counters["qemu.drop.no_guest"] == qemu.SEND_QUEUE


# -- paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["listen", "dgram"])
def test_a_path_that_was_left_behind_is_taken_over_and_one_in_use_is_not(tmp_path, mode):
    kind = {"listen": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM}[mode]
    path = tmp_path / "nic"
    with socket.socket(socket.AF_UNIX, kind) as earlier:
        earlier.bind(str(path))
        if mode == "listen":
            earlier.listen()
        with pytest.raises(QemuError, match="Address already in use"):
            Port(path, mode)
    Port(path, mode).socket.close()
    path.write_text("precious")
    with pytest.raises(QemuError, match="Address already in use"):
        Port(path, mode)
    assert path.read_text() == "precious"


def test_the_umask_decides_who_may_connect(tmp_path):
    port = Port(tmp_path / "nic", "listen")
    try:
        mode = (tmp_path / "nic").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert not mode & stat.S_IWOTH
    finally:
        port.socket.close()


# -- the command --------------------------------------------------------------------------------------

MAC = bytes.fromhex("525400550001")
ARP = bytes.fromhex("ffffffffffff") + MAC + bytes.fromhex("0806000108000604 0001") + MAC
ARP += bytes((10, 0, 2, 99)) + bytes(6) + bytes((10, 0, 2, 2))
GATEWAY = bytes.fromhex("525400123456")


def attach(relay, path, *options):
    return Program(
        *(sys.executable, "-m", "relay.main", "attach", "--qemu", path, "--cert-hash", relay.hash),
        *(*options, relay.url),
    )


def exchange(guest):
    """Ask the gateway for its MAC until it answers: frames may be lost while a session is replaced."""
    guest.settimeout(0.2)
    for _ in range(100):
        guest.send(ARP if guest.type == socket.SOCK_DGRAM else packed(ARP))
        with contextlib.suppress(TimeoutError):
            data = guest.recv(1 << 16)
            if GATEWAY in data:
                return
    raise AssertionError("no answer")


def test_the_guests_own_mac_is_registered_and_relays_may_come_and_go(certificate_options, tmp_path):
    relay = Relay(*certificate_options)
    program = attach(relay, tmp_path / "nic")
    try:
        program.wait_for("waiting for QEMU to connect")
        with guest_of(str(tmp_path / "nic")) as guest:
            guest.sendall(packed(ARP))
            program.wait_for(rf"attached to {relay.url} as {MAC.hex(':')}, address 10\.0\.2\.")
            exchange(guest)
            relay.stop()
            program.wait_for("not attached")
            relay = Relay(*certificate_options, "--port", relay.port)
            program.wait_for("attached to https", count=2)
            exchange(guest)
        program.wait_for("QEMU has gone")
        with guest_of(str(tmp_path / "nic")) as guest:
            exchange(guest)
    finally:
        program.stop()
        relay.stop()
    assert "Traceback" not in program.output
    assert not (tmp_path / "nic").exists()


def test_the_command_itself_may_restart_between_datagrams(live_relay, tmp_path):
    far = str(tmp_path / "nic")
    with DatagramGuest(far, tmp_path / "vm") as guest:
        for _ in range(2):
            program = attach(live_relay, far, "--qemu-mode", "dgram", "--mac", MAC.hex(":"))
            try:
                program.wait_for(f"attached to {live_relay.url} as {MAC.hex(':')}")
                exchange(guest)
            finally:
                program.stop()


def test_what_was_dropped_is_told_on_request(live_relay, tmp_path):
    program = attach(live_relay, tmp_path / "nic")
    try:
        program.wait_for("waiting for QEMU to connect")
        with guest_of(str(tmp_path / "nic")) as guest:
            guest.sendall(bytes(4) + b"\xff" * 4)
            program.wait_for("QEMU sent a frame length of 4294967295, which cannot be")
        program.signal(signal.SIGUSR1)
        program.wait_for('counters: {"qemu.drop.bad_length": 1, "qemu.drop.runt": 1}')
    finally:
        program.stop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--qemu", "x" * 108), "is not a path for a socket: 1 to 107 bytes"),
        (("--qemu", ""), "is not a path for a socket"),
        (("--qemu", "/nowhere/at/all"), "/nowhere/at/all: No such file or directory"),
        (("--qemu", "nic", "--tap", "t0"), "not allowed with"),
        (("--qemu", "nic", "--qemu-mode", "odd"), "'odd'"),
        (("--tap", "t0", "--qemu-mode", "dgram"), "--qemu-mode goes with --qemu"),
        (("--qemu", "nic", "--configure"), "--configure goes with --tap"),
        (("--qemu", "nic", "--netns", "vm"), "--netns goes with --tap"),
        (("--qemu", "nic", "--mtu", "1400"), "--mtu goes with --tap"),
    ],
)
def test_wrong_options_get_one_line(options, said):
    command = (sys.executable, "-m", "relay.main", "attach", *options, "https://127.0.0.1:9/")
    done = run(*command, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("vmrelay: error: ")
    assert said in line
