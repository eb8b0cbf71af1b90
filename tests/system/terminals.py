"""Somebody at a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from types import MappingProxyType

from processes import PATIENCE, ROOT

SHOWN = 2000
"""Characters of what there was instead of what was expected."""


class Terminal:
    """A command in a pseudo-terminal, with somebody typing."""

    rows, columns = 24, 80
    environment = MappingProxyType({"TERM": "xterm-256color"})

    def __init__(self, *words):
        """Run ``vmrelay`` with these words behind it."""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", self.rows, self.columns, 0, 0))
        command = (sys.executable, "-m", "relay.main", *map(str, words))
        self._process = subprocess.Popen(
            # In a session of its own whose terminal this is: Ctrl-C becomes a signal there.
            ["setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=os.environ | self.environment,
        )
        os.close(theirs)
        self._unread = ""

    def expect(self, wanted):
        """Read until ``wanted`` has been shown; return what came before it."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self._unread:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} never came; at last there was {self._unread[-SHOWN:]!r}"
            if select.select([self._ours], [], [], left)[0]:
                try:
                    self._unread += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"ended before {wanted!r}: {self._unread[-SHOWN:]!r}") from None
        before, _, self._unread = self._unread.partition(wanted)
        return before.replace("\r\n", "\n")

    def type(self, text):
        os.write(self._ours, text.encode())

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self):
        """Wait for the end, reading all the while as a terminal does; return the exit status."""
        with contextlib.suppress(OSError):
            while came := os.read(self._ours, 65536):
                self._unread += came.decode(errors="replace")
        return self._process.wait(PATIENCE)

    @property
    def unread(self):
        """What was shown and not expected."""
        return self._unread.replace("\r\n", "\n")

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)


class Shell(Terminal):
    """``vmrelay shell``, with somebody typing."""

    # Wide, so that what is typed is echoed as it is and not scrolled.
    rows, columns = 50, 500
    environment = MappingProxyType(
        {"TERM": "dumb", "VMRELAY_CONSOLE": "plain", "XDG_STATE_HOME": "/nonexistent"}
    )

    def __init__(self, *words):
        super().__init__("shell", *words)
        self.banner = self.expect(">>> ")

    def ask(self, line):
        """Type a line; return what it printed."""
        self.type(line + "\n")
        self.expect(line + "\r\n")
        return self.expect(">>> ")
