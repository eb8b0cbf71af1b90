"""What operators changed of the forwards while the relay ran; it holds after a restart too.

Theory of operation. A forward is the configuration's or an operator's, never both: what an operator opens
is *added*, and becomes the configuration's, and no longer kept here, once that names it. One of the
configuration that an operator closes is *closed* until an operator opens it again, or until the configuration
no longer names it.

Both are known by room, whether it is there or not: what was added to a room comes whenever that is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from netstack.forward import Forward, parse_forward
from netstack.room_names import ROOM_NAME

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from relay.documents import Document

FILE = "forwards.json"
HOLDS = "changes of forwards"

MAX_CHANGES = 1024
"""Of all rooms."""

Change = Literal["added", "closed"]


class TooManyChangesError(ValueError):
    """No more is kept; the message is one line."""


class ForwardChanges:
    """Those of all rooms."""

    def __init__(self, document: Document | None = None) -> None:
        """Read what was kept; without a document they last as long as the process."""
        self._document = document
        self._changes: dict[tuple[str, str], Change] = {}
        """By room and forward, as it is written."""
        if document is not None:
            entries = document.read()
            for entry in entries[:MAX_CHANGES]:
                self._take(entry)
            document.tell_unreadable(len(entries) - len(self._changes))

    def of_room(self, room: str) -> RoomForwards:
        """Give the part of one room."""
        return RoomForwards(self, room)

    @property
    def rooms(self) -> set[str]:
        """Those that have any."""
        return {room for room, _ in self._changes}

    def find(self, room: str, change: Change) -> list[str]:
        """Tell the forwards of a room that were changed so."""
        return [text for (place, text), found in self._changes.items() if (place, change) == (room, found)]

    def note(self, room: str, text: str, change: Change) -> None:
        """Note a change. Raises TooManyChangesError."""
        if (room, text) not in self._changes and len(self._changes) >= MAX_CHANGES:
            raise TooManyChangesError(f"{MAX_CHANGES} forwards were added or removed already")
        self._changes[room, text] = change

    def forget(self, room: str, text: str) -> None:
        """Have it as the configuration says."""
        self._changes.pop((room, text), None)

    def entries(self) -> tuple[dict[str, str], ...]:
        """Write them as :meth:`take` reads them."""
        return tuple(
            {"room": room, "forward": text, "change": change}
            for (room, text), change in self._changes.items()
        )

    def take(self, entries: Iterable[Any]) -> None:
        """Have these, and no others."""
        self._changes.clear()
        for entry in entries:
            self._take(entry)

    async def keep(self) -> None:
        """Write them down; returns when that is done."""
        if self._document is not None:
            await self._document.keep(self.entries())

    def _take(self, entry: Any) -> None:
        match entry:
            case {"room": str(room), "forward": str(text), "change": "added" | "closed" as change}:
                try:
                    forward = parse_forward(text)
                except ValueError:
                    return
                if ROOM_NAME.fullmatch(room):
                    self._changes[room, str(forward)] = change


class RoomForwards:
    """The changes of one room."""

    def __init__(self, changes: ForwardChanges, room: str) -> None:
        self._all = changes
        self._room = room

    @property
    def added(self) -> list[Forward]:
        """Those that are an operator's."""
        return [parse_forward(text) for text in self._all.find(self._room, "added")]

    @property
    def closed(self) -> frozenset[str]:
        """Those of the configuration that an operator closed, as they are written."""
        return frozenset(self._all.find(self._room, "closed"))

    def follow(self, configured: Container[str]) -> None:
        """Go by a configuration that names these."""
        for text in self._all.find(self._room, "added"):
            if text in configured:
                self._all.forget(self._room, text)
        for text in self.closed:
            if text not in configured:
                self._all.forget(self._room, text)

    def open(self, text: str, *, configured: bool) -> None:
        """Note that an operator opens one. Raises TooManyChangesError."""
        if configured:
            self._all.forget(self._room, text)
        else:
            self._all.note(self._room, text, "added")

    def close(self, text: str, *, configured: bool) -> None:
        """Note that an operator closes one. Raises TooManyChangesError."""
        if configured:
            self._all.note(self._room, text, "closed")
        else:
            self._all.forget(self._room, text)
