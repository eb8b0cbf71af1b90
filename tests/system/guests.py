"""Guests written in Python, for tests that need many or rude ones."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

from processes import PATIENCE, Program
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from guest.client import connect
from guest.target import Trust

GATEWAY_MAC = "52:54:00:12:34:56"
BROADCAST = "ff:ff:ff:ff:ff:ff"
CONTROL, FRAME, CHUNK = b"\0", b"\1", b"\2"

NEIGHBOUR = Path(__file__).parent / "neighbour.py"


class Guest:
    """A registered session with the framed encapsulation."""

    def __init__(self, client, mac, address):
        self.client = client
        self.mac = mac
        self.address = address

    @classmethod
    async def join(cls, relay):
        client = await connect(relay.url, Trust(certificate_hash=bytes.fromhex(relay.hash)))
        mac = b"\x52\x54\x00" + os.urandom(3)
        register = json.dumps({"type": "Register", "mac": list(mac)}).encode()
        client.send([CONTROL + register])
        while True:
            for datagram in await client.receive():
                if datagram[:1] == CONTROL:
                    message = json.loads(datagram[1:])
                    assert message["type"] == "Assigned", message
                    return cls(client, mac.hex(":"), ".".join(map(str, message["ip"])))

    def send_frames(self, frames):
        self.client.send([FRAME + frame for frame in frames])

    async def next_frames(self):
        """Frames that came, at least one; chunks and control messages are passed over."""
        frames = []
        while not frames:
            frames = [datagram[1:] for datagram in await self.client.receive() if datagram[:1] == FRAME]
        return frames

    def echo_request(self, sequence, payload, destination="10.0.2.2"):
        """The bytes of a frame that pings ``destination`` through the gateway."""
        echo = IP(src=self.address, dst=destination) / ICMP(id=1, seq=sequence) / Raw(payload)
        return bytes(Ether(src=self.mac, dst=GATEWAY_MAC) / echo)


class Neighbour:
    """A guest of a relay under attack, a process of its own: pings the gateway all the time.

    ``with Neighbour(relay) as neighbour:`` attack; afterwards ``neighbour.sent`` and ``neighbour.intact``
    tell how many pings left and how many came back with the payload they had, and ``neighbour.p99`` how long
    99 of 100 took, without the time in which the kernel let others run instead of the relay: whom the relay
    serves is what is measured, and not whom the kernel does. ``neighbour.p99_with_waits`` has that time too.
    """

    INTERVAL = 0.01

    def __init__(self, relay):
        self._relay = relay
        self.sent = 0
        self.intact = 0
        self.round_trips = []
        self.served_in = []

    @property
    def p99(self):
        """Seconds."""
        return _of_99_percent(self.served_in)

    @property
    def p99_with_waits(self):
        """Seconds."""
        return _of_99_percent(self.round_trips)

    def __enter__(self):
        relay, self._program = self._relay, _neighbours()
        self._name = f"neighbour{next(_numbers)}"
        self._program.say(f"{relay.url} {relay.hash} {relay.pid} {self.INTERVAL} {self._name}")
        self._pid = int(self._program.wait_for(rf"^{self._name} is (\d+)$")[1])
        self._program.wait_for(f"^{self._name} has settled$")
        return self

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGTERM)
        told = self._program.wait_for(rf"^{self._name}: (.*)$", patience=2 * PATIENCE)
        vars(self).update(json.loads(told[1]))


_numbers = count(1)


@functools.cache
def _neighbours():
    """The program of all neighbours of this run: it ends with it."""
    program = Program(sys.executable, NEIGHBOUR, stdin=subprocess.PIPE)
    atexit.register(program.stop)
    return program


def _of_99_percent(values):
    """In what 99 of 100 are: of 100 values one may be larger."""
    return sorted(values)[-(-len(values) * 99 // 100) - 1]
