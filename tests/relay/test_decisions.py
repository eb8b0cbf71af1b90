"""Debug lines about frames that went nowhere, from outside: a guest does what is not allowed."""

from __future__ import annotations

import json
import sys

import pytest
from operators import OperatedRelay
from processes import PATIENCE, run
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from guest.relay_socket import RelayPeer, RelaySocket

GATEWAY, GATEWAY_MAC = "10.0.2.2", "52:54:00:12:34:56"
MAC = "52:54:00:00:77:41"


@pytest.fixture
def start(tmp_path):
    relays = []

    def start(*options):
        relays.append(OperatedRelay(tmp_path, *options))
        return relays[-1]

    yield start
    for relay in relays:
        relay.stop()


@pytest.fixture
def misbehave():
    """Have a guest of a relay send these packets to the gateway; returns when they have been handled."""

    def misbehave(relay, *packets, room=""):
        guest = RelayPeer(f"{relay.url}{room}", insecure=True, mac=MAC)
        ours = IP(src=str(guest.assigned.ip), dst=GATEWAY)
        with RelaySocket(guest) as one:
            for packet in packets:
                if IP in packet and packet[IP].src == "0.0.0.0":
                    packet[IP].src = str(guest.assigned.ip)
                one.send(Ether(src=MAC, dst=GATEWAY_MAC) / packet)
            question = ours / UDP(sport=99, dport=53) / DNS(qd=DNSQR(qname="gateway.vm"))
            assert one.sr1(Ether(src=MAC, dst=GATEWAY_MAC) / question, timeout=PATIENCE, verbose=0)
        guest.close()

    return misbehave


def foreign():
    return IP(src="192.0.2.9", dst=GATEWAY) / ICMP()


def foreign6():
    return IPv6(src="2001:db8::9", dst="2001:db8::1") / ICMPv6EchoRequest()


def private():
    return IP(src="0.0.0.0", dst="192.168.77.1") / UDP(sport=4000, dport=9) / b"x"


def lines_of(relay, part):
    found = [json.loads(line) for line in relay.output.splitlines() if line.startswith("{")]
    return [line for line in found if line["level"] == "debug" and line["part"] == part]


@pytest.mark.parametrize(
    ("packet", "part", "said"),
    [
        (
            foreign,
            "switch",
            r"from peer 1: 1 switch.drop.foreign_source of \d+ frames? \(.*ICMP 192.0.2.9 > 10.0.2.2",
        ),
        (foreign6, "switch", r"from peer 1: 1 switch.drop.\w+ of \d+ frames? \(.*ICMPv6 2001:db8::9 > 2001"),
        (
            private,
            "gateway",
            r"from peer 1: 1 gateway.drop.denied of \d+ frames? \(.*UDP .* > 192.168.77.1:9",
        ),
        (private, "policy", r"from peer 1: 1 outside.denied.\w+ of \d+ frames? \(.*UDP .* > 192.168.77.1:9"),
    ],
)
def test_what_is_dropped_is_said_with_who_decided(start, misbehave, packet, part, said):
    relay = start("--log-level", "debug")
    misbehave(relay, packet())
    relay.wait_for(said)
    assert lines_of(relay, part)
    assert not {"quic", "http3", "asyncio"} & {
        json.loads(line)["part"] for line in relay.output.splitlines() if line.startswith("{")
    }


def test_what_a_flow_that_is_there_may_not_send_is_said_too(start, misbehave):
    relay = start("--log-level", "debug", "--allow-cidr", "127.0.0.1")
    packets = [
        IP(src="0.0.0.0", dst=destination) / UDP(sport=4000, dport=9) / b"x"
        for destination in ("127.0.0.1", "192.168.77.1")
    ]
    misbehave(relay, *packets)
    relay.wait_for(r"from peer 1: 1 udp.drop.denied of \d+ frames? \(.*UDP .* > 192.168.77.1:9")
    relay.wait_for(r"from peer 1: 1 outside.denied.\w+ of \d+ frames? \(.*UDP .* > 192.168.77.1:9")
    assert lines_of(relay, "flow")
    assert lines_of(relay, "policy")


def test_a_flood_is_a_few_lines(start, misbehave):
    relay = start("--log-level", "debug")
    misbehave(relay, *(foreign() for _ in range(300)))
    relay.wait_for("switch.drop.foreign_source")
    for reason in ("foreign_source", "claim_rate"):
        assert 0 < sum(reason in line["message"] for line in lines_of(relay, "switch")) <= 10


def test_rooms_that_are_made_later_are_looked_on_too_and_only_named_parts_speak(start, misbehave):
    relay = start("--log-filter", "switch=debug")
    misbehave(relay, foreign(), private(), room="room/lab")
    relay.wait_for("switch.drop.foreign_source")
    assert [line["fields"]["room"] for line in lines_of(relay, "switch")] == ["lab"]
    assert lines_of(relay, "gateway") == lines_of(relay, "policy") == []


def test_a_reload_begins_and_ends_them(start, misbehave, tmp_path):
    file = tmp_path / "relay.toml"
    file.write_text("")
    relay = start("--config", file)
    misbehave(relay, foreign())
    assert lines_of(relay, "switch") == []
    file.write_text('log-filter = ["switch=debug"]')
    assert relay.asked("reload")["changed"] == ["log-filter"]
    misbehave(relay, foreign())
    relay.wait_for("switch.drop.foreign_source")
    before = len(lines_of(relay, "switch"))
    file.write_text("")
    relay.asked("reload")
    misbehave(relay, foreign())
    assert len(lines_of(relay, "switch")) == before


@pytest.mark.parametrize("text", ["loud", "switch=loud", "swich=debug"])
def test_a_filter_that_is_none_is_one_line(text):
    done = run(sys.executable, "-m", "relay.main", "--log-filter", text, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--log-filter: must" in done.stderr
