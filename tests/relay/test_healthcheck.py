from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import free_port

from relay.healthcheck import Process, processes, speaks_quic

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


def check(*words, **environment):
    """The command as it is; what it says and its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "relay.main", "healthcheck", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=PATIENCE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


class Running:
    """A relay, with the working directory and the environment that a test gives it."""

    def __init__(self, *words, cwd=ROOT, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay.main", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            text=True,
        )
        while not (line := self.process.stdout.readline()).startswith("Listening on "):
            if not line:
                self.process.communicate()
                raise AssertionError("it ended")
        self.port = int(line.rpartition(":")[2])
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


HOW = {
    "by a flag": lambda port, folder: (["--port", port], {}),
    "by a flag with =": lambda port, folder: (["serve", f"--port={port}", "--bind=127.0.0.1"], {}),
    "by the environment": lambda port, folder: ([], {"VMRELAY_PORT": str(port)}),
    "by a file": lambda port, folder: (["--config", folder / "relay.toml"], {}),
    "by a file, from its own folder": lambda port, folder: (["--config", "relay.toml"], {}),
    "by a file that the environment names": lambda port, folder: ([], {"VMRELAY_CONFIG": "relay.toml"}),
    "by a file in the home": lambda port, folder: (["--config=~/relay.toml"], {"HOME": str(folder)}),
    "by a flag, over the environment": lambda port, folder: (["--port", port], {"VMRELAY_PORT": "9"}),
    "by the kernel": lambda port, folder: (["--port", "0", "--forward", f"udp::{port}:web:80"], {}),
    "by the kernel, and no TCP": lambda port, folder: (["--port", "0", "--web", "off"], {}),
    "at another address": lambda port, folder: (["--port", port, "--bind", "127.0.0.9"], {}),
    "at an IPv6 address": lambda port, folder: (["--port", port, "--bind", "::1"], {}),
    "at all addresses": lambda port, folder: (["--port", port, "--bind", "::"], {}),
    "at a name": lambda port, folder: (["--port", port, "--bind", "localhost"], {}),
}


@pytest.mark.parametrize("how", HOW)
def test_a_relay_is_found_wherever_it_was_told_to_listen(how, tmp_path):
    port = free_port()
    (tmp_path / "relay.toml").write_text(f"port = {port}\n")
    words, environment = HOW[how](port, tmp_path)
    with Running(*words, cwd=tmp_path, **environment) as relay:
        status, said = check("--pid", relay.pid, HOME=environment.get("HOME", os.environ.get("HOME", "")))
        assert said.rstrip().endswith(f" port {relay.port} speaks QUIC")
        assert status == 0


def test_a_relay_that_hangs_is_not_healthy_and_one_that_goes_on_is():
    with Running("--port", 0, "--bind", "127.0.0.1") as relay:
        relay.process.send_signal(signal.SIGSTOP)
        status, said = check("--pid", relay.pid)
        assert (status, said) == (1, f"vmrelay: error: nobody speaks QUIC at 127.0.0.1 port {relay.port}\n")
        relay.process.send_signal(signal.SIGCONT)
        assert check("--pid", relay.pid)[0] == 0


def test_what_is_named_is_asked_and_nothing_else():
    with Running("--port", 0, "--bind", "127.0.0.1") as relay:
        assert check("--bind", "127.0.0.1", "--port", relay.port)[0] == 0
        assert check("--pid", relay.pid, "--port", free_port())[0] == 1


def test_an_ipv6_address_may_stand_in_brackets():
    with Running("--port", 0, "--bind", "[::1]") as relay:
        assert check("--bind", "[::1]", "--port", relay.port)[0] == 0


def test_programs_are_told_as_json():
    with Running("--port", 0, "--bind", "127.0.0.1") as relay:
        asked = [{"host": "127.0.0.1", "port": relay.port}]
        for extra, ok in (([], True), (["--port", relay.port + 1], False)):
            status, said = check("--json", "--pid", relay.pid, *extra)
            told = json.loads(said)
            assert (status, told.pop("ok")) == (0 if ok else 1, ok)
            assert (told["asked"] == asked) == ok
            assert f"port {relay.port + (not ok)}" in told["told"]


@pytest.mark.parametrize("words", [("--port", "70000"), ("--port", "-1"), ("--bind", "a..b", "--port", "1")])
def test_what_cannot_be_asked_is_not_healthy(words):
    assert check(*words)[0] == 1


def test_a_process_that_is_no_relay_is_said_to_be_none():
    assert check("--pid", os.getpid()) == (1, f"vmrelay: error: process {os.getpid()} is no relay\n")


def test_who_answers_anything_else_does_not_speak_quic():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        port = server.getsockname()[1]
        echo = threading.Thread(target=lambda: server.sendto(*server.recvfrom(2048)))
        echo.start()
        assert not speaks_quic("127.0.0.1", port)
        echo.join()
        assert not speaks_quic("127.0.0.1", port, 0.05), "it is silent"
    assert not speaks_quic("127.0.0.1", port), "it is gone, which ICMP tells"


# -- which process it is ------------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path):
    """A /proc with processes of the test's choice."""

    def make(*commands):
        for pid, words in enumerate(commands, start=1):
            (tmp_path / str(pid)).mkdir()
            (tmp_path / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (tmp_path / "self").mkdir()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["/opt/vmrelay/bin/python3", "/opt/vmrelay/bin/vmrelay", "--port", "5"], ["--port", "5"]),
        (["python3.13", "-u", "-X", "dev", "/usr/bin/vmrelay"], []),
        (["python3", "-m", "relay.main", "serve", "--port=5"], ["--port=5"]),
        (["/venv/bin/python", "-I", "-m", "vmrelay", "--port", "5"], ["--port", "5"]),
        (["python3", "-m", "vmrelay", "status"], None),
        (["python3", "-m", "http.server", "vmrelay"], None),
        (["python3", "-m"], None),
        (["/usr/bin/vmrelay", "--port", "5"], ["--port", "5"]),
        (["python3", "/usr/bin/vmrelay", "attach", "--tap", "t"], None),
        (["python3", "/usr/bin/vmrelay", "healthcheck"], None),
        (["python3", "build.py", "/src/vmrelay"], None),
        (["sh", "-c", "vmrelay --port 5"], None),
        (["tini", "--", "vmrelay", "--port", "5"], None),
        (["python3"], None),
        (["python3", "-X"], None),
        ([], None),
    ],
)
def test_a_relay_is_told_from_other_processes_by_how_it_was_started(proc, words, flags):
    found = list(processes(proc(words)))
    assert found == ([] if flags is None else [Process(1, flags)])


def test_the_first_process_counts_or_the_one_behind_an_init(proc):
    relay = ["python3", "/opt/vmrelay/bin/vmrelay", "--port", "5"]
    assert next(processes(proc(["docker-init", "--", *relay[1:]], relay, relay))).pid == 2


def test_a_system_without_proc_tells_of_no_process(tmp_path):
    assert list(processes(tmp_path / "proc")) == []
