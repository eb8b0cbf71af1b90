"""Guests written in Python, for tests that need many or rude ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time

from processes import PATIENCE
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from transport.client import connect
from transport.target import Trust

GATEWAY_MAC = "52:54:00:12:34:56"
BROADCAST = "ff:ff:ff:ff:ff:ff"
CONTROL, FRAME, CHUNK = b"\0", b"\1", b"\2"


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
    """A guest of a relay under attack, in a thread of its own: pings the gateway all the time.

    ``with Neighbour(relay) as neighbour:`` attack; afterwards ``neighbour.sent`` and ``neighbour.intact``
    tell how many pings left and how many came back with the payload they had, ``neighbour.p99`` how long
    the slowest hundredth of them took.
    """

    INTERVAL = 0.02

    def __init__(self, relay):
        self._relay = relay
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))
        self._settled = threading.Event()
        self._enough = threading.Event()
        self._waiting = {}
        self.sent = 0
        self.intact = 0
        self.round_trips = []

    @property
    def p99(self):
        """Seconds in which 99 of 100 pings came back."""
        return sorted(self.round_trips)[len(self.round_trips) * 99 // 100]

    def __enter__(self):
        self._thread.start()
        assert self._settled.wait(PATIENCE), "the neighbour found no place on the LAN"
        return self

    def __exit__(self, *_):
        self._enough.set()
        self._thread.join(2 * PATIENCE)

    async def _live(self):
        guest = await Guest.join(self._relay)
        listening = asyncio.create_task(self._listen(guest))
        while not self._enough.is_set() or self.sent == 0:
            payload = os.urandom(32)
            self.sent += 1
            self._waiting[self.sent & 0xFFFF] = payload, time.perf_counter()
            guest.send_frames([guest.echo_request(self.sent & 0xFFFF, payload)])
            await asyncio.sleep(self.INTERVAL)
            self._settled.set()
        if self._waiting:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listening, PATIENCE)
        listening.cancel()
        guest.client.close()

    async def _listen(self, guest):
        while self._waiting or not self._enough.is_set():
            frames = await guest.next_frames()
            arrived_at = time.perf_counter()
            for frame in frames:
                packet = Ether(frame)
                if ICMP in packet and packet[ICMP].type == 0:
                    payload, sent_at = self._waiting.pop(packet[ICMP].seq, (None, 0.0))
                    self.intact += payload == packet[Raw].load
                    self.round_trips.append(arrived_at - sent_at)
