"""Many TCP transfers of one guest at a time, both ways, by every carrier and both versions of IP.

guest ── relay ── cable ── outside (10.99.7.2, fd99:7::2)

All of them meet back pressure: what the servers could send is far more than a guest's session takes at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
from kernel_guest import KernelGuest, RawKernelGuest, WebSocketKernelGuest
from namespaces import Namespace, connect
from processes import ROOT, Relay
from transfers import PATIENCE, blocks, connection, download, stream, tell, told, upload

OUTSIDE, OUTSIDE6 = "10.99.7.2", "fd99:7::2"
SIZE = 3_000_000
"""Bytes of one transfer: many times what one connection may hold."""

ROUTED = "until ip -6 route show default | grep -q ra; do :; done"
SETTLED = "while ip -6 address show tentative | grep -q .; do :; done"


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        host, outside = Namespace("parhost"), Namespace("parout")
        stack.callback(host.delete)
        stack.callback(outside.delete)
        connect(host, "10.99.7.1/24", outside, f"{OUTSIDE}/24")
        for box, address in ((host, "fd99:7::1/64"), (outside, f"{OUTSIDE6}/64")):
            (device,) = (line.split()[1] for line in box.run("ip", "-o", "-4", "address").stdout.splitlines()
                         if "10.99.7." in line)  # fmt: skip
            box.run("ip", "address", "add", address, "dev", device, "nodad")
        host.run("ip", "-6", "route", "add", "default", "via", OUTSIDE6)
        relay = Relay("--allow-cidr", "10.99.7.0/24,fd99:7::/64", before=host.prefix)
        stack.callback(relay.stop)
        servers = {}
        for version, address in ((4, OUTSIDE), (6, OUTSIDE6)):
            program = outside.start(sys.executable, ROOT / "tests/system/tcp_server.py", address)
            stack.callback(program.stop)
            servers[version] = {
                name: (address, int(program.wait_for(rf"{name} on port (\d+)")[1]))
                for name in ("source", "sink", "echo")
            }
        yield SimpleNamespace(host=host, outside=outside, relay=relay, servers=servers)
        assert "Traceback" not in relay.output
        assert relay.counters()["tcp.stalled"] == 0


PLACES = {
    "framed, IPv4": (KernelGuest, 4),
    "framed, IPv6": (KernelGuest, 6),
    "raw, IPv4": (RawKernelGuest, 4),  # whose MTU is too small for IPv6
    "WebSocket, IPv4": (WebSocketKernelGuest, 4),
    "WebSocket, IPv6": (WebSocketKernelGuest, 6),
}


@pytest.fixture(scope="module", params=PLACES)
def place(request, lab):
    """A guest and the servers that it talks to."""
    kind, version = PLACES[request.param]
    guest = kind("par", lab.relay, lab.host)
    if version == 6:
        guest.run("sh", "-c", f"{ROUTED}; {SETTLED}")
    yield guest, SimpleNamespace(**lab.servers[version])
    guest.leave()


@pytest.fixture
def guest(place):
    return place[0]


@pytest.fixture
def servers(place):
    return place[1]


def at_once(transfers):
    """Run them all at the same time; give what each gave."""
    with ThreadPoolExecutor(len(transfers)) as pool:
        return [future.result() for future in [pool.submit(*transfer) for transfer in transfers]]


def digest(size):
    return hashlib.sha256(stream(size)).hexdigest()


@pytest.mark.parametrize(("count", "size"), [(6, SIZE), (30, 50_000)])
def test_downloads(guest, servers, count, size):
    assert at_once([(download, guest, servers.source, size)] * count) == [tell(size)] * count


def test_uploads(guest, servers):
    assert at_once([(upload, guest, servers.sink, SIZE)] * 6) == [digest(SIZE)] * 6


def test_downloads_and_uploads(guest, servers):
    done = at_once([(download, guest, servers.source, SIZE), (upload, guest, servers.sink, SIZE)] * 4)
    assert done == [tell(SIZE), digest(SIZE)] * 4


def test_six_files_with_curl(guest, servers, lab, tmp_path):
    address = servers.source[0]
    served = tmp_path / "file"
    with served.open("wb") as file:
        file.writelines(blocks(SIZE))
    server = lab.outside.start(
        sys.executable, "-u", "-m", "http.server", "0", "--bind", address, "--directory", tmp_path
    )
    try:
        port = server.wait_for(r"port (\d+)")[1]
        host = f"[{address}]" if ":" in address else address
        copies = [tmp_path / f"copy{number}" for number in range(6)]
        urls = [word for copy in copies for word in ("-o", copy, f"http://{host}:{port}/file")]
        guest.run("curl", "-sS", "-Z", "--max-time", 60, *urls, patience=70)
    finally:
        server.stop()
    for copy in copies:
        assert told([copy.read_bytes()]) == tell(SIZE)
        copy.unlink()  # pytest keeps what tests leave
    served.unlink()


def test_those_who_do_not_read_hold_nobody_up(guest, servers):
    """Nor are they given up: they get everything once they read."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connection(guest, servers.source)) for _ in range(6)]
        for each in slow:
            each.sendall(f"{SIZE}\n".encode())
        assert at_once([(download, guest, servers.source, SIZE)] * 3) == [tell(SIZE)] * 3
        for each in slow:
            assert told(iter(partial(each.recv, 1 << 18), b"")) == tell(SIZE)


@pytest.mark.alone
@pytest.mark.parametrize("count", [8, 16])
def test_downloads_share_the_link_fairly(guest, servers, count):
    """Jain's index, which is 1 where all have the same, is at least 0.9 while all are busy."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection(guest, servers.source)) for _ in range(count)]
        received = dict.fromkeys(opened, 0)
        for each in opened:
            each.sendall(b"1000000000\n")
        # By what comes, not by time: of little, what is under way at the end is too much of it.
        while sum(received.values()) < count * SIZE:
            ready = select.select(opened, [], [], PATIENCE)[0]
            assert ready, received.values()
            for each in ready:
                received[each] += len(each.recv(1 << 16))
    shares = list(received.values())
    assert sum(shares) ** 2 / (count * sum(share**2 for share in shares)) >= 0.9, shares
