"""The audit log: who had which address, which flows they opened, and what operators changed, one JSON a line.

Theory of operation. Joins, leaves, refusals and changes come from the log, as lines that are bound to an
``event`` (as for ``relay.admin.events``), whatever its level is; flows come from the actors that open them. A
thread writes (``relay.line_writer``): nobody waits for the disk, and what finds the queue full, or the disk,
is counted as ``audit.lost``.

A file that would become too large becomes FILE.1, that FILE.2, and so on. The file is looked up before each
line, so that logrotate may move it away, and several processes may share it: who rotates holds its lock
(``flock``), and the others find another file at its path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO, cast

from loguru import logger

from actors.token_bucket import TokenBucket
from netstack.ethernet import format_mac
from relay.line_writer import LineWriter
from relay.logs import THINNED, UNTHINNED, redact

if TYPE_CHECKING:
    from pathlib import Path

    from loguru import Message, Record

    from actors.messages import FlowOpened
    from netstack.counters import Counters

NAME = "the audit log"

LOST = "audit.lost"
"""The counter of lines that were lost."""

LEFT_OUT = "audit.refusals_left_out"
"""The counter of refusals that are not written, for there were too many."""

REFUSALS_PER_SECOND = 1.0
"""Refusals that are written, in the long run: strangers make many, and full files push out old ones. Who left
without ever having had an address counts as refused."""
BURST_OF_REFUSALS = 600

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""No links, and no waiting for the reader of what turns out to be a pipe."""

_NOT_TOLD = frozenset({"reason", "library", UNTHINNED, THINNED})


class AuditError(Exception):
    """The file cannot be used; the message is one line that names it."""

    def __init__(self, path: Path, error: OSError) -> None:
        """``error`` is what the system says."""
        super().__init__(f"cannot write the audit log {path}: {error.strerror or error}")


def refuse_unwritable(path: Path) -> None:
    """Look whether the audit log could be written there; nothing is made or changed. Raises AuditError."""
    try:
        try:
            os.close(_open_regular(path, _FLAGS & ~os.O_CREAT))
        except FileNotFoundError:
            path.parent.stat()
            if not os.access(path.parent, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
    except OSError as error:
        raise AuditError(path, error) from None


def _open_regular(path: Path, flags: int) -> int:
    """Open what has to be a file; return the descriptor. Raises OSError."""
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, flags, 0o600)
        stack.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a file")
        stack.pop_all()
    return descriptor


class AuditLog:
    """Writes what happens to a file. Needs no event loop."""

    def __init__(self, path: Path, size: int, kept: int) -> None:
        """Begin a new file beyond ``size`` bytes, 0 for never; keep so many old ones. Raises AuditError."""
        self._file = AuditFile(path, size, kept)
        self._lines = LineWriter(cast("TextIO", self._file), NAME)
        self._refusals = TokenBucket(REFUSALS_PER_SECOND, BURST_OF_REFUSALS, time.monotonic())
        self._left_out = 0
        self._sink = logger.add(self._take, level="INFO", format="", filter=_is_event)

    def flow(self, room: str, opened: FlowOpened) -> None:
        """Write that a flow has begun, or goes to another address."""
        self._write(
            event="flow",
            room=room,
            direction=opened.direction,
            peer=opened.port,
            mac=format_mac(opened.mac),
            protocol=opened.protocol,
            guest=opened.guest,
            remote=opened.remote,
            local=opened.local,
        )

    def reopen(self) -> None:
        """Have the file looked up now: somebody may have moved it away."""
        self._lines.write("")

    def count_losses(self, counters: Counters) -> None:
        """Bring the counters up to date; to be called every second or so."""
        for name, count in ((LOST, self._lines.lost), (LEFT_OUT, self._left_out)):
            if count > counters.get(name, 0):
                counters[name] = count

    def close(self) -> None:
        """Write what waits, for a second at most."""
        logger.remove(self._sink)
        self._lines.close()
        self._file.close()

    def _take(self, message: Message) -> None:
        extra = message.record["extra"]
        if _is_of_stranger(extra) and not self._refusals.take(time.monotonic()):
            self._left_out += 1
            return
        fields = {name: _plain(value) for name, value in extra.items() if name not in _NOT_TOLD}
        self._write(**fields)

    def _write(self, **fields: Any) -> None:
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        self._lines.write(f"{json.dumps({'time': now, **fields})}\n")


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float) or value is None else redact(str(value))


def _is_of_stranger(extra: dict[str, Any]) -> bool:
    """Whether an event is one that anybody can make as often as he likes, and that tells of no address."""
    event = extra["event"]
    return bool(event == "refused" or (event == "left" and extra.get("address") is None))


def _is_event(record: Record) -> bool:
    return "event" in record["extra"]


class AuditFile:
    """A private file that is appended to, and rotated; what a ``LineWriter`` needs of a stream."""

    closed = False

    def __init__(self, path: Path, size: int, kept: int) -> None:
        """Open it. Raises AuditError."""
        self._path = path
        self._size = size
        self._kept = kept
        self._failing = False
        """Whether the latest line was not written, which the log has been told."""
        self._stays = False
        """Whether another file could not be begun when it was time, which the log has been told."""
        self._torn = False
        """Whether what is written ends in the middle of a line: the disk became full there."""
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise AuditError(path, error) from None

    def isatty(self) -> bool:
        """Nobody looks at it."""
        return False

    def fileno(self) -> int:
        """Raise OSError: it is another one from time to time."""
        raise OSError("the audit log is written by itself")

    def write(self, text: str) -> None:
        """Write a line, to another file where it is time for that. Waits for the disk. Raises OSError."""
        data = (b"\n" if self._torn else b"") + text.encode()
        self._follow_if_possible(len(data))
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._torn = data[written - 1 : written] != b"\n"
                data = data[written:]
        except OSError as error:
            if not self._failing:
                logger.error("the audit log loses lines: {}: {}", self._path, error.strerror or error)
            self._failing = True
            raise
        self._failing = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        """Open the file for this user alone. Raises OSError."""
        with contextlib.ExitStack() as stack:
            descriptor = _open_regular(self._path, _FLAGS)
            stack.callback(os.close, descriptor)
            if os.fstat(descriptor).st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
            stack.pop_all()
        return descriptor

    def _follow_if_possible(self, more: int) -> None:
        """Go on in the file that is open where there can be no other one: better long than lost."""
        try:
            self._follow(more)
        except OSError as error:
            if not self._stays:
                said = "the audit log goes on in the file that it has open, for it can begin no other one"
                logger.error("{}: {}: {}", said, self._path, error.strerror or error)
            self._stays = True
        else:
            self._stays = False

    def _follow(self, more: int) -> None:
        """Have the file of this path open, with room for ``more`` bytes. Raises OSError."""
        if not self._is_current():
            self._reopen()
        elif self._is_full(more):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                if self._is_current():  # else another process has just done it
                    self._rotate()
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._reopen()

    def _is_current(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        return False

    def _is_full(self, more: int) -> bool:
        size = os.fstat(self._descriptor).st_size
        return 0 < self._size < size + more and size > 0

    def _rotate(self) -> None:
        """Give the old files their next numbers; the oldest goes."""
        if not self._kept:
            self._path.unlink()
            return
        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _reopen(self) -> None:
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor, self._torn = descriptor, False
