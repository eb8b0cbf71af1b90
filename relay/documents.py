"""Lists in the state folder, of what operators change by hand: JSON, and replaced as a whole."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from loguru import logger

if TYPE_CHECKING:
    from relay.state import StateFile


class Document:
    """One JSON list, and the file that keeps it."""

    def __init__(self, file: StateFile, holds: str) -> None:
        """Say of ``holds``, for the log, what it is a list of."""
        self._file = file
        self._holds = holds
        self._entries: tuple[Any, ...] = ()
        """The newest; threads that write take what is newest then, in whatever order they come."""
        self._saving = threading.Lock()

    def read(self) -> list[Any]:
        """Read the entries, of any form; none where there is no file, or, with a line in the log, no list."""
        content = self._file.read()
        if content is None:
            return []
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            self._entries = tuple(found)
            return found
        logger.warning("the {} that were kept are lost: the file is damaged", self._holds)
        return []

    def tell_unreadable(self, count: int) -> None:
        """Log that so many of the entries mean nothing."""
        if count:
            logger.warning("{} of the {} that were kept are none", count, self._holds)

    async def keep(self, entries: tuple[Any, ...]) -> None:
        """Have these entries in the file; returns when they are on the disk, or the log says why not."""
        if entries == self._entries:
            return
        self._entries = entries
        await asyncio.to_thread(self._save)

    def _save(self) -> None:
        with self._saving:
            self._file.write(json.dumps(self._entries, indent=1).encode() + b"\n")
