"""The commands that ask a running relay, run as a user runs them, with guests on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from operators import OperatedRelay
from processes import PATIENCE, free_port, run
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from guest.client import ConnectError
from guest.relay_socket import RelayPeer, RelaySocket

GATEWAY, GATEWAY_MAC = "10.0.2.2", "52:54:00:12:34:56"
MAC = "52:54:00:00:77:01"


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    relay = OperatedRelay(tmp_path_factory.mktemp("admin"), "--allow-cidr", "127.0.0.0/8")
    yield relay
    relay.stop()


@pytest.fixture
def guest(relay):
    peer = RelayPeer(relay.url, insecure=True, mac=MAC, name="web")
    yield peer
    peer.close()


def port_of(relay):
    (peer,) = [peer for peer in relay.asked("peers") if peer["mac"] == MAC]
    return peer["port"]


def pings(guest, count=1):
    """Ping the gateway, and wait for the answers."""
    with RelaySocket(guest) as one:
        packet = IP(src=str(guest.assigned.ip), dst=GATEWAY) / ICMP()
        for _ in range(count):
            assert one.sr1(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet, timeout=PATIENCE, verbose=0)


def test_status_tells_the_relay_and_each_session(relay, guest):
    pings(guest, 3)
    told = relay.vmrelay("status")
    assert f"at {relay.url}" in told
    assert relay.hash in told
    (line,) = [line for line in told.splitlines() if MAC in line]
    assert re.search(rf"default +web +{MAC} +{guest.assigned.ip} +webtransport +[0-9.]+ ms", line)
    everything = relay.asked("status")
    assert everything["draining"] is False
    assert everything["rooms"][0]["sessions"] == 1


def test_peers_and_leases_and_macs_tell_the_same_guest(relay, guest):
    pings(guest)
    (peer,) = relay.asked("peers")
    assert (peer["name"], peer["address"], peer["room"]) == ("web", str(guest.assigned.ip), "default")
    assert peer["frames_in"] >= 1
    assert 0 < peer["round_trip"] < 1
    (lease,) = relay.asked("leases")["default"]
    assert (lease["address"], lease["name"], lease["port"]) == (peer["address"], "web", peer["port"])
    assert [entry["mac"] for entry in relay.asked("macs")["default"]] == [MAC]
    for command in ("peers", "leases", "macs"):
        assert MAC in relay.vmrelay(command)


def test_a_flow_is_listed_with_its_ends(relay, guest):
    packet = IP(src=str(guest.assigned.ip), dst="127.0.0.1") / UDP(sport=4000, dport=free_port()) / b"hello"
    with RelaySocket(guest) as one:
        one.send(Ether(src=guest.mac, dst=GATEWAY_MAC) / packet)
    pings(guest)  # what came before it has been handled
    (flow,) = [flow for flow in relay.asked("flows")["default"] if flow["protocol"] == "udp"]
    assert (flow["guest"], flow["remote"]) == (f"{guest.assigned.ip}:4000", "127.0.0.1")
    assert flow["bytes_out"] == 5
    assert relay.asked("flows", "--peer", "999999")["default"] == []
    (peer,) = relay.asked("peers")
    of_peer = relay.asked("flows", "--peer", peer["port"])["default"]
    assert (peer["flows"], flow["guest"] in {found["guest"] for found in of_peer}) == (len(of_peer), True)


def test_drops_are_told_with_their_reasons(relay, guest):
    with RelaySocket(guest) as one:
        one.send(Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src="192.0.2.9", dst=GATEWAY) / ICMP())
    pings(guest)
    assert relay.asked("drops")["switch.drop.foreign_source"] >= 1
    assert "switch.drop.foreign_source" in relay.vmrelay("drops", "--room", "default")


def test_rooms_are_listed(relay, guest):
    other = RelayPeer(f"{relay.url}room/lab", insecure=True)
    try:
        assert {room["name"]: room["sessions"] for room in relay.asked("rooms")} == {"default": 1, "lab": 1}
        assert [peer["room"] for peer in relay.asked("peers", "--room", "lab")] == ["lab"]
    finally:
        other.close()


def test_a_forward_comes_and_goes_while_the_relay_runs(relay):
    port = free_port()
    forward = f"tcp:127.0.0.1:{port}:web:80"
    assert forward in relay.vmrelay("forwards", "--add", forward)
    assert [item["forward"] for item in relay.asked("forwards")["default"]] == [forward]
    with_same_port = relay.vmrelay("forwards", "--add", f"tcp:127.0.0.1:{port}:other:80", status=1)
    assert "Address already in use" in with_same_port
    relay.vmrelay("forwards", "--remove", f"tcp:127.0.0.1:{port}")
    assert relay.asked("forwards")["default"] == []
    assert "has no forward" in relay.vmrelay("forwards", "--remove", forward, status=1)
    relay.vmrelay("forwards", "--add", forward)  # the port is free again
    relay.vmrelay("forwards", "--remove", forward)


def test_a_session_is_ended_with_a_reason(relay):
    peer = RelayPeer(relay.url, insecure=True, mac=MAC, reconnect=False)
    relay.vmrelay("disconnect", port_of(relay), "--reason", "go home")
    relay.wait_for("go home")
    peer.close()
    assert "there is no session" in relay.vmrelay("disconnect", "999999", status=1)


def test_a_banned_address_is_out_until_the_ban_is_lifted(relay, guest):
    said = relay.vmrelay("ban", "address=127.0.0.0/8", "--time", "10m", "--reason", "noise")
    assert "1 sessions were ended" in said
    with pytest.raises(ConnectError, match=r"403|Banned by the operator: noise"):
        RelayPeer(relay.url, insecure=True)
    assert re.search(r"address:127.0.0.0/8 +9m5\ds +noise", relay.vmrelay("ban"))
    relay.vmrelay("ban", "--lift", "address:127.0.0.0/8")
    RelayPeer(relay.url, insecure=True).close()
    assert "there is no ban" in relay.vmrelay("ban", "--lift", "address:127.0.0.0/8", status=1)


def test_a_banned_mac_gets_no_address_on_any_room(relay):
    first = RelayPeer(relay.url, insecure=True, mac=MAC, reconnect=False)
    assert "1 sessions were ended" in relay.vmrelay("ban", f"mac={MAC.upper()}")
    first.close()
    for url in (relay.url, f"{relay.url}room/after"):
        with pytest.raises(ConnectError, match="not one that a guest may have"):
            RelayPeer(url, insecure=True, mac=MAC)
    relay.vmrelay("ban", "--lift", f"mac:{MAC}")
    RelayPeer(relay.url, insecure=True, mac=MAC).close()


def test_a_banned_token_ends_its_sessions_and_no_others(tmp_path):
    keys = tmp_path / "keys.json"

    def token_command(*words):
        return run(sys.executable, "-m", "relay.main", "token", *words).stdout.strip()

    token_command("key", keys)
    tokens = {name: token_command("create", keys, "--id", name) for name in ("lost", "kept")}
    relay = OperatedRelay(tmp_path, "--auth", "required", "--auth-keys", keys)
    try:
        peers = {
            name: RelayPeer(f"{relay.url}?token={token}", insecure=True, reconnect=False)
            for name, token in tokens.items()
        }
        assert "1 sessions were ended" in relay.vmrelay("ban", "token=lost", "--reason", "enough")
        relay.wait_for("enough")
        assert len(relay.asked("peers")) == 1
        with pytest.raises(ConnectError, match=r"403|enough"):
            RelayPeer(f"{relay.url}?token={tokens['lost']}", insecure=True)
        relay.vmrelay("ban", "--lift", "token:lost")
        RelayPeer(f"{relay.url}?token={tokens['lost']}", insecure=True).close()
        for peer in peers.values():
            peer.close()
    finally:
        relay.stop()


def test_a_draining_relay_takes_nobody_new_and_keeps_whom_it_has(relay, guest):
    relay.vmrelay("drain")
    with pytest.raises(ConnectError, match=r"503|takes no new sessions"):
        RelayPeer(relay.url, insecure=True)
    pings(guest)
    relay.vmrelay("drain", "--end")
    RelayPeer(relay.url, insecure=True).close()


def test_changes_stand_in_the_log_with_who_asked(relay):
    relay.vmrelay("drain")
    relay.vmrelay("drain", "--end")
    assert relay.wait_for(r"the operator \(\S+\) ended the draining")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("ban", "nobody"), "address=192.0.2.0/24"),
        (("ban", "address=nowhere"), "must be an address or a network"),
        (("ban", "mac=1"), "MAC"),
        (("ban", "planet=earth"), "address, mac or token can be banned"),
        (("peers", "--room", "nope"), "there is no room nope"),
        (("forwards", "--add", "tcp:1"), "must be"),
        (("forwards", "--room", "nope", "--add", "tcp::1:web:1"), "there is no room nope"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(relay, words, complaint):
    said = relay.vmrelay(*words, status=1)
    assert complaint in said
    assert said.count("\n") == 1


def test_without_a_relay_the_commands_say_so(tmp_path):
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "VMRELAY_ADMIN": "",
    }
    done = run(
        *(sys.executable, "-m", "relay.main", "status", "--port", free_port()),
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no relay of this user is running here at port" in done.stderr


def test_a_socket_that_nobody_listens_at_is_said_in_one_line(tmp_path):
    done = run(sys.executable, "-m", "relay.main", "rooms", "--admin", tmp_path / "x.sock", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No such file" in done.stderr


def test_events_tell_who_came_and_went(relay):
    follower = subprocess.Popen(
        [sys.executable, "-u", "-m", "relay.main", "events", "--json", "--admin", str(relay.admin)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        events = []
        while not any(event["event"] == "left" for event in events):
            # Who listens too late for one visit hears of the next.
            RelayPeer(relay.url, insecure=True, mac=MAC, name="web").close()
            os.set_blocking(follower.stdout.fileno(), False)
            events += [json.loads(line) for line in iter(follower.stdout.readline, "")]
    finally:
        follower.terminate()
        follower.wait(PATIENCE)
        follower.stdout.close()
    left = next(event for event in events if event["event"] == "left")
    assert (left["room"], left["mac"], left["name"]) == ("default", MAC, "web")
    assert left["duration"] >= 0


def test_events_of_late_are_told_to_who_comes_later(relay):
    RelayPeer(relay.url, insecure=True, mac="52:54:00:00:77:09", name="gone").close()
    relay.wait_for("registered 52:54:00:00:77:09")
    told = relay.vmrelay("events", "--past")
    assert re.search(r"^\d\d:\d\d:\d\d peer \d+ registered 52:54:00:00:77:09 as ", told, re.MULTILINE)
    events = [json.loads(line) for line in relay.vmrelay("events", "--past", "--json").splitlines()]
    assert next(event["event"] for event in events if event.get("name") == "gone") == "joined"
    assert "gone" not in relay.vmrelay("events", "--past", "--room", "lab", "--json")


def test_what_a_guest_sent_and_was_dropped_on_the_way_is_its_sessions(relay, guest):
    with RelaySocket(guest) as one:
        one.send(Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src="192.0.2.9", dst=GATEWAY) / ICMP())
        one.send(
            Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src=str(guest.assigned.ip), dst="10.9.9.9") / ICMP()
        )
    pings(guest)
    (peer,) = relay.asked("peers")
    assert peer["drops"] == {"switch.drop.foreign_source": 1, "gateway.drop.denied": 1}
    assert re.search(rf"{MAC} .* 2 \((switch|gateway)\.drop\.\w+\)", relay.vmrelay("status"))
