"""Messages between the workers of one machine: datagrams over unix sockets.

Each worker has one socket that the others send to, ``trunk-NUMBER`` in a folder that only the relay's user
may enter. Messages come whole, in order, or not at all: when a worker reads too slowly, its socket's queue is
full (net.unix.max_dgram_qlen), then up to MAX_QUEUED bytes wait here, and what comes then is dropped. Nothing
blocks. What one look at the socket finds, MESSAGES_PER_TURN at most, is one turn of the actors.

Counts ``trunk.sent``, ``trunk.received`` and ``trunk.drop.*``, in messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from netstack.counters import Counters
    from transport.turns import Turns

MESSAGES_PER_TURN = 32
"""Messages of up to 60 kB that are read before others have their turn."""

MAX_QUEUED = 4 * 1024 * 1024
"""Bytes that wait for a worker that reads slowly: more is stale by the time it is read."""

RECEIVE_BUFFER = 4 * 1024 * 1024
"""SO_RCVBUF, in bytes; the kernel doubles it and has its own bound (net.core.rmem_max)."""

_LARGEST = 65_536


class UnixTrunk:
    """The socket of one worker, and the ways to all others; works on the running loop."""

    def __init__(
        self,
        folder: Path,
        number: int,
        count: int,
        *,
        first: int = 0,
        on_message: Callable[[bytes], object],
        turns: Turns,
        counters: Counters,
    ) -> None:
        """Listen as ``number`` of ``count``, in the place of who did so before. Raises OSError.

        ``first`` is the number in the cluster of this machine's worker 0: :meth:`send` takes such numbers.
        """
        self._on_message = on_message
        self._turns = turns
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        path = folder / f"trunk-{number}"
        path.unlink(missing_ok=True)
        self._path = path
        self._buffer = bytearray(_LARGEST)
        self._ways = {
            first + other: _Way(str(folder / f"trunk-{other}"), self._loop, counters)
            for other in range(count)
            if other != number
        }
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._socket.bind(str(path))
            path.chmod(0o600)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def send(self, worker: int | None, message: bytes) -> None:
        """Send to one worker, or to all others for None; one that is not there is sent nothing."""
        for way in self._ways.values() if worker is None else [self._ways.get(worker)]:
            if way is not None:
                way.send(message)

    def close(self) -> None:
        """Close; harmless when closed already."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._path.unlink(missing_ok=True)
        for way in self._ways.values():
            way.close()

    def _readable(self) -> None:
        self._turns.turn(self._receive)

    def _receive(self) -> None:
        received = 0
        view = memoryview(self._buffer)
        with contextlib.suppress(BlockingIOError):
            while received < MESSAGES_PER_TURN:
                size = self._socket.recv_into(self._buffer)
                received += 1
                self._on_message(bytes(view[:size]))
        self._counters.add("trunk.received", received)


class _Way:
    """The way to one worker."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self._path = path
        self._loop = loop
        self._counters = counters
        self._socket: socket.socket | None = None
        self._queue: deque[bytes] = deque()
        """What waits until the worker has read; while there is something, the loop watches the socket."""
        self._queued = 0

    def send(self, message: bytes) -> None:
        if self._queue:
            self._put(message)
            return
        try:
            self._connected().send(message)
        except BlockingIOError:
            self._put(message)
        except OSError:
            self._lose(1)
        else:
            self._counters.add("trunk.sent")

    def close(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            self._loop.remove_writer(opened.fileno())
            opened.close()
        self._queue.clear()
        self._queued = 0

    def _connected(self) -> socket.socket:
        """Give the socket that leads to the worker. Raises OSError where it is not there."""
        if self._socket is None:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                opened.setblocking(False)
                opened.connect(self._path)
            except OSError:
                opened.close()
                raise
            self._socket = opened
        return self._socket

    def _put(self, message: bytes) -> None:
        if self._queued + len(message) > MAX_QUEUED:
            self._counters.add("trunk.drop.queue_full")
            return
        if not self._queue:
            self._loop.add_writer(self._connected().fileno(), self._writable)
        self._queue.append(message)
        self._queued += len(message)

    def _writable(self) -> None:
        try:
            while self._queue:
                self._connected().send(self._queue[0])
                self._queued -= len(self._queue.popleft())
                self._counters.add("trunk.sent")
        except BlockingIOError:
            return
        except OSError:
            self._lose(len(self._queue))
            return
        self._loop.remove_writer(self._connected().fileno())

    def _lose(self, messages: int) -> None:
        """Give up what a worker that is gone should have got; the one that follows it has another socket."""
        self._counters.add("trunk.drop.no_worker", messages)
        self.close()
