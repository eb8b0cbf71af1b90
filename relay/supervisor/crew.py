"""The workers of a relay: started, started again when one ends, replaced one by one.

A worker that ends is steered away from at once, and started again: at once the first time, then after 1, 2, 4
... 30 s while it does not live for long. Who is steered to, and who takes new connections, all workers are
told with each change (``members``): they pass packets on by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

from relay.supervisor.child import launch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.supervisor.child import Child
    from relay.supervisor.ports import Ports

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a worker is started again that has ended soon after its start; doubled each time."""

HEALTHY_AFTER = 30.0
"""Seconds that a worker has to live for its end to count as the first one."""

STOP_PATIENCE = 6.0
"""Seconds that workers have to end when they are told to; the longest that they need is for open HTTP."""

RETURN_PATIENCE = 60.0
"""Seconds that a replaced worker has to be ready, before the restart of the others is given up."""

PORTS_BETWEEN_BEATS = 1000
"""Sessions of a worker that may have begun after its last sign of life, in numbers of ports."""


class Life(NamedTuple):
    """What starts one life of a worker."""

    start: Mapping[str, Any]
    """Its first message."""
    descriptors: Sequence[int]
    """What it inherits."""


class CrewError(Exception):
    """A worker could not be started; the message is one line."""


class Crew:
    """Keeps ``count`` workers running."""

    def __init__(
        self,
        count: int,
        ports: Ports,
        life: Callable[[int, int], Life],
        state: Callable[[], dict[str, Any]],
    ) -> None:
        """``life`` tells what starts a worker, by its number and that of its first session's port.

        ``state`` is what it is told once it is ready: it may have changed meanwhile.
        """
        self.count = count
        self.restarts = 0
        """Workers that ended and were not told to."""
        self.children: dict[int, Child] = {}
        """Those that are there, by their numbers."""
        self._ports = ports
        self._life = life
        self._state = state
        self._last_ports = [0] * count
        self._began = False
        """Whether all have been ready once."""
        self._stopping = asyncio.Event()
        self._planned: set[int] = set()
        """Those that are to end, in a rolling restart."""
        self._changed = asyncio.Condition()
        self._reloading = asyncio.Lock()
        self._keepers: list[asyncio.Task[None]] = []
        """One for each worker, by its number."""
        self._notes: set[asyncio.Task[None]] = set()

    # -- who is there -------------------------------------------------------------------------------

    @property
    def live(self) -> list[int]:
        """Workers that packets are steered to."""
        return [number for number, child in sorted(self.children.items()) if child.ready.is_set()]

    @property
    def accepting(self) -> list[int]:
        """Of these, those that take new connections; all, if it would be none."""
        found = [number for number in self.live if not self.children[number].retiring]
        return found or self.live

    def broadcast(self, kind: str, **fields: Any) -> None:
        """Tell all workers that run."""
        for child in self._running():
            child.send(kind, **fields)

    def _running(self) -> list[Child]:
        return [child for child in self.children.values() if child.ready.is_set()]

    async def reload(self, settings: str, patience: float) -> None:
        """Have all take over settings, and wait until they have; those that are slow go on by themselves."""
        async with self._reloading:  # what they say of one would be taken for what they say of another
            waiting = []
            for child in self._running():
                child.reload_told = asyncio.get_running_loop().create_future()
                child.send("reload", settings=settings)
                waiting.append(child.reload_told)
            late = (await asyncio.wait(waiting, timeout=patience))[1] if waiting else ()
        if late:
            logger.error("{} workers have not said that they have reloaded", len(late))

    def _membership(self) -> dict[str, list[int]]:
        return {"live": self.live, "accepting": self.accepting}

    def _tell_membership(self) -> None:
        self.broadcast("members", **self._membership())
        self._ports.steer(self.live)

    async def _note_change(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # -- their lives --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all. Raises CrewError where one cannot, with its own words."""
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(self.count)]
        starting = asyncio.create_task(self._until_all_ready())
        done, _ = await asyncio.wait([starting, *self._keepers], return_when=asyncio.FIRST_COMPLETED)
        if starting not in done:
            starting.cancel()
        for task in done:
            task.result()
        self._began = True

    async def until_failed(self) -> None:
        """Wait until a worker is no longer kept running. Raises what keeps it from that."""
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in done:
            keeper.result()

    async def _until_all_ready(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.live) == self.count)

    async def _keep(self, number: int) -> None:
        """Keep a worker running until all are to stop."""
        pause = 0.0
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            started = clock()
            try:
                was_ready, how = await self._live(number)
            except OSError as error:
                was_ready, how = False, f"cannot be started: {error.strerror or error}"
            if self._stopping.is_set():
                return
            if not was_ready and not self._began:
                raise CrewError(f"worker {number} {how}")
            if number in self._planned:
                self._planned.discard(number)
                continue
            self.restarts += 1
            if was_ready and clock() - started > HEALTHY_AFTER:
                pause = 0.0
            logger.bind(event="worker", unthinned=True).error(
                "worker {} {}; it is started again {}", number, how, f"in {pause:g} s" if pause else "at once"
            )
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2 or FIRST_PAUSE)

    async def _live(self, number: int) -> tuple[bool, str]:
        """Let a worker live; return whether it was ever ready, and how it has ended. Raises OSError."""
        first_port = self._first_port(number)
        life = self._life(number, first_port)
        child = await launch(
            number, {**life.start, **self._membership()}, life.descriptors, lambda: self._greet(number)
        )
        self.children[number] = child
        try:
            how = await child.live(lambda: self._lose(number))
        finally:
            self._last_ports[number] = max(self._last_ports[number], child.last_port)
            self._lose(number)
            await self._note_change()
        return child.ready.is_set(), child.failure or f"(pid {child.pid}) {how}"

    def _first_port(self, number: int) -> int:
        """Tell a port's number that no session of the worker's former lives had."""
        last = self._last_ports[number]
        if not last:
            return 1 + number
        return last + self.count * PORTS_BETWEEN_BEATS

    def _greet(self, number: int) -> None:
        """Tell a worker that is ready what it has to know, and the others of it."""
        child = self.children[number]
        logger.bind(unthinned=True).info("worker {} is ready (pid {})", number, child.pid)
        child.send("state", **self._state())
        self._tell_membership()
        if self._stopping.is_set():
            child.send("drain and stop")
        task = asyncio.create_task(self._note_change())
        self._notes.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._notes.discard)

    def _lose(self, number: int) -> None:
        """Steer away from a worker that has ended, or hangs."""
        if self.children.pop(number, None) is not None:
            self._tell_membership()

    # -- rolling restart and the end ----------------------------------------------------------------

    async def restart_one_by_one(self, seconds: float) -> None:
        """Replace each worker by a fresh one; its clients move to the others within ``seconds``."""
        for number in range(self.count):
            child = self.children.get(number)
            if child is None or not child.ready.is_set():
                continue
            if not await self._replace(child, seconds):
                logger.error("worker {} does not come back: the others stay as they are", number)
                return
        logger.bind(unthinned=True).info("all workers have been replaced")

    async def _replace(self, child: Child, seconds: float) -> bool:
        """Have a worker end, and another one in its place; whether that is ready in time."""
        number = child.number
        logger.bind(unthinned=True).info("worker {} is replaced: {} sessions move", number, child.sessions)
        self._planned.add(number)
        child.retiring = True
        self._tell_membership()
        child.send("retire", seconds=seconds)
        if not await self._until(lambda: self.children.get(number) is not child, seconds + STOP_PATIENCE):
            logger.warning("worker {} has not ended in time: it is killed", number)
            child.kill()
        return await self._until(
            lambda: self.children.get(number) is not child and number in self.live, RETURN_PATIENCE
        )

    async def _until(self, condition: Callable[[], bool], patience: float) -> bool:
        """Wait until this is true of the workers; whether it became so in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(condition)
                return True
        return False

    async def drain_and_stop(self, seconds: float) -> None:
        """Have all workers drain for this long, and end; returns when they have, or the time is over."""
        self._stopping.set()
        self.broadcast("drain and stop")
        await self._until(lambda: not self._running(), seconds + STOP_PATIENCE)

    async def stop(self) -> None:
        """End all workers; those that do not are killed."""
        self._stopping.set()
        for child in self.children.values():
            child.send("stop")
            if not child.ready.is_set():
                child.terminate()
        for number, keeper in enumerate(self._keepers):
            if number not in self.children:
                keeper.cancel()  # it waits before the next start
        _, late = await asyncio.wait(self._keepers, timeout=STOP_PATIENCE) if self._keepers else ((), ())
        for child in list(self.children.values()):
            child.kill()
        if late:
            await asyncio.wait(late, timeout=STOP_PATIENCE)
        await asyncio.gather(*self._keepers, return_exceptions=True)
