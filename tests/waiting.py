"""Waits for what tells nobody when it happens: a counter, a table of the kernel, a file of another process.

Where there is an event, a queue, a future or a line that a program prints, tests wait for that.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")

PATIENCE = 20.0
"""Seconds after which what has not come is taken for lost."""


async def until(condition: Callable[[], object], *, every: float = 0.002, patience: float = PATIENCE) -> None:
    """Let the event loop run until ``condition()`` holds; raises TimeoutError when that takes too long."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(every)


async def counting_turns(awaited: Awaitable[Result]) -> tuple[Result, int]:
    """Await something; return what it gives, and how many turns others had meanwhile."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    try:
        return await awaited, turns
    finally:
        task.cancel()


def wait_until(
    condition: Callable[[], object],
    otherwise: Callable[[], str] = lambda: "it never came",
    *,
    every: float = 0.02,
    patience: float = PATIENCE,
) -> None:
    """Sleep until ``condition()`` holds; fails with what ``otherwise()`` says when that takes too long."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(every)
