"""Relays of several workers, and guests of theirs, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from typing import Any

from operators import OperatedRelay
from processes import PATIENCE, THIS_TREE, Relay, memory_of, run

from guest.vm_client import vm_client
from relay.admin_place import default_path

SOON = 1.0
"""Seconds after which the clients of a worker that was killed are back."""
KEEP_ALIVE = 0.2
MOST_GUESTS = 64
"""That these are all at one worker is as likely as guessing a 63-bit number."""
ETHERTYPE = b"\x88\xb5"
"""For local experiments."""


class OfWorkers(Relay):
    """What the tests ask of a relay of workers: of its log, mostly."""

    def pid_of(self, worker):
        """The process of a worker: the one that was ready last."""
        self.wait_for(rf"worker {worker} is ready")  # it comes through the log, a moment after the address
        return int(re.findall(rf"worker {worker} is ready \(pid (\d+)\)", self.output)[-1])

    @property
    def memory(self):
        """Resident bytes of all processes."""
        ready = set(re.findall(r"worker (\d+) is ready", self.output))
        return sum(map(memory_of, (self.pid, *map(self.pid_of, ready))))

    def is_again(self, worker, life=2):
        """Wait until a worker is ready for another time."""
        self.wait_for(rf"worker {worker} is ready", count=life)

    def logged(self):
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]
        return [line["fields"] | {"message": line["message"]} for line in lines]

    def worker_of(self, address):
        """Tell the worker that the guest with an address joined last, once the log says that it has."""
        self.wait_for(f'registered .* as {re.escape(address)}"')  # it comes through a pipe, a moment later
        joined = [line for line in self.logged() if line.get("event") == "joined"]
        return next(line["worker"] for line in reversed(joined) if line["address"] == address)


class Workers(OfWorkers):
    """A relay of two workers."""

    def __init__(self, *options, **more):
        super().__init__("--workers", 2, *options, **more)

    def stop(self):
        super().stop()
        assert "Traceback" not in self.output, self.output


class OperatedWorkers(OfWorkers, OperatedRelay):
    """One that is asked by commands."""

    def asked_of(self, worker, command):
        """Ask one worker by itself; give what it answers."""
        base = default_path(self.port, os.environ).parent
        [socket] = base.glob(f"workers-{self.pid}-*/admin-{worker}")
        return json.loads(run(*THIS_TREE, command, "--admin", socket, "--json").stdout)


def registered(mac):
    """What the log says of a MAC that joins."""
    return f"registered {mac.hex(':')} as "


class Guests:
    """Guests that come back when they are lost, and note when."""

    def __init__(self, relay, url=None):
        self.relay = relay
        self.url = url or relay.url
        self.nics = []
        self.changes = []
        self._joins = []
        """How often each guest's MAC had joined with this one, whoever had it in earlier tests."""
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def join(self, count):
        for number in range(len(self.nics), len(self.nics) + count):

            def note(change, number=number):
                self.changes.append((time.monotonic(), number, change))

            mac = bytes.fromhex(f"5254000a00{number:02x}")
            self._joins.append(len(re.findall(registered(mac), self.relay.output)) + 1)
            own: dict[str, Any] = {"mac": mac, "reconnect": True, "on_change": note, "keep_alive": KEEP_ALIVE}
            entered = vm_client(self.url, cert_hash=self.relay.hash, **own)
            self.nics.append(await self._stack.enter_async_context(entered))

    async def join_both(self):
        """Have guests join until both workers have one, of which chance decides; give a NIC of each."""
        while len(self.nics) < MOST_GUESTS:
            await self.join(1)
            workers = await self.workers()
            if set(workers) == {0, 1}:
                return [self.nics[workers.index(number)] for number in (0, 1)]
        raise AssertionError("one worker gets none")

    async def workers(self):
        """Tell each guest's worker."""
        for nic, count in zip(self.nics, self._joins, strict=True):
            # The log comes through a pipe, a moment later.
            await asyncio.to_thread(self.relay.wait_for, registered(nic.mac), count=count)
        return [self.relay.worker_of(str(nic.assigned.ip)) for nic in self.nics]

    def since(self, moment, kind):
        """Tell when guests changed so, in seconds from a moment."""
        return {
            number: at - moment
            for at, number, change in self.changes
            if at > moment and isinstance(change, kind)
        }


def play(scenario):
    async def bounded():
        async with asyncio.timeout(3 * PATIENCE):
            return await scenario()

    return asyncio.run(bounded())
