"""What is put off to the end of a turn of the event loop: done once, for all that the turn brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_ROUNDS: Final = 4
"""Rounds of work at the end of one turn. What asks for work again and again waits for the next turn then, and
the loop looks at its sockets in between."""

_Asker = TypeVar("_Asker")


class EndOfTurn(Generic[_Asker]):
    """Who has asked for work at the end of this turn: each is served once, however often it asked.

    Bounded by the number of those who may ask.
    """

    def __init__(
        self,
        call_at_end: Callable[[Callable[[], object]], object],
        work: Callable[[dict[_Asker, None]], Iterable[_Asker] | None],
    ) -> None:
        """``call_at_end`` calls back, once, when the turn is over: ``Turns.at_end``, a loop's ``call_soon``.

        ``work`` serves those who asked, and returns those for whom there was no time: they come first in the
        next turn. Whoever asks meanwhile is served in another round right after.
        """
        self._call_at_end = call_at_end
        self._work = work
        self._asked: dict[_Asker, None] = {}
        self._is_coming = False
        """Whether ``end`` will be called, or is at work: nobody has to be asked for that."""

    def __len__(self) -> int:
        """How many have asked and were not served yet."""
        return len(self._asked)

    def ask(self, asker: _Asker, /) -> None:
        """Have ``asker`` served at the end of this turn."""
        self._asked[asker] = None
        if not self._is_coming:
            self._is_coming = True
            self._call_at_end(self.end)

    def discard(self, asker: _Asker, /) -> None:
        """Forget one that has ended."""
        self._asked.pop(asker, None)

    def begin(self) -> None:
        """Begin a turn whose owner calls ``end`` itself, whatever happens: it costs no callback."""
        self._is_coming = True

    def end(self, askers: Iterable[_Asker] = ()) -> None:
        """Serve those who have asked, then ``askers``. Raises what the work raises; nobody else is lost."""
        self._is_coming = True
        asked = self._asked
        for asker in askers:
            asked[asker] = None
        try:
            for _ in range(MOST_ROUNDS):
                if not asked:
                    break
                self._asked = {}
                left = self._work(asked)
                if left:
                    self._asked = {**dict.fromkeys(left), **self._asked}
                    break
                asked = self._asked
        finally:
            self._is_coming = bool(self._asked)
            if self._is_coming:
                self._call_at_end(self.end)
