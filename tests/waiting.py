"""Waits for what tells nobody when it happens: a counter, a table of the kernel, a file of another process.

Where there is an event, a queue, a future or a line that a program prints, tests wait for that.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 20.0
"""Seconds after which what has not come is taken for lost."""


async def until(condition: Callable[[], object], *, every: float = 0.002, patience: float = PATIENCE) -> None:
    """Let the event loop run until ``condition()`` holds; raises TimeoutError when that takes too long."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(every)


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
