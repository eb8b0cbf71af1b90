"""Memory that a busy moment took goes back to the system.

Frames are larger than what Python keeps pools for, so they come from the C library's heap, of which
``heap`` says what is kept there. A relay runs for months: it looks at its own size now and then.
"""

from __future__ import annotations

import asyncio
import mmap
from pathlib import Path

from transport.host.heap import trim

INTERVAL = 60.0
"""Seconds between looks."""
SLACK = 16 * 1024 * 1024
"""Bytes that the process may grow by before pages are given back: that takes some milliseconds."""

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Return the bytes that this process has in memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return 0


async def keep_giving_back(interval: float = INTERVAL, slack: int = SLACK) -> None:
    """Give pages back whenever the process has grown by ``slack`` bytes since it did so last."""
    least = resident()
    while True:
        await asyncio.sleep(interval)
        now = resident()
        if now > least + slack:
            trim()
            least = now = resident()
        least = min(least, now)
