"""Memory that is free goes back to the system.

Frames are larger than what Python keeps pools for, so they come from malloc, and glibc gives back only what
is free at the end of its heap. After a moment with many frames in memory one that stays is enough to keep all
that lies below it, for months. ``malloc_trim`` gives back the pages in between.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
from pathlib import Path

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


def give_back() -> bool:
    """Give free pages back to the system; return whether this C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is None:
        return False
    trim(ctypes.c_size_t(0))
    return True


async def keep_giving_back(interval: float = INTERVAL, slack: int = SLACK) -> None:
    """Give pages back whenever the process has grown by ``slack`` bytes since it did so last."""
    least = resident()
    while True:
        await asyncio.sleep(interval)
        now = resident()
        if now > least + slack:
            give_back()
            least = now = resident()
        least = min(least, now)
