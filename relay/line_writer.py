"""Lines for a stream whose reader may stop reading, or be gone: writing them never waits.

Theory of operation. A thread writes, to the file descriptor itself: behind a pipe that nobody reads it stays
in write(2), and holds no lock of Python's own buffers, which the interpreter would want at its end. What
comes after a pause it writes at once, else what has come in GATHER_SECONDS together: each of its turns takes
the interpreter from the thread that carries frames. Lines wait in a queue of at most QUEUE_CHARACTERS; those
that find it full, or that the system does not take (a full disk), are counted, and the next line that gets
through is followed by one that says how many are missing. At the end :meth:`LineWriter.close` waits for the
rest for FLUSH_SECONDS.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

QUEUE_CHARACTERS = 1024 * 1024
"""Characters that may wait: some 10,000 lines, a second's pause of a reader in the worst of times."""
GATHER_SECONDS = 0.02
"""Seconds from one write to the next, at the least; a crowd that joins and leaves makes some thirty lines."""
GATHERED_CHARACTERS = 64 * 1024
"""Characters that are written together."""
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
        self._ends = threading.Event()
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
        self._ends.set()
        self._waiting.put(None)
        self._thread.join(patience)

    def _run(self) -> None:
        written_at = 0.0
        while not self._ends.is_set() or not self._waiting.empty():
            texts = [self._waiting.get()]
            self._ends.wait(written_at + GATHER_SECONDS - time.monotonic())
            lines = self._gather(texts)
            lost = self._put(lines)
            written_at = time.monotonic()
            with self._counts:
                self._characters -= sum(map(len, lines))
                # A closed terminal or a full disk must not become the relay's problem.
                self._lost += lost
                self.lost += lost
                told = self._lost if lost < len(lines) else 0
                self._lost -= told
            if told:
                logger.bind(repeated=told).warning(
                    "{} lines for {} are lost: nobody took them in time", told, self._name
                )

    def _gather(self, texts: list[str | None]) -> list[str]:
        """Take out what else waits; give all that are lines."""
        size = len(texts[0] or "")
        with contextlib.suppress(Empty):
            while size < GATHERED_CHARACTERS:
                text = self._waiting.get_nowait()
                texts.append(text)
                size += len(text or "")
        return [text for text in texts if text is not None]


def _access(stream: TextIO | None) -> tuple[Callable[[list[str]], int], bool]:
    """Find what writes lines to a stream and says how many it did not take; and whether it is a terminal."""
    if stream is None:
        return (lambda _: 0), False
    try:
        terminal = stream.isatty()
        descriptor = stream.fileno()
    except (OSError, ValueError):  # closed; or one without a descriptor, such as a test's
        return partial(_put_singly, stream), not stream.closed and stream.isatty()
    return _Descriptor(descriptor, stream.encoding or "utf-8").put, terminal


def _put_singly(stream: TextIO, lines: list[str]) -> int:
    lost = 0
    for line in lines:
        try:
            stream.write(line)
        except (OSError, ValueError):
            lost += 1
    return lost


class _Descriptor:
    """A file descriptor that lines are written to."""

    def __init__(self, number: int, encoding: str) -> None:
        self._number = number
        self._encoding = encoding
        self._torn = False
        """Whether the last line has no end: the disk became full in the middle of it."""

    def put(self, lines: list[str]) -> int:
        """Write everything, however long that takes; return how many lines the system did not take."""
        lost = 0
        waiting = deque(line.encode(self._encoding, "backslashreplace") for line in lines)
        is_rest = False
        while waiting:
            # A line of which only the beginning is there was given up: the next one begins on its own.
            start = b"\n" if self._torn and not is_rest else b""
            data = start + b"".join(waiting)
            try:
                size = os.write(self._number, data)
            except BlockingIOError:  # somebody who shares it made it non-blocking
                select.select([], [self._number], [])
                continue
            except OSError:
                waiting.popleft()
                is_rest = False
                lost += 1
                continue
            self._torn = data[size - 1 : size] != b"\n"
            size -= len(start)
            while size > 0:
                line = waiting.popleft()
                is_rest = size < len(line)
                if is_rest:
                    waiting.appendleft(line[size:])
                size -= len(line)
        return lost
