"""Where the admin API is: a unix socket that only the relay's own user can use, or an address with a token.

By default each relay has a socket named after its UDP port in a folder of its user: that of the service
(systemd's RUNTIME_DIRECTORY), ``/run/vmrelay`` for root, else one in XDG_RUNTIME_DIR or, without that, in the
folder for temporary files, or its state folder (STATE_DIRECTORY): a container may be read-only otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netstack.family import endpoint_text
from relay.home import at_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

AUTO, NONE = "auto", "none"

BACKLOG = 64

OF_ROOT = Path("/run/vmrelay")
"""Folder of root's relays, and of a service of that name."""

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>[0-9]{1,5})")


LOCKED_FOR = 1.0
"""Seconds for which a folder that another process has locked is waited for, at a start."""

_NAME = re.compile(r"[0-9]{1,5}(-[0-9]+)?\.sock")
"""Of the sockets that relays name themselves."""


class PlaceError(Exception):
    """The admin socket cannot be there; the message is one line."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address."""

    host: str
    port: int

    def __str__(self) -> str:
        return endpoint_text(self.host, self.port)


def parse_place(text: str) -> str | Path | Address:
    """Read ``auto``, ``none``, a socket's path, HOST:PORT or, as for commands, its URL. Raises ValueError."""
    if text in {AUTO, NONE}:
        return text
    scheme, mark, rest = text.partition("://")
    if mark:
        if scheme.lower() == "https":  # in clear, where the operator thought of TLS
            raise ValueError("there is no TLS: http://ADDRESS:PORT, and from elsewhere through ssh -L")
        text = rest.removesuffix("/") if scheme.lower() == "http" else ""
    if "/" in text and not mark:
        return at_home(text)
    match = _ADDRESS.fullmatch(text)
    if match and int(match["port"]) < 1 << 16:
        return Address(match["host"].strip("[]"), int(match["port"]))
    raise ValueError("must be auto, none, the path of a socket (with a /), or ADDRESS:PORT")


def folders(environment: Mapping[str, str]) -> Iterator[Path]:
    """List where relays of this user have their sockets, the best place first."""
    if service := environment.get("RUNTIME_DIRECTORY"):
        yield Path(service.partition(":")[0])
    if os.geteuid() == 0:
        yield OF_ROOT
    elif session := environment.get("XDG_RUNTIME_DIR"):
        yield Path(session) / "vmrelay"
    if state := environment.get("STATE_DIRECTORY"):
        yield Path(state.partition(":")[0])
    with contextlib.suppress(FileNotFoundError):  # where nothing is writable there is none
        yield Path(tempfile.gettempdir()) / f"vmrelay-{os.geteuid()}"


def default_path(port: int, environment: Mapping[str, str]) -> Path:
    """Return the socket's path for the relay at a UDP port; its folder is made. Raises PlaceError."""
    problems = []
    for folder in folders(environment):
        try:
            _make_private(folder)
        except (OSError, PlaceError) as error:
            problems.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
        else:
            return folder / f"{port}.sock"
    raise PlaceError("; ".join(problems))


def _make_private(folder: Path) -> None:
    """Make a folder that is ours alone, or see that it is: in /tmp another user may have been faster."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PlaceError("belongs to somebody else")
    if found.st_mode & 0o022:
        raise PlaceError("others can write there")
    if not os.access(folder, os.W_OK):
        raise PlaceError("cannot be written")


def listen(path: Path) -> socket.socket:
    """Listen at a path, in place of a socket that a killed relay left behind. Raises PlaceError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone_in(path.parent):
            _bind(listener, path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, PlaceError) as error:
        listener.close()
        raise PlaceError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    if is_live(path):
        raise PlaceError("another relay listens there")
    if path.is_socket():
        path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def sweep(folder: Path) -> None:
    """Remove the sockets that killed relays of this user have left in a folder, and nothing else."""
    with _alone_in(folder), contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                found = path.lstat()
                is_ours = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()
                if is_ours and _NAME.fullmatch(path.name) and _probe(path) == errno.ECONNREFUSED:
                    path.unlink()


def _lock(descriptor: int) -> None:
    """Lock a folder; what relays do with one takes far less time than is waited for it."""
    last = time.monotonic() + LOCKED_FOR
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= last:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other relays from opening and removing sockets in a folder meanwhile.

    A folder that cannot be locked is another's, or of a file system without locks: no reason not to go on.
    Nor is one that anybody may lock, as that for temporary files, and that somebody keeps locked.
    """
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        _lock(descriptor)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_live(path: Path) -> bool:
    """Whether a process has a path's socket open; it notices nothing of being asked."""
    return _probe(path) in {0, errno.EPROTOTYPE}


def _probe(path: Path) -> int:
    """Connect to a path by datagrams; return the number of the error.

    A stream socket refuses that with EPROTOTYPE before anything becomes of it, one that nobody has open any
    more with ECONNREFUSED (connect(2), POSIX).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            return probe.connect_ex(str(path))
        except OSError as error:  # a path that is too long
            return error.errno or errno.EINVAL


def find(environment: Mapping[str, str], port: int | None = None) -> list[Path]:
    """List the sockets of this user's relays that run, or of the one at a UDP port."""
    name = "*.sock" if port is None else f"{port}.sock"
    paths = [path for folder in folders(environment) if _is_dir(folder) for path in sorted(folder.glob(name))]
    return [path for path in dict.fromkeys(paths) if is_live(path)]


def is_closed_to_us(folder: Path) -> bool:
    """Whether a folder is there that this user may not look into: others may have their sockets there."""
    return _is_dir(folder) and not os.access(folder, os.R_OK | os.X_OK)


def _is_dir(folder: Path) -> bool:
    """Whether a folder is there, as far as can be seen: XDG_RUNTIME_DIR may still be another user's."""
    return os.path.isdir(folder)  # noqa: PTH112 - Path.is_dir raises PermissionError before Python 3.14
