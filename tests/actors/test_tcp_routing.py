"""Which flow a segment goes to, and when there is none."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP
from tcp_parts import SERVER, Lan

from actors.flows.flow_table import HALF_OPEN_KEPT
from actors.messages import ConnectionFailed, ConnectionMade
from actors.ports import SendResult

SERVER6 = "2606:4700::80"


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


DESTINATIONS = pytest.mark.parametrize("destination", [SERVER, SERVER6], ids=["IPv4", "IPv6"])


@DESTINATIONS
def test_half_open_connections_are_limited_in_silence(loop, counters, destination):
    lan = Lan(loop, counters, max_half_open_per_peer=3)
    for port in range(5):
        lan.send(flags="S", seq=1, destination=destination, dport=1000 + port)
    assert len(lan.outside.tcp) == 3
    assert lan.received() == []
    assert counters["gateway.drop.half_open_limit"] == 2
    lan.outside.tcp[0].tell(ConnectionFailed(SendResult.REFUSED))
    lan.send(flags="S", seq=1, destination=destination, dport=1003)
    assert len(lan.outside.tcp) == 4


def test_established_connections_are_not_half_open(loop, counters):
    lan = Lan(loop, counters, max_half_open_per_peer=1)
    for port in range(3):
        lan.connect(sport=40000 + port)
    assert len(lan.outside.tcp) == 3


@DESTINATIONS
def test_destinations_that_are_silent_do_not_keep_a_guest_from_others(loop, counters, destination):
    lan = Lan(loop, counters)
    for port in range(64):
        lan.send(flags="S", seq=1, sport=1000 + port, destination=destination)
    loop.advance(HALF_OPEN_KEPT - 0.5)
    lan.send(flags="S", seq=1, sport=3000, destination=destination)
    assert len(lan.outside.tcp) == 64
    loop.advance(1)
    lan.send(flags="S", seq=1, sport=3000, destination=destination)
    assert len(lan.outside.tcp) == 65
    assert [socket.closed for socket in lan.outside.tcp] == ["abort"] + [None] * 64
    lan.outside.tcp[-1].tell(ConnectionMade())
    assert lan.one()[TCP].flags == "SA"
    lan.send(flags="S", seq=1, sport=1000, destination=destination)  # repeated: another turn
    assert len(lan.outside.tcp) == 66
    assert counters["tcp.gave_way"] == 2
    opened, closed = counters["gateway.flows_opened"], counters["gateway.flows_closed"]
    assert (opened, closed) == (66, 2)


@DESTINATIONS
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_flows_per_peer": 2}, "flow_limit"),
        ({"max_flows_per_peer": 2, "new_flows_per_second": 0.1}, "flow_rate"),
    ],
)
def test_a_syn_over_a_limit_is_dropped_in_silence_and_heard_when_it_is_repeated(
    loop, counters, settings, reason, destination
):
    lan = Lan(loop, counters, **settings)
    for port in range(2):
        lan.send(flags="S", seq=1, destination=destination, dport=1000 + port)
        if reason == "flow_rate":
            lan.outside.tcp[-1].tell(ConnectionFailed(SendResult.DROPPED))
    lan.send(flags="S", seq=1, destination=destination, dport=80)
    assert len(lan.outside.tcp) == 2
    assert lan.received() == []
    assert counters[f"gateway.drop.{reason}"] == 1
    if reason == "flow_limit":
        lan.outside.tcp[0].tell(ConnectionFailed(SendResult.DROPPED))
    loop.advance(10.1)
    lan.send(flags="S", seq=1, destination=destination, dport=80)
    assert len(lan.outside.tcp) == 3
