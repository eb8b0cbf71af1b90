"""Lines for a stream whose reader may stop reading, or be gone: writing them never waits.

Theory of operation. A thread writes, to the file descriptor itself: behind a pipe that nobody reads it stays
in write(2), and holds no lock of Python's own buffers, which the interpreter would want at its end. Lines
wait in a queue of at most QUEUE_CHARACTERS; those that find it full, or that the system does not take (a full
disk), are counted, and the next line that gets through is followed by one that says how many are missing.
At the end :meth:`LineWriter.close` waits for the rest for FLUSH_SECONDS.
"""

from __future__ import annotations

import os
import select
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

QUEUE_CHARACTERS = 1024 * 1024
"""Characters that may wait: some 10,000 lines, a second's pause of a reader in the worst of times."""
FLUSH_SECONDS = 1.0
"""Seconds that a reader has at the end to take what waits."""


class Output(Protocol):
    """Where lines go; text streams are such."""

    def write(self, text: str, /) -> object:
        """Take a line with its end."""

    def isatty(self) -> bool:
        """Whether a person looks at it."""


class LineWriter:
    """Writes lines to a stream, in a thread of its own; a context manager that closes at its end."""

    def __init__(self, stream: TextIO | None, name: str, limit: int = QUEUE_CHARACTERS) -> None:
        """``stream`` is None where the process was started without it; ``name`` is for people."""
        self._name = name
        self._limit = limit
        self._put, self._is_terminal = _access(stream)
        self._waiting: SimpleQueue[str | None] = SimpleQueue()
        """Lines; None is the end. Its waiting and waking cost a fraction of a Condition's."""
        self._counts = threading.RLock()
        """Held by who changes the numbers below; twice by one thread, for a finalizer may log at any time."""
        self._characters = 0
        """Of the lines that wait, and of the one that is being written."""
        self._lost = 0
        """Those that nobody has been told of yet."""
        self.lost = 0
        """All that were lost so far."""
        self._thread = threading.Thread(target=self._run, name=f"{name} writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._is_terminal

    def write(self, text: str) -> None:
        """Have a line written; returns at once. One for which there is no room is counted."""
        with self._counts:
            if self._characters + len(text) > self._limit:
                self._lost += 1
                self.lost += 1
                return
            self._characters += len(text)
        self._waiting.put(text)

    def close(self, patience: float = FLUSH_SECONDS) -> None:
        """Wait until all is written, but no longer than ``patience``; what has not left by then is lost."""
        self._waiting.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        ending = False
        while not ending or not self._waiting.empty():
            text = self._waiting.get()
            if text is None:
                ending = True
                continue
            try:
                self._put(text)
            except (OSError, ValueError):
                # A closed terminal or a full disk must not become the relay's problem.
                written = False
            else:
                written = True
            with self._counts:
                self._characters -= len(text)
                self._lost += not written
                self.lost += not written
                lost = self._lost if written else 0
                self._lost -= lost
            if lost:
                logger.bind(repeated=lost).warning(
                    "{} lines for {} are lost: nobody took them in time", lost, self._name
                )


def _access(stream: TextIO | None) -> tuple[Callable[[str], object], bool]:
    """Find how a stream is written to, and whether it is a terminal."""
    if stream is None:
        return (lambda _: None), False
    try:
        terminal = stream.isatty()
        descriptor = stream.fileno()
    except (OSError, ValueError):  # closed; or one without a descriptor, such as a test's
        return stream.write, not stream.closed and stream.isatty()
    return _Descriptor(descriptor, stream.encoding or "utf-8").put, terminal


class _Descriptor:
    """A file descriptor that lines are written to."""

    def __init__(self, number: int, encoding: str) -> None:
        self._number = number
        self._encoding = encoding
        self._torn = False
        """Whether the last line has no end: the disk became full in the middle of it."""

    def put(self, text: str) -> None:
        """Write everything, however long that takes. Raises OSError."""
        data = text.encode(self._encoding, "backslashreplace")
        if self._torn:
            data = b"\n" + data
        while data:
            try:
                size = os.write(self._number, data)
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select([], [self._number], [])
            else:
                self._torn = data[size - 1 : size] != b"\n"
                data = data[size:]
