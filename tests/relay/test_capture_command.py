"""Captures and traces of a running relay, read with tcpdump and scapy."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from operators import GATEWAY, GATEWAY_MAC, GUEST_MAC
from processes import PATIENCE, free_port, run
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import RawPcapNgReader

from guest.relay_socket import RelayPeer, RelaySocket
from netstack import pcapng
from relay.admin.capture_command import packets


class Running:
    """A command of the kind that goes on; the relay has begun when it has logged so."""

    def __init__(self, relay, *words, logged):
        before = relay.output.count(logged)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "relay.main", *map(str, words), "--admin", str(relay.admin)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        relay.wait_for(logged, count=before + 1)

    def stop(self):
        self._process.send_signal(signal.SIGINT)
        output, errors = self._process.communicate(timeout=PATIENCE)
        assert b"Traceback" not in errors, errors.decode()
        return output

    def read_until(self, wanted):
        """Read lines until one has a text."""
        lines = []
        while not lines or wanted not in lines[-1]:
            line = self._process.stdout.readline().decode()
            assert line, lines
            lines.append(line.rstrip())
        return lines


def send(guest, packet):
    with RelaySocket(guest) as one:
        one.send(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet)


def ping(guest, payload=b""):
    packet = IP(src=str(guest.assigned.ip), dst=GATEWAY) / ICMP() / payload
    with RelaySocket(guest) as one:
        assert one.sr1(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet, timeout=PATIENCE, verbose=0)


def read(path):
    """Give (interface, direction, frame, comment) of each packet of a file."""
    with path.open("rb") as file:
        return [
            (told.ifname.decode(), told.direction, Ether(data), b"".join(told.comments or ()).decode())
            for data, told in RawPcapNgReader(file)
        ]


def recorded(relay, guest, path, *options, sending):
    running = Running(relay, "capture", "-w", path, *options, logged="captures")
    sending()
    ping(guest, b"the last one")
    deadline = 200
    while b"the last one" not in (path.read_bytes() if path.exists() else b"") and deadline:
        ping(guest, b"the last one")
        deadline -= 1
    running.stop()
    return read(path)


def test_a_capture_has_an_interface_for_each_session_and_the_gateway(relay, guest, tmp_path):
    found = recorded(relay, guest, tmp_path / "all.pcapng", sending=lambda: ping(guest, b"hello"))
    hello = [
        (name, way)
        for name, way, frame, _ in found
        if ICMP in frame and bytes(frame[ICMP].payload) == b"hello"
    ]
    (peer,) = {name for name, _ in hello if "peer" in name}
    assert hello == [
        (peer, 1),
        ("default/gateway", 1),
        ("default/gateway", 2),
        (peer, 2),
    ]
    told = run("tcpdump", "-n", "-r", tmp_path / "all.pcapng").stdout
    assert f"IP {guest.assigned.ip} > {GATEWAY}: ICMP echo request" in told


def test_what_is_dropped_says_why(relay, guest, tmp_path):
    spoofed = IP(src="192.0.2.9", dst=GATEWAY) / ICMP() / b"spoofed"
    found = recorded(relay, guest, tmp_path / "x.pcapng", sending=lambda: send(guest, spoofed))
    [comment] = [
        text for _, _, frame, text in found if ICMP in frame and bytes(frame[ICMP].payload) == b"spoofed"
    ]
    assert comment == "1 switch.drop.foreign_source"


def ask(guest, udp_server, port):
    """Have the server answer a datagram; give the port that it came from."""
    to = IP(src=str(guest.assigned.ip), dst="127.0.0.1") / UDP(sport=port, dport=udp_server.getsockname()[1])
    with RelaySocket(guest) as one:
        one.send(Ether(src=guest.mac, dst=GATEWAY_MAC) / to / b"?")
        _, address = udp_server.recvfrom(16)
        udp_server.sendto(b"!", address)
        while not one.recv(2048).haslayer(UDP):
            pass
    return address[1]


def test_the_first_packet_behind_the_begin_of_a_flow_tells_what_the_nat_makes_of_it(
    relay, guest, udp_server, tmp_path
):
    ports = []

    def sending():
        ports.extend(ask(guest, udp_server, 4242) for _ in range(2))

    found = recorded(relay, guest, tmp_path / "nat.pcapng", sending=sending)
    assert len(set(ports)) == 1
    said = [(name, way, text) for name, way, frame, text in found if UDP in frame and text]
    remote = f"127.0.0.1:{udp_server.getsockname()[1]}"
    text = f"NAT: udp from {guest.assigned.ip}:4242 leaves by port {ports[0]} of this machine for {remote}"
    assert said == [("default/gateway", 2, text)]


def test_a_filter_and_a_session_leave_out_the_rest(relay, guest, tmp_path):
    other = RelayPeer(relay.url, insecure=True)
    try:
        options = ("--filter", "icmp", "--peer", "web", "--snaplen", 60)
        found = recorded(relay, guest, tmp_path / "x.pcapng", *options, sending=lambda: ping(other, b"other"))
    finally:
        other.close()
    assert found
    assert {name.partition("peer")[0] for name, *_ in found} == {"default/"}
    assert all(ICMP in frame and GUEST_MAC in (frame.src, frame.dst) for _, _, frame, _ in found)


@pytest.mark.parametrize("called", ["web", GUEST_MAC])
def test_a_capture_of_a_guest_goes_on_with_its_next_session(relay, called):
    def joined():
        return RelayPeer(relay.url, insecure=True, mac=GUEST_MAC, name="web")

    first = joined()
    running = Running(relay, "capture", "--json", "--peer", called, "--filter", "icmp", logged="captures")
    ping(first)
    before = json.loads(running.read_until("echo-reply")[-1])
    first.close()
    other, second = RelayPeer(relay.url, insecure=True), joined()
    try:
        ping(other)
        ping(second)
        after = [json.loads(line)["interface"] for line in running.read_until("echo-reply")]
    finally:
        other.close()
        second.close()
    running.stop()
    assert before["interface"] not in after
    assert len(set(after)) == 1, "the other guest is left out"


def test_it_is_piped_into_other_programs(relay, guest):
    running = Running(relay, "capture", "-w", "-", "--filter", "icmp", logged="captures")
    reader = subprocess.Popen(
        ["tcpdump", "-n", "-l", "-c", "1", "-r", "-"],
        stdin=running._process.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    ping(guest)
    assert b"ICMP echo request" in reader.communicate(timeout=PATIENCE)[0]
    running.stop()


def test_without_a_file_packets_are_told_in_lines(relay, guest):
    running = Running(relay, "capture", "--filter", "icmp", logged="captures")
    ping(guest)
    lines = running.read_until("echo-reply")
    assert any(f"> Ether / IP / ICMP {guest.assigned.ip} > {GATEWAY} echo-request" in line for line in lines)
    running.stop()


def test_packets_are_told_as_json_too(relay, guest):
    running = Running(relay, "capture", "--json", "--filter", "icmp", logged="captures")
    ping(guest, b"hello")
    [*_, last] = map(json.loads, running.read_until("echo-reply"))
    running.stop()
    assert (last["direction"], last["bytes"], last["comment"]) == ("out", 14 + 20 + 8 + 5, None)
    assert last["packet"].startswith(f"Ether / IP / ICMP {GATEWAY} > {guest.assigned.ip} echo-reply")


def test_a_ring_keeps_the_latest_files_and_each_is_whole(relay, guest, tmp_path):
    path = tmp_path / "ring.pcapng"
    options = ("--file-size", "2k", "--files", "2", "--filter", "icmp")
    running = Running(relay, "capture", "-w", path, *options, logged="captures")
    while len(list(tmp_path.iterdir())) < 2 or (tmp_path / "ring_00001.pcapng").exists():
        ping(guest, b"x" * 400)
    running.stop()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        assert file.stat().st_size <= 2 * 1024
        read(file)


def test_it_ends_by_itself_after_a_time(relay, tmp_path):
    done = run(
        *(sys.executable, "-m", "relay.main", "capture", "-w", tmp_path / "x", "--time", "300ms"),
        *("--admin", relay.admin),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert read(tmp_path / "x") == []


def test_afterwards_nobody_looks_on(relay, guest, tmp_path):
    recorded(relay, guest, tmp_path / "x.pcapng", sending=lambda: None)
    relay.wait_for(r"a capture ends: \d+ frames seen, 0 missed")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--filter", "no such thing"), "no filter: "),
        (("--peer", "ghost"), "no session is called ghost"),
        (("--peer", "999999"), "there is no session 999999"),
        (("--room", "nope"), "there is no room nope"),
    ],
)
def test_what_cannot_be_captured_is_said_in_one_line(relay, tmp_path, words, complaint):
    command = (
        sys.executable,
        "-m",
        "relay.main",
        "capture",
        "-w",
        tmp_path / "x",
        *words,
        "--admin",
        relay.admin,
    )
    done = run(*command, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert complaint in done.stderr


def test_a_trace_tells_each_decision_on_the_way(relay, guest):
    running = Running(relay, "trace", "web", "127.0.0.1", logged="traces")
    send(guest, IP(src=str(guest.assigned.ip), dst="127.0.0.1") / UDP(sport=4000, dport=free_port()) / b"?")
    lines = running.read_until("gateway, from peer")
    assert "switch, from peer" in lines[0]
    assert f"UDP {guest.assigned.ip}:4000 > 127.0.0.1:" in lines[0]
    assert "gateway.flows_opened" in lines[-1]
    (line,) = running.read_until("NAT: ")
    assert f"NAT: udp from {guest.assigned.ip}:4000 leaves by port " in line
    running.stop()


def test_a_trace_names_what_refuses_a_packet(relay, guest):
    running = Running(relay, "trace", GUEST_MAC, "10.9.9.9", "--json", logged="traces")
    send(guest, IP(src=str(guest.assigned.ip), dst="10.9.9.9") / UDP(sport=4000, dport=9) / b"?")
    lines = [json.loads(line) for line in running.read_until("gateway, from peer")]
    assert lines[-1]["decided"]["gateway.drop.denied"] == 1
    running.stop()
    relay.wait_for("a trace ends: 0 lines missed")


def test_arp_is_described(relay, guest):
    from relay.trace import describe

    asked = Ether(src=GUEST_MAC) / ARP(hwsrc=GUEST_MAC, psrc="10.0.2.15", pdst="10.0.2.2", op=1)
    assert describe(bytes(asked)) == "ARP who has 10.0.2.2"


def test_a_capture_may_end_anywhere_without_a_complaint(capfd):
    head = pcapng.section("vmrelay") + pcapng.interface("default/peer1", "web", 0)
    whole = head + pcapng.packet(0, 1.0, bytes(60), "in", comment="", snap_length=0)
    for size in range(len(whole)):
        assert not list(packets(io.BytesIO(whole[:size])))
    [(frame, _)] = packets(io.BytesIO(whole))
    assert frame == bytes(60)
    assert capfd.readouterr() == ("", "")


def test_packets_of_which_little_is_kept_are_told_as_well(relay, guest):
    running = Running(relay, "capture", "--snaplen", "6", logged="captures")
    ping(guest)
    running.read_until("6 bytes: " + GATEWAY_MAC.replace(":", ""))
    running.stop()


def test_a_capture_for_a_pipe_that_takes_no_more_says_so(relay):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "relay.main", "capture", "-w", "-", "--admin", str(relay.admin)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    said = "vmrelay: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_capture_for_a_disk_that_is_full_names_its_file(relay):
    said = relay.vmrelay("capture", "-w", "/dev/full", status=1)
    assert said == "vmrelay: error: /dev/full: No space left on device\n"
