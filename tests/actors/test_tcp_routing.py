"""Which flow a segment goes to, and when there is none."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP
from tcp_parts import Lan

from actors.messages import ConnectionFailed, SendResult


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


def test_segments_of_no_connection_are_reset(lan):
    lan.send(flags="A", seq=5, ack=77)
    assert (lan.one()[TCP].flags, lan.outside.tcp) == ("R", [])


def test_the_gateway_itself_refuses(lan):
    lan.send(flags="S", seq=5, destination="10.0.2.2", dport=81)
    assert lan.one()[TCP].flags == "RA"


def test_a_segment_with_a_bad_checksum_is_dropped(lan):
    lan.send(flags="S", chksum=1)
    assert (lan.outside.tcp, lan.counters["gateway.drop.bad_tcp_checksum"]) == ([], 1)


def test_connections_of_one_guest_port_have_one_owner(lan):
    first, second = lan.syn(), lan.syn(destination="192.0.2.81")
    other = lan.syn(sport=40001)
    assert first.owner == second.owner != other.owner


def test_half_open_connections_are_limited(loop, counters):
    lan = Lan(loop, counters, max_half_open_per_peer=3)
    for port in range(5):
        lan.send(flags="S", seq=1, dport=1000 + port)
    assert len(lan.outside.tcp) == 3
    assert lan.received() == []
    assert counters["gateway.drop.half_open_limit"] == 2
    lan.outside.tcp[0].tell(ConnectionFailed(SendResult.REFUSED))
    lan.send(flags="S", seq=1, dport=1003)
    assert len(lan.outside.tcp) == 4


def test_established_connections_are_not_half_open(loop, counters):
    lan = Lan(loop, counters, max_half_open_per_peer=1)
    for port in range(3):
        lan.connect(sport=40000 + port)
    assert len(lan.outside.tcp) == 3


def test_tcp_shares_the_limit_of_flows(loop, counters):
    lan = Lan(loop, counters, max_flows_per_peer=2)
    for port in range(3):
        lan.send(flags="S", seq=1, dport=1000 + port)
    assert len(lan.outside.tcp) == 2
    assert (lan.one()[ICMP].type, counters["gateway.drop.flow_limit"]) == (3, 1)
