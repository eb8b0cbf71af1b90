"""Forwards of a relay with workers: which there are is the supervisor's to say, and who listens the workers'.

All workers have all forwards, and the one listens that has the guest (``actors.flows.port_forward``). Whether
a port can be had is asked here, so that whoever wants one is told at once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from netstack.forward import MAX_FORWARDS, named, parse_forward
from netstack.room_names import DEFAULT_ROOM
from relay.contradictions import why_no_forward
from relay.forward_changes import TooManyChangesError
from relay.operations import NotThereError, OperationError
from transport.host.listeners import try_to_listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from netstack.forward import Forward
    from relay.forward_changes import ForwardChanges
    from relay.settings import Settings


class WholeForwards:
    """The forwards of all rooms."""

    def __init__(self, changes: ForwardChanges, settings: Callable[[], Settings]) -> None:
        """Go by the settings that ``settings`` gives, and by what operators did (``changes``)."""
        self.changes = changes
        self._settings = settings

    def try_all(self) -> None:
        """See whether the ports of the settings can be had. Raises OperationError where one cannot."""
        self.follow()
        settings = self._settings()
        with contextlib.ExitStack() as tried:
            for room in (DEFAULT_ROOM, *sorted(settings.rooms)):
                closed = self.changes.of_room(room).closed
                for forward in settings.of_room(room).forward:
                    if str(forward) not in closed:
                        # Workers share ports: two forwards that have one port are not told by these.
                        tried.enter_context(_try(forward))

    def follow(self) -> None:
        """Go by the settings of the moment: what they name is no longer an operator's."""
        settings = self._settings()
        for room in (DEFAULT_ROOM, *settings.rooms):
            self.changes.of_room(room).follow(self._planned(room))

    def add(self, room: str, forward: Forward) -> None:
        """Have a forward in a room. Raises OperationError."""
        present, text = self.of_room(room), str(forward)
        if text in present or len(present) >= MAX_FORWARDS:
            why = "it is forwarded" if text in present else f"there are {MAX_FORWARDS}"
            raise OperationError(f"cannot forward {forward}: {why} already")
        own = self._settings().of_room(room)
        why_not = why_no_forward(forward, own.network, ipv6=own.ipv6)
        if why_not is not None:
            raise OperationError(f"cannot forward {why_not}")
        if any(map(forward.meets, self._all())):  # nobody listens yet, perhaps
            raise OperationError(f"cannot forward {forward}: another forward has this port")
        _try(forward).close()
        try:
            self.changes.of_room(room).open(text, configured=text in self._planned(room))
        except TooManyChangesError as error:
            raise OperationError(f"cannot forward {forward}: {error}") from None

    def remove(self, room: str, text: str) -> str:
        """Have a forward no more, named as it is written, or by its first three parts; return it.

        Raises OperationError.
        """
        found = named(text, self.of_room(room))
        if len(found) != 1:
            raise NotThereError(f"room {room} has no forward {text}" if not found else f"which of {found}?")
        try:
            self.changes.of_room(room).close(found[0], configured=found[0] in self._planned(room))
        except TooManyChangesError as error:
            raise OperationError(f"cannot remove {found[0]}: {error}") from None
        return found[0]

    def of_room(self, room: str) -> list[str]:
        """Tell the forwards that a room has, or would have, as they are written."""
        changes = self.changes.of_room(room)
        return [text for text in self._planned(room) if text not in changes.closed] + [
            *map(str, changes.added)
        ]

    def _all(self) -> Iterator[Forward]:
        """Yield those of all rooms, also of such as are not there at present."""
        for room in {DEFAULT_ROOM, *self._settings().rooms, *self.changes.rooms}:
            yield from map(parse_forward, self.of_room(room))

    def _planned(self, room: str) -> list[str]:
        return [str(forward) for forward in self._settings().of_room(room).forward]


def _try(forward: Forward) -> socket.socket:
    """See whether a port can be had: it is until the socket is closed. Raises OperationError."""
    try:
        return try_to_listen(forward.protocol, forward.host, forward.port)
    except OSError as error:
        raise OperationError(f"cannot forward {forward}: {error.strerror or error}") from None
