"""Guests of one relay in one process, each with a simulated system, that do what they are told by lines.

python shared_guests.py URL HASH COUNT FIRST     MACs are numbered from FIRST on

Each pings the next one of this process all the time. A line is a number and a command, and is answered by
a line with the number, and JSON:

    3 addresses               MAC and address of every guest, once all are attached
    4 ping {MAC: ADDRESS}     seconds until all guests had an answer from each of these, found by ARP anew
    5 silence                 the longest time that a ping within this process took since it was last asked
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))
from simulated_host import Host
from waiting import until

from guest.nic_changes import Attached
from guest.vm_client import vm_client

KEEP_ALIVE, IDLE_TIMEOUT = 0.5, 3.0
"""Seconds; by default they are 10 and 30."""
PING_EVERY = 0.1


class Resident(Host):
    """A guest that pings another one all the time."""

    def __init__(self, nic):
        super().__init__(nic)
        self.longest = 0.0
        self._asked = time.monotonic()

    def readdress(self):
        self.ip = self.nic.assigned.ip.packed

    async def keep_pinging(self, other):
        while True:
            self._asked = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await self.ping(other)
            self.longest = max(self.longest, time.monotonic() - self._asked)
            self._asked = time.monotonic() + PING_EVERY
            await asyncio.sleep(PING_EVERY)

    def silence(self):
        found = max(self.longest, time.monotonic() - self._asked)
        self.longest = 0.0
        return found


class Guests:
    def __init__(self):
        self.residents = []

    async def join(self, stack, url, certificate_hash, mac):
        def note(change):
            if isinstance(change, Attached) and resident is not None:
                resident.readdress()

        resident = None
        client = vm_client(
            url,
            cert_hash=certificate_hash,
            mac=mac,
            reconnect=True,
            on_change=note,
            keep_alive=KEEP_ALIVE,
            idle_timeout=IDLE_TIMEOUT,
        )
        nic = await stack.enter_async_context(client)
        resident = Resident(nic)
        stack.callback(resident.stop)
        self.residents.append(resident)

    async def addresses(self):
        await until(lambda: all(each.nic.attached for each in self.residents), every=0.05)
        return {each.nic.mac.hex(): str(IPv4Address(each.ip)) for each in self.residents}

    async def ping(self, addresses):
        """Ping from each guest to each address that is not of this process, whose ring is not disturbed."""
        started = time.monotonic()
        here = {each.nic.mac.hex() for each in self.residents}
        others = [
            SimpleNamespace(ip=IPv4Address(address).packed, nic=SimpleNamespace(mac=bytes.fromhex(mac)))
            for mac, address in addresses.items()
            if mac not in here
        ]
        for each in self.residents:
            for other in others:
                each.neighbours.pop(other.ip, None)
        await asyncio.gather(*(each.ping(other) for each in self.residents for other in others))
        return time.monotonic() - started

    async def silence(self):
        return max(each.silence() for each in self.residents)


async def main(url, certificate_hash, count, first):
    guests = Guests()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for guest in range(int(first), int(first) + int(count)):
            mac = bytes.fromhex("5254000c") + guest.to_bytes(2)
            await guests.join(stack, url, certificate_hash, mac)
        ring = [
            tasks.create_task(one.keep_pinging(other))
            for one, other in zip(guests.residents, guests.residents[1:] + guests.residents[:1], strict=True)
        ]
        async for line in reader:
            number, command, *said = line.decode().split(maxsplit=2)
            found = await getattr(guests, command)(*map(json.loads, said))
            print(number, json.dumps(found), flush=True)
        for task in ring:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
