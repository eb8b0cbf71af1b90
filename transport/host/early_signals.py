"""Signals that come before anybody is ready for them.

A command needs about a second to load its libraries, and the system's way with SIGHUP or SIGUSR1 is to end a
process that has said nothing about them: a supervisor that reloads right after the start would kill it. So
they wait from its first moment until it has said what it wants with each, before it loads most of them; what
is not an order to leave is noted then, and taken up by the handler that comes later.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

_noted: set[int] = set()


class Wishes(NamedTuple):
    """What a command wants with the signals that come before its own handlers stand."""

    leave: dict[int, int]
    """Signals that end it at once, with the exit status of each."""
    note: tuple[int, ...]
    """Signals that its handlers find with :func:`came`."""


def wait(*, no_longer: bool = False) -> None:
    """Have signals wait until the process says with :func:`held` what it wants with them, or no longer."""
    if hasattr(signal, "pthread_sigmask"):  # Windows has neither that nor most of them
        these = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_UNBLOCK if no_longer else signal.SIG_BLOCK, these)


@contextlib.contextmanager
def held(wishes: Wishes) -> Iterator[None]:
    """Treat signals as a command wishes, until it sets handlers of its own; at the end all is as before.

    What the process was started to ignore (SIGHUP by nohup) stays ignored. For the main thread.
    """
    before = {
        number: signal.getsignal(number)
        for number in (*wishes.leave, *wishes.note)
        if signal.getsignal(number) is not signal.SIG_IGN
    }

    def leave(number: int, _frame: object) -> None:
        # Noted too: an exception that comes up inside a finalizer is swallowed.
        _noted.add(number)
        raise SystemExit(wishes.leave[number])

    for number in before:
        signal.signal(number, leave if number in wishes.leave else _note)
    try:
        wait(no_longer=True)
        yield
    finally:
        _noted.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def came(number: int) -> bool:
    """Whether the signal came before now; only the first who asks is told. Ask when its handler stands."""
    if number not in _noted:
        return False
    _noted.discard(number)
    return True


def handle(loop: asyncio.AbstractEventLoop, handlers: Mapping[signal.Signals, Callable[[], object]]) -> None:
    """Have a loop call these, by signal, from now on, and at once for those that came before."""
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
        if came(number):
            handler()


def _note(number: int, _frame: object) -> None:
    _noted.add(number)
