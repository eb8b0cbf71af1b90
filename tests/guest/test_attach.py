from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from namespaces import Namespace
from processes import ROOT, Program, Relay, run
from waiting import wait_until

from guest import tap
from guest.tap import Tap, TapError
from netstack.counters import Counters
from relay import main
from transport.quic.carrier import PACKET_OVERHEAD

ATTACHED = r"^(\S+): attached to (\S+) as ((?:[0-9a-f]{2}:){5}[0-9a-f]{2})(?:, address ([\d.]+)/24)?"
DEVICE = "t-attach0"


def attach(relay, namespace, *options):
    return Program(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", DEVICE, "--netns", namespace.name),
        *("--cert-hash", relay.hash, *options, relay.url),
    )


@pytest.fixture
def namespace():
    namespace = Namespace("attach")
    yield namespace
    namespace.delete()


def link(namespace):
    """State of the device: its MAC and MTU, and whether it is up."""
    (found,) = json.loads(namespace.run("ip", "-j", "link", "show", "dev", DEVICE).stdout)
    return found["address"], found["mtu"], "UP" in found["flags"]


def test_the_devices_own_mac_is_registered_and_the_rest_left_alone(fresh_relay, namespace):
    program = attach(fresh_relay, namespace)
    try:
        name, url, mac, address = program.wait_for(ATTACHED).groups()
        assert (name, url) == (DEVICE, fresh_relay.url)
        fresh_relay.wait_for(rf"registered {mac} as {address}")
        device_mac, mtu, up = link(namespace)
        assert (device_mac, up) == (mac, True)
        assert 1280 <= mtu <= 1500, "what the relay told, which depends on what it knows of the path"
        # Addresses of its own making aside.
        assert [a for a in namespace.addresses(DEVICE) if not a.startswith("fe80:")] == []
        assert namespace.run("ip", "route").stdout == ""
    finally:
        program.stop()


def test_configure_makes_the_kernel_a_guest_that_reaches_the_gateway(live_relay, namespace):
    mac = "52:54:00:00:20:01"
    program = attach(live_relay, namespace, "--configure", "--mac", mac, "--mtu", "1400")
    try:
        address = program.wait_for(ATTACHED)[4]
        assert link(namespace) == (mac, 1400, True)
        assert f"{address}/24" in namespace.addresses(DEVICE)
        (route,) = json.loads(namespace.run("ip", "-j", "route", "show", "default").stdout)
        assert (route["gateway"], route["dev"], route["metric"]) == ("10.0.2.2", DEVICE, 2000)
        # Whole frames, in chunks where they must be.
        namespace.run("ping", "-n", "-c", "3", "-i", "0.05", "-W", "5", "-s", "1372", "10.0.2.2")
    finally:
        program.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(fresh_relay, namespace, number):
    program = attach(fresh_relay, namespace, "--configure")
    try:
        mac = program.wait_for(ATTACHED)[3]
        peer = fresh_relay.wait_for(rf"peer (\d+) registered {mac}")[1]
        program.signal(number)
        assert program.wait() == 0
        fresh_relay.wait_for(rf"peer {peer} closed: disconnected")
        assert len(program.output.splitlines()) == 1
        assert DEVICE not in namespace.run("ip", "link").stdout
    finally:
        program.stop()


def test_raw_guests_reach_each_other_with_addresses_of_their_own(live_relay, namespace):
    other = Namespace("attach-raw")
    programs = [attach(live_relay, one, "--encap", "raw") for one in (namespace, other)]
    try:
        for program, one, address in zip(programs, (namespace, other), ("10.0.2.6", "10.0.2.5"), strict=True):
            assert program.wait_for(ATTACHED)[4] is None
            assert link(one)[1] == 1141
            one.run("ip", "address", "add", f"{address}/24", "dev", DEVICE)
        # As large as the MTU lets them be.
        namespace.run("ping", "-n", "-c", "3", "-i", "0.05", "-W", "5", "-M", "do", "-s", "1113", "10.0.2.5")
    finally:
        for program in programs:
            program.stop()
        other.delete()


def test_restarts_of_the_relay_are_survived_and_told(certificate_options, namespace):
    relay = Relay(*certificate_options)
    program = attach(relay, namespace, "--configure")
    try:
        first = program.wait_for(ATTACHED)
        for restart, number in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
            told = program.output.count("not attached")
            relay.signal(number)
            relay.wait()
            relay.stop()
            # Told of this very end: a relay that is back too soon would be one that knows no such session.
            program.wait_for("not attached", count=told + 1)
            relay = Relay(*certificate_options, "--port", relay.port)
            again = program.wait_for(ATTACHED, count=restart + 1)
            assert again.groups() == first.groups()
            namespace.run("ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", "10.0.2.2")
        assert program.running
    finally:
        program.stop()
        relay.stop()


def test_a_relay_that_drains_is_told_of(namespace):
    relay = Relay("--drain-timeout", 600)
    program = attach(relay, namespace)
    try:
        program.wait_for(ATTACHED)
        relay.signal(signal.SIGTERM)
        program.wait_for("the relay takes no new sessions, and ends this session in 600 s")
        program.stop()
        assert relay.wait() == 0
    finally:
        program.stop()
        relay.stop()


def test_it_waits_for_a_relay_that_is_not_there_yet(certificate_options, namespace):
    relay = Relay(*certificate_options)
    relay.stop()
    program = attach(relay, namespace)
    try:
        program.wait_for(
            rf"^{DEVICE}: not attached: 127\.0\.0\.1:{relay.port}: Connection refused; trying again"
        )
        relay = Relay(*certificate_options, "--port", relay.port)
        program.wait_for(ATTACHED)
    finally:
        program.stop()
        relay.stop()


def test_a_signal_also_ends_the_wait(namespace, live_relay):
    live_relay_url, port = live_relay.url, live_relay.port
    program = Program(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", DEVICE, "--netns", namespace.name),
        *("--insecure", live_relay_url.replace(str(port), "9")),
    )
    try:
        program.wait_for("not attached")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    finally:
        program.stop()


def test_a_device_that_is_deleted_ends_it_with_one_line(live_relay, namespace):
    program = attach(live_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        namespace.run("ip", "link", "delete", DEVICE)
        assert program.wait() == 2
        assert program.output.splitlines()[1:] == [f"vmrelay: error: {DEVICE}: the device was deleted"]
    finally:
        program.stop()


def complaint(*arguments, status=2, **options):
    """Run ``vmrelay attach`` to its end and give the one line that it says."""
    done = run(sys.executable, "-m", "relay.main", "attach", *arguments, check=False, cwd=ROOT, **options)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("vmrelay: error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("https://127.0.0.1:9/",), "--tap"),
        (("--tap", "t0"), "URL"),
        (("--tap", "t0", "http://127.0.0.1:9/"), "not a WebTransport address"),
        (("--tap", "t0", "--mac", "52:54", "https://r/"), "not a MAC address"),
        (("--tap", "t0", "--mac", "ff:ff:ff:ff:ff:ff", "https://r/"), "group address"),
        (("--tap", "t0", "--encap", "odd", "https://r/"), "'odd'"),
        (("--tap", "t0", "--cert-hash", "12", "https://r/"), "64 hexadecimal digits"),
        (("--tap", "t0", "--insecure", "--ca", "x", "https://r/"), "not allowed with"),
        (("--tap", "t0", "--mtu", "1", "https://r/"), "--mtu must be from 576 to 1500"),
        (("--tap", "t0", "--mtu", "big", "https://r/"), "'big'"),
        (("--tap", "t0", "--encap", "raw", "--configure", "https://r/"), "--configure needs the framed"),
        (("--tap", "t0", "--encap", "framed", "https://r/?encap=raw"), "names the encapsulation raw"),
        (("--tap", "", "https://r/"), "not a device name"),
        (("--tap", "sixteen-letters0", "https://r/"), "not a device name"),
        (("--tap", "a/b", "https://r/"), "not a device name"),
        (("--tap", "lo", "https://r/"), "lo: there is a device of this name that is not a TAP device"),
        (
            ("--tap", "t0", "--netns", "no-such-namespace", "https://r/"),
            "network namespace no-such-namespace",
        ),
    ],
)
def test_wrong_arguments_get_one_line(arguments, said):
    assert said in complaint(*arguments)


def test_a_token_is_shown_nowhere(live_relay, namespace):
    """What is printed here ends up in journals."""
    program = Program(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", DEVICE, "--netns", namespace.name),
        *("--insecure", f"{live_relay.url}?token=SECRET"),
    )
    try:
        assert program.wait_for(ATTACHED)[2] == f"{live_relay.url}?token=..."
    finally:
        program.stop()
    assert "SECRET" not in program.output
    for url in ("http://r/?token=SECRET", "https://r/?token=SECRET&encap=raw"):
        line = complaint("--tap", "t0", "--encap", "framed", url)
        assert "token=..." in line
        assert "SECRET" not in line


def test_a_device_in_use_is_named(live_relay, namespace):
    program = attach(live_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        line = complaint("--tap", DEVICE, "--netns", namespace.name, "--insecure", live_relay.url)
        assert line == f"vmrelay: error: {DEVICE}: the device is in use by another process"
    finally:
        program.stop()


def test_the_devices_mtu_grows_to_what_the_path_takes(fresh_relay, namespace):
    """1452 bytes of UDP payload, less what QUIC, HTTP and the encapsulation take, and Ethernet's header."""
    program = attach(fresh_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        wait_until(
            lambda: link(namespace)[1] == 1452 - PACKET_OVERHEAD - 1 - 1 - 14,
            lambda: "it was never told, or has not listened",
        )
    finally:
        program.stop()


@pytest.mark.parametrize(
    "options", [(), ("multi_queue",), ("vnet_hdr",), ("pi",), ("multi_queue", "vnet_hdr")]
)
def test_a_device_that_is_there_already_is_taken_however_it_was_made(live_relay, namespace, options):
    namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", "tap", *options)
    before, _, _ = link(namespace)
    program = attach(live_relay, namespace, "--configure")
    try:
        assert program.wait_for(ATTACHED)[3] == before
        namespace.run("ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", "-s", "1400", "10.0.2.2")
        # With the other end in use, of as many queues as there may be.
        line = complaint("--tap", DEVICE, "--netns", namespace.name, "--insecure", live_relay.url)
        assert line == f"vmrelay: error: {DEVICE}: the device is in use by another process"
        namespace.run("ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", "10.0.2.2")
    finally:
        program.stop()
    assert link(namespace)[0] == before, "it was not made here and stays"


def leaves_checksums_open(namespace):
    """Whether the kernel counts on the device to fill in checksums (SIOCETHTOOL, ETHTOOL_GTXCSUM)."""
    value = ctypes.create_string_buffer(struct.pack("II", 0x16, 0))
    with namespace.socket() as control:
        fcntl.ioctl(control, 0x8946, struct.pack("16sP16x", DEVICE.encode(), ctypes.addressof(value)))
    return struct.unpack_from("II", value)[1] != 0


def test_offloads_that_another_process_left_are_undone_where_the_kernel_has_none(namespace, monkeypatch):
    namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", "tap", "vnet_hdr")
    with namespace.entered(), Path("/dev/net/tun").open("r+b", buffering=0) as before:
        iff_tap, iff_no_pi, iff_vnet_hdr = 0x0002, 0x1000, 0x4000
        request = struct.pack("16sH22x", DEVICE.encode(), iff_tap | iff_no_pi | iff_vnet_hdr)
        fcntl.ioctl(before, 0x400454CA, request)  # TUNSETIFF
        fcntl.ioctl(before, 0x400454D0, 0x1 | 0x2 | 0x4)  # TUNSETOFFLOAD: TUN_F_CSUM, _TSO4 and _TSO6
    assert leaves_checksums_open(namespace)
    monkeypatch.setattr(tap, "_features", lambda _: 0)
    device = Tap(DEVICE, Counters(), namespace.name)
    try:
        assert not leaves_checksums_open(namespace)
    finally:
        device.close()


def test_a_device_that_stays_is_left_without_offloads(live_relay, namespace):
    namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", "tap")
    program = attach(live_relay, namespace)
    try:
        program.wait_for(ATTACHED)
        assert leaves_checksums_open(namespace)
    finally:
        program.stop()
    assert not leaves_checksums_open(namespace)


def test_a_device_that_stays_is_left_without_its_address(live_relay, namespace):
    namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", "tap")
    program = attach(live_relay, namespace, "--configure")
    try:
        address = program.wait_for(ATTACHED)[4]
        assert f"{address}/24" in namespace.addresses(DEVICE)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    finally:
        program.stop()
    assert [a for a in namespace.addresses(DEVICE) if ":" not in a] == []
    assert namespace.run("ip", "route").stdout == ""


def test_a_device_without_ethernet_is_named_for_what_it_is(namespace):
    where = ("--tap", DEVICE, "--netns", namespace.name, "https://127.0.0.1:9/")
    for options in ((), ("multi_queue",)):
        namespace.run("ip", "tuntap", "add", "dev", DEVICE, "mode", "tun", *options)
        assert "TUN device of this name, which carries IP packets and no Ethernet" in complaint(*where)
        namespace.run("ip", "link", "delete", DEVICE)
    namespace.run("ip", "link", "add", DEVICE, "type", "bridge")
    assert "that is not a TAP device" in complaint(*where)


def test_a_certificate_or_ca_that_does_not_fit_is_named(live_relay, namespace, tmp_path):
    where = ("--tap", DEVICE, "--netns", namespace.name)
    line = complaint(*where, "--cert-hash", "00" * 32, live_relay.url, status=1)
    assert live_relay.hash in line
    assert "certificate" in complaint(*where, live_relay.url, status=1)
    absent = tmp_path / "absent.pem"
    assert str(absent) in complaint(*where, "--ca", absent, live_relay.url)


PR_CAPBSET_DROP = 24
CAP_NET_ADMIN = 12


def test_without_permission_it_says_what_is_missing():
    def drop():
        if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) != 0:
            os._exit(1)

    done = subprocess.run(
        [sys.executable, "-m", "relay.main", "attach", "--tap", "t-noperm0", "https://127.0.0.1:9/"],
        preexec_fn=drop,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "vmrelay: error: t-noperm0: no permission to make the device; it takes root or CAP_NET_ADMIN\n"
    )


@pytest.mark.parametrize(
    ("device", "said"),
    [("absent", "does not exist: the kernel has no TUN/TAP driver"), (".", "Is a directory")],
)
def test_without_a_driver_it_says_so(device, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tap, "CLONE_DEVICE", tmp_path / device)
    assert main.main(["attach", "--tap", "t0", "https://127.0.0.1:9/"]) == 2
    assert said in capsys.readouterr().err


def test_a_namespace_is_entered_by_another_thread_only(namespace):
    def here():
        return Path("/proc/thread-self/ns/net").readlink()

    before = here()
    inside = tap.in_namespace(namespace.name, here)
    assert inside != before
    assert tap.in_namespace(f"/run/netns/{namespace.name}", here) == inside
    assert here() == before


def test_frames_that_the_kernel_does_not_take_are_counted(namespace):
    counters = Counters()
    device = Tap(DEVICE, counters, namespace.name)
    try:
        device.write([bytes(60)] * 3)
        assert counters == {"tap.drop.write_failed": 3}
        device.bring_up()
        device.write([bytes(60)])
        assert counters == {"tap.drop.write_failed": 3}
    finally:
        device.close()


def test_a_burst_of_the_kernel_comes_in_batches(namespace):
    device = Tap(DEVICE, Counters(), namespace.name)

    async def scenario():
        device.bring_up()
        namespace.run("ip", "address", "add", "10.0.2.9/24", "dev", DEVICE)
        neighbour = ("10.0.2.2", "lladdr", "52:54:00:12:34:56", "dev", DEVICE)
        namespace.run("ip", "neighbour", "add", *neighbour)
        namespace.run("ping", "-n", "-c", "20", "-l", "20", "-W", "0.1", "10.0.2.2", check=False)
        pings = []
        async with asyncio.timeout(10):
            while len(pings) < 20:
                batch = await device.read()
                assert len(batch) <= tap.READS_PER_TURN
                pings += [frame for frame in batch if frame[12:14] == b"\x08\x00" and frame[23] == 1]

    try:
        asyncio.run(scenario())
    finally:
        device.close()


def test_errors_of_the_kernel_become_one_line(namespace):
    device = Tap(DEVICE, Counters(), namespace.name)
    try:
        with pytest.raises(TapError, match=rf"^{DEVICE}: {os.strerror(errno.EINVAL)}$"):
            device.set_mtu(10)
    finally:
        device.close()
