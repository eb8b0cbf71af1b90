"""Multicast by subscription: who gets the frames of a group, and who is asked when."""

from __future__ import annotations

import pytest
from lan_parts import GATEWAY_MAC, Box, mac
from scapy.contrib.igmp import IGMP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from switch_parts import Lan

from actors.lan.forwarding import FLOOD_BURST, LEAVE_BURST, MULTICAST_COPIES
from actors.lan.switch import FIRST_QUERY_AFTER
from actors.messages import GatewayAttached, PortClosed
from actors.runtime import run_ready
from actors.settings import LanSettings
from netstack.checksum import add_up, finish
from netstack.multicast import LEAVE_TIME, MEMBERSHIP_TIME, QUERY_INTERVAL, Queries

GROUPS = {4: "239.1.2.3", 6: "ff05::1234"}
QUERIES = Queries(GATEWAY_MAC, bytes((10, 0, 2, 2)), LanSettings().gateway_link_local)


@pytest.fixture
def lan(loop, counters):
    """Six guests that the switch knows, and a gateway that asks for groups."""
    lan = Lan(counters, ports=6)
    lan.tell(GatewayAttached(lan.gateway, None, QUERIES))
    for number in range(1, 7):
        lan.register(number, mac(number))
    loop.advance(FIRST_QUERY_AFTER)
    for number in range(1, 7):
        assert lan.got(number) == QUERIES.general
    lan.gateway.clear()
    return lan


def ether(n):
    return Ether(src=mac(n).hex(":"))


def membership(n, version, *, leave=False):
    group = GROUPS[version]
    if version == 4:
        return bytes(
            ether(n) / IP(src=f"10.0.2.{9 + n}", dst=group) / IGMP(type=0x17 if leave else 0x16, gaddr=group)
        )
    message = (ICMPv6MLDone if leave else ICMPv6MLReport)(mladdr=group)
    hop_by_hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return bytes(ether(n) / IPv6(src=f"fe80::{n}", dst=group, hlim=1) / hop_by_hop / message)


def data(n, version, group=None):
    if version == 4:
        return bytes(ether(n) / IP(src=f"10.0.2.{9 + n}", dst=group or GROUPS[4]) / UDP() / b"data")
    return bytes(ether(n) / IPv6(src=f"fe80::{n}", dst=group or GROUPS[6]) / UDP() / b"data")


@pytest.mark.parametrize("version", [4, 6])
def test_a_group_goes_to_its_members_and_the_gateway_only(lan, version, counters):
    lan.sends(1, membership(1, version))
    lan.sends(2, membership(2, version))
    for number in range(1, 7):
        assert lan.got(number) == [], "reports would keep others from reporting"
    assert len(lan.gateway_got()) == 2
    frame = data(3, version)
    lan.sends(3, frame)
    assert [lan.got(number) for number in range(1, 7)] == [[frame], [frame], [], [], [], []]
    assert lan.gateway_got() == [frame]
    lan.sends(1, data(1, version))
    assert (lan.got(1), lan.got(2), lan.got(4)) == ([], [data(1, version)], [])
    assert counters["switch.multicast"] == 4
    assert counters["switch.received"] == counters["switch.multicast"] + counters["switch.flooded"]


@pytest.mark.parametrize("version", [4, 6])
def test_what_nobody_asked_for_and_what_stays_on_the_link_is_for_all(lan, version):
    lan.sends(1, membership(1, version))
    for group in {4: ("239.9.9.9", "224.0.0.251"), 6: ("ff05::9", "ff02::fb", "ff02::1:ff00:7")}[version]:
        frame = data(3, version, group)
        lan.sends(3, frame)
        assert [lan.got(number) for number in (1, 2, 4, 5, 6)] == [[frame]] * 5


def test_frames_of_a_batch_stay_in_order(lan):
    lan.sends(1, membership(1, 4))
    frames = [data(3, 4), data(3, 4, "239.9.9.9"), data(3, 4), mac(1) + mac(3) + b"\x88\xb5unicast"]
    lan.sends(3, *frames)
    assert lan.got(1) == frames
    assert lan.got(2) == frames[1:2]


@pytest.mark.parametrize("version", [4, 6])
def test_who_leaves_is_asked_whether_others_stay(lan, loop, version):
    for number in (1, 2):
        lan.sends(number, membership(number, version))
    lan.sends(1, membership(1, version, leave=True))
    assert lan.got(1) == QUERIES.urgent
    assert lan.got(2) == []
    loop.advance(LEAVE_TIME)
    lan.sends(3, data(3, version))
    assert (lan.got(1), lan.got(2), lan.got(4)) == ([], [data(3, version)], [])
    for _ in range(50):
        lan.sends(2, membership(2, version, leave=True))
    assert len(lan.got(2)) == LEAVE_BURST * len(QUERIES.urgent)


def test_all_are_asked_from_time_to_time_and_the_silent_are_forgotten(lan, loop):
    for number in (1, 2):
        lan.sends(number, membership(number, 4))
    for _ in range(2):
        loop.advance(QUERY_INTERVAL)
        assert [lan.got(number) for number in range(1, 7)] == [QUERIES.general] * 6
        lan.sends(1, membership(1, 4))
    loop.advance(MEMBERSHIP_TIME - 2 * QUERY_INTERVAL)
    lan.sends(3, data(3, 4))
    assert (lan.got(1), lan.got(2)) == ([data(3, 4)], [])


def test_a_new_port_is_asked_once_it_is_known(lan, loop):
    lan.open(7)
    loop.advance(FIRST_QUERY_AFTER)
    assert lan.got(7) == []
    lan.register(7, mac(7))
    lan.register(7, mac(8))
    loop.advance(FIRST_QUERY_AFTER)
    assert lan.got(7) == QUERIES.general
    assert lan.got(1) == []


def test_a_port_that_is_new_when_all_are_asked_is_asked_in_its_own_time(lan, loop):
    """Its client needs a moment to configure its NIC; two ports do not share it."""
    loop.advance(QUERY_INTERVAL - FIRST_QUERY_AFTER - 0.25)
    lan.open(7)
    lan.open(8)
    lan.register(7, mac(7))
    loop.advance(0.5)
    lan.register(8, mac(8))
    assert lan.got(1) == QUERIES.general
    assert lan.got(7) == []
    loop.advance(0.5)
    assert (lan.got(7), lan.got(8)) == (QUERIES.general, [])
    loop.advance(0.5)
    assert (lan.got(7), lan.got(8)) == ([], QUERIES.general)


def test_a_port_that_closed_gets_nothing_and_keeps_nothing(lan):
    lan.sends(1, membership(1, 4))
    lan.tell(PortClosed(1))
    lan.sends(3, data(3, 4))
    assert lan.got(1) == []
    assert lan.got(2) == [data(3, 4)], "nobody is in the group any more"


def test_a_guest_that_routes_multicast_gets_groups_and_reports(lan):
    hop_by_hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    query = bytes(ether(5) / IPv6(src="fe80::5", dst="ff02::1", hlim=1) / hop_by_hop / ICMPv6MLQuery())
    lan.sends(5, query)
    assert lan.got(1) == [query]
    lan.sends(1, membership(1, 4))
    lan.sends(3, data(3, 4))
    assert lan.got(5) == [membership(1, 4), data(3, 4)]
    assert lan.got(2) == [query]


def test_floods_count_and_frames_for_few_do_not(loop, counters):
    lan = Lan(counters, ports=MULTICAST_COPIES + 3, settings=LanSettings(floods_per_second=20))
    burst = int(20 * FLOOD_BURST)
    lan.sends(1, *[data(1, 4)] * (burst + 10))
    assert lan.drops() == {"flood_rate": 10}
    for number in range(2, 4):
        lan.sends(number, membership(number, 4))
        lan.got(number)
    lan.sends(1, *[data(1, 4)] * 100)
    assert len(lan.got(2)) == len(lan.got(3)) == 100
    assert lan.drops() == {"flood_rate": 10}
    for number in range(4, MULTICAST_COPIES + 4):
        lan.sends(number, membership(number, 4))
    lan.sends(1, *[data(1, 4)] * 100)
    assert lan.drops() == {"flood_rate": 110}


def test_reports_count_as_floods(loop, counters):
    lan = Lan(counters, settings=LanSettings(floods_per_second=20))
    lan.sends(1, *[membership(1, 4)] * 50)
    assert lan.drops() == {"flood_rate": 10}


def test_reports_of_many_groups_count_as_many_floods(loop, counters):
    """One of 180 groups takes 0.4 ms, and is one frame."""
    lan = Lan(counters, settings=LanSettings(floods_per_second=50))
    lan.register(1, mac(1))
    records = b"".join(b"\4\0\0\0" + bytes((239, 1, 0, number)) for number in range(120))
    head = bytes((0x22, 0, 0, 0, 0, 0, 0, 120))
    checksum = finish(add_up(head + records)).to_bytes(2, "big")
    report = head[:2] + checksum + head[4:] + records
    frame = bytes(ether(1) / IP(src="10.0.2.10", dst="224.0.0.22", proto=2, ttl=1) / Raw(report))
    lan.sends(1, *[frame] * 100)
    heard = counters["switch.multicast.reports"]
    assert heard == -(-100 // (1 + len(frame) // 128))
    assert lan.drops() == {"flood_rate": 100 - heard}


def test_without_queries_nobody_is_asked(loop, counters):
    lan = Lan(counters)
    lan.register(1, mac(1))
    loop.advance(2 * QUERY_INTERVAL)
    run_ready()
    assert lan.got(1) == []
    assert isinstance(lan.gateway, Box)
