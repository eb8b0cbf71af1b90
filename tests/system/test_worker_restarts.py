"""Workers that are lost or replaced, under a Linux kernel that has a download under way at another one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import PATIENCE, ROOT
from transfers import connection, tell
from waiting import wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket
from worker_relays import Guests, Workers, play

from transport.certificates import generate

OUTSIDE = "10.99.8.2"
SIZE, FIRST = 3_000_000, 100_000
"""Bytes of a download, and of what is read of it before anything happens; it waits, for nobody reads on."""


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        host, outside = Namespace("workhost"), Namespace("workout")
        stack.callback(host.delete)
        stack.callback(outside.delete)
        connect(host, "10.99.8.1/24", outside, f"{OUTSIDE}/24")
        relay = Workers("--allow-cidr", "10.99.8.0/24", before=host.prefix)
        stack.callback(relay.stop)
        server = outside.start(sys.executable, ROOT / "tests/system/tcp_server.py", OUTSIDE)
        stack.callback(server.stop)
        source = (OUTSIDE, int(server.wait_for(r"source on port (\d+)")[1]))
        guest = stack.enter_context(guest_of_worker(1, relay, host))
        yield SimpleNamespace(relay=relay, source=source, guest=guest)


@contextlib.contextmanager
def guest_of_worker(worker, relay, host):
    """Have guests join until one is at this worker."""
    with contextlib.ExitStack() as stack:
        number = 0
        while True:
            guest = KernelGuest(f"work{number}", relay, host)
            stack.callback(guest.leave)
            relay.wait_for(f'registered {guest.mac} as {guest.address}"')
            if relay.worker_of(guest.address) == worker:
                yield guest
                return
            number += 1


class Download:
    """One that is read when the test wants it."""

    def __init__(self, opened):
        self._opened = opened
        self._digest = hashlib.sha256()
        self._size = 0
        opened.sendall(f"{SIZE}\n".encode())

    def read(self, size):
        while self._size < size:
            data = self._opened.recv(min(1 << 16, size - self._size))
            assert data, "it broke"
            self._digest.update(data)
            self._size += len(data)

    def told(self):
        self.read(SIZE)
        return self._size, self._digest.hexdigest()


def test_a_download_goes_on_when_another_worker_is_killed(lab):
    with connection(lab.guest, lab.source) as opened:
        download = Download(opened)
        download.read(FIRST)
        os.kill(lab.relay.pid_of(0), signal.SIGKILL)
        lab.relay.is_again(0)
        assert download.told() == tell(SIZE)


def test_workers_are_replaced_one_by_one_and_only_their_own_guests_move(lab):
    relay = lab.relay
    before = [relay.pid_of(worker) for worker in (0, 1)]
    with connection(lab.guest, lab.source) as opened:
        download = Download(opened)
        download.read(FIRST)
        relay.signal(signal.SIGUSR2)
        relay.wait_for("worker 0 is replaced")
        wait_until(lambda: not Path(f"/proc/{before[0]}").exists())
        assert download.told() == tell(SIZE)
    relay.wait_for("all workers have been replaced")
    assert not {relay.pid_of(worker) for worker in (0, 1)} & set(before)
    lab.guest.wait_for_news(rf"attached to .*address {lab.guest.address}/24", count=2)
    assert lab.guest.ping(lab.guest.gateway)[0] == 5
    assert "started again" not in relay.output.partition("worker 0 is replaced")[2]


def test_a_certificate_and_settings_that_are_reloaded_are_those_of_all_workers(tmp_path):
    def write():
        certificate = generate(["127.0.0.1"], datetime.now(UTC))
        (tmp_path / "key.pem").write_bytes(certificate.private_key_pem())
        (tmp_path / "chain.pem").write_bytes(certificate.chain_pem())
        return certificate.sha256

    config = tmp_path / "vmrelay.toml"
    config.write_text("")
    write()
    files = ("--cert-pem", tmp_path / "chain.pem", "--key-pem", tmp_path / "key.pem", "--config", config)
    relay = Workers(*files)
    try:
        relay.hash = write()
        config.write_text('max-rooms = 1\ndomain = "lab.example"\n')
        relay.signal(signal.SIGHUP)
        relay.wait_for(f"new certificate for new sessions: {relay.hash}")
        relay.wait_for("other settings are in force: max-rooms")
        relay.wait_for("these settings need a restart: domain")

        async def scenario():
            async with Guests(relay) as guests:
                await guests.join_both()

        play(scenario)
        for _ in range(6):  # by whichever worker accepts
            with pytest.raises(InvalidStatus):
                websocket(f"ws://127.0.0.1:{relay.port}/room/lab")
    finally:
        relay.stop()


def test_who_comes_by_websocket_is_taken_by_whichever_worker_can():
    relay = Workers()
    held = (relay.pid, relay.pid_of(0))  # the supervisor too, which would have another in the worker's place
    try:
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(8):
            with websocket(f"ws://127.0.0.1:{relay.port}/", open_timeout=PATIENCE) as client:
                assert client.ping().wait(PATIENCE)
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        relay.stop()


READS = "dac_read_search"
"""The one capability that is left to nobody: the interpreter may be in a home folder."""
NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"),
    *(f"--{kind}=-all,+{READS}" for kind in ("inh-caps", "ambient-caps", "bounding-set")),
)


def test_no_privilege_is_needed():
    relay = Workers(before=NOBODY, environment={"XDG_RUNTIME_DIR": ""})
    try:
        status = Path(f"/proc/{relay.pid_of(0)}/status").read_text()
        assert re.search(r"^Uid:\s+65534\b", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+4$", status, re.MULTILINE)

        async def scenario():
            async with Guests(relay) as guests:
                await guests.join_both()

        play(scenario)
        assert relay.counters()["endpoint.passed_on"] == 0
    finally:
        relay.stop()
