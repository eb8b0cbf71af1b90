"""What happens to a relay's workers while they are loaded, and that the guests who stay get over it.

A worker is killed, or frozen for longer than the supervisor has patience, in turn; in the first third of the
time all are replaced one by one now and then, too. Worker 0 is never killed: after that it ages, and what it
keeps of workers that come and go would show in its memory. After each fault all workers are back, and the
*residents*, guests that stay for all of the time, reach each other with the addresses that they had.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.admin.client import AdminClient, AskError
from relay.supervisor.crew import HEALTHY_AFTER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ROOT = Path(__file__).parent.parent.parent
RESIDENTS = 3
"""In each of two processes."""
BETWEEN = HEALTHY_AFTER + 2.0
"""Seconds from the end of one fault to the next, as a rule: a worker that lives for less is started again
later each time, and worker 0 would have all of the load in the end."""
RESTARTS_EVERY = 4
"""Faults of which one is a restart of all workers, as long as there are such."""
SILENCE_WITHIN = 10.0
"""Seconds for which a resident may hear nothing of another, when the worker of either is killed or hangs."""
HEALED_WITHIN = 15.0
"""Seconds after the workers are back until all residents reach all; the machine may be busy."""
PATIENCE = 120.0
"""Seconds that a restart may take, which gives each worker's clients 10 to move."""
LOOK_EVERY = 0.1


class FaultError(Exception):
    """The relay did not get over a fault."""


class Residents:
    """Guests of one process that come back by themselves; see ``tests/system/shared_guests.py``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0

    async def ask(self, command: str, *said: object) -> Any:
        """Have a command answered."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        words = [str(self._number), command, *map(json.dumps, said)]
        self._process.stdin.write(" ".join(words).encode() + b"\n")
        while line := await self._process.stdout.readline():
            number, _, answer = line.decode().partition(" ")
            if number == str(self._number):
                return json.loads(answer)
        raise FaultError("the residents' process has ended")


async def ask_all(stay: Sequence[Residents], command: str, *said: object) -> list[Any]:
    """Have a command answered by all."""
    return await asyncio.gather(*(each.ask(command, *said) for each in stay))


@contextlib.asynccontextmanager
async def residents(url: str, certificate_hash: str, first: int) -> AsyncIterator[Residents]:
    """Have some stay until the block ends, whose MACs are numbered from ``first`` on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, ROOT / "tests/system/shared_guests.py", url, certificate_hash),
        *(str(RESIDENTS), str(first)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield Residents(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def addresses_of(stay: Sequence[Residents]) -> dict[str, str]:
    """Tell all, by MAC, once all are attached."""
    return {mac: address for answer in await ask_all(stay, "addresses") for mac, address in answer.items()}


@dataclass(slots=True)
class Faults:
    """Those of one run, and how they went."""

    admin: Path
    """The socket of the relay's admin API."""
    workers: int
    supervisor: int
    """Its pid."""
    between: float = BETWEEN
    done: dict[str, int] = field(default_factory=dict)
    """How often each kind of fault was got over."""
    problems: list[str] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    """Seconds from each kill or freeze until all workers were ready."""
    healed: list[float] = field(default_factory=list)
    """Seconds from then until all residents had reached all."""
    silences: list[float] = field(default_factory=list)
    """Seconds for which a resident heard nothing of another, at most, by each fault."""

    async def pids(self) -> dict[int, int]:
        """Tell the workers that are ready, each with its pid."""
        try:
            status = await asyncio.to_thread(AdminClient(self.admin).ask, "/v1/status")
        except AskError:
            return {}
        return {each["worker"]: each["pid"] for each in status["workers"] if each["state"] == "ready"}

    async def aging(self) -> int:
        """Tell the pid of worker 0, once it is ready."""
        return (await self._pids_that(lambda found: 0 in found))[0]

    async def _pids_that(self, fit: Callable[[dict[int, int]], bool]) -> dict[int, int]:
        for _ in range(round(PATIENCE / LOOK_EVERY)):
            if fit(found := await self.pids()):
                return found
            await asyncio.sleep(LOOK_EVERY)
        raise FaultError(f"only workers {found} are there")

    async def repeat(self, stay: Sequence[Residents], restarts_for: float) -> None:
        """Go on until cancelled; workers are replaced in the first ``restarts_for`` seconds only."""
        chance = random.Random(1)
        addresses = await addresses_of(stay)
        restarts_until, number = time.monotonic() + restarts_for, 0
        while True:
            await asyncio.sleep(self.between)
            number += 1
            if number % RESTARTS_EVERY == 0 and time.monotonic() < restarts_until:
                kind = "restart"
            else:
                kind = "killed" if number % 2 else "frozen"
            try:
                await ask_all(stay, "silence")
                before = await self.pids()
                began = time.monotonic()
                if kind == "restart":
                    os.kill(self.supervisor, signal.SIGUSR2)
                    gone = set(before.values())
                else:
                    victim = before[chance.randrange(1, self.workers)]
                    os.kill(victim, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
                    gone = {victim}
                await self._all_back(gone)
                if kind != "restart":
                    self.back.append(time.monotonic() - began)
                await self._reach_all(stay, addresses)
                await self._judge_silence(stay)
                self.done[kind] = self.done.get(kind, 0) + 1
            except (FaultError, TimeoutError, KeyError, OSError) as error:
                self.problems.append(f"fault {number}, {kind}: {type(error).__name__}: {error}")

    async def _all_back(self, gone: set[int]) -> None:
        """Wait until there are as many workers as before, and none of ``gone``."""
        await self._pids_that(lambda found: len(found) == self.workers and not gone & set(found.values()))

    async def _judge_silence(self, stay: Sequence[Residents]) -> None:
        self.silences.append(max(await ask_all(stay, "silence")))
        if self.silences[-1] > SILENCE_WITHIN:
            raise FaultError(f"a resident heard nothing of another for {self.silences[-1]:.1f} s")

    async def _reach_all(self, stay: Sequence[Residents], addresses: dict[str, str]) -> None:
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            found = await addresses_of(stay)
            if found != addresses:
                raise FaultError(f"{found} instead of {addresses}")
            await ask_all(stay, "ping", found)
        self.healed.append(time.monotonic() - began)
        if self.healed[-1] > HEALED_WITHIN:
            raise FaultError(f"all reached all after {self.healed[-1]:.1f} s only")

    def report(self) -> list[str]:
        """Write what there was."""
        told = ", ".join(f"{count} times {kind}" for kind, count in self.done.items())
        lines = [f"Faults that all guests who stayed got over with their addresses: {told or 'none'}."]
        if self.back and self.healed and self.silences:
            back, healed, silence = max(self.back), max(self.healed), max(self.silences)
            lines += [
                f"No resident heard nothing of another for longer than {silence:.1f} s.",
                f"All workers were back within {back:.1f} s, and all reached all within {healed:.1f} s more.",
            ]
        return [*lines, *(f"- {problem}" for problem in self.problems), ""]
