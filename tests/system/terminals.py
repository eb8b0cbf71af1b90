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

from processes import PATIENCE, ROOT


class Terminal:
    """A shell in a pseudo-terminal, with somebody typing."""

    def __init__(self, *words):
        """Run ``vmrelay shell`` with these words behind it."""
        self._ours, theirs = pty.openpty()
        # Wide, so that what is typed is echoed as it is and not scrolled.
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, 500, 0, 0))
        command = (sys.executable, "-m", "relay.main", "shell", *map(str, words))
        self._process = subprocess.Popen(
            # In a session of its own whose terminal this is: Ctrl-C becomes a signal there.
            ["setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=os.environ | {"TERM": "dumb", "VMRELAY_CONSOLE": "plain", "XDG_STATE_HOME": "/nonexistent"},
        )
        os.close(theirs)
        self._unread = ""
        self.banner = self.expect(">>> ")

    def expect(self, wanted):
        """Read until ``wanted`` has been shown; return what came before it."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self._unread:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} never came; there was {self._unread!r}"
            if select.select([self._ours], [], [], left)[0]:
                try:
                    self._unread += os.read(self._ours, 65536).decode()
                except OSError:
                    raise AssertionError(f"ended before {wanted!r}: {self._unread!r}") from None
        before, _, self._unread = self._unread.partition(wanted)
        return before.replace("\r\n", "\n")

    def type(self, text):
        os.write(self._ours, text.encode())

    def ask(self, line):
        """Type a line; return what it printed."""
        self.type(line + "\n")
        self.expect(line + "\r\n")
        return self.expect(">>> ")

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self):
        """Wait for the end, reading all the while as a terminal does; return the exit status."""
        with contextlib.suppress(OSError):
            while os.read(self._ours, 65536):
                pass
        return self._process.wait(PATIENCE)

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)
