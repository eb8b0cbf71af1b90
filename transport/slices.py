"""Slices of work: however much one TCP client has sent, others are served in between.

A read brings up to 256 KB, which may be 40,000 messages. A connection works off a slice of it and says
whether more waits; then it is served after those that have just sent something, one slice after the other,
within TURN seconds of each turn of the event loop. Between turns the loop serves all else, QUIC included.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from transport.turns import after_sockets

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE = 0.001
"""Seconds after which a connection's slice ends, at the next message."""
TURN = 0.002
"""Seconds of one turn of the event loop for all connections that wait."""


class Worker(Protocol):
    """A connection with something to work off."""

    def work(self) -> bool:
        """Work off a slice; return whether more waits. Raises nothing."""


class Slices:
    """Whose turn it is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fresh: dict[Worker, None] = {}
        """Those that have just sent something."""
        self._busy: dict[Worker, None] = {}
        """Those that had a slice and need more."""
        self._is_scheduled = False
        self._is_working = False

    def serve(self, worker: Worker) -> bool:
        """Have a worker work, at once unless others wait already; return whether it waits for its turn.

        What a worker has others do is a part of its slice.
        """
        if worker not in self._busy:
            if self._is_scheduled and not self._is_working:
                self._fresh[worker] = None
            else:
                self._fresh.pop(worker, None)
                self._work(worker)
                self._schedule()
        return worker in self._fresh or worker in self._busy

    def forget(self, worker: Worker) -> None:
        """Leave out a worker that has ended."""
        self._fresh.pop(worker, None)
        self._busy.pop(worker, None)

    def _schedule(self) -> None:
        if not self._is_scheduled and (self._fresh or self._busy):
            self._is_scheduled = True
            after_sockets(asyncio.get_running_loop(), self._run)

    def _run(self) -> None:
        deadline = self._clock() + TURN
        while self._fresh and self._clock() < deadline:
            self._work(_taken(self._fresh))
        # However many are fresh, one of the others gets on.
        while self._busy:
            self._work(_taken(self._busy))
            if self._clock() >= deadline:
                break
        self._is_scheduled = False
        self._schedule()

    def _work(self, worker: Worker) -> None:
        outermost, self._is_working = not self._is_working, True
        if worker.work():
            self._busy[worker] = None
        if outermost:
            self._is_working = False


def _taken(workers: dict[Worker, None]) -> Worker:
    worker = next(iter(workers))
    del workers[worker]
    return worker
