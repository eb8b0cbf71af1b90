"""What happens on the relay, for whoever follows it: joins, leaves, refusals, changes by the operator.

The source is the log: lines that are bound to an ``event`` are passed on to those who listen, with their
fields, also where the log's own level or limits leave them out. Who is too slow misses events, and is told
how many. The latest are kept, for who comes when something has happened already.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from loguru import logger

from netstack.shares import client_network
from relay.admin.stream_places import Places
from relay.logs import UNTHINNED, add_reader, redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loguru import Record

MAX_WAITING = 1000
"""Events that wait for one listener."""

MAX_LISTENERS = 64

MAX_RECENT = 500
"""Events that are kept, some 500 bytes each."""

MAX_REFUSALS = 250
"""Of these, refusals: anybody can be refused as often as he likes."""


class Events:
    """Passes events on to listeners, and keeps the latest from :meth:`begin` to :meth:`end`."""

    def __init__(self) -> None:
        self._places = Places(MAX_LISTENERS, "too many listen already")
        self._queues: dict[asyncio.Queue[dict[str, Any]], int] = {}
        """Listeners' queues, and how many events each has missed since its last one."""
        self._sink: int | None = None
        self._recent: dict[object, dict[str, Any]] = {}
        self._refusals: dict[object, None] = {}
        """Keys of those of the latest that are refusals, the oldest first."""
        self._keeps: int | None = None
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        """Keep what happens from now on."""
        self._keeps = add_reader(self._keep, "INFO")

    def end(self) -> None:
        """Keep nothing more."""
        if self._keeps is not None:
            logger.remove(self._keeps)
            self._keeps = None

    def recent(self, room: str | None = None) -> list[dict[str, Any]]:
        """Tell the latest events, of one room or of all, the oldest first."""
        return [event for event in tuple(self._recent.values()) if room in (None, event.get("room"))]

    def _keep(self, record: Record) -> None:
        event = _event(record)
        if event is None or (event["event"] == "left" and event.get("mac", "") is None):
            return  # who never joined was refused, or said nothing
        is_refusal = event["event"] == "refused"
        key = _refused(event) if is_refusal else object()
        before = self._forget(key)
        self._recent[key] = event if before is None else {**event, "times": before.get("times", 1) + 1}
        if is_refusal:
            self._refusals[key] = None
        if len(self._refusals) > MAX_REFUSALS:
            self._forget(next(iter(self._refusals)))
        if len(self._recent) > MAX_RECENT:
            self._forget(next(iter(self._recent)))

    def _forget(self, key: object) -> dict[str, Any] | None:
        self._refusals.pop(key, None)
        return self._recent.pop(key, None)

    @contextlib.contextmanager
    def subscribed(self, room: str | None = None) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """Give a queue that gets all events; ``room`` is as of ``Places.taken``. Raises NoPlaceError."""
        with self._places.taken(room):
            yield from self._subscribe()

    def _subscribe(self) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)
        if self._sink is None:
            self._sink = add_reader(self._take, "DEBUG")
        self._queues[queue] = 0
        try:
            yield queue
        finally:
            del self._queues[queue]
            if not self._queues and self._sink is not None:
                logger.remove(self._sink)
                self._sink = None

    def _take(self, record: Record) -> None:
        event = _event(record)
        if event is not None:
            self._loop.call_soon_threadsafe(self._pass_on, event)

    def _pass_on(self, event: dict[str, Any]) -> None:
        for queue, missed in list(self._queues.items()):
            told = {**event, "missed": missed} if missed else event
            try:
                queue.put_nowait(told)
            except asyncio.QueueFull:
                self._queues[queue] = missed + 1
            else:
                self._queues[queue] = 0


def _refused(event: dict[str, Any]) -> object:
    """Name a refusal: a client that is refused tries again and again, each time from another port."""
    client = client_network(event.get("remote", "").rpartition(":")[0])
    return event["room"], event["mac"], event["why"], client


def _event(record: Record) -> dict[str, Any] | None:
    """Tell what a line says of an event; None where it is about none."""
    extra = record["extra"]
    if "event" not in extra:
        return None
    fields = {name: value for name, value in extra.items() if name not in {"reason", UNTHINNED}}
    return {"time": record["time"].timestamp(), "message": redact(record["message"]), **fields}
