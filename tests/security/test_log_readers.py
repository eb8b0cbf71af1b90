"""Readers of the log that stop reading: a neighbour keeps all its pings, and the relay ends when told."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest
from guests import Guest
from processes import THIS_TREE, Program, Relay, free_port
from waiting import wait_until
from watch import spares_the_neighbour

PIPE_BYTES = 4096
ROUNDS = 20


@pytest.mark.parametrize("closed", ["<&- >&-", ">&- 2>&-"])
@pytest.mark.parametrize("workers", [1, 2])
def test_output_that_is_closed_is_no_clients(closed, workers):
    port = free_port()
    options = ("--bind", "127.0.0.1", "--port", port, "--admin", "none", "--workers", workers)
    relay = Program("sh", "-c", f'exec "$@" {closed}', "sh", *THIS_TREE, *options)
    try:
        wait_until(lambda: is_served(port))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /cert-hash HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            for number in range(3):
                there = str(Path(f"/proc/{relay.pid}/fd/{number}").readlink())
                assert not there.startswith(("socket:", "anon_inode:")), there
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        assert "Traceback" not in relay.output
    finally:
        relay.stop()


def is_served(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def test_a_pipe_that_nobody_reads(tmp_path):
    path = tmp_path / "log"
    os.mkfifo(path)
    log = os.open(path, os.O_RDWR)
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    relay = Relay("--log-level", "debug", before=("sh", "-c", 'exec "$@" 2>"$0"', path))

    async def attack():
        """Have far more logged than the pipe holds, for some seconds."""
        for _ in range(ROUNDS):
            guest = await Guest.join(relay)
            relay.signal(signal.SIGUSR1)
            guest.client.close()
            await asyncio.sleep(0.1)

    spares_the_neighbour(relay, attack)
    relay.signal(signal.SIGTERM)
    assert relay.wait(patience=5) == 0, "the end does not wait for the reader"
    relay.stop()
    os.close(log)
