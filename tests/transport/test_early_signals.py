"""Signals in the first second of a command's life, each at a point of the start that the test chooses."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transport.host.early_signals import Wishes, came, held

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0

AT_IMPORT = """
import os, sys

class Kill:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            for number in {numbers}:
                os.kill(os.getpid(), number)

sys.meta_path.insert(0, Kill())
sys.argv = ["vmrelay", *{words}]
from vmrelay.__main__ import main
sys.exit(main())
"""
"""A command that gets signals from itself as it begins to load a module."""

POINTS = ["relay.main", "relay.settings", "transport.web.web_listener"]
"""Modules that are loaded first of all, early and late."""


class Started:
    """A command that was started so."""

    def __init__(self, module, numbers, *words):
        code = AT_IMPORT.format(module=module, numbers=[int(n) for n in numbers], words=list(map(str, words)))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        self.output = ""

    def says(self, pattern):
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.output):
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"{pattern!r} was never said:\n{self.output}"
            self.output += data.decode()

    def ends(self):
        rest, _ = self.process.communicate(timeout=PATIENCE)
        self.output += rest.decode()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def relay(module, *numbers):
    return Started(module, numbers, "--bind", "127.0.0.1", "--port", "0")


@pytest.mark.parametrize("module", POINTS)
def test_a_relay_that_still_starts_reads_its_certificate_and_counts_when_it_is_up(module):
    with relay(module, signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP) as started:
        started.says("var relay = ")
        started.says("counters:")
        started.says("the certificate has not changed")
        started.process.send_signal(signal.SIGTERM)
        assert started.ends() == 0
        assert "Traceback" not in started.output
        assert started.output.count("the certificate has not changed") == 1


@pytest.mark.parametrize("module", POINTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_that_still_starts_is_stopped_at_once_and_well(module, number):
    with relay(module, number) as started:
        assert started.ends() == 0
        assert started.output == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_attach_that_still_starts_leaves_or_counts(number, tmp_path):
    words = ("attach", "--qemu", tmp_path / "no folder" / "socket", "--insecure", "https://127.0.0.1:1/")
    with Started("guest.qemu", [number], *words) as started:
        status = started.ends()
        if number == signal.SIGUSR1:
            assert "counters: {}" in started.output
            assert status == 2, "it went on, to where it found no such folder"
        else:
            assert (status, started.output) == (0, "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_shell_that_still_starts_leaves(number, status):
    with Started("guest.vm_client", [number], "shell", "-c", "0", "https://127.0.0.1:1/") as started:
        assert started.ends() == status
        assert started.output == ""


def test_a_shell_counts_instead_of_dying(live_relay):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1); print('still here')"
    words = ("shell", "--cert-hash", live_relay.hash, "-c", code, live_relay.url)
    with Started("guest.vm_client", [signal.SIGUSR1], *words) as started:
        assert started.ends() == 0
        assert started.output.count("counters: {") == 2
        assert "still here" in started.output


def test_attach_ends_well_when_its_terminal_is_closed(tmp_path):
    words = ("attach", "--qemu", tmp_path / "nic", "--insecure", "https://127.0.0.1:1/")
    with Started("no such module", [], *words) as started:
        started.says("nic: ")
        started.process.send_signal(signal.SIGHUP)
        assert started.ends() == 0
        assert "Traceback" not in started.output


def test_what_nohup_has_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with held(Wishes({signal.SIGHUP: 0}, ())):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not came(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_noted_signal_is_told_once_and_everything_is_as_before_at_the_end():
    handlers = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    with held(Wishes({signal.SIGTERM: 3}, (signal.SIGUSR1,))):
        assert not came(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert (came(signal.SIGUSR1), came(signal.SIGUSR1)) == (True, False)
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGTERM)
        assert left.value.code == 3
        assert came(signal.SIGTERM), "for the case that the exception was swallowed"
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)] == handlers
