"""One life of a worker, from its start to its end, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import site
import socket
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

import relay
from relay.workers.channel import Channel, ChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SILENCE = 2.0
"""Seconds without a sign of life after which a worker counts as hung; it gives two in a second."""

LOOK_EVERY = 0.25

COMMAND = ("-P", "-m", "relay.worker")
"""What Python runs, with the descriptor of the worker's end of the channel behind it."""

OWN_DELAY = 1.0
"""Seconds that the supervisor's own look may be late; later it was itself stopped, and knows nothing."""

START_PATIENCE = 60.0
"""Seconds that a worker has to become ready: loading everything takes one, on a loaded machine many."""


class Child:
    """A worker process."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        channel: Channel,
        on_ready: Callable[[], object],
    ) -> None:
        """See :func:`launch`."""
        self.number = number
        self.pid = process.pid
        self.ready = asyncio.Event()
        self.retiring = False
        self.failure: str | None = None
        """Why it could not start, in its own words."""
        self.last_port = 0
        self.sessions = 0
        self.version = ""
        self.started = asyncio.get_running_loop().time()
        self.reload_told: asyncio.Future[None] | None = None
        self._process = process
        self._channel = channel
        self._on_ready = on_ready
        self._last_heard = self.started
        self._hung = False

    @property
    def state(self) -> str:
        """``starting``, ``ready`` or ``retiring``."""
        return "retiring" if self.retiring else "ready" if self.ready.is_set() else "starting"

    def send(self, kind: str, **fields: Any) -> None:
        """Tell it something; one that takes nothing any more is killed."""
        try:
            self._channel.send(kind, **fields)
        except ChannelError:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def terminate(self) -> None:
        """Have it end by a signal, where it perhaps does not hear."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    async def live(self, on_silence: Callable[[], object]) -> str:
        """Hear it out until it has ended; say how. ``on_silence`` is called before a hung one is killed."""
        hearing = asyncio.create_task(self._hear())
        watching = asyncio.create_task(self._watch(on_silence))
        try:
            status = await self._process.wait()
            # What it said last is still to be read.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hearing, 1.0)
        finally:
            hearing.cancel()
            watching.cancel()
            await asyncio.gather(hearing, watching, return_exceptions=True)
            self._channel.close()
            if self.reload_told is not None and not self.reload_told.done():
                self.reload_told.cancel()
        if self._hung:
            return f"was silent for {SILENCE:g} s"
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    async def _hear(self) -> None:
        with contextlib.suppress(ChannelError):
            while message := await self._channel.receive():
                self._last_heard = asyncio.get_running_loop().time()
                self._take(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        match message["kind"]:
            case "beat":
                self.last_port, self.sessions = message["last_port"], message["sessions"]
            case "ready":
                self.version = message["version"]
                self.ready.set()
                self._on_ready()
            case "failed":
                self.failure = message["reason"]
            case "reloaded" if self.reload_told is not None and not self.reload_told.done():
                self.reload_told.set_result(None)

    async def _watch(self, on_silence: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)
            now = loop.time()
            if now - due > OWN_DELAY:
                self._last_heard = now
            patience = SILENCE if self.ready.is_set() else START_PATIENCE
            if now - self._last_heard > patience:
                self._hung = True
                on_silence()
                logger.error("worker {} is silent for {:g} s: it is killed", self.number, patience)
                self.kill()
                return


async def launch(
    number: int, start: Mapping[str, Any], descriptors: Sequence[int], on_ready: Callable[[], object]
) -> Child:
    """Start a worker as a fresh interpreter, so that it runs the code that is there now. Raises OSError.

    ``start`` is its first message; ``descriptors`` are those that it inherits.
    """
    own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        own.setblocking(False)
        with its:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *COMMAND, str(its.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(*descriptors, its.fileno()),
                env=_environment(),
                # Signals that a terminal sends to all are for the supervisor.
                start_new_session=True,
            )
        channel = await Channel.open(own)
    except BaseException:
        own.close()  # a worker that was started already ends by that
        raise
    child = Child(number, process, channel, on_ready)
    child.send("start", **start)
    return child


def _environment() -> dict[str, str]:
    """Have the worker find this package where the supervisor has found it, and nowhere else."""
    environment = dict(os.environ)
    root = str(Path(relay.__file__).parent.parent)
    installed = {*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib")}
    if root not in installed:
        paths = (root, environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment
