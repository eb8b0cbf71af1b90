"""What commands tell of a running relay, run as a user runs them, with guests on it."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from operators import GATEWAY, GATEWAY_MAC, GUEST_MAC, pings
from processes import PATIENCE, free_port
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from guest.relay_socket import RelayPeer, RelaySocket
from relay.admin.inspection import events


def test_status_tells_the_relay_and_each_session(relay, guest):
    pings(guest, 3)
    told = relay.vmrelay("status")
    assert f"at {relay.url}" in told
    assert relay.hash in told
    (line,) = [line for line in told.splitlines() if GUEST_MAC in line]
    assert re.search(rf"default +web +{GUEST_MAC} +{guest.assigned.ip} +webtransport +[0-9.]+ ms", line)
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
    assert [entry["mac"] for entry in relay.asked("macs")["default"]] == [GUEST_MAC]
    for command in ("peers", "leases", "macs"):
        assert GUEST_MAC in relay.vmrelay(command)


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
    for name in ("web", GUEST_MAC, guest.assigned.ip):
        of_guest = relay.asked("flows", "--peer", name)["default"]
        assert flow["guest"] in {found["guest"] for found in of_guest}
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


def test_status_and_rooms_tell_of_one_room_only(relay, guest):
    other = RelayPeer(f"{relay.url}room/lab", insecure=True, mac="52:54:00:00:77:05")
    try:
        assert [room["name"] for room in relay.asked("rooms", "--room", "lab")] == ["lab"]
        everything = relay.asked("status", "--room", "lab")
        assert [room["name"] for room in everything["rooms"]] == ["lab"]
        assert [peer["mac"] for peer in everything["peers"]] == ["52:54:00:00:77:05"]
        told = relay.vmrelay("status", "--room", "lab")
        assert "52:54:00:00:77:05" in told
        assert GUEST_MAC not in told
        for command in ("status", "rooms"):
            assert "there is no room nope" in relay.vmrelay(command, "--room", "nope", status=1)
    finally:
        other.close()


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
            RelayPeer(relay.url, insecure=True, mac=GUEST_MAC, name="web").close()
            os.set_blocking(follower.stdout.fileno(), False)
            events += [json.loads(line) for line in iter(follower.stdout.readline, "")]
    finally:
        follower.terminate()
        follower.wait(PATIENCE)
        follower.stdout.close()
    left = next(event for event in events if event["event"] == "left")
    assert (left["room"], left["mac"], left["name"]) == ("default", GUEST_MAC, "web")
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
    assert re.search(rf"{GUEST_MAC} .* 2 \((switch|gateway)\.drop\.\w+\)", relay.vmrelay("status"))


def test_who_follows_events_too_slowly_is_told_how_many_were_missed(capsys):
    told = {"time": 0.0, "message": "peer 1 registered", "event": "joined", "missed": 7}
    relay: Any = SimpleNamespace(lines=lambda *_: [": connected", f"data: {json.dumps(told)}"])
    events(relay, argparse.Namespace(past=False, room=None, json=False))
    assert capsys.readouterr().out.endswith("peer 1 registered (7 events before it were missed)\n")
