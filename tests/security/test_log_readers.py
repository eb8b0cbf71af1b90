"""Readers of the log that stop reading: a neighbour keeps all its pings, and the relay ends when told."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal

from guests import Guest
from processes import Relay
from watch import spares_the_neighbour

PIPE_BYTES = 4096
ROUNDS = 20


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
