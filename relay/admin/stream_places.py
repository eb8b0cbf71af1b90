"""Places for answers without an end: whose token is for one room leaves some to others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from netstack.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoPlaceError(Exception):
    """All places are taken, or as many as there are for one room; the message says of what."""


class Places:
    """So many; who may ask about one room only has no more than half, and no room all of these."""

    def __init__(self, most: int, refusal: str) -> None:
        """``refusal`` is what those are told who find none."""
        self._refusal = refusal
        self._all = Shares(most, 0)
        self._of_rooms = Shares(most // 2)

    @contextlib.contextmanager
    def taken(self, room: str | None) -> Iterator[None]:
        """Have a place; ``room`` is the one that the caller is kept to, if any. Raises NoPlaceError."""
        if not self._all.may_take(None) or (room is not None and not self._of_rooms.take(room)):
            raise NoPlaceError(self._refusal)
        self._all.add(None)
        try:
            yield
        finally:
            self._all.give_back(None)
            if room is not None:
                self._of_rooms.give_back(room)
