"""Sockets of TCP clients: however many of them have sent something, others are served in between.

asyncio reads all sockets that are ready before it looks at anything else, and of a thousand clients each
byte costs some 50 us. Here their sockets are in one epoll object, of which the loop sees one file descriptor;
at each look they are read for LOOK seconds, and so many at most. The kernel goes round: who was not read now
is at the next look, and what was sent meanwhile is read at once then. Systems without epoll have the loop's
own watches.
"""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

LOOK = 0.002
"""Seconds of one turn of the event loop for reading from TCP clients."""
SOCKETS_AT_A_TIME = 4
"""Sockets that are read between two looks at the clock."""
TIMES_A_TURN = 16
"""How often that is done in a turn: of clients that leave, each costs the turns after it some 60 us more."""


class ClientSockets:
    """The event loop as asyncio's transports see it that were adopted: they are read here."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._look)

    def adopt(self, transport: asyncio.BaseTransport) -> None:
        """Read from a transport here; to be called when its connection is made, before it is read."""
        if self._epoll is not None:
            # asyncio names no setting for it; a test fails where it ceases to work like this.
            transport._loop = self  # type: ignore[attr-defined] # noqa: SLF001

    def add_reader(self, descriptor: int, callback: Callable[..., object], *arguments: object) -> None:
        """Call back whenever there is something to read, in place of an earlier callback."""
        if self._epoll is None:
            self._loop.add_reader(descriptor, callback, *arguments)
            return
        if descriptor not in self._readers:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._readers[descriptor] = callback, arguments

    def remove_reader(self, descriptor: int) -> bool:
        """Stop watching; tell whether anybody did. To be called before the socket is closed."""
        if self._epoll is None:
            return self._loop.remove_reader(descriptor)
        known = self._readers.pop(descriptor, None) is not None
        if known and not self._epoll.closed:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(descriptor)
        return known

    _add_reader = add_reader
    _remove_reader = remove_reader
    """By these names transports know them."""

    def __getattr__(self, name: str) -> Any:
        """All else is the loop's."""
        return getattr(self._loop, name)

    def close(self) -> None:
        """Watch nothing any more."""
        self._readers.clear()
        if self._epoll is not None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _look(self) -> None:
        deadline = self._loop.time() + LOOK
        for _ in range(TIMES_A_TURN):
            if self._epoll is None or self._epoll.closed:
                break
            events = self._epoll.poll(0, SOCKETS_AT_A_TIME)
            for descriptor, _ in events:
                self._call(descriptor)
            if len(events) < SOCKETS_AT_A_TIME or self._loop.time() >= deadline:
                break

    def _call(self, descriptor: int) -> None:
        found = self._readers.get(descriptor)
        if found is None:
            return  # an earlier callback of this look has ended it
        callback, arguments = found
        try:
            callback(*arguments)
        except Exception as error:  # noqa: BLE001 - one client's trouble is not its neighbours'
            self._loop.call_exception_handler(
                {"message": f"a TCP client's callback failed: {callback}", "exception": error}
            )
