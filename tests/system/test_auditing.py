"""What an audit log says of guests, flows and operators, from outside."""

from __future__ import annotations

import json
import signal
import socket
import sys

import pytest
from operators import OperatedRelay
from processes import PATIENCE, free_port, run
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from waiting import wait_until

from guest.relay_socket import RelayPeer, RelaySocket

GATEWAY_MAC = "52:54:00:12:34:56"
MAC = "52:54:00:00:77:51"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def start(tmp_path, log):
    relays = []

    def start(*options):
        relays.append(
            OperatedRelay(
                *(tmp_path, "--audit-log", log, "--log-level", "error", "--allow-cidr", "127.0.0.0/8"),
                *("--allow-cidr", "::1/128", *options),
            )
        )
        return relays[-1]

    yield start
    for relay in relays:
        relay.stop()


def entries(log, event, count=1):
    """Wait until there are so many entries of an event; give them without their times."""

    def found():
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    wait_until(lambda: len(found()) >= count, log.read_text)
    return [{key: value for key, value in line.items() if key != "time"} for line in found()]


def to_gateway(guest, packet):
    return Ether(src=guest.mac, dst=GATEWAY_MAC) / packet


def test_who_had_which_address_by_which_token(start, log, tmp_path):
    keys = tmp_path / "keys.json"
    run(sys.executable, "-m", "relay.main", "token", "key", keys)
    token = run(sys.executable, "-m", "relay.main", "token", "create", keys, "--id", "t1").stdout.strip()
    relay = start("--auth", "optional", "--auth-keys", keys)
    guest = RelayPeer(f"{relay.url}room/lab?token={token}", insecure=True, mac=MAC, name="web")
    address = str(guest.assigned.ip)
    guest.close()
    RelayPeer(relay.url, insecure=True, mac=MAC).close()
    who = {"peer": 1, "room": "lab", "mac": MAC, "address": address, "name": "web", "token_id": "t1"}
    joined, second = entries(log, "joined", 2)
    left, _ = entries(log, "left", 2)
    for entry in (joined, left):
        assert entry | who == entry
        assert entry["remote"].startswith("127.0.0.1:")
        assert entry["carrier"] == "webtransport"
    assert left["duration"] >= 0
    assert "token_id" not in second


def test_flows_are_told_with_the_port_outside(start, log):
    relay = start()
    guest = RelayPeer(relay.url, insecure=True, mac=MAC)
    source = str(guest.assigned.ip)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        RelaySocket(guest) as one,
    ):
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(PATIENCE)
        tcp.settimeout(PATIENCE)
        port = udp.getsockname()[1]
        for _ in range(3):
            one.send(to_gateway(guest, IP(src=source, dst="127.0.0.1") / UDP(sport=4000, dport=port) / b"x"))
        _, seen = udp.recvfrom(10)
        syn = TCP(sport=4001, dport=tcp.getsockname()[1], flags="S")
        one.send(to_gateway(guest, IP(src=source, dst="127.0.0.1") / syn))
        accepted, seen_tcp = tcp.accept()
        accepted.close()
        flows = entries(log, "flow", 2)
    guest.close()
    common = {"event": "flow", "room": "default", "direction": "out", "peer": 1, "mac": MAC}
    assert flows == [
        {
            **common,
            "protocol": "udp",
            "guest": f"{source}:4000",
            "remote": f"127.0.0.1:{port}",
            "local": seen[1],
        },
        {
            **common,
            "protocol": "tcp",
            "guest": f"{source}:4001",
            "remote": f"127.0.0.1:{syn.dport}",
            "local": seen_tcp[1],
        },
    ]


def test_each_address_that_a_mapping_writes_to_is_told_once(start, log):
    relay = start()
    guest = RelayPeer(relay.url, insecure=True, mac=MAC)
    port = free_port()
    source = IP(src=str(guest.assigned.ip))
    with RelaySocket(guest) as one:
        for last in (1, 2, 1, 2, 3):
            source.dst = f"127.0.0.{last}"
            one.send(to_gateway(guest, source / UDP(sport=4000, dport=port) / b"x"))
    flows = entries(log, "flow", 3)
    guest.close()
    assert [flow["remote"] for flow in flows] == [f"127.0.0.{last}:{port}" for last in (1, 2, 3)]
    assert len({flow["local"] for flow in flows}) == 1


def test_a_connection_through_a_forward_is_told_too(start, log):
    port = free_port()
    relay = start("--forward", f"tcp:127.0.0.1:{port}:web:80")
    guest = RelayPeer(relay.url, insecure=True, mac=MAC, name="web")
    with RelaySocket(guest) as one:
        # A guest that has shown its address is found.
        one.send(to_gateway(guest, IP(src=str(guest.assigned.ip), dst="10.0.2.2") / ICMP()))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            (flow,) = entries(log, "flow")
            ours = client.getsockname()[1]
    guest.close()
    assert (flow["direction"], flow["guest"]) == ("in", f"{guest.assigned.ip}:80")
    assert (flow["remote"], flow["local"]) == (f"127.0.0.1:{ours}", port)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_operators_change_is_told_once_with_who_asked(start, log, workers):
    relay = start("--workers", workers)
    relay.vmrelay("ban", "token=t9", "--time", "10m")
    relay.vmrelay("ban", "--lift", "token:t9")
    run(sys.executable, "-m", "relay.main", "token", "revoke", "t8", "--admin", relay.admin)
    relay.vmrelay("drain", "--time", "5m")
    relay.vmrelay("drain")
    relay.vmrelay("drain", "--end")
    relay.vmrelay("drain", "--end")
    relay.vmrelay("reload")
    changes = entries(log, "changed", 7)
    assert [change["what"] for change in changes] == [
        "banned token t9",
        "lifted the ban token:t9",
        "revoked the token t8",
        "drains the relay, and closes its sessions in 300 s",
        "drains the relay",
        "ended the draining",
        "asked for a reload",
    ]
    assert all(change["who"].startswith("the operator (") for change in changes)


def test_logrotate_may_move_it_away(start, log):
    relay = start()
    RelayPeer(relay.url, insecure=True, mac=MAC).close()
    entries(log, "left")
    log.rename(log.with_suffix(".1"))
    relay.signal(signal.SIGHUP)
    wait_until(log.exists)
    assert oct(log.stat().st_mode & 0o777) == "0o600"
    RelayPeer(relay.url, insecure=True, mac=MAC).close()
    entries(log, "left")


def test_it_is_rotated_by_its_size(start, log):
    relay = start("--audit-log-size", 4096, "--audit-log-files", 2)
    names = {log.name, f"{log.name}.1", f"{log.name}.2"}

    def come_and_go():
        RelayPeer(relay.url, insecure=True, mac=MAC).close()
        return {file.name for file in log.parent.glob("audit*")} == names

    wait_until(come_and_go)
    come_and_go()
    assert max(file.stat().st_size for file in log.parent.glob("audit*")) <= 4096


def test_a_file_that_cannot_be_had_ends_the_start_in_one_line(tmp_path):
    done = run(
        *(sys.executable, "-m", "relay.main", "--port", 0, "--bind", "127.0.0.1", "--admin", "none"),
        *("--audit-log", tmp_path / "nowhere" / "audit.jsonl"),
        check=False,
    )
    assert done.returncode == 1
    assert "cannot write the audit log" in done.stderr
    assert "Traceback" not in done.stderr
