"""A folder of one running relay: its workers' sockets are there, which nobody else may reach."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from relay.admin_place import PlaceError, default_path, is_live

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 92
"""Characters of its path: with a socket's name behind it there are 108 at most (unix(7))."""

_PREFIX = "workers-"


def make(port: int, environment: Mapping[str, str]) -> Path:
    """Make one, of mode 0700, where the admin sockets of this user are. Raises PlaceError."""
    base = default_path(port, environment).parent
    _remove_stale(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
    if len(str(folder)) > LONGEST:
        folder.rmdir()
        raise PlaceError(f"{folder}: this path is too long for sockets")
    return folder


def remove(folder: Path) -> None:
    """Remove it, with the sockets that killed workers have left."""
    shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(base: Path) -> None:
    """Remove those of relays that were killed."""
    for folder in base.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        # A process of another container, which shares the folder, is not in /proc.
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and not any(map(is_live, folder.iterdir())):
            remove(folder)
