"""The name server of a device, told to this machine's resolver and taken back at the end.

For a network namespace with a name it is ``/etc/netns/NAME/resolv.conf``, which ``ip netns exec`` puts in the
place of ``/etc/resolv.conf`` (ip-netns(8)); elsewhere systemd-resolved's setting of the link.
``/etc/resolv.conf`` itself is the machine's and left alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from netstack.dns_zone import LAN_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address

FOLDERS = Path("/etc/netns")
NAMES = (Path("/run/netns"), Path("/var/run/netns"))
"""Where a path is as good as the name that it ends with (ip-netns(8))."""
RESOLVED = Path("/run/systemd/resolve")
"""There while systemd-resolved runs."""
MARK = "# Written by vmrelay attach, which removes it when it ends"
PATIENCE = 5.0
"""Seconds for systemd-resolved's answer."""
_LARGEST = 4096
"""Bytes read of a file that may be ours; ours are shorter."""


class Resolver:
    """Sets the name server of one device; what it did is undone by ``close``."""

    def __init__(self, device: str, namespace: str | None, say: Callable[[str], None]) -> None:
        """``namespace`` is a name of ``ip netns``, a path, or None; ``say`` gets what went wrong."""
        self._device = device
        self._namespace = namespace
        self._say = say
        self._file = _file_of(namespace)
        self._content = ""
        self._made_folder = False
        self._asking: threading.Thread | None = None

    def set(self, server: IPv4Address, domain: str = LAN_DOMAIN) -> None:
        """Use ``server``, and look for short names in ``domain``.

        systemd-resolved is told by a thread, for its answer may take a while.
        """
        if self._file is not None:
            try:
                self._write(self._file, server, domain)
            except OSError as error:
                self._say(f"the name server {server} is not set: {error}")
        elif self._namespace is None and RESOLVED.is_dir() and shutil.which("resolvectl"):
            self._asking = threading.Thread(target=self._tell_resolved, args=(server, domain, self._asking))
            self._asking.start()
        else:
            self._say(f"the name server {server} is not set: /etc/resolv.conf is left alone")

    def _tell_resolved(self, server: IPv4Address, domain: str, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        try:
            self._resolvectl("dns", str(server))
            self._resolvectl("domain", domain)
        except (OSError, subprocess.SubprocessError) as error:
            self._say(f"the name server {server} is not set: {error}")

    def close(self) -> None:
        """Undo what ``set`` did, unless somebody else has changed it since."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if self._file is not None and self._content and _read(self._file) == self._content:
                self._file.unlink()
                if self._made_folder:
                    self._file.parent.rmdir()
            if self._asking is not None:
                self._asking.join()
                self._resolvectl("revert")

    def _write(self, file: Path, server: IPv4Address, domain: str) -> None:
        content = f"{MARK} (process {os.getpid()})\nnameserver {server}\nsearch {domain}\n"
        if not file.parent.is_dir():
            file.parent.mkdir(mode=0o755, parents=True)
            self._made_folder = True
        with contextlib.suppress(FileNotFoundError):
            there = _read(file)
            if there == content:
                return
            if not there.startswith(MARK):
                self._say(f"{file} is there already and left alone; the relay's name server is {server}")
                return
            file.unlink()  # ours before, or left behind by one that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(file, flags, 0o644), "w") as opened:
            opened.write(content)
        self._content = content

    def _resolvectl(self, verb: str, *values: str) -> None:
        command = ["resolvectl", verb, self._device, *values]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)  # noqa: S603 - no shell


def _file_of(namespace: str | None) -> Path | None:
    """Tell which file ``ip netns exec`` shows in a namespace; None for one without a name."""
    if not namespace:
        return None
    path = Path(namespace)
    if "/" in namespace and path.parent not in NAMES:
        return None
    return FOLDERS / path.name / "resolv.conf"


def _read(file: Path) -> str:
    """Return the beginning of ``file``; empty for what is no regular file, such as a link. Raises OSError."""
    if file.is_symlink() or (file.exists() and not file.is_file()):
        return ""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as opened:
        return opened.read(_LARGEST).decode("utf-8", "replace")
