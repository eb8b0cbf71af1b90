"""Turns: those of the actors, as far as what feeds them and what they write to need to know, and of tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Turns(Protocol):
    """Who lets the actors work: their scheduler."""

    def turn(self, feed: Callable[[], object]) -> None:
        """Call ``feed``, which tells actors something, then let the actors work until they are done."""

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, as soon as the actors are done: at the end of this turn or the next."""


def after_sockets(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call ``callback`` in the loop's next turn, once what has come by then to any socket was served.

    ``call_soon`` would call it before that, and ``asyncio.sleep(0)`` goes on before that too: whoever has
    more to do than fits a turn, and asks for the next one so, is ahead of all others in every turn. Timers
    that are due come after the sockets.
    """
    loop.call_at(loop.time(), callback)


async def sockets_first() -> None:
    """Go on in the loop's next turn, :func:`after_sockets`."""
    await asyncio.sleep(1e-9)  # 0 is no timer to asyncio


class TaskTurns:
    """Lets only so many tasks go on in a turn of the event loop, in the order in which they came.

    What wakes many of them at once, a burst of questions or of answers, does not hold the loop up then for as
    long as they take together. As many wait as there are tasks.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_scheduled = False

    async def next(self) -> None:
        """Wait for a turn that has room."""
        loop = asyncio.get_running_loop()
        if not self._is_scheduled:
            self._is_scheduled = True
            after_sockets(loop, self._begin_turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _begin_turn(self) -> None:
        self._left = self._per_turn
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                self._left -= 1
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            after_sockets(asyncio.get_running_loop(), self._begin_turn)
