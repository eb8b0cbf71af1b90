from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from actors.flows.udp_frames import MAX_TEMPLATES, FramesToGuest, runs_of
from actors.messages import DatagramFromNet
from netstack.family import IPV4, IPV6

GUEST_MAC, GATEWAY_MAC = "52:54:00:01:02:03", "52:54:00:12:34:56"
SEED = 7


def frame(payload=b"payload", *, dst="192.0.2.1", dport=53, ttl=64, flags="DF", options=b""):
    link = Ether(src=GUEST_MAC, dst=GATEWAY_MAC)
    if ":" in dst:
        return bytes(link / IPv6(src="fd00::2", dst=dst, hlim=ttl) / UDP(sport=4000, dport=dport) / payload)
    packet = IP(src="10.0.2.15", dst=dst, ttl=ttl, flags=flags, options=options)
    return bytes(link / packet / UDP(sport=4000, dport=dport) / payload)


def plainly(frames):
    """What ``runs_of`` is to say, each frame read by scapy."""
    runs = []
    for raw in frames:
        packet = Ether(raw)[IP]
        target = (
            IPV4.pack(packet.dst),
            packet[UDP].dport,
            packet.ttl - 1,
            bool(packet.flags.DF),
        )
        if not runs or runs[-1][0] != target:
            runs.append((target, [], []))
        runs[-1][1].append(raw)
        runs[-1][2].append(bytes(packet[UDP].payload))
    return runs


def test_frames_to_one_place_are_one_run_whatever_their_order():
    chance = random.Random(SEED)
    kinds: list[dict[str, Any]] = [
        {},
        {"dport": 54},
        {"dst": "192.0.2.2"},
        {"ttl": 9},
        {"flags": ""},
        {"options": b"\x01\x01\x01\x01"},
        {"options": b"\x01\x01\x01\x01", "ttl": 9},
    ]
    for _ in range(100):
        frames = [
            frame(bytes(chance.randrange(60)), **chance.choice(kinds[: chance.randrange(1, len(kinds) + 1)]))
            for _ in range(chance.randrange(12))
        ]
        assert runs_of(frames, IPV4) == plainly(frames)


def test_what_the_network_has_appended_to_a_frame_is_no_payload():
    frames = [frame(b"ab") + bytes(20), frame(b"cd") + bytes(4)]
    ((_, _, payloads),) = runs_of(frames, IPV4)
    assert payloads == [b"ab", b"cd"]


def test_ipv6_frames_are_sorted_too():
    frames = [frame(b"a", dst="2001:db8::1"), frame(b"b", dst="2001:db8::1"), frame(b"c", dst="2001:db8::2")]
    runs = runs_of(frames, IPV6)
    assert [run.payloads for run in runs] == [[b"a", b"b"], [b"c"]]
    assert {run.target[2:] for run in runs} == {(63, True)}


@pytest.fixture
def to_guest():
    return FramesToGuest(IPV4, bytes(12), bytes((10, 0, 2, 15)), 4000)


def test_only_those_who_were_written_to_are_let_in(to_guest):
    names = ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.1"]
    datagrams = [DatagramFromNet(bytes((n,)), (host, 53), 64) for n, host in enumerate(names)]
    for senders, wanted in (({"192.0.2.1": None}, [0, 3]), (None, [0, 1, 2, 3]), ({}, [])):
        frames = [Ether(built) for built in to_guest.build(datagrams, senders)]
        assert [bytes(built[UDP].payload)[0] for built in frames] == wanted
        assert [built[IP].src for built in frames] == [names[number] for number in wanted]


def test_frames_count_on_and_lose_a_hop(to_guest):
    datagrams = [DatagramFromNet(b"x", ("192.0.2.1", 53), ttl) for ttl in (64, 2, 1)]
    frames = [Ether(built) for built in [*to_guest.build(datagrams, None), *to_guest.build(datagrams, None)]]
    assert [built.ttl for built in frames] == [63, 1, 1] * 2
    assert [built.id for built in frames] == [1, 2, 3, 4, 5, 6]


def test_a_remote_with_many_ports_fills_no_table(to_guest):
    for port in range(1, 4 * MAX_TEMPLATES):
        (built,) = to_guest.build([DatagramFromNet(b"x", ("192.0.2.1", port), 64)], None)
        assert Ether(built)[UDP].sport == port
        assert len(to_guest._templates) <= MAX_TEMPLATES
