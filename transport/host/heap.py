"""What is free in the C library's heap goes back to the system, while a crowd goes.

glibc returns only what is free at the heap's end, and one small object there keeps all below: a thousand TLS
handshakes that are gone leave 100 MB. ``malloc_trim`` (malloc_trim(3)) returns whole free pages wherever they
lie. Other C libraries have nothing of that name, and most of them need it less.
"""

from __future__ import annotations

import ctypes

CROWD = 128
"""Holders that must have gone before it is worth while. They leave some 10 MB, which are given back in 1 ms;
everything else waits meanwhile."""


class Crowd:
    """Knows how many hold memory, and trims the heap whenever many have gone."""

    def __init__(self) -> None:
        self._most = 0

    def counted(self, present: int) -> None:
        """Take note of how many there are now."""
        if present > self._most:
            self._most = present
        elif self._most - present >= CROWD:
            self._most = present
            trim()


def trim() -> bool:
    """Give free pages back; return whether the C library knows how."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):  # not glibc; no such way to ask (Windows)
        return False
