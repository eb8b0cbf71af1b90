"""Connections to the admin API: so many at a time, and those that say nothing give way to others.

uvicorn waits for a client's first request as long as the client likes, and has no bound but one from which on
all are answered 503, whatever the others do. Over TCP anyone can open connections: here a client has
REQUEST_TIMEOUT for each request, and where there are MAX_CONNECTIONS, a newcomer gets the place of one that
asks for nothing, or does not take its answer, the oldest first. However many send something at once, they are
read for 2 ms of a turn (``transport.web.client_sockets``), and of each READ_SIZE bytes at a time: asyncio
reads 256 KB, which may be 80,000 header fields or 40,000 chunks of a body, and h11, which bounds what is not
complete, takes them all at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loguru import logger
from uvicorn.protocols.http.h11_impl import H11Protocol

from netstack.family import endpoint_text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from transport.web.client_sockets import ClientSockets

MAX_CONNECTIONS = 160
"""At a time; of these MAX_LISTENERS and MAX_CAPTURES may be streams."""

REQUEST_TIMEOUT = 10.0
"""Seconds from its first byte, or from the connection's begin, in which a request has to be complete."""

READ_SIZE = 2048
"""Bytes that are read of a client at a time; a request has a few hundred. Of the smallest chunks these are
340, which take 2 ms."""

MAX_HEAD_LINES = 128
"""Lines of a request's head; browsers send about 20."""

END_OF_HEAD = b"\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's, within these bounds."""

    client_sockets: ClientSockets
    """What reads them; of a class for each server."""
    _began_at: float
    _due: asyncio.TimerHandle | None = None
    """Ends the connection of a client that owes a request."""
    _head_lines = 0
    """Lines that have come of a request's head."""
    _end_of_head = b""
    """Its last bytes, in which its end may begin."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take a client, in the place of another where there are too many."""
        self.client_sockets.adopt(transport)
        # asyncio names no setting for it; a test fails where it ceases to work like this.
        transport.max_size = READ_SIZE  # type: ignore[attr-defined]
        super().connection_made(transport)
        self._began_at = self.loop.time()
        others = [other for other in self.connections if other is not self and isinstance(other, Connection)]
        if len(others) < MAX_CONNECTIONS:
            self._expect_request()
            return
        victim = _least_busy(others) or self
        logger.bind(reason="admin connections").warning(
            "the admin API has {} connections: one of {} is ended", MAX_CONNECTIONS, victim.who
        )
        victim.end()
        if victim is not self:
            self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait for the rest of a request no longer than for any."""
        if self._awaits_head and not self._has_short_head(data):
            self._stop_waiting()
            self.send_400_response(f"More than {MAX_HEAD_LINES} lines of a request's head.")
            return
        super().data_received(data)
        if not self._awaits_head:
            self._head_lines, self._end_of_head = 0, b""
        self._expect_request()

    def _has_short_head(self, data: bytes) -> bool:
        """Count the lines that came of a request's head, but not of what is behind it."""
        known, so_far = self._end_of_head, self._end_of_head + data
        self._head_lines += so_far.partition(END_OF_HEAD)[0].count(b"\n") - known.count(b"\n")
        self._end_of_head = so_far[1 - len(END_OF_HEAD) :]
        return self._head_lines <= MAX_HEAD_LINES

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._stop_waiting()
        super().connection_lost(exc)

    def end(self) -> None:
        """End the connection at once, and count it no more."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    @property
    def who(self) -> str:
        """The client, for the log."""
        return "this user" if self.client is None else endpoint_text(*self.client)

    @property
    def rank(self) -> tuple[bool, float]:
        """Who goes first: those that ask for nothing, the oldest first, then those that do not read."""
        return not self._asks_nothing, self._began_at

    @property
    def may_go(self) -> bool:
        """Whether nothing is lost with the connection that anybody waits for."""
        return self._asks_nothing or self.flow.write_paused

    @property
    def _asks_nothing(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def _awaits_head(self) -> bool:
        """Whether the next that comes begins a request, or is of its head; not of a body."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete and not cycle.more_body)

    def _expect_request(self) -> None:
        if not self._asks_nothing:
            self._stop_waiting()
        elif self._due is None and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._due = self.loop.call_later(REQUEST_TIMEOUT, self.end)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


def _least_busy(connections: Iterable[Connection]) -> Connection | None:
    return min((each for each in connections if each.may_go), key=lambda each: each.rank, default=None)


def connections_read_by(sockets: ClientSockets) -> type[Connection]:
    """Give uvicorn what it makes of clients of one server."""
    return type("Connection", (Connection,), {"client_sockets": sockets})
