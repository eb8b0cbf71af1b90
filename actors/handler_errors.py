"""Exceptions in a handler: each costs the element of the batch that raised it, and never ends its actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from netstack.counters import Counters

LOG_WINDOW = 60.0
"""Seconds for which the same error of the same actor is only counted after it was logged."""


class HandlerErrors:
    """Counts unexpected errors of one actor under ``PART.drop.internal_error``; logs each kind now and then.

    What provoked one is lost; the rest of the batch, and the LAN, go on.
    """

    def __init__(self, part: str, counters: Counters) -> None:
        self._part = part
        self._counters = counters
        self._logged: dict[tuple[str, str, int], float] = {}

    def note(self, error: Exception, now: float) -> None:
        """Count ``error``; log it with its traceback unless the same one was logged a short time ago."""
        self._counters.add(f"{self._part}.drop.internal_error")
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        # By type and place: the table is as small as the code.
        where = ("", 0) if place is None else (place.tb_frame.f_code.co_filename, place.tb_lineno)
        key = (type(error).__name__, *where)
        if now >= self._logged.get(key, now):
            self._logged[key] = now + LOG_WINDOW
            logger.opt(exception=error).error("{}: an unexpected error cost one frame", self._part)
