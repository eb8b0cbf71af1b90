"""Programs as the tests run them: their output is read as it comes, and waited for without sleeping."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0
"""Seconds that anything may take before a test gives up on it; nothing is expected to need them."""

KEPT_LINES = 10_000

DEFAULTS = {"VMRELAY_STATE": "none", "VMRELAY_DRAIN_TIMEOUT": "0"}
"""Of relays that no test has another wish for: they leave nothing, and end at once."""


_ports = itertools.count(os.getpid() * 16)


def free_port():
    """Give a port that nobody has, UDP and TCP, of those that systems give to nobody by themselves."""
    while True:
        port = 10_000 + next(_ports) % 10_000
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                stack.enter_context(socket.socket(socket.AF_INET, kind)).bind(("", port))
            return port


class Program:
    """A running program; its output (both streams) is collected line by line."""

    def __init__(self, *command, environment=None, stdin=subprocess.DEVNULL):
        self.command = [str(word) for word in command]
        self._lines = deque(maxlen=KEPT_LINES)
        self._changed = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            self.command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | DEFAULTS | (environment or {}),
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self._process.pid

    @property
    def output(self):
        with self._changed:
            return "\n".join(self._lines)

    @property
    def running(self):
        return self._process.poll() is None

    def wait_for(self, pattern, *, patience=PATIENCE, count=1):
        """Wait until ``count`` lines match ``pattern``; give the match of the last of them."""
        deadline = time.monotonic() + patience
        with self._changed:
            while True:
                matches = [match for line in self._lines if (match := re.search(pattern, line))]
                if len(matches) >= count:
                    return matches[count - 1]
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._changed.wait(left):
                    said = "\n".join(self._lines)
                    until = "until it ended" if self._ended else f"within {patience:.0f} s"
                    raise AssertionError(
                        f"{self.command} never said {pattern!r} {count} times {until}:\n{said}"
                    )

    def wait(self, *, patience=PATIENCE):
        """Wait for the end; give the exit status."""
        status = self._process.wait(patience)
        self._reader.join(PATIENCE)
        return status

    def signal(self, number):
        self._process.send_signal(number)

    def say(self, line):
        """Write a line to the program's input, which must be a pipe."""
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def stop(self):
        """End it, gently first; fine when it has ended already."""
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()
        self._process.stdout.close()

    def _read(self):
        with self._process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def run(*command, patience=PATIENCE, check=True, **options):
    """Run to the end; give the completed process, its output as text. A failure shows what was said."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=patience, check=False, **options
    )
    if check and done.returncode:
        raise AssertionError(f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


THIS_TREE = (sys.executable, "-m", "relay.main")


def memory_of(pid):
    """Resident bytes of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


class Door(NamedTuple):
    """Where guests come in."""

    url: str
    hash: str


class Relay(Program):
    """A relay of this tree, or another ``program``, on a port of its own choice."""

    def __init__(self, *options, bind="127.0.0.1", before=(), environment=None, program=THIS_TREE):
        """Leave ``bind`` None for what the relay does by itself."""
        super().__init__(
            *before,
            *program,
            *(() if bind is None else ("--bind", bind)),
            "--port",
            0,
            "--log-format",
            "json",
            *options,
            environment=environment,
        )
        self._asked = 0
        try:
            self.hash = self.wait_for(r"Certificate SHA-256 Hash: ([0-9a-f]{64})$")[1]
            self.host, port = self.wait_for(r"Listening on https://(\S+):(\d+)$").groups()
            self.port = int(port)
        except AssertionError:
            self.stop()
            raise

    @property
    def url(self):
        return self.url_at(self.host)

    def url_at(self, host):
        return f"https://{host}:{self.port}/"

    def room(self, name, query=""):
        """Give the door of a room; guests take it in the relay's stead."""
        return Door(f"{self.url}room/{name}{query}", self.hash)

    def counters(self):
        """Its totals at this moment; those that are zero still are not in it."""
        self._asked += 1
        self.signal(signal.SIGUSR1)
        line = self.wait_for('"message": "counters:"', count=self._asked).string
        return Counter(json.loads(line)["fields"])

    @property
    def memory(self):
        """Resident bytes."""
        return memory_of(self.pid)

    @property
    def cpu_seconds(self):
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
