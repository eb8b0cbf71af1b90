"""What tells one attached network card from all others, on this machine and on others, and stays the same.

MACs are made of it for guests that have QEMU's default one: a card that comes again, after a restart of this
program or of the machine behind it, gets the same MAC and by that the same address.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
"""Where a machine keeps what tells it from others (machine-id(5)); containers may share one, or have none."""


def of_socket(path: str) -> bytes:
    """Name the card behind a unix socket at ``path``."""
    where = Path(path).absolute()
    return _joined("socket", where, _inode(where.parent))


def of_device(name: str, namespace: Path) -> bytes:
    """Name the card that is device ``name`` in a network namespace, given as the file that stands for it."""
    return _joined("device", name, namespace, _inode(namespace))


def _joined(*parts: object) -> bytes:
    identity = ""
    for path in MACHINE_IDS:
        with contextlib.suppress(OSError, ValueError):
            identity = identity or path.read_text().strip()
    return "\0".join(map(str, (identity, socket.gethostname(), *parts))).encode("utf-8", "surrogateescape")


def _inode(path: Path) -> str:
    """Tell what has one name in two containers apart; empty where nothing has that name."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"
