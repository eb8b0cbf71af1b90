"""Looks on while a LAN's actors work: what captures, traces and the debug shell are made with.

The one tap of the code is ``Lan.observe``, which wraps how actors handle messages (``actors.runtime``); while
nobody looks on there is no wrapper, and nothing is asked. An observer is told, after each message, which
actor had it, and which of the LAN's counters it moved: that is what became of the frames in it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from actors.messages import FlowOpened
    from actors.runtime import EventLoopActor
    from netstack.counters import Counters


class Handled(NamedTuple):
    """What an actor did with a message."""

    actor: EventLoopActor | None
    """None where the message is for nobody: the FlowOpened of each flow."""
    message: Any
    counted: dict[str, int]
    """Counters of the LAN that moved meanwhile, by how much."""


class Observed(Protocol):
    """A LAN, as far as somebody looks on."""

    name: str
    counters: Counters

    def observe(
        self, observer: Callable[[EventLoopActor, Any], AbstractContextManager[object]] | None
    ) -> None:
        """Wrap how its actors handle messages, or take the wrapper off."""


class Observer(Protocol):
    """Somebody who looks on."""

    def see(self, lan: Observed, handled: Handled) -> None:
        """Take note; must neither raise nor take long."""


class Observation:
    """The observers of one LAN; the wrapper is there while there is one."""

    def __init__(self, lan: Observed) -> None:
        self._lan = lan
        self._observers: list[Observer] = []

    def __contains__(self, observer: Observer) -> bool:
        return observer in self._observers

    def add(self, observer: Observer) -> None:
        """Begin to look on."""
        self._observers.append(observer)
        if len(self._observers) == 1:
            self._lan.observe(self._around)

    def remove(self, observer: Observer) -> None:
        """Look on no longer."""
        self._observers.remove(observer)
        if not self._observers:
            self._lan.observe(None)

    @contextlib.contextmanager
    def _around(self, actor: EventLoopActor, message: Any) -> Iterator[None]:
        counters = self._lan.counters
        before = dict(counters)
        yield
        self._show(Handled(actor, message, moved(before, counters)))

    def see_flow(self, opened: FlowOpened) -> None:
        """Have all see that a flow has begun."""
        self._show(Handled(None, opened, {}))

    def _show(self, handled: Handled) -> None:
        for observer in list(self._observers):
            try:
                observer.see(self._lan, handled)
            except Exception:  # noqa: BLE001 - a bug of who looks on must not end the actor
                logger.exception("somebody who looked on at room {} failed", self._lan.name)


def moved(before: dict[str, int], after: Counters) -> dict[str, int]:
    """Tell which counters have grown, and by how much."""
    return {
        name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)
    }
