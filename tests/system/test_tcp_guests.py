"""TCP of Linux kernels as guests, through the relay to a server outside, on good paths and bad.

guest ── (bad path) ── relay ── cable ── outside (10.99.1.2)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
import sys
from types import SimpleNamespace

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import ROOT, Relay
from transfers import PATIENCE, blocks, connection, download, stream, tell, told, upload

OUTSIDE = "10.99.1.2"
FILE = 100_000_000
LARGE = 30_000_000
SMALL = 400_000
"""Bytes: at 10 % loss every segment may wait for a time-out, and that path's own congestion control too."""


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        relay_namespace, outside = Namespace("tcprelay"), Namespace("tcpout")
        stack.callback(relay_namespace.delete)
        stack.callback(outside.delete)
        connect(relay_namespace, "10.99.1.1/24", outside, f"{OUTSIDE}/24")
        relay = Relay("--allow-cidr", "10.99.1.0/24", before=relay_namespace.prefix)
        stack.callback(relay.stop)
        servers = outside.start(sys.executable, ROOT / "tests/system/tcp_server.py", OUTSIDE)
        stack.callback(servers.stop)
        named = {
            name: (OUTSIDE, int(servers.wait_for(rf"{name} on port (\d+)")[1]))
            for name in ("source", "sink", "echo")
        }
        yield SimpleNamespace(namespace=relay_namespace, outside=outside, relay=relay, **named)
        assert "Traceback" not in relay.output


@pytest.fixture(scope="module")
def guest(lab):
    guest = KernelGuest("tcp", lab.relay, lab.namespace)
    yield guest
    guest.leave()


@pytest.fixture
def bad_path(lab, relaybench):
    """A guest behind a path with these properties (options of relaybench's impair)."""
    with contextlib.ExitStack() as stack:

        def attach(port, *properties):
            proxy = lab.namespace.start(
                relaybench, "impair", "--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{lab.relay.port}",
                *properties,
            )  # fmt: skip
            stack.callback(proxy.stop)
            behind = SimpleNamespace(hash=lab.relay.hash, url=f"https://127.0.0.1:{port}/")
            guest = KernelGuest("bad", behind, lab.namespace)
            stack.callback(guest.leave)
            return guest

        yield attach


def test_download(guest, lab):
    assert download(guest, lab.source, LARGE) == tell(LARGE)


def test_upload(guest, lab):
    assert upload(guest, lab.sink, LARGE) == hashlib.sha256(stream(LARGE)).hexdigest()


def test_curl(guest, lab, tmp_path):
    served, copy = tmp_path / "file", tmp_path / "copy"
    with served.open("wb") as file:
        file.writelines(blocks(FILE))
    server = lab.outside.start(
        sys.executable, "-u", "-m", "http.server", "0", "--bind", OUTSIDE, "--directory", tmp_path
    )
    try:
        port = server.wait_for(r"port (\d+)")[1]
        url = f"http://{OUTSIDE}:{port}/file"
        guest.run("curl", "-sS", "--max-time", 60, "-o", copy, url, patience=70)
    finally:
        server.stop()
    with copy.open("rb") as file:
        assert told(iter(lambda: file.read(1 << 18), b"")) == tell(FILE)
    served.unlink()  # pytest keeps what tests leave
    copy.unlink()


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["upload", "download"])
def test_iperf3(guest, lab, direction):
    server = lab.outside.start("iperf3", "-s", "-1", "-B", OUTSIDE, "--forceflush")
    try:
        server.wait_for("Server listening")
        done = guest.run("iperf3", "-c", OUTSIDE, "-t", 2, "-J", *direction)
    finally:
        server.stop()
    assert json.loads(done.stdout)["end"]["sum_received"]["bytes"] > 1_000_000


def test_200_parallel_connections(guest, lab):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection(guest, lab.echo)) for _ in range(200)]
        for number, each in enumerate(opened):
            each.sendall(f"hello {number}".encode())
        for number, each in enumerate(opened):
            assert each.recv(100) == f"hello {number}".encode()


def test_a_refused_port(guest, lab):
    with (
        lab.outside.socket(socket.SOCK_STREAM) as bound,
        guest.namespace.socket(socket.SOCK_STREAM) as opened,
    ):
        bound.bind((OUTSIDE, 0))
        opened.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            opened.connect(bound.getsockname())


@pytest.mark.parametrize("address", ["198.51.100.1", "10.99.1.77"], ids=["forbidden", "absent"])
def test_what_cannot_be_reached(guest, address):
    with guest.namespace.socket(socket.SOCK_STREAM) as opened:
        opened.settimeout(PATIENCE)
        with pytest.raises(OSError, match="No route to host"):
            opened.connect((address, 80))


def test_half_close(guest, lab):
    with connection(guest, lab.sink) as opened:
        opened.sendall(b"all")
        opened.shutdown(socket.SHUT_WR)
        assert opened.recv(100).decode() == hashlib.sha256(b"all").hexdigest()
        assert opened.recv(100) == b""


def test_interactive_traffic_after_idling(guest, lab):
    with connection(guest, lab.echo) as opened:
        for letter in b"ls -l\n" * 5:
            opened.sendall(bytes((letter,)))
            assert opened.recv(1) == bytes((letter,))
            # Idle for a while: nothing may come, and the connection must not end.
            assert not select.select([opened], [], [], 0.1)[0]


def test_no_frame_travels_in_chunks(guest, lab):
    """The guest is told an MSS with which its frames fit one datagram each."""
    with connection(guest, lab.echo) as opened:
        mss = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    assert 1000 <= mss < 1460


BAD = {
    "2 % loss": (24_731, "--loss", "0.02"),
    "10 % loss": (24_732, "--loss", "0.1"),
    "100 ms": (24_733, "--delay-ms", "50"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_paths(bad_path, lab, name):
    guest = bad_path(*BAD[name])
    assert download(guest, lab.source, SMALL) == tell(SMALL)
    assert upload(guest, lab.sink, SMALL) == hashlib.sha256(stream(SMALL)).hexdigest()


def test_what_the_path_loses_is_told_to_its_connections(bad_path, lab):
    before = lab.relay.counters()["tcp.lost_on_path"]
    guest = bad_path(24_734, "--delay-ms", "10", "--loss", "0.01")
    assert download(guest, lab.source, 2_000_000) == tell(2_000_000)
    counters = lab.relay.counters()
    assert counters["tcp.lost_on_path"] > before
    assert counters["tcp.stalled"] == 0
