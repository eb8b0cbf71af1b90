"""IPv6 at the gateway and through the NAT, with scapy as the guests."""

from __future__ import annotations

import operator
from functools import partial, reduce
from ipaddress import IPv4Address
from itertools import product

import pytest
from gateway_parts import Lan, assert_intact, ether
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import Box, mac
from scapy.layers.dhcp6 import DHCP6_InfoRequest, DHCP6_Reply, DHCP6OptDNSDomains, DHCP6OptDNSServers
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDNSSL,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptRDNSS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Raw

from actors.gateway.discovery import UPLINK_INTERVAL, UPLINK_REPEATS
from actors.gateway.ipv6_router import _for_flows
from actors.messages import AssignAddress, ErrorFromNet, PortClosed
from actors.ports import SendResult
from actors.settings import LanSettings
from netstack.contests import PROBE_INTERVAL, PROBES
from netstack.family import IPV6
from netstack.ipv6 import parse_ipv6
from netstack.link_mtu import MAX_RAW_MTU
from netstack.router_advertisement import INTERVAL
from netstack.udp import parse_udp, read_udp

PREFIX = LanSettings().ipv6_prefix
GATEWAY = "fd76:6d72:656c:6179::2"
LINK_LOCAL = "fe80::5054:ff:fe12:3456"
REMOTE = "2606:4700::1111"
LONG = tuple(f"{number:0>60}.example" for number in range(32))


@pytest.fixture
def lan(loop, counters):
    lan = Lan(counters, ipv6_prefix=PREFIX)
    for port in (1, 2, 3):
        lan.assign(port)
    return lan


def guest(port):
    return f"fd76:6d72:656c:6179::1:{port}"


def packet(port, dst=REMOTE, **fields):
    return ether(port) / IPv6(**{"src": guest(port), "dst": dst, "hlim": 64} | fields)


def udp(port, sport=4000, data=b"question", **fields):
    return packet(port, **fields) / UDP(sport=sport, dport=53) / Raw(data)


def ping(port, identifier=7, seq=1, **fields):
    return packet(port, **fields) / ICMPv6EchoRequest(id=identifier, seq=seq, data=b"payload")


def multicast(port, src, dst, hlim=255):
    hardware = b"\x33\x33\x00\x00\x00\x02"
    return ether(port, hardware) / IPv6(src=src, dst=dst, hlim=hlim)


# -- the LAN ----------------------------------------------------------------------------------------


def test_a_router_solicitation_is_answered_with_the_mtu_of_the_session(lan):
    for source in ("::", "fe80::1"):
        (told,) = lan.sends(1, multicast(1, source, "ff02::2") / ICMPv6ND_RS())
        assert told.dst == mac(1).hex(":")
        assert told[IPv6].src == LINK_LOCAL
        assert told[ICMPv6ND_RA].routerlifetime > 0
        assert told[ICMPv6NDOptMTU].mtu == 1500


@pytest.mark.parametrize("dns", [None, Box()])
def test_guests_are_told_of_the_name_server_that_there_is(loop, counters, dns):
    lan = Lan(counters, ipv6_prefix=PREFIX, dns=dns)
    (told,) = lan.sends(1, multicast(1, "fe80::1", "ff02::2") / ICMPv6ND_RS())
    request = multicast(1, "fe80::1", "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_InfoRequest()
    (informed,) = lan.sends(1, request)
    assert (ICMPv6NDOptRDNSS in told, DHCP6OptDNSServers in informed) == (dns is not None,) * 2
    if dns is not None:
        assert told[ICMPv6NDOptRDNSS].dns == informed[DHCP6OptDNSServers].dnsservers == [GATEWAY]


@pytest.mark.parametrize(
    ("server", "is_gateway"), [("10.0.2.3", True), ("10.0.2.4", False), ("9.9.9.9", False)]
)
def test_guests_that_are_to_ask_another_name_server_are_not_told_of_the_gateway(
    loop, counters, server, is_gateway
):
    told_dns = IPv4Address(server).packed
    lan = Lan(counters, ipv6_prefix=PREFIX, dns=Box(), told_dns=told_dns, host_access=True)
    (told,) = lan.sends(1, multicast(1, "fe80::1", "ff02::2") / ICMPv6ND_RS())
    request = multicast(1, "fe80::1", "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_InfoRequest()
    (informed,) = lan.sends(1, request)
    assert (ICMPv6NDOptRDNSS in told, DHCP6OptDNSServers in informed) == (is_gateway, is_gateway)


def test_advertisements_come_also_unasked(loop, lan):
    assert lan.received() == []
    loop.advance(INTERVAL)
    assert sorted(f.dst for f in lan.received() if ICMPv6ND_RA in f) == [mac(n).hex(":") for n in (1, 2, 3)]
    lan.tell(PortClosed(2))
    loop.advance(INTERVAL)
    assert len(lan.received()) == 2


def test_a_guest_that_was_told_an_mtu_hears_soon_of_another(loop, lan):
    mtus = {1: 1280, 2: 1280}
    for port in mtus:
        lan.tell(AssignAddress(port, mac(port), Box(), link_mtu=partial(mtus.get, port)))
        lan.sends(port, multicast(port, f"fe80::{port}", "ff02::2") / ICMPv6ND_RS())
    loop.advance(UPLINK_INTERVAL)
    assert lan.received() == []
    mtus[1] = 1392
    loop.advance(UPLINK_INTERVAL)
    (told,) = lan.received()
    assert (told.dst, told[ICMPv6ND_RA].routerlifetime > 0) == (mac(1).hex(":"), True)
    assert told[ICMPv6NDOptMTU].mtu == 1392
    loop.advance(UPLINK_INTERVAL)
    assert lan.received() == []


def test_neighbours_find_the_gateway(lan):
    for target in (GATEWAY, LINK_LOCAL):
        (told,) = lan.sends(1, multicast(1, guest(1), "ff02::1:ff00:2") / ICMPv6ND_NS(tgt=target))
        assert (told[ICMPv6ND_NA].tgt, told[ICMPv6ND_NA].S) == (target, 1)
    (told,) = lan.sends(1, multicast(1, "::", "ff02::1:ff00:2") / ICMPv6ND_NS(tgt=GATEWAY))
    assert told[IPv6].dst == "ff02::1"
    assert lan.sends(1, multicast(1, guest(1), "ff02::1:ff00:9") / ICMPv6ND_NS(tgt=guest(9))) == []


def test_discovery_from_afar_is_dropped(lan):
    assert lan.sends(1, multicast(1, "fe80::1", "ff02::2", hlim=254) / ICMPv6ND_RS()) == []
    assert lan.drops() == {"not_on_link": 1}


def test_information_by_dhcpv6(lan):
    request = UDP(sport=546, dport=547) / DHCP6_InfoRequest(trid=7)
    (told,) = lan.sends(1, multicast(1, "fe80::1", "ff02::1:2", hlim=1) / request)
    assert (told[IPv6].src, told[UDP].dport) == (LINK_LOCAL, 546)
    assert told[DHCP6_Reply].trid == 7
    assert DHCP6OptDNSServers not in told  # this gateway has no name server


@pytest.mark.parametrize(
    ("search", "domains"),
    [
        ((), ["vm.internal."]),
        (("Corp.Example", "vm.internal", "lab.example."), ["vm.internal.", "corp.example.", "lab.example."]),
        (LONG, ["vm.internal.", *(f"{domain}." for domain in LONG[:11])]),
    ],
)
def test_guests_are_told_where_to_look_for_short_names_in_a_packet_of_any_session(
    loop, counters, search, domains
):
    lan = Lan(counters, ipv6_prefix=PREFIX, dns=Box(), dhcp_search=search)
    (told,) = lan.sends(1, multicast(1, "fe80::1", "ff02::2") / ICMPv6ND_RS())
    request = multicast(1, "fe80::1", "ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_InfoRequest()
    (informed,) = lan.sends(1, request)
    assert told[ICMPv6NDOptDNSSL].searchlist == informed[DHCP6OptDNSDomains].dnsdomains == domains
    for frame in (told, informed):
        assert len(frame) <= 14 + MAX_RAW_MTU
        assert_intact(frame)


@pytest.mark.parametrize("address", [GATEWAY, LINK_LOCAL])
def test_the_gateway_answers_pings(lan, address):
    (told,) = lan.sends(1, ping(1, dst=address))
    assert (told[IPv6].src, told[IPv6].dst) == (address, guest(1))
    assert told[ICMPv6EchoReply].data == b"payload"


def test_what_is_not_served_is_refused(lan):
    (told,) = lan.sends(1, packet(1, dst=GATEWAY) / UDP(sport=1, dport=9))
    assert (told[ICMPv6DestUnreach].code, told[IPv6].src) == (4, GATEWAY)
    (told,) = lan.sends(1, packet(1, dst=GATEWAY) / TCP(sport=1, dport=9, flags="S"))
    assert told[TCP].flags == "RA"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (GATEWAY, "reserved_address"),
        ("fd00::1", "foreign_address"),
        ("ff02::1", "foreign_address"),
        (REMOTE, "foreign_address"),
        (guest(2), "address_conflict"),
    ],
)
def test_a_guest_uses_only_addresses_that_are_its_own(lan, source, reason):
    lan.sends(2, ping(2, dst=GATEWAY))
    lan.sends(1, udp(1, src=source))
    assert lan.drops() == {reason: 1}
    assert lan.outside.udp == []


def test_addresses_are_free_again_when_the_session_ends(lan):
    lan.sends(2, ping(2, dst=GATEWAY))
    lan.tell(PortClosed(2))
    assert len(lan.sends(1, ping(1, dst=GATEWAY, src=guest(2)))) == 1


def test_guests_reach_each_other_through_the_gateway(lan):
    lan.sends(2, ping(2, dst=GATEWAY))
    (routed,) = lan.sends(1, udp(1, dst=guest(2)))
    assert (routed.dst, routed[IPv6].hlim) == (mac(2).hex(":"), 63)
    (told,) = lan.sends(1, udp(1, dst=guest(9)))
    assert told[ICMPv6DestUnreach].code == 3


def test_isolated_guests_are_no_neighbours_through_the_gateway_either(loop, counters):
    lan = Lan(counters, ipv6_prefix=PREFIX, isolated=True)
    lan.sends(2, ping(2, dst=GATEWAY))
    (told,) = lan.sends(1, udp(1, dst=guest(2)))
    assert told[ICMPv6DestUnreach].code == 1
    assert counters["gateway.drop.isolated"] == 1


# -- the way out ------------------------------------------------------------------------------------


def test_udp_goes_out_and_comes_back(lan):
    assert lan.sends(1, udp(1, hlim=9)) == []
    (socket,) = lan.outside.udp
    assert socket.version == 6
    assert socket.sent == [(b"question", (REMOTE, 53))]
    assert socket.options == [(8, True)]
    socket.reply(b"answer", (REMOTE, 53), ttl=50)
    (told,) = lan.received()
    assert (told.dst, told[IPv6].src, told[IPv6].dst, told[IPv6].hlim) == (
        mac(1).hex(":"),
        REMOTE,
        guest(1),
        49,
    )
    assert bytes(told[UDP].payload) == b"answer"
    socket.reply(b"x", ("2606:4700::2222", 53))
    assert lan.received() == []


def test_the_same_port_in_both_versions_is_two_flows(lan):
    from flow_parts import udp as udp4

    lan.sends(1, udp(1), udp4(1), udp(2))
    assert sorted(s.version for s in lan.outside.udp) == [4, 6, 6]


def test_ping_goes_out_and_comes_back(lan):
    assert lan.sends(1, ping(1, identifier=0xBEEF, seq=3, hlim=17)) == []
    (socket,) = lan.outside.echo
    assert socket.version == 6
    assert socket.sent == [(3, b"payload", REMOTE, 16)]
    socket.reply(bytes(ICMPv6EchoReply(id=1, seq=3, data=b"payload")), (REMOTE, 0))
    (told,) = lan.received()
    assert (told[ICMPv6EchoReply].id, told[ICMPv6EchoReply].seq) == (0xBEEF, 3)


@pytest.mark.parametrize(
    ("kind", "code", "mtu", "layer"),
    [(1, 4, 0, ICMPv6DestUnreach), (2, 0, 1400, ICMPv6PacketTooBig), (3, 0, 0, ICMPv6TimeExceeded)],
)
@pytest.mark.parametrize("router", ["2606:4700::99", ""])
def test_errors_of_the_network_quote_what_the_guest_sent(lan, kind, code, mtu, layer, router):  # noqa: PLR0917
    sent = udp(1)
    lan.sends(1, sent)
    lan.outside.udp[0].complain(ErrorFromNet((REMOTE, 53), kind, code, mtu, router, b"question"))
    (told,) = lan.received()
    assert (told[IPv6].src, told[layer].code) == (router or GATEWAY, code)
    assert bytes(sent[IPv6]).startswith(bytes(told[layer].payload))
    if mtu:
        assert told[layer].mtu == mtu


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (SendResult.NO_ROUTE, 0),
        (SendResult.DENIED, 1),
        (SendResult.UNREACHABLE, 3),
        (SendResult.REFUSED, 4),
    ],
)
def test_the_guest_learns_why_nothing_was_sent(lan, result, code):
    lan.sends(1, udp(1))
    lan.outside.udp[0].result = result
    (told,) = lan.sends(1, udp(1))
    assert told[ICMPv6DestUnreach].code == code


def test_the_hop_limit_ends_at_the_gateway(lan):
    (told,) = lan.sends(1, udp(1, hlim=1))
    assert (told[ICMPv6TimeExceeded].code, told[IPv6].src) == (0, GATEWAY)


def test_fragments_go_out_as_one_datagram_that_may_be_fragmented(lan):
    data = bytes(n % 251 for n in range(4000))
    whole = IPv6(src=guest(1), dst=REMOTE, hlim=64) / IPv6ExtHdrFragment() / UDP(sport=1, dport=2) / Raw(data)
    pieces = [ether(1) / piece for piece in fragment6(whole, 1280)]
    assert lan.sends(1, *reversed(pieces)) == []
    (socket,) = lan.outside.udp
    assert socket.sent == [(data, (REMOTE, 2))]
    assert socket.options == [(63, False)]
    socket.reply(data, (REMOTE, 2))
    assert max(len(f) for f in lan.received()) <= 1514


HOP, OPTIONS, FRAGMENT = IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
CHAINS = [
    (*first, *rest)
    for first in ((), (HOP,))
    for size in range(4)
    for rest in product((OPTIONS, FRAGMENT), repeat=size)
]
"""Hop-by-hop options stand right behind the IPv6 header only."""


def behind(chain, data, sport=4000, dport=53):
    """A datagram behind extension headers."""
    headers = [kind() for kind in chain]
    return reduce(operator.truediv, [packet(1), *headers, UDP(sport=sport, dport=dport), Raw(data)])


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(kind.__name__[10:] for kind in chain))
def test_what_is_behind_extension_headers_goes_where_it_says(lan, chain):
    assert lan.sends(1, behind(chain, b"question")) == []
    (socket,) = lan.outside.udp
    assert socket.sent == [(b"question", (REMOTE, 53))]
    assert socket.options == [(63, FRAGMENT not in chain)]
    socket.reply(b"answer", (REMOTE, 53))
    (told,) = lan.received()
    assert (told[UDP].dport, bytes(told[UDP].payload)) == (4000, b"answer")


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(kind.__name__[10:] for kind in chain))
def test_a_parameter_problem_points_at_the_protocol_that_is_not_carried(lan, chain):
    *headers, last = [packet(1), *[kind() for kind in chain]]
    last.nh = 47
    (error,) = lan.sends(1, reduce(operator.truediv, [*headers, last, Raw(bytes(8))]))
    problem = error[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 32 + 8 * len(chain) if chain else 6)
    assert bytes(problem.payload)[problem.ptr] == 47


def test_so_does_what_came_in_fragments_with_a_header_in_the_first(lan):
    data = bytes(n % 251 for n in range(4000))
    pieces = [ether(1) / piece for piece in fragment6(behind((FRAGMENT, OPTIONS), data)[IPv6], 1280)]
    assert lan.sends(1, *pieces) == []
    (socket,) = lan.outside.udp
    assert (socket.sent, socket.options) == ([(data, (REMOTE, 53))], [(63, False)])


@given(
    st.sampled_from(CHAINS),
    st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)),
    st.binary(),
    st.binary(),
)
def test_flows_read_what_was_checked(chain, ports, data, padding):
    frame = bytes(behind(chain, data, *ports)) + padding
    checked = parse_ipv6(frame)
    plain = _for_flows(frame, checked)
    assert read_udp(plain) == parse_udp(checked)
    assert IPV6.dont_fragment(plain) is checked.dont_fragment is (FRAGMENT not in chain)


def test_a_fragment_within_what_is_whole_is_looked_at_once(lan):
    within = bytes(IPv6ExtHdrFragment(nh=17, offset=1, id=2) / Raw(bytes(8)))
    atomic = packet(1) / IPv6ExtHdrFragment(nh=44) / Raw(within)
    pieces = [
        packet(1) / IPv6ExtHdrFragment(nh=44, m=1, id=3) / Raw(within[:8]),
        packet(1) / IPv6ExtHdrFragment(nh=44, offset=1, id=3) / Raw(within[8:]),
    ]
    assert lan.sends(1, atomic, *pieces) == []
    assert lan.drops() == {"bad_fragment": 2}


def test_a_port_may_send_so_many_fragments(lan):
    piece = ether(1) / IPv6(src=guest(1), dst=REMOTE) / IPv6ExtHdrFragment(m=1, nh=17) / Raw(bytes(8))
    assert lan.sends(1, *[piece] * 1600) == []
    assert lan.drops() == {"fragment_rate": 100}


def test_link_local_and_multicast_stay_here(lan):
    assert lan.sends(1, udp(1, dst="fe80::99"), udp(1, src="fe80::1")) == []
    assert lan.drops() == {"not_routable": 2}
    assert lan.outside.udp == []


def test_a_host_without_ipv6_is_no_default_router(loop, counters):
    lan = Lan(counters, has_ipv6=False, ipv6_prefix=PREFIX)
    (told,) = lan.sends(1, multicast(1, "fe80::1", "ff02::2") / ICMPv6ND_RS())
    assert told[ICMPv6ND_RA].routerlifetime == 0
    (told,) = lan.sends(1, udp(1))
    assert told[ICMPv6DestUnreach].code == 0
    assert lan.drops() == {"no_ipv6": 1}


def asks(frame):
    return frame[ICMPv6ND_NS].tgt if ICMPv6ND_NS in frame else None


@pytest.mark.parametrize("address", [guest(1), "fe80::1"])
@pytest.mark.parametrize("answers", [False, True])
def test_an_address_of_two_guests_is_its_holders_while_that_answers(loop, lan, address, answers):
    def pings(port):
        target = LINK_LOCAL if address.startswith("fe80") else GATEWAY
        return [f for f in lan.sends(port, ping(port, src=address, dst=target)) if ICMPv6EchoReply in f]

    assert pings(1)
    solicits = multicast(2, address, "ff02::1:ff00:2") / ICMPv6ND_NS(tgt=GATEWAY)
    (question,) = lan.sends(2, solicits)
    assert (question.dst, question[IPv6].dst, asks(question)) == (mac(1).hex(":"), address, address)
    assert (question[IPv6].src, question[IPv6].hlim) == (LINK_LOCAL, 255)
    again = question.copy()
    del again[ICMPv6ND_NS].cksum
    assert bytes(again) == bytes(question)
    if answers:
        advertisement = ICMPv6ND_NA(tgt=address, R=0, S=1) / ICMPv6NDOptDstLLAddr(lladdr=mac(1).hex(":"))
        lan.sends(1, ether(1) / IPv6(src=address, dst=LINK_LOCAL, hlim=255) / advertisement)
    loop.advance(PROBES * PROBE_INTERVAL)
    lan.received()
    assert bool(pings(2)) is not answers


def test_guests_hear_at_once_that_the_way_out_is_lost_and_that_it_is_back(loop, lan):
    loop.advance(INTERVAL)
    lan.received()
    for has_route, lifetime in ((False, 0), (True, 1800)):
        lan.outside.has_ipv6_route = has_route
        for _ in range(UPLINK_REPEATS):
            loop.advance(UPLINK_INTERVAL)
            told = lan.received()
            assert sorted(f.dst for f in told) == [mac(n).hex(":") for n in (1, 2, 3)]
            assert {f[ICMPv6ND_RA].routerlifetime for f in told} == {lifetime}
        loop.advance(UPLINK_INTERVAL)
        assert lan.received() == []
        (told,) = lan.sends(1, multicast(1, "fe80::1", "ff02::2") / ICMPv6ND_RS())
        assert told[ICMPv6ND_RA].routerlifetime == lifetime


@pytest.mark.parametrize("group", ["ff02::1", "ff02::2", "ff02::1:2", "ff02::1:ff00:2", "ff02::1:ff12:3456"])
@pytest.mark.parametrize(("source", "answers"), [(guest(1), GATEWAY), ("fe80::1", LINK_LOCAL)])
def test_pings_of_the_groups_that_the_gateway_is_in_are_answered(lan, group, source, answers):
    request = multicast(1, source, group) / ICMPv6EchoRequest(id=7, seq=1, data=b"payload")
    (told,) = lan.sends(1, request)
    assert (told.dst, told[IPv6].src, told[IPv6].dst) == (mac(1).hex(":"), answers, source)
    assert told[ICMPv6EchoReply].data == b"payload"
    again = told.copy()
    del again[ICMPv6EchoReply].cksum
    assert bytes(again) == bytes(told)


def test_pings_of_other_groups_are_the_guests_own_affair(lan):
    assert lan.sends(1, multicast(1, guest(1), "ff02::fb") / ICMPv6EchoRequest()) == []


def test_without_ipv6_nothing_of_it_is_there(loop, counters):
    lan = Lan(counters, ipv6_prefix=None)
    lan.assign(1)
    assert lan.sends(1, multicast(1, "fe80::1", "ff02::2") / ICMPv6ND_RS(), udp(1)) == []
    loop.advance(INTERVAL * 2)
    assert lan.received() == []
    assert counters["gateway.ignored"] == 2
