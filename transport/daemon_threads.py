"""Work that nothing can end, such as asking a name server that is silent: in threads that nobody waits for.

``asyncio.to_thread`` has threads of a pool: each takes a place there for as long as its work takes, and the
event loop's end, and the process's, wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


def in_daemon_thread(work: Callable[[], _Result], name: str) -> asyncio.Future[_Result]:
    """Call ``work`` in a thread of its own; the future has what it returns, or raises.

    If the future is cancelled the thread goes on for itself. Raises RuntimeError where the system has no more
    threads.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[_Result] = loop.create_future()

    def settle(tell: Callable[[], None]) -> None:
        if not found.done():
            tell()

    def run() -> None:
        try:
            tell = partial(found.set_result, work())
        except Exception as error:  # noqa: BLE001 - raised again where the future is awaited
            tell = partial(found.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            loop.call_soon_threadsafe(settle, tell)

    threading.Thread(target=run, name=name, daemon=True).start()
    return found
