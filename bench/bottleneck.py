"""A path that all kinds of traffic share, as a program: two devices, and a rate, a queue, a delay between.

    python bottleneck.py NAMESPACE ADDRESS NAMESPACE ADDRESS --rate-mbit 20 --buffer-ms 100 --delay-ms 25

``relaybench impair`` does this to the datagrams of a relay's clients; here it is done to IP packets, so that
a kernel's TCP shares the queue with a session. Each direction has a queue of its own, which drops what does
not fit (tail drop). Prints ``ready``.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from ipaddress import IPv4Interface

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
sys.path[:0] = [f"{ROOT}/tests/system"]
from namespaces import enter  # noqa: E402 - where it lies is said above
from processes import run  # noqa: E402

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
LONGEST = 65_536
DEVICE = "path0"
QUEUE = 10_000
"""Packets that the kernel keeps for this program, so that none are lost while it is late."""


class Direction:
    """Packets from one device to the other: each leaves when the link has sent it, and arrives later."""

    def __init__(self, source: int, target: int, options: argparse.Namespace) -> None:
        self.source, self._target = source, target
        self._per_byte = 8 / (options.rate_mbit * 1e6)
        self._longest_wait = options.buffer_ms / 1e3
        self._delay = options.delay_ms / 1e3
        self._busy_until = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    def take(self, now: float) -> None:
        """Read what the device has, and drop what the queue has no room for."""
        while True:
            try:
                packet = os.read(self.source, LONGEST)
            except BlockingIOError:
                return
            start = max(self._busy_until, now)
            if start - now <= self._longest_wait:
                self._busy_until = start + len(packet) * self._per_byte
                self._under_way.append((self._busy_until + self._delay, packet))

    def deliver(self, now: float) -> float:
        """Write what has arrived by now; give when the next does."""
        while self._under_way and self._under_way[0][0] <= now:
            os.write(self._target, self._under_way.popleft()[1])
        return self._under_way[0][0] if self._under_way else now + 1


def device(namespace: str, address: str, peer: str) -> int:
    """Make a device in a namespace that leads to ``peer``; give its descriptor."""
    with enter(namespace):
        opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    inside = ("ip", "netns", "exec", namespace, "ip")
    run(*inside, "link", "set", DEVICE, "mtu", "1500", "txqueuelen", QUEUE, "up")
    run(*inside, "address", "add", address, "peer", peer, "dev", DEVICE)
    return opened


def main() -> None:
    """Carry packets until it is ended."""
    parser = argparse.ArgumentParser(description="a path with a rate, a queue and a delay")
    parser.add_argument("ends", nargs=4, metavar="NAMESPACE ADDRESS")
    for name in ("rate-mbit", "buffer-ms", "delay-ms"):
        parser.add_argument(f"--{name}", type=float, required=True)
    options = parser.parse_args()
    one, one_address, other, other_address = options.ends
    near = device(one, one_address, str(IPv4Interface(other_address).ip))
    far = device(other, other_address, str(IPv4Interface(one_address).ip))
    directions = Direction(near, far, options), Direction(far, near, options)
    poller = select.poll()
    for direction in directions:
        poller.register(direction.source, select.POLLIN)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = min(direction.deliver(now) for direction in directions)
        if poller.poll(max(0, due - time.monotonic()) * 1e3):
            now = time.monotonic()
            for direction in directions:
                direction.take(now)


if __name__ == "__main__":
    main()
