"""Which host sockets are ready: what one look finds is one turn of the actors.

asyncio calls back for each socket, runs what that calls for in its next turn, and what that calls for in the
one after; setting a watch costs it as much as reading. Here all flows' sockets are in one epoll object, of
which the loop sees one file descriptor: a look, then the actors until they are done, then the flush. Systems
without epoll have the loop's own watches, one turn for each socket.
"""

from __future__ import annotations

import asyncio
import select
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from transport.turns import Turns

SOCKETS_PER_LOOK = 256
"""Sockets served per turn of the loop at most: sessions and timers get theirs, the others are next."""
FIRST_LOOK = 32
"""Sockets the first look serves at most."""
LONG_LOOK = 0.005
"""Seconds after which a look was too long: the next serves fewer sockets, until looks are quick again.

What waits at one socket is anything between a datagram and what its buffer holds, as whoever sends it wants.
"""
MORE_PER_LOOK = 4
"""Sockets more that the next look may serve after one that was full and not too long."""


class Readiness:
    """Watches sockets on the running loop, each for reading, for writing or both, with asyncio's words.

    Watches are level-triggered: a callback that neither reads nor removes its watch is called again.
    """

    def __init__(self, turns: Turns) -> None:
        self._loop = asyncio.get_running_loop()
        self._turns = turns
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._most = min(FIRST_LOOK, SOCKETS_PER_LOOK)
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            self._loop.add_reader(self._epoll.fileno(), self._look)

    def add_reader(self, opened: socket.socket, callback: Callable[[], object]) -> None:
        """Call ``callback`` whenever there is something to read; in place of an earlier one."""
        self._set(self._readers, opened, callback)

    def add_writer(self, opened: socket.socket, callback: Callable[[], object]) -> None:
        """Call ``callback`` whenever there is room to write; in place of an earlier one."""
        self._set(self._writers, opened, callback)

    def remove_reader(self, opened: socket.socket) -> None:
        """Stop watching for reading; harmless where nobody does. To be called before the socket is closed."""
        self._unset(self._readers, opened)

    def remove_writer(self, opened: socket.socket) -> None:
        """Stop watching for writing; harmless where nobody does. To be called before the socket is closed."""
        self._unset(self._writers, opened)

    def close(self) -> None:
        """Watch nothing any more; harmless when closed already."""
        if self._epoll is None:
            for descriptor in {*self._readers, *self._writers}:
                self._watch_by_loop(descriptor, 0)
        elif not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._readers.clear()
        self._writers.clear()

    def _set(
        self,
        callbacks: dict[int, Callable[[], object]],
        opened: socket.socket,
        callback: Callable[[], object],
    ) -> None:
        descriptor = opened.fileno()
        known = descriptor in self._readers or descriptor in self._writers
        callbacks[descriptor] = callback
        self._watch(descriptor, known=known, wanted=self._wanted(descriptor))

    def _unset(self, callbacks: dict[int, Callable[[], object]], opened: socket.socket) -> None:
        descriptor = opened.fileno()
        if callbacks.pop(descriptor, None) is not None:
            self._watch(descriptor, known=True, wanted=self._wanted(descriptor))

    def _wanted(self, descriptor: int) -> int:
        return (select.POLLIN if descriptor in self._readers else 0) | (
            select.POLLOUT if descriptor in self._writers else 0
        )

    def _watch(self, descriptor: int, *, known: bool, wanted: int) -> None:
        if self._epoll is None:
            self._watch_by_loop(descriptor, wanted)
        elif not wanted:
            self._epoll.unregister(descriptor)
        elif known:
            self._epoll.modify(descriptor, wanted)
        else:
            self._epoll.register(descriptor, wanted)

    def _watch_by_loop(self, descriptor: int, wanted: int) -> None:
        if wanted & select.POLLIN:
            self._loop.add_reader(
                descriptor, self._turns.turn, partial(self._call, self._readers, descriptor)
            )
        else:
            self._loop.remove_reader(descriptor)
        if wanted & select.POLLOUT:
            self._loop.add_writer(
                descriptor, self._turns.turn, partial(self._call, self._writers, descriptor)
            )
        else:
            self._loop.remove_writer(descriptor)

    def _look(self) -> None:
        if self._epoll is None:
            return
        events = self._epoll.poll(0, self._most)
        began = self._loop.time()
        self._turns.turn(partial(self._serve, events))
        took = self._loop.time() - began
        if took > LONG_LOOK:
            self._most = int(len(events) * LONG_LOOK / took) or 1
        elif len(events) == self._most:
            self._most = min(SOCKETS_PER_LOOK, self._most + MORE_PER_LOOK)

    def _serve(self, events: list[tuple[int, int]]) -> None:
        # Callbacks only tell actors, which work afterwards: nothing is closed or opened meanwhile.
        for descriptor, event in events:
            # Errors and ends are for whoever watches: reading or writing tells which.
            if event & ~select.POLLOUT:
                self._call(self._readers, descriptor)
            if event & ~select.POLLIN:
                self._call(self._writers, descriptor)

    def _call(self, callbacks: dict[int, Callable[[], object]], descriptor: int) -> None:
        callback = callbacks.get(descriptor)
        if callback is None:
            return
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - one socket's trouble is not its neighbours'
            self._loop.call_exception_handler(
                {"message": f"a host socket's callback failed: {callback}", "exception": error}
            )
