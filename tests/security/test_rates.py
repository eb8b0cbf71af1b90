"""A session that wants more than its rate: it gets that and no more, and a neighbour notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from guests import Guest
from kernel_guest import KernelGuest, WebSocketKernelGuest
from namespaces import Namespace, connect
from processes import ROOT, Relay
from transfers import download, stream, tell, upload
from watch import spares_the_neighbour

OUTSIDE = {4: "10.99.2.2", 6: "fd99:2::2"}
RATE = 8_000_000
SIZE = 2_000_000
"""Bytes; at the rate they take two seconds."""


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        relay_namespace, outside = Namespace("raterelay"), Namespace("rateout")
        stack.callback(relay_namespace.delete)
        stack.callback(outside.delete)
        connect(relay_namespace, "10.99.2.1/24", outside, f"{OUTSIDE[4]}/24")
        for box, end in ((relay_namespace, 1), (outside, 2)):
            device = box.device_of(f"10.99.2.{end}")
            box.run("ip", "address", "add", f"fd99:2::{end}/64", "dev", device, "nodad")
        relay_namespace.run("ip", "-6", "route", "add", "default", "via", OUTSIDE[6])
        allowed = "10.99.2.0/24,fd99:2::/64"
        relay = Relay("--allow-cidr", allowed, "--bit-rate", "8M", before=relay_namespace.prefix)
        stack.callback(relay.stop)
        sources, sinks = {}, {}
        for version, address in OUTSIDE.items():
            servers = outside.start(sys.executable, ROOT / "tests/system/tcp_server.py", address)
            stack.callback(servers.stop)
            for found, name in ((sources, "source"), (sinks, "sink")):
                found[version] = (address, int(servers.wait_for(rf"{name} on port (\d+)")[1]))
        guests = {}
        for carrier, kind in (("WebTransport", KernelGuest), ("WebSocket", WebSocketKernelGuest)):
            guest = guests[carrier] = kind(f"rate{len(guests)}", relay, relay_namespace)
            stack.callback(guest.leave)
            settled = "until ip -6 route show default | grep -q ra; do :; done"
            guest.run("sh", "-c", f"{settled}; while ip -6 address show tentative | grep -q .; do :; done")
        third = KernelGuest("rate2", relay, relay_namespace)
        stack.callback(third.leave)
        yield SimpleNamespace(relay=relay, guests=guests, third=third, sources=sources, sinks=sinks)
        counted = relay.counters()
        dropped = counted["peer.drop.rate_from_client"], counted["peer.drop.rate_to_client"]
        assert (*dropped, counted["tcp.stalled"]) == (0, 0, 0)
        assert "Traceback" not in relay.output


CARRIERS = pytest.mark.parametrize("carrier", ["WebTransport", "WebSocket"])
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def has_the_rate(transfer):
    """Whether a transfer of SIZE bytes takes about as long as at RATE: headers cost, a burst saves some."""
    begun = time.monotonic()
    transfer()
    of_the_rate = SIZE * 8 / (time.monotonic() - begun) / RATE
    print(f"{of_the_rate:.2f} of the rate")
    return 0.8 < of_the_rate < 1.1


@CARRIERS
@VERSIONS
def test_a_download_has_the_rate(lab, carrier, version):
    def transfer():
        assert download(lab.guests[carrier], lab.sources[version], SIZE) == tell(SIZE)

    assert has_the_rate(transfer)


@CARRIERS
@VERSIONS
def test_an_upload_has_the_rate(lab, carrier, version):
    def transfer():
        sent = upload(lab.guests[carrier], lab.sinks[version], SIZE)
        assert sent == hashlib.sha256(stream(SIZE)).hexdigest()

    assert has_the_rate(transfer)


def test_uploads_together_have_the_rate_and_leave_room_for_others(lab):
    guest = lab.guests["WebTransport"]

    def transfer():
        with ThreadPoolExecutor() as pool:
            parts = [pool.submit(upload, guest, lab.sinks[4 + n % 2 * 2], SIZE // 4) for n in range(4)]
            assert guest.ping(guest.gateway, count=20)[0] == 20
            assert {part.result() for part in parts} == {hashlib.sha256(stream(SIZE // 4)).hexdigest()}

    assert has_the_rate(transfer)


def address_of(guest, version):
    """A guest's own address, of which IPv6 has one more of the link."""
    told = guest.run("ip", "-j", f"-{version}", "address", "show", "scope", "global").stdout
    return json.loads(told)[0]["addr_info"][0]["local"]


@CARRIERS
@VERSIONS
def test_tcp_from_guest_to_guest_has_the_rate(lab, carrier, version):
    sender = lab.guests[carrier]
    (receiver,) = (guest for guest in lab.guests.values() if guest is not sender)
    address = address_of(receiver, version)
    server = receiver.start(sys.executable, ROOT / "tests/system/tcp_server.py", address)
    sink = (address, int(server.wait_for(r"sink on port (\d+)")[1]))

    def transfer():
        assert upload(sender, sink, SIZE) == hashlib.sha256(stream(SIZE)).hexdigest()

    try:
        assert has_the_rate(transfer)
    finally:
        server.stop()


def test_guests_that_send_to_one_share_its_rate(lab):
    receiver, senders = lab.guests["WebTransport"], (lab.guests["WebSocket"], lab.third)
    address = address_of(receiver, 4)
    server = receiver.start(sys.executable, ROOT / "tests/system/tcp_server.py", address)
    sink = (address, int(server.wait_for(r"sink on port (\d+)")[1]))
    half = SIZE // 2

    def send(sender):
        assert upload(sender, sink, half) == hashlib.sha256(stream(half)).hexdigest()
        return time.monotonic()

    def transfer():
        begun = time.monotonic()
        with ThreadPoolExecutor() as pool:
            ends = [end - begun for end in pool.map(send, senders)]
        assert min(ends) > 0.75 * max(ends), ends

    try:
        assert has_the_rate(transfer)
    finally:
        server.stop()


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
