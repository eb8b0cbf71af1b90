"""The same script for the Linux kernel and for ours: both must say the same to the guest.

The kernel sits in a network namespace of the test's own, behind a TUN device; a thread of the test lives
there, and what the guest says is written into the device.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading

import pytest
from scapy.layers.inet import IP, TCP
from tcp_talk import FLAGS, FROM_GUEST, Talk, data

from netstack.tcp_segment import PROTOCOL_TCP, parse_sack, read_tcp, reset_for

CLONE_NEWNET = 0x4000_0000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
REMOTE, GUEST = "192.0.2.80", "10.0.2.15"
SETTLE = 0.12
"""Seconds in which the kernel says what it has to say: its delayed acknowledgement takes 40 ms."""

SCRIPTS = {
    "data in order": """
        open mss 1000 sackok
        >> A 1:1000 ack 1 | A 1001:1000 ack 1
        >> A 2001:10 ack 1
    """,
    "out of order, with SACK": """
        open mss 1000 sackok
        >> A 1001:1000 ack 1
        >> A 3001:1000 ack 1
        >> A 1:1000 ack 1
        >> A 2001:1000 ack 1
    """,
    "out of order, without SACK": """
        open mss 1000
        >> A 1001:1000 ack 1
        >> A 1:1000 ack 1
    """,
    "old data": """
        open mss 1000
        >> A 1:100 ack 1
        >> A 1:100 ack 1
        >> A 51:100 ack 1
    """,
    "host writes": """
        open mss 1000 sackok
        host writes 2500
        >> A 1 ack 2501
    """,
    "the guest ends, then the host": """
        open
        >> FA 1:10 ack 1
        host ends
        >> A 12 ack 2
    """,
    "the host ends, then the guest": """
        open
        host ends
        >> A 1 ack 2
        >> FA 1:10 ack 2
    """,
    "both end at once": """
        open
        host ends
        >> FA 1 ack 1
        >> A 2 ack 2
    """,
    "RST at the exact place, then a stray": """
        open
        >> R 1
        >> A 1 ack 1
    """,
    "RST elsewhere in the window": """
        open
        >> R 100
        >> A 1:10 ack 1
    """,
    "SYN in the window": """
        open
        >> S 100
        >> A 1:10 ack 1
    """,
    "ACK of what was never sent": """
        open
        >> A 1 ack 5000
        >> A 1:10 ack 1
    """,
    "keep-alive": """
        open
        >> A 0 ack 1
    """,
    "beyond the window": """
        open
        >> A 900001:10 ack 1
    """,
    "urgent data are data": """
        open mss 1000
        >> UPA 1:100 ack 1
    """,
    "fast retransmit": """
        open mss 1000 sackok
        host writes 5000
        >> A 1 ack 1 sack 1001-5001
        >> A 1 ack 5001
    """,
    "stray segment": """
        >> A 5 ack 77
    """,
}


def steps(script):
    return [line.strip() for line in script.strip().splitlines()]


class Ours(Talk):
    """Plays a script and gives what the guest heard after each step."""

    def hear(self, line):
        if line.startswith("open"):
            self.step(line)
            return []
        if self.connection.state.name == "CLOSED" and self.connection.ending is None:
            # Nobody listens here: what the gateway answers.
            return [self.simplify(reset_for(self.build(line[3:])))]
        self.step(line)
        self.wait(0.06)
        heard, self.out = self.out, []
        return [self.simplify(frame) for frame in heard]

    def simplify(self, frame):
        segment = read_tcp(frame)
        return plain(segment, self.first, self.guest_first)

    def close(self):
        pass


def plain(segment, first, guest_first):
    """What both stacks must agree on: flags but PSH, numbers, bytes, SACK."""
    blocks = sorted(
        (low - guest_first & 0xFFFFFFFF, high - guest_first & 0xFFFFFFFF)
        for low, high in parse_sack(segment.options)
    )
    acknowledges = segment.flags & FLAGS["A"]
    return (
        segment.flags & ~FLAGS["P"],
        segment.sequence - first & 0xFFFFFFFF,
        (segment.acknowledgment - guest_first & 0xFFFFFFFF) if acknowledges else None,
        segment.payload,
        blocks,
    )


class Linux:
    """The kernel of a namespace behind a TUN device, as a server on port 80."""

    def __init__(self):
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWNET) == 0, "a network namespace needs root"
        self.tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH", b"tun0", IFF_TUN | IFF_NO_PI))
        for command in (
            "link set lo up",
            f"address add {REMOTE}/32 dev tun0",
            "link set tun0 mtu 1400 up",
            "route add default dev tun0",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        # Ours has no timestamps, and no ECN.
        for name, value in (("tcp_timestamps", 0), ("tcp_ecn", 0), ("tcp_invalid_ratelimit", 0)):
            with open(f"/proc/sys/net/ipv4/{name}", "w") as setting:  # noqa: PTH123 - of this thread's namespace
                setting.write(str(value))
        self.listener = socket.create_server((REMOTE, 80))
        self.server = None
        self.first = 0
        self.guest_first = 0xFFFF_FFF0
        self.wrote = 0
        self.talk = Talk()

    def send(self, text):
        for part in text.split("|"):
            self.talk.first, self.talk.guest_first = self.first, self.guest_first
            os.write(self.tun, self.talk.build(part)[14:])

    def receive(self, patience=SETTLE):
        heard = []
        while select.select([self.tun], [], [], patience)[0]:
            packet = os.read(self.tun, 4096)
            if packet[0] >> 4 == 4 and packet[9] == PROTOCOL_TCP:
                heard.append(read_tcp(bytes(14) + packet))
        return heard

    def hear(self, line):
        word, _, rest = line.partition(" ")
        match word, rest.split():
            case "open", _:
                self.send(f"S 0 win 65535 {rest}")
                (answer,) = self.receive()
                self.first = answer.sequence
                self.send("A 1 ack 1 win 65535")
                self.server, _ = self.listener.accept()
                self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return []
            case ">>", _:
                self.send(rest)
            case "host", ["writes", count]:
                self.server.send(data(1 + self.wrote, int(count)))
                self.wrote += int(count)
            case "host", ["ends"]:
                self.server.shutdown(socket.SHUT_WR)
        return [plain(segment, self.first, self.guest_first) for segment in self.receive()]

    def close(self):
        for each in (self.server, self.listener):
            if each is not None:
                each.close()
        os.close(self.tun)


def play(side, script):
    try:
        return [side.hear(line) for line in steps(script)]
    finally:
        side.close()


def in_thread(work):
    """Namespaces belong to threads: one that ends takes its own with it."""
    results = []

    def run():
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def said(heard):
    """What a step brought: bytes by their place, however cut and often, and the last segment without any."""
    parts = {
        position + offset: byte for _, position, _, payload, _ in heard for offset, byte in enumerate(payload)
    }
    bare = [segment for segment in heard if not segment[3]]
    return parts, bare[-1] if bare else None


@pytest.mark.parametrize("title", SCRIPTS)
def test_linux_says_the_same(title):
    script = SCRIPTS[title]
    linux = in_thread(lambda: play(Linux(), script))
    ours = play(Ours(), script)
    for line, theirs_heard, ours_heard in zip(steps(script), linux, ours, strict=True):
        assert said(ours_heard) == said(theirs_heard), line


def test_scapy_reads_the_guests_segments():
    packet = IP(FROM_GUEST.build(1, 2, 16, 3, b"data")[14:])
    assert (packet.src, packet.dst, packet[TCP].seq) == (GUEST, REMOTE, 1)
