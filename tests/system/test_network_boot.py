"""iPXE in QEMU boots over the LAN: DHCP tells what, and a TFTP server in another guest, or on the relay's own
machine, has it. The script that it gets first is iPXE's, the program behind it anybody's.
"""

from __future__ import annotations

import contextlib
import random
import re
import sys

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace
from processes import ROOT, Program, Relay

BOOTING = 60.0
"""Seconds; an emulated machine on a busy computer takes its time."""
SERVER_MAC, SERVER_IP = "52:54:00:f0:00:69", "10.0.2.69"
MACHINE_MAC = "52:54:00:f0:00:01"
SIZE = 200_000

SCRIPT = """#!ipxe
echo booting ${net0/ip} of ${net0/mac} with ${filename}
imgfetch --name data data
imgstat data
imgfree data
chain program
"""

SAID = b"the program runs\r\n"
PROGRAM = bytes.fromhex("fc baf803 e80000 5e 83c60d 2eac 84c0 74fe ee ebf7") + SAID + b"\0"
"""A network boot program, 16-bit code that says this on the first serial line: cld; mov dx, 0x3f8; call next;
next: pop si; add si, 13; again: cs lodsb; test al, al; end: jz end; out dx, al; jmp again.
"""


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "tftp"
    folder.mkdir()
    (folder / "boot.ipxe").write_text(SCRIPT)
    (folder / "data").write_bytes(random.Random(10).randbytes(SIZE))
    (folder / "program").write_bytes(PROGRAM)
    return folder


@pytest.fixture
def relay_namespace():
    namespace = Namespace("relay")
    yield namespace
    namespace.delete()


@pytest.mark.parametrize(
    ("where", "filtering"),
    [
        ("guest", "address-dependent"),
        ("host", "address-dependent"),
        ("host", "endpoint-independent"),
    ],
)
def test_a_machine_boots_from_a_tftp_server(where, filtering, files, relay_namespace, tmp_path):
    """Files come from another port than the one that was asked: the NAT's filter lets them in."""
    server_ip = {"guest": SERVER_IP, "host": "10.0.2.4"}[where]
    with contextlib.ExitStack() as stack:
        relay = Relay(
            *("--host-access", "--udp-filtering", filtering),
            *("--static-lease", f"{SERVER_MAC}={SERVER_IP}", "--dhcp-boot", f"bios=boot.ipxe@{server_ip}"),
            before=relay_namespace.prefix,
        )
        stack.callback(relay.stop)
        script = ROOT / "tests/system/tftp_server.py"
        if where == "guest":
            guest = KernelGuest("tftp", relay, relay_namespace, "--mac", SERVER_MAC)
            stack.callback(guest.leave)
            server = guest.start(sys.executable, script, SERVER_IP, files)
        else:
            server = relay_namespace.start(sys.executable, script, "127.0.0.1", files)
        stack.callback(server.stop)
        server.wait_for("serving")
        attached = relay_namespace.start(
            *(sys.executable, "-m", "relay.main", "attach", "--qemu", tmp_path / "nic"),
            *("--cert-hash", relay.hash, relay.url),
        )
        stack.callback(attached.stop)
        attached.wait_for("waiting for QEMU")
        machine = Program(
            *("qemu-system-x86_64", "-accel", "tcg", "-m", 64, "-nodefaults", "-no-reboot", "-boot", "n"),
            *("-display", "none", "-serial", "stdio", "-machine", "pc,graphics=off"),
            *("-netdev", f"stream,id=n0,server=off,addr.type=unix,addr.path={tmp_path / 'nic'}"),
            *("-device", f"virtio-net-pci,netdev=n0,mac={MACHINE_MAC}"),
        )
        stack.callback(machine.stop)
        address = attached.wait_for(rf"as {MACHINE_MAC}, address ([\d.]+)/24", patience=BOOTING)[1]
        machine.wait_for(f"booting {re.escape(address)} of {MACHINE_MAC} with boot.ipxe", patience=BOOTING)
        machine.wait_for(f"data : {SIZE} bytes")
        machine.wait_for(SAID.decode().strip())
        assert "port 69" not in server.wait_for("sent program from port .*")[0]
        counters = relay.counters()
        assert counters["dhcp.ack"] >= 1
        assert "Traceback" not in relay.output
