"""The actors' turns, as far as what feeds them and what they write to need to know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Turns(Protocol):
    """Who lets the actors work: their scheduler."""

    def turn(self, feed: Callable[[], object]) -> None:
        """Call ``feed``, which tells actors something, then let the actors work until they are done."""

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, as soon as the actors are done: at the end of this turn or the next."""
