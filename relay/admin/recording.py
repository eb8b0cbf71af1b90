"""Where ``vmrelay capture`` puts what the relay sends: a file, a pipe, or a ring of files."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from netstack.pcapng import (
    BLOCK_HEAD,
    INTERFACE,
    MAX_BLOCK,
    MIN_BLOCK,
    PACKET,
    SECTION,
    interface_of,
    with_interface,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MAX_INTERFACES = 1 << 16
"""Of which a description is kept: as many as sixteen workers may speak of (``relay.capture``)."""


class Readable(Protocol):
    """Where blocks are read from."""

    def read(self, amount: int, /) -> bytes:
        """Read this much, or less at the end."""


class BlockError(Exception):
    """That is no pcapng as a relay writes it."""


class Limits(NamedTuple):
    """How much is kept; 0 for no limit."""

    file_size: int = 0
    """Bytes after which another file is begun."""
    files: int = 0
    """Files of which the oldest is removed when there are more."""
    seconds: float = 0.0
    """Time after which the recording ends."""
    file_seconds: float = 0.0
    """Time after which another file is begun."""


def blocks(source: Readable) -> Iterator[tuple[int, bytes]]:
    """Read block by block: its type, and all of it. Raises BlockError."""
    while head := source.read(BLOCK_HEAD.size):
        if len(head) < BLOCK_HEAD.size:
            return
        kind, length = BLOCK_HEAD.unpack(head)
        if not MIN_BLOCK <= length <= MAX_BLOCK or length % 4:
            raise BlockError("the relay sent no pcapng")
        rest = source.read(length - BLOCK_HEAD.size)
        if len(rest) < length - BLOCK_HEAD.size:
            return
        yield kind, head + rest


class Recorder:
    """Writes blocks to files, each of which can be read by itself."""

    def __init__(self, path: Path | None, limits: Limits) -> None:
        """Write to ``path`` (with a number before its suffix where there are several), or standard output."""
        self._path = path
        self._limits = limits
        self._section = b""
        """What each file begins with."""
        self._interfaces: dict[int, bytes] = {}
        """By their numbers in what is recorded."""
        self._begun = 0
        """Interfaces so far."""
        self._numbers: dict[int, int] = {}
        """Numbers in the file of those that it has: it has them before their first packet."""
        self._file: IO[bytes] | None = None
        self._written = 0
        self._opened_at = 0.0
        self._number = 0
        self._kept: list[Path] = []

    @property
    def _is_ring(self) -> bool:
        return self._path is not None and bool(self._limits.file_size or self._limits.file_seconds)

    def write(self, kind: int, block: bytes) -> None:
        """Write a block, to another file if it is time. Raises OSError, BlockError."""
        if kind == SECTION:
            self._section = block
            self._next_file()
        elif kind == INTERFACE:
            self._interfaces[self._begun] = block
            self._interfaces.pop(self._begun - MAX_INTERFACES, None)
            self._begun += 1
        elif kind == PACKET and self._section:
            if self._is_ring and self._numbers and self._is_full(block):
                self._next_file()
            self._put(self._numbered(block))

    def _numbered(self, packet: bytes) -> bytes:
        """Give a packet the number that its interface has in the file, behind that if the file is without."""
        its = interface_of(packet)
        number = self._numbers.get(its)
        if number is not None:
            return with_interface(packet, number)
        if its not in self._interfaces:
            raise BlockError("the relay sent no pcapng")
        number = self._numbers[its] = len(self._numbers)
        return self._interfaces[its] + with_interface(packet, number)

    def _put(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101 - begun with the section
        self._file.write(data)
        self._written += len(data)
        self._file.flush()  # whoever follows it, through a pipe or the file, sees it now

    def _is_full(self, block: bytes) -> bool:
        size, seconds = self._limits.file_size, self._limits.file_seconds
        if size and self._written + len(block) > size:
            return True
        return bool(seconds) and time.monotonic() - self._opened_at >= seconds

    def _next_file(self) -> None:
        self.close()
        if self._path is None:
            self._file = sys.stdout.buffer
        else:
            path = self._path
            if self._is_ring:
                if not path.name:  # as / and . are, beside which there can be no files of the ring
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                self._number += 1
                path = path.with_name(f"{path.stem}_{self._number:05}{path.suffix}")
            self._file = path.open("wb")
            self._kept.append(path)
            if self._limits.files and len(self._kept) > self._limits.files:
                self._kept.pop(0).unlink(missing_ok=True)
        self._written, self._numbers = 0, {}
        self._opened_at = time.monotonic()
        self._put(self._section)

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None and self._file is not sys.stdout.buffer:
            self._file.close()
        self._file = None
