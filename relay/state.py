"""What outlives the process: a folder of private files that one relay has for itself.

Which folder: the one that ``--state`` names; else systemd's ``$STATE_DIRECTORY``; else, below the XDG state
folder of the user, one that is named after the port, so that each relay of a machine finds its own again.
Where there is none, or it cannot be used (read-only, another relay has it, others may write to it), the relay
says so in one line, keeps everything in memory and goes on: state is a convenience, never a condition.

The folder has mode 0700 where the relay makes it, its files have 0600. A lock (``flock``, which the kernel
takes back however the process ends) keeps a second relay out. A file is replaced by renaming a complete one
over it; what a full disk does not take is tried again later, if nothing newer is there by then. Everything
here may wait for the disk: it is for the start, and for threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loguru import logger

from relay.setting_kinds import AUTO_STATE, NO_STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_LENGTH = 32
"""Bytes."""

MAX_FILE = 4 << 20
"""Bytes of a file that is read: real ones have a few thousand."""

_LOCK = "lock"
_KEY_SUFFIX = ".key"
_NEW_SUFFIX = ".new"
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""No links, and no waiting for the other end of what turns out to be a pipe."""


class StateError(Exception):
    """The folder, or a file of it, cannot be used; the message is one line that names it."""


class Place(NamedTuple):
    """A folder that may be used."""

    folder: Path
    chosen: bool
    """Whether the operator named it: then it matters if it cannot be used."""


def find_place(setting: str, port: int, environment: Mapping[str, str]) -> Place | None:
    """Find the folder for ``--state`` as it was set; None where nothing is to be kept, or can be.

    ``port`` is the one that was asked for: 0 where any will do.
    """
    if setting == NO_STATE:
        return None
    if setting != AUTO_STATE:
        return Place(Path(setting), chosen=True)
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5): several, by colons
    if given:
        return Place(Path(given), chosen=False)
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # "should be ignored", says the XDG base directory specification
        home = Path(environment.get("HOME", ""))
        if not home.is_absolute():
            return None
        base = home / ".local/state"
    return Place(base / "vmrelay" / str(port), chosen=False)


def open_state(setting: str, port: int, environment: Mapping[str, str]) -> State:
    """Open the folder for ``--state``; where it cannot be used, say so and keep everything in memory."""
    place = find_place(setting, port, environment)
    if place is None:
        return State()
    try:
        return State(Folder(place.folder))
    except StateError as error:
        logger.log(
            "WARNING" if place.chosen else "INFO",
            "certificate, addresses and keys are forgotten when this relay ends: {}",
            error,
        )
        return State()


class State:
    """What the relay keeps: in a folder, or in memory for as long as the process lives."""

    def __init__(
        self,
        folder: Folder | None = None,
        secrets: Mapping[str, bytes] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        """``secrets`` are known already, by their names; ``read_only`` keeps files as they are."""
        self._read_only = read_only
        self.folder = folder
        self._secrets: dict[str, bytes] = dict(secrets or {})

    def secret(self, name: str) -> bytes:
        """Give the 32 random bytes of this name: made once, and the same from then on."""
        found = self._secrets.get(name)
        if found is None:
            found = self._secrets[name] = self._kept_secret(name)
        return found

    def _kept_secret(self, name: str) -> bytes:
        file = self.file(name + _KEY_SUFFIX)
        kept = file.read()
        if kept is not None:
            if len(kept) == SECRET_LENGTH:
                return kept
            logger.warning("the key {} in {} is damaged; it is replaced", name, self.folder)
        fresh = secrets.token_bytes(SECRET_LENGTH)
        file.write(fresh)
        return fresh

    def file(self, name: str) -> StateFile:
        """Give a file by its name."""
        return StateFile(self.folder, name, read_only=self._read_only)

    def write_again(self) -> None:
        """Write what could not be written so far; to be called now and then."""
        if self.folder is not None:
            self.folder.write_again()

    def close(self) -> None:
        """Let another relay have the folder."""
        self.write_again()
        if self.folder is not None:
            self.folder.close()


class StateFile:
    """A file of the folder, if there is a folder; what goes wrong is logged."""

    def __init__(self, folder: Folder | None, name: str, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        self._name = name

    def read(self) -> bytes | None:
        """Read it; None where there is none, or it cannot be read."""
        if self._folder is None:
            return None
        try:
            return self._folder.read(self._name)
        except StateError as error:
            logger.warning("not remembered: {}", error)
            return None

    def write(self, content: bytes) -> None:
        """Keep it with all of this content; where that fails, as it was, and this is tried again later."""
        if self._folder is None or self._read_only:
            return
        try:
            self._folder.write(self._name, content)
        except StateError as error:
            logger.warning("not kept: {}", error)


class Folder:
    """A folder that this process has for itself, and its private files."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Make the folder if need be, and lock it. Raises StateError.

        ``shared`` is for a process of the relay that has it locked.
        """
        self.path = path
        self._writing = threading.Lock()
        self._unwritten: dict[str, bytes] = {}
        """What files should have in them, and have not."""
        self._lock: int | None = None
        if shared:
            return
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_mode & stat.S_IWOTH:
                raise StateError(f"{path}: everybody may write to this folder")
        except OSError as error:
            raise self._error(error) from None
        lock = self._open(_LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StateError(f"{path}: another relay is using this folder") from None
            raise self._error(error) from None
        self._lock = lock

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none. Raises StateError."""
        if not (self.path / name).exists():
            return None
        descriptor = self._open(name, os.O_RDONLY)
        try:
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(MAX_FILE + 1)
        except OSError as error:
            raise self._error(error, name) from None
        if len(content) > MAX_FILE:
            raise StateError(f"{self.path / name}: larger than {MAX_FILE} bytes")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file in the place of the one there is. Raises StateError; then it is tried again later."""
        with self._writing:
            self._unwritten[name] = content
            self._replace(name, content)
            del self._unwritten[name]

    def write_again(self) -> None:
        """Write what could not be written, as far as that can be done now."""
        with self._writing:
            for name, content in list(self._unwritten.items()):
                try:
                    self._replace(name, content)
                except StateError:
                    continue
                del self._unwritten[name]
                logger.info("kept by now: {}", self.path / name)

    def _replace(self, name: str, content: bytes) -> None:
        new = name + _NEW_SUFFIX
        descriptor = self._open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            (self.path / new).replace(self.path / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                (self.path / new).unlink()
            raise self._error(error, name) from None

    def private_path(self, name: str) -> Path:
        """Make sure that there is such a file and that it is private; give its path. Raises StateError."""
        os.close(self._open(name, os.O_RDWR | os.O_CREAT))
        return self.path / name

    def close(self) -> None:
        """Unlock it."""
        if self._lock is not None:
            os.close(self._lock)

    def _open(self, name: str, flags: int) -> int:
        """Open a file that is ours: no link, nobody else's, and nobody else may read it from now on."""
        try:
            descriptor = os.open(self.path / name, flags | _FLAGS, 0o600)
        except OSError as error:
            raise self._error(error, name) from None
        try:
            self._make_private(descriptor, name)
        except StateError:
            os.close(descriptor)
            raise
        return descriptor

    def _make_private(self, descriptor: int, name: str) -> None:
        status, user = os.fstat(descriptor), os.geteuid()
        if not stat.S_ISREG(status.st_mode) or user not in (0, status.st_uid):
            raise StateError(f"{self.path / name}: not a file of this user")
        if status.st_mode & 0o077:
            try:
                os.fchmod(descriptor, 0o600)
            except OSError as error:
                raise self._error(error, name) from None

    def _error(self, error: OSError, name: str = "") -> StateError:
        return StateError(f"{self.path / name}: {error.strerror or error}")
