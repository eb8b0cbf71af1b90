"""Where the admin API listens: a socket that waits, and the server behind it once somebody comes.

Until the first client the price is one file descriptor: the web framework is loaded in a thread when it is
wanted, and then served in the relay's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from loguru import logger

from relay.admin.events import Events
from transport.web.client_sockets import ClientSockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from relay.admin.guard import Caller, Refused
    from relay.operations import Operations

LAG_INTERVAL = 0.5
"""Seconds between looks at how late the event loop is."""

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper ends of the histogram's buckets, in seconds."""

CLOSE_PATIENCE = 1
"""Seconds that answers under way have when the relay ends."""


class LoopLag:
    """How late the event loop comes to its timers, as a histogram."""

    def __init__(self) -> None:
        self.total = 0.0
        self._counts = [0] * (len(LAG_BOUNDS) + 1)

    def note(self, late: float) -> None:
        """Count one look, ``late`` seconds after it was due."""
        late = max(0.0, late)
        self.total += late
        self._counts[next((n for n, bound in enumerate(LAG_BOUNDS) if late <= bound), -1)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts with the upper end of each bucket."""
        names = [*map(str, LAG_BOUNDS), "+Inf"]
        return [(name, float(sum(self._counts[: n + 1]))) for n, name in enumerate(names)]

    async def keep_looking(self) -> None:
        """Look at it until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self.note(loop.time() - due)


@dataclass(kw_only=True)
class Offered:
    """What is served at a socket, and to whom."""

    module: ClassVar[str]
    """What makes the application, by ``application(offered)``; loaded when the first client comes."""
    facts: Mapping[str, object]
    """What never changes: ``version``, ``pid``, ``address``, ``path`` (the form of the datagram path)."""
    hosts: frozenset[str] | None = None
    """Names by which the API may be called; None for any, on a unix socket."""
    token: str | None = None
    """What the operator's requests show; None on a unix socket, which only the relay's user can open."""
    read_token: Callable[[str], Caller | Refused] | None = None
    """Reads the token of a client's with the right to use the API; None where none is taken."""
    everywhere: bool = False
    """Whether it listens at all addresses of the machine."""
    started: float = field(default_factory=time.monotonic)
    events: Events = field(default_factory=Events)
    """What this process itself has to tell."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the relay ends, for streams to end too."""


@dataclass(kw_only=True)
class Served(Offered):
    """What the API of one process knows of it."""

    module: ClassVar[str] = "relay.admin.routes"
    operations: Operations
    limits: Callable[[], dict[str, Any]]
    lag: LoopLag


class AdminService:
    """Serves the admin API at one socket."""

    def __init__(self, listener: socket.socket, served: Offered, path: Path | None = None) -> None:
        """Take a socket that listens and does not block; ``path`` is removed at the end."""
        self._listener = listener
        self._served = served
        self._path = path
        self._task: asyncio.Task[None] | None = None
        self._server: Any = None
        self._client_sockets: ClientSockets | None = None

    def start(self) -> None:
        """Wait for the first client."""
        self._served.events.begin()
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._first_client)

    def _first_client(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        try:
            uvicorn = await asyncio.to_thread(importlib.import_module, "uvicorn")
            api = await asyncio.to_thread(importlib.import_module, self._served.module)
            connections = await asyncio.to_thread(importlib.import_module, "relay.admin.connections")
            self._client_sockets = ClientSockets(asyncio.get_running_loop())
            config = uvicorn.Config(
                api.application(self._served),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=CLOSE_PATIENCE,
                http=connections.connections_read_by(self._client_sockets),
                ws="none",
            )
            logging.getLogger("uvicorn").setLevel(logging.WARNING)
            self._server = uvicorn.Server(config)
            # The relay's own signals stay as they are.
            self._server.capture_signals = _nothing
            await self._server.serve(sockets=[self._listener])
        except Exception:  # noqa: BLE001 - the relay goes on without it
            logger.exception("the admin API failed")

    async def close(self) -> None:
        """Stop, after the answers that are under way."""
        self._served.events.end()
        self._served.ending.set()
        if self._task is None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
        elif self._server is None:
            self._task.cancel()
        else:
            self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_PATIENCE + 1)
            self._task.cancel()
        if self._client_sockets is not None:
            self._client_sockets.close()
        self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield
