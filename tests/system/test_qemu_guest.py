"""Debian's kernel in QEMU, a guest by ``vmrelay attach --qemu`` over each kind of socket."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import random
import sys
import threading

import pytest
from name_server import ANSWER
from processes import ROOT, Program, Relay, run

BUILDING = 300.0
BOOTING = 60.0
"""Seconds; an emulated machine on a busy computer takes its time."""
SIZE = 3_000_000

DEFAULT_MAC = "52:54:00:12:34:56"

NETDEVS = {
    "listen": "stream,id=n0,server=off,addr.type=unix,addr.path={path}",
    "connect": "stream,id=n0,server=on,addr.type=unix,addr.path={path}",
    "dgram": "dgram,id=n0,local.type=unix,local.path={path}.vm,remote.type=unix,remote.path={path}",
}
"""For each mode of attach what QEMU is told."""


@pytest.fixture(scope="module")
def machine():
    run(ROOT / "tests/system/qemu_machine.sh", patience=BUILDING)
    return ROOT / ".cache/qemu"


@pytest.fixture(scope="module")
def relay():
    names = Program(sys.executable, ROOT / "tests/system/name_server.py", "127.0.0.1")
    try:
        port = names.wait_for(r"answering on port (\d+)")[1]
        relay = Relay("--host-access", "--allow-cidr", f"{ANSWER}/32", "--upstream-dns", f"127.0.0.1:{port}")
        yield relay
        relay.stop()
        assert "Traceback" not in relay.output
    finally:
        names.stop()


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A file on this computer's loopback, which guests reach as 10.0.2.4: its URL and SHA-256."""
    folder = tmp_path_factory.mktemp("site")
    content = random.Random(6).randbytes(SIZE)
    (folder / "file").write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://10.0.2.4:{server.server_port}/file", hashlib.sha256(content).hexdigest()
        server.shutdown()
        thread.join()


def start_qemu(machine, path, mode, url, device=""):
    """A machine whose card has what QEMU gives it by itself, but for the options in ``device``."""
    return Program(
        *("qemu-system-x86_64", "-accel", "tcg", "-m", 220, "-nodefaults", "-no-reboot"),
        *("-display", "none", "-serial", "stdio"),
        *("-kernel", machine / "vmlinuz", "-initrd", machine / "initrd.img"),
        *("-append", f"console=ttyS0 quiet panic=-1 url={url} name=host.example"),
        *("-netdev", NETDEVS[mode].format(path=path)),
        *("-device", f"virtio-net-pci,netdev=n0,romfile={device}"),
    )


@pytest.mark.parametrize("mode", NETDEVS)
def test_a_guest_boots_and_uses_the_lan(machine, relay, download, tmp_path, mode):
    path, (url, digest) = tmp_path / "nic", download
    mac = f"52:54:00:51:00:{list(NETDEVS).index(mode):02x}"

    def attach():
        program = Program(
            *(sys.executable, "-m", "relay.main", "attach", "--qemu", path, "--qemu-mode", mode),
            *("--cert-hash", relay.hash, relay.url),
        )
        stack.callback(program.stop)
        # For server=off the socket must be there before QEMU is.
        program.wait_for("waiting for QEMU|no QEMU|is connected")
        return program

    with contextlib.ExitStack() as stack:
        attached = attach()
        guest = start_qemu(machine, path, mode, url, f",mac={mac}")
        stack.callback(guest.stop)
        found = attached.wait_for(rf"attached to \S+ as {mac}, address ([\d.]+/24)", patience=BOOTING)
        told = guest.wait_for(r"address: ([\d.]+/24) of (\S+)", patience=BOOTING)
        assert told.groups() == (found[1], mac)
        guest.wait_for("ping: .* 3 packets received")
        guest.wait_for(rf"name: .*{ANSWER}")
        guest.wait_for(f"download: {digest}")
        guest.wait_for("alive")
        if mode != "listen":  # this QEMU does not connect a second time
            attached.stop()
            again = attach()
            again.wait_for(rf"attached to \S+ as {mac}, address {found[1]}")
            before = guest.output.count("alive")
            guest.wait_for("alive", count=before + 2)


def test_two_machines_without_a_mac_of_their_own_use_the_lan(machine, relay, download, tmp_path):
    """As the documentation's command line has it: both have the MAC that QEMU gives, the gateway's."""
    url, digest = download
    with contextlib.ExitStack() as stack:
        pairs = []
        for number in range(2):
            path = tmp_path / f"nic{number}"
            attached = Program(
                *(sys.executable, "-m", "relay.main", "attach", "--qemu", path),
                *("--cert-hash", relay.hash, relay.url),
            )
            stack.callback(attached.stop)
            attached.wait_for("waiting for QEMU")
            guest = start_qemu(machine, path, "listen", url)
            stack.callback(guest.stop)
            pairs.append((attached, guest))
        seen = set()
        for attached, guest in pairs:
            mac, address = attached.wait_for(
                r"attached to \S+ as (\S+), address ([\d.]+/24)", patience=BOOTING
            ).groups()
            seen |= {mac, address}
            guest.wait_for(f"address: {address} of {DEFAULT_MAC}", patience=BOOTING)
            guest.wait_for("ping: .* 3 packets received")
            guest.wait_for(r"ipv6: (?=.*fd\S+:5054:ff:fe12:3456/64)(?=.*fe80::5054:ff:fe12:3456/64)")
            guest.wait_for("ping6: .* 3 packets received")
            guest.wait_for(f"download: {digest}")
            assert attached.output.count("QEMU's default MAC") == 1
        assert len(seen | {DEFAULT_MAC}) == 5
