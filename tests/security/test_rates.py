"""A session that wants more than its rate: it gets that and no more, and a neighbour notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from types import SimpleNamespace

import pytest
from guests import Guest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import ROOT, Relay
from transfers import download, stream, tell, upload
from watch import spares_the_neighbour

OUTSIDE = "10.99.2.2"
RATE = 8_000_000
SIZE = 2_000_000
"""Bytes; at the rate they take two seconds."""


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        relay_namespace, outside = Namespace("raterelay"), Namespace("rateout")
        stack.callback(relay_namespace.delete)
        stack.callback(outside.delete)
        connect(relay_namespace, "10.99.2.1/24", outside, f"{OUTSIDE}/24")
        relay = Relay("--allow-cidr", "10.99.2.0/24", "--bit-rate", "8M", before=relay_namespace.prefix)
        stack.callback(relay.stop)
        servers = outside.start(sys.executable, ROOT / "tests/system/tcp_server.py", OUTSIDE)
        stack.callback(servers.stop)
        ports = {name: int(servers.wait_for(rf"{name} on port (\d+)")[1]) for name in ("source", "sink")}
        guest = KernelGuest("rate", relay, relay_namespace)
        stack.callback(guest.leave)
        yield SimpleNamespace(relay=relay, guest=guest, **ports)
        assert "Traceback" not in relay.output


def test_a_download_takes_its_time_and_loses_nothing(lab):
    before, begun = lab.relay.counters(), time.monotonic()
    assert download(lab.guest, (OUTSIDE, lab.source), SIZE) == tell(SIZE)
    taken = time.monotonic() - begun
    assert 0.9 * SIZE * 8 / RATE < taken < 2 * SIZE * 8 / RATE
    assert (lab.relay.counters() - before)["peer.drop.rate_to_client"] == 0


def test_an_upload_takes_its_time(lab):
    begun = time.monotonic()
    assert upload(lab.guest, (OUTSIDE, lab.sink), SIZE) == hashlib.sha256(stream(SIZE)).hexdigest()
    assert time.monotonic() - begun > 0.9 * SIZE * 8 / RATE


def test_the_limits_are_told_at_start(lab):
    assert "limits of each session: 8000000 bits/s and any number of packets/s each way" in lab.relay.output


def test_packets_above_the_rate_are_dropped_and_a_neighbour_notices_nothing():
    relay = Relay("--packet-rate", "500")

    async def attack():
        begun = time.monotonic()
        sender, receiver = await Guest.join(relay), await Guest.join(relay)
        header = bytes.fromhex((receiver.mac + sender.mac).replace(":", "")) + b"\x88\xb5"
        for _ in range(200):
            sender.send_frames([header + bytes(100)] * 50)
            await sender.client.wait_writable()
            await asyncio.sleep(0.002)
        sender.client.close()
        receiver.client.close()
        return time.monotonic() - begun

    seconds = spares_the_neighbour(relay, attack)
    counters = relay.counters()
    assert counters["peer.drop.rate_from_client"] > 10_000 - 500 * (seconds + 1)
    relay.stop()
    assert "Traceback" not in relay.output
