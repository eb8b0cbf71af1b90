"""Neighbours that ping the gateway of a relay all the time, until SIGTERM.

Each line of the input, ``URL CERTIFICATE_HASH RELAY_PID INTERVAL NAME``, begins one: a process forked from
this one, which has loaded by then all that it needs, and that takes a second. It prints ``NAME is PID``,
``NAME has settled``, and at its end ``NAME: `` with what became of its pings, as JSON.

Processes of their own, so that the times they tell hold nothing of the work of whoever attacks the relay.
They are told twice: as they were (``round_trips``), and without the time that the relay or the neighbour was
ready to run and waited for a core (``served_in``), which is the doing of whatever else runs on this machine,
or of its host where the machine is a virtual one.
They themselves run at once where their user may have that (sched(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from guests import Guest
from processes import PATIENCE
from scapy.layers.inet import ICMP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

IPV4 = bytes.fromhex("0800")
ARP_REQUEST = bytes.fromhex("08060001080006040001")

STAT = Path("/proc/stat")
CORE = re.compile(r"cpu\d")
STEAL = 8
TICKS = os.sysconf("SC_CLK_TCK")


class Waits:
    """How long processes were ready to run and did not, so far, in seconds each (Linux; elsewhere none).

    And for how long each core was another virtual machine's, in ticks of 10 ms (proc(5), ``steal``).
    """

    def __init__(self, *processes):
        self._files = [Path(f"/proc/{process}/schedstat") for process in processes]
        self._files = [file for file in self._files if file.exists()]

    def read(self):
        return [int(file.read_bytes().split()[1]) / 1e9 for file in self._files] + stolen()


def stolen():
    """Tell for how many seconds each core was not this machine's so far."""
    if not STAT.exists():
        return []
    cores = [line.split() for line in STAT.read_text().splitlines() if CORE.match(line)]
    return [int(fields[STEAL]) / TICKS for fields in cores if len(fields) > STEAL]


class Pings:
    """One guest's pings: those on their way, and how long the others took."""

    def __init__(self, guest, waits):
        self._guest = guest
        self._address = socket.inet_aton(guest.address)
        self._waits = waits
        self._waiting = {}
        self._all_back = asyncio.Event()
        self.sent = 0
        self.intact = 0
        self.round_trips = []
        self.served_in = []

    def send(self):
        payload = os.urandom(32)
        self.sent += 1
        sequence = self.sent & 0xFFFF
        frame = self._guest.echo_request(sequence, payload)
        self._waiting[sequence] = payload, time.perf_counter(), self._waits.read()
        self._all_back.clear()
        self._guest.send_frames([frame])

    async def all_back(self):
        await self._all_back.wait()

    async def listen(self):
        while True:
            frames = await self._guest.next_frames()
            arrived_at = time.perf_counter()
            waits = self._waits.read()
            for frame in frames:
                if frame[12:14] == IPV4:
                    packet = Ether(frame)
                    if ICMP in packet and packet[ICMP].type == 0:
                        self._came_back(packet, arrived_at, waits)
                elif frame[12:22] == ARP_REQUEST and frame[38:42] == self._address:
                    self._answer(frame)
            if not self._waiting:
                self._all_back.set()

    def _answer(self, request):
        """Say whose the address is: who does not, loses it to others that want it."""
        asked = Ether(request)[ARP]
        mine = {"hwsrc": self._guest.mac, "psrc": self._guest.address}
        reply = ARP(op=2, **mine, hwdst=asked.hwsrc, pdst=asked.psrc)
        self._guest.send_frames([bytes(Ether(src=self._guest.mac, dst=asked.hwsrc) / reply)])

    def _came_back(self, packet, arrived_at, waits):
        payload, sent_at, waits_before = self._waiting.pop(packet[ICMP].seq, (None, arrived_at, waits))
        self.intact += payload == packet[Raw].load
        took = arrived_at - sent_at
        self.round_trips.append(took)
        # Both may have waited at the same time, so it is the longer of the waits that counts.
        waited = max((after - before for before, after in zip(waits_before, waits, strict=True)), default=0.0)
        self.served_in.append(max(took - waited, 0.0))


async def live(url, certificate_hash, relay_pid, interval, name):
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    guest = await Guest.join(SimpleNamespace(url=url, hash=certificate_hash))
    pings = Pings(guest, Waits(relay_pid, os.getpid()))
    listening = asyncio.create_task(pings.listen())
    # The first frames of a guest cost more than those to come: addresses are learned.
    pings.send()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(pings.all_back(), PATIENCE)
    print(name, "has settled", flush=True)
    while not enough.is_set():
        pings.send()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), interval)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(pings.all_back(), PATIENCE)
    listening.cancel()
    guest.client.close()
    told = {name: getattr(pings, name) for name in ("sent", "intact", "round_trips", "served_in")}
    print(f"{name}: {json.dumps(told)}", flush=True)


def begin(url, certificate_hash, relay_pid, interval, name):
    """Fork a neighbour."""
    if os.fork():
        return
    print(name, "is", os.getpid(), flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(AttributeError, PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    asyncio.run(live(url, certificate_hash, int(relay_pid), float(interval), name))
    os._exit(0)


if __name__ == "__main__":
    gc.freeze()
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that have ended
    for line in sys.stdin:
        begin(*line.split())
