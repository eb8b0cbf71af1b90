"""Who wants which multicast groups, by what scapy's hosts say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3gr, IGMPv3mr
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from netstack.counters import Counters
from netstack.multicast import (
    LEAVE_TIME,
    MAX_MEMBERSHIPS,
    MAX_MEMBERSHIPS_PER_PORT,
    MEMBERSHIP_TIME,
    MulticastGroups,
    Queries,
    Said,
)

GROUP4, GROUP6 = "239.1.2.3", "ff05::1234"
GATEWAY_MAC = bytes.fromhex("525400123456")
MAC = "52:54:00:aa:00:01"
LINK_LOCAL = bytes.fromhex("fe80000000000000505400fffe123456")


def ip4(destination):
    return Ether(src=MAC) / IP(src="10.0.2.10", dst=destination, ttl=1, options=[IPOption_Router_Alert()])


def ip6(destination):
    hop_by_hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return Ether(src=MAC) / IPv6(src="fe80::1", dst=destination, hlim=1) / hop_by_hop


def igmp(kind, group=GROUP4):
    return bytes(ip4(group) / IGMP(type=kind, gaddr=group))


def igmpv3(*records):
    told = [IGMPv3gr(rtype=kind, maddr=group, srcaddrs=list(sources)) for kind, group, sources in records]
    return bytes(ip4("224.0.0.22") / IGMPv3mr(records=told))


def mld(message, group=GROUP6):
    return bytes(ip6(group) / message(mladdr=group))


def mldv2(*records):
    told = [ICMPv6MLDMultAddrRec(rtype=kind, dst=group, sources=list(s)) for kind, group, s in records]
    return bytes(ip6("ff02::16") / ICMPv6MLReport2(records=told))


def data(group):
    if ":" in group:
        return bytes(Ether(src=MAC) / IPv6(src="fe80::1", dst=group) / UDP(sport=1, dport=2) / b"data")
    return bytes(Ether(src=MAC) / IP(src="10.0.2.10", dst=group) / UDP(sport=1, dport=2) / b"data")


JOINS = {
    "IGMPv1": (GROUP4, igmp(0x12)),
    "IGMPv2": (GROUP4, igmp(0x16)),
    "IGMPv3 is exclude": (GROUP4, igmpv3((2, GROUP4, ()))),
    "IGMPv3 to exclude": (GROUP4, igmpv3((4, GROUP4, ()))),
    "IGMPv3 to include": (GROUP4, igmpv3((3, GROUP4, ("192.0.2.1",)))),
    "IGMPv3 allow": (GROUP4, igmpv3((5, GROUP4, ("192.0.2.1", "192.0.2.2")))),
    "IGMPv3 second record": (GROUP4, igmpv3((2, "239.9.9.9", ("192.0.2.1",)), (4, GROUP4, ()))),
    "MLDv1": (GROUP6, mld(ICMPv6MLReport)),
    "MLDv2 to exclude": (GROUP6, mldv2((4, GROUP6, ()))),
    "MLDv2 allow": (GROUP6, mldv2((5, GROUP6, ("fd00::1",)))),
    "MLDv2 second record": (GROUP6, mldv2((4, "ff05::9", ("fd00::1",)), (2, GROUP6, ()))),
}
LEAVES = {
    "IGMPv2": (GROUP4, igmp(0x17)),
    "IGMPv3": (GROUP4, igmpv3((3, GROUP4, ()))),
    "MLDv1": (GROUP6, mld(ICMPv6MLDone)),
    "MLDv2": (GROUP6, mldv2((3, GROUP6, ()))),
}


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def groups(counters):
    return MulticastGroups(counters)


@pytest.mark.parametrize(("group", "report"), JOINS.values(), ids=JOINS)
def test_a_group_goes_to_who_reported_it_until_that_is_old(groups, group, report):
    assert groups.members(data(group), 0) is None
    assert groups.hear(report, 1, 0) is Said.REPORT
    assert groups.hear(report, 2, 50) is Said.REPORT
    assert groups.members(data(group), 100) == [1, 2]
    assert groups.members(data(group), MEMBERSHIP_TIME) == [2]
    assert groups.members(data(group), MEMBERSHIP_TIME + 50) is None


@pytest.mark.parametrize(("group", "leave"), LEAVES.values(), ids=LEAVES)
def test_who_leaves_is_out_soon_unless_another_behind_the_port_stays(groups, group, leave):
    join = JOINS["IGMPv2" if group == GROUP4 else "MLDv1"][1]
    for port in (1, 2, 3):
        groups.hear(join, port, 0)
    assert groups.hear(leave, 1, 10) is Said.LEAVE
    assert groups.hear(leave, 2, 10) is Said.LEAVE
    assert groups.members(data(group), 11) == [1, 2, 3]
    groups.hear(join, 2, 11)
    assert groups.members(data(group), 10 + LEAVE_TIME) == [2, 3]
    assert groups.hear(leave, 9, 10) is Said.REPORT, "it was in no such group"


@pytest.mark.parametrize(("group", "leave"), LEAVES.values(), ids=LEAVES)
def test_where_nobody_asks_who_stays_others_behind_the_port_keep_the_group(groups, group, leave):
    join = JOINS["IGMPv2" if group == GROUP4 else "MLDv1"][1]
    groups.hear(join, 1, 0, others_stay=True)
    assert groups.hear(leave, 1, 10, others_stay=True) is Said.REPORT
    assert groups.members(data(group), MEMBERSHIP_TIME - 1) == [1]


@pytest.mark.parametrize("record", [1, 6])
def test_records_that_change_nothing_change_nothing(groups, record):
    groups.hear(igmpv3((record, GROUP4, ())), 1, 0)
    groups.hear(mldv2((record, GROUP6, ())), 1, 0)
    assert len(groups) == 0


ON_LINK = ["224.0.0.1", "224.0.0.251", "ff02::1", "ff02::fb", "ff02::1:ff00:1", "ff01::5", "255.255.255.255"]


@pytest.mark.parametrize("group", [*ON_LINK, "10.0.2.11", "fd00::1"])
def test_what_stays_on_the_link_is_for_all_whoever_reports_it(groups, group):
    groups.hear(mld(ICMPv6MLReport, group) if ":" in group else igmp(0x16, group), 1, 0)
    assert len(groups) == 0
    assert groups.members(data(group), 0) is None


def test_groups_that_share_a_mac_are_told_apart(groups):
    groups.hear(igmp(0x16, "239.1.2.3"), 1, 0)
    assert data("239.1.2.3")[:6] == data("224.129.2.3")[:6]
    assert groups.members(data("224.129.2.3"), 0) is None


@pytest.mark.parametrize(
    "query",
    [
        bytes(ip4("224.0.0.1") / IGMP(type=0x11, gaddr="0.0.0.0")),
        bytes(ip6("ff02::1") / ICMPv6MLQuery()),
    ],
    ids=["IGMP", "MLD"],
)
def test_a_multicast_router_gets_all_groups(groups, query):
    assert groups.hear(query, 7, 0) is Said.QUERY
    assert groups.routers(1) == [7]
    groups.hear(igmp(0x16), 1, 0)
    assert groups.members(data(GROUP4), 1) == [1, 7]
    assert groups.routers(MEMBERSHIP_TIME) == []


def test_a_port_that_is_closed_is_in_no_group(groups):
    for port in (1, 2):
        groups.hear(igmp(0x16), port, 0)
        groups.hear(mld(ICMPv6MLReport), port, 0)
    groups.hear(bytes(ip6("ff02::1") / ICMPv6MLQuery()), 1, 0)
    groups.forget_port(1)
    assert groups.members(data(GROUP4), 0) == groups.members(data(GROUP6), 0) == [2]
    groups.forget_port(2)
    assert groups.members(data(GROUP4), 0) is None
    assert len(groups) == 0


def test_a_membership_that_expired_gives_its_place_back(groups):
    groups.hear(igmp(0x16), 1, 0)
    groups.hear(igmp(0x16), 2, 10)
    assert groups.members(data(GROUP4), MEMBERSHIP_TIME) == [2]
    assert len(groups) == 1
    assert groups.members(data(GROUP4), MEMBERSHIP_TIME + 10) is None
    assert len(groups) == 0


def test_the_table_is_bounded_and_who_finds_no_room_gets_all(groups, counters):
    for number in range(MAX_MEMBERSHIPS_PER_PORT + 50):
        groups.hear(igmp(0x16, f"239.0.{number >> 8}.{number & 255}"), 1, 0)
    assert len(groups) == MAX_MEMBERSHIPS_PER_PORT
    assert counters["switch.multicast.table_full"] == 50
    groups.hear(igmp(0x16), 2, 0)
    assert groups.members(data(GROUP4), 0) == [2, 1]
    for port in range(3, 3 + MAX_MEMBERSHIPS // MAX_MEMBERSHIPS_PER_PORT):
        records = [(4, f"239.7.0.{number}", ()) for number in range(MAX_MEMBERSHIPS_PER_PORT)]
        groups.hear(igmpv3(*records), port, 0)
    assert len(groups) == MAX_MEMBERSHIPS
    groups.expire(MEMBERSHIP_TIME)
    assert len(groups) == 0


def test_a_long_report_that_finds_no_room_is_read_up_to_there(groups, counters):
    own = [(4, f"239.7.0.{number}", ()) for number in range(MAX_MEMBERSHIPS_PER_PORT)]
    groups.hear(igmpv3(*own), 1, 0)
    for _ in range(3):
        groups.hear(igmpv3(*((4, f"239.8.0.{number}", ()) for number in range(170))), 1, 0)
    assert counters["switch.multicast.table_full"] == 3
    assert groups.members(data(GROUP4), 0) is None
    groups.hear(igmp(0x16), 2, 0)
    assert groups.members(data(GROUP4), 0) == [2, 1]


@pytest.mark.parametrize("report", [igmp(0x16), mld(ICMPv6MLReport)], ids=["IGMP", "MLD"])
def test_a_report_that_was_damaged_is_counted_and_changes_nothing(groups, counters, report):
    damaged = report[:-1] + bytes((report[-1] ^ 1,))
    assert groups.hear(damaged, 1, 0) is None
    assert counters["switch.multicast.malformed"] == 1
    assert len(groups) == 0


def test_other_frames_are_none_of_its_business(groups, counters):
    solicitation = Ether(src=MAC) / IPv6(src="fe80::1", dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt="fe80::2")
    tagged = Ether(src=MAC, dst="01:00:5e:01:02:03") / Dot1Q(vlan=7) / IP(dst=GROUP4) / UDP()
    for other in (bytes(solicitation), data(GROUP4), bytes(tagged), b""):
        assert groups.hear(other, 1, 0) is None
    assert groups.members(bytes(tagged), 0) is None
    assert not counters


@given(st.sampled_from([b"\x08\x00", b"\x86\xdd"]), st.binary(max_size=120))
def test_no_frame_makes_it_fail(ethertype, body):
    groups = MulticastGroups(Counters())
    frame = b"\x01\0\x5e\1\2\3" + b"\x52" * 6 + ethertype + body
    groups.hear(frame, 1, 0)
    groups.members(frame, 0)


@given(st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_records_that_are_cut_off_do_not_make_it_fail(number, rest):
    counters = Counters()
    groups = MulticastGroups(counters)
    for report in (
        ip4("224.0.0.22") / IGMPv3mr(numgrp=number) / Raw(rest),
        ip6("ff02::16") / ICMPv6MLReport2(records_number=number) / Raw(rest),
    ):
        assert groups.hear(bytes(report), 1, 0) in (Said.REPORT, Said.LEAVE)
    assert counters["switch.multicast.malformed"] == 0


def test_the_gateway_asks_by_igmpv2_and_mld():
    queries = Queries(GATEWAY_MAC, bytes((10, 0, 2, 2)), LINK_LOCAL)
    for frames, seconds in ((queries.general, 10), (queries.urgent, 1)):
        four, six = (Ether(frame) for frame in frames)
        assert (four.src, four.dst, four[IP].src, four[IP].dst) == (
            "52:54:00:12:34:56", "01:00:5e:00:00:01", "10.0.2.2", "224.0.0.1",
        )  # fmt: skip
        assert (four[IP].ttl, four[IGMP].type, four[IGMP].mrcode, four[IGMP].gaddr) == (
            1, 0x11, seconds * 10, "0.0.0.0",
        )  # fmt: skip
        assert (six.dst, six[IPv6].hlim, six[IPv6].dst) == ("33:33:00:00:00:01", 1, "ff02::1")
        assert (six[IPv6].src, six[ICMPv6MLQuery].mrd) == ("fe80::5054:ff:fe12:3456", seconds * 1000)
        assert MulticastGroups(Counters()).hear(bytes(four), 1, 0) is Said.QUERY
        assert MulticastGroups(Counters()).hear(bytes(six), 1, 0) is Said.QUERY
    assert len(Queries(GATEWAY_MAC, bytes((10, 0, 2, 2)), None).general) == 1
