"""What both routers do alike, each test for IPv4 and for IPv6."""

from __future__ import annotations

import pytest
from gateway_parts import Lan
from gateway_parts import packet as packet4
from lan_parts import mac
from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from test_ipv6_router import GATEWAY, PREFIX, guest
from test_ipv6_router import packet as packet6

DATA = bytes(range(256)) * 10


class Version:
    """How a test speaks to a guest's router in one IP version."""

    def __init__(self, layer, packet, gateway, neighbour, cut, echo):  # noqa: PLR0917
        self.layer = layer
        self.packet = packet
        self.gateway = gateway
        self.neighbour = neighbour
        self.cut = cut
        self.request, self.reply = echo
        self.stranger, self.in_error = (guest(99), IPerror6) if layer is IPv6 else ("10.0.2.99", IPerror)
        """An address of the LAN that nobody has, and what an error quotes."""

    def join(self, frames):
        """Put pieces together that came in order: protocol and payload."""
        whole = b""
        for frame in frames:
            header = frame[IPv6ExtHdrFragment if IPv6ExtHdrFragment in frame else self.layer]
            offset = header.fields.get("offset", header.fields.get("frag", 0))
            assert 8 * offset == len(whole)
            whole += bytes(header.payload)
        return header.fields.get("nh", header.fields.get("proto")), whole

    def refusal(self, frame):
        return frame[ICMPv6DestUnreach if self.layer is IPv6 else ICMP].code


def cut4(packet):
    return fragment(packet, 1000)


def cut6(packet):
    ip = packet[IPv6]
    extended = IPv6(src=ip.src, dst=ip.dst, hlim=ip.hlim) / IPv6ExtHdrFragment(id=7) / ip.payload
    return [Ether(src=packet.src, dst=packet.dst) / piece for piece in fragment6(extended, 1000)]


VERSIONS = {
    "IPv4": Version(IP, packet4, "10.0.2.2", "10.0.2.11", cut4, (ICMP, ICMP)),
    "IPv6": Version(IPv6, packet6, GATEWAY, guest(2), cut6, (ICMPv6EchoRequest, ICMPv6EchoReply)),
}


@pytest.fixture(params=list(VERSIONS.values()), ids=list(VERSIONS))
def version(request):
    return request.param


@pytest.fixture
def lan(loop, counters, version):
    lan = Lan(counters, ipv6_prefix=PREFIX)
    for port in (1, 2):
        lan.assign(port)
        lan.sends(port, version.packet(port, version.gateway) / version.request())
    counters.clear()
    return lan


def test_a_packet_in_pieces_is_handled_as_one_and_so_is_the_answer(lan, version):
    request = version.request(data=DATA) if version.layer is IPv6 else version.request() / Raw(DATA)
    pieces = version.cut(version.packet(1, version.gateway) / request)
    assert len(pieces) > 1
    answers = lan.sends(1, *pieces)
    assert len(answers) > 1
    assert {answer.dst for answer in answers} == {mac(1).hex(":")}
    assert lan.counters["gateway.fragments"] == len(pieces) - 1
    assert lan.counters["gateway.answered"] == 1


def test_the_answer_comes_in_pieces_that_fit_the_link(lan, version):
    lan.assign(1, link_mtu=lambda: 1141)
    request = version.request(data=DATA) if version.layer is IPv6 else version.request() / Raw(DATA)
    answers = lan.sends(1, *version.cut(version.packet(1, version.gateway) / request))
    assert max(map(len, answers)) <= 14 + 1141
    _, whole = version.join(answers)
    assert whole[8:] == DATA


def test_a_neighbour_is_one_hop_away(lan, version):
    sent = version.packet(1, version.neighbour) / UDP(sport=1, dport=2) / b"hello"
    (routed,) = lan.sends(1, sent)
    assert routed.dst == mac(2).hex(":")
    assert bytes(routed[UDP]) == bytes(sent[UDP])
    assert (lan.counters["gateway.routed"], lan.outside.udp) == (1, [])


@pytest.mark.parametrize("length", [1440, 1452, 1453, 1472, 1473, len(DATA)])
def test_a_packet_in_pieces_is_one_in_pieces_to_a_neighbour(lan, version, length):
    sent = version.packet(1, version.neighbour) / UDP(sport=1, dport=2) / Raw(DATA[:length])
    routed = lan.sends(1, *version.cut(sent))
    assert {frame.dst for frame in routed} == {mac(2).hex(":")}
    assert {frame.ttl if version.layer is IP else frame.hlim for frame in routed} == {63}
    assert max(map(len, routed)) <= 1514
    assert len(routed) == 1 or length > 1440
    assert version.join(routed) == (17, bytes(sent[UDP]))


def test_what_the_nat_does_not_carry_is_refused(lan, version):
    field = {"proto": 47} if version.layer is IP else {"nh": 47}
    assert len(lan.sends(1, version.packet(1, **field) / Raw(b"?"))) == 1
    assert lan.drops() == {"protocol": 1}


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "out of order"])
@pytest.mark.parametrize("reason", ["denied", "ttl_exceeded", "no_such_guest", "no_service"])
def test_what_becomes_of_a_packet_in_pieces_is_told_as_of_one_in_one_piece(lan, version, reason, order):
    lan.outside.allows_udp = lambda _: False
    where = {"no_such_guest": version.stranger, "no_service": version.gateway}.get(reason)
    sent = version.packet(1, *filter(None, [where])) / UDP(sport=1, dport=2) / Raw(DATA)
    if reason == "ttl_exceeded":
        sent.payload.fields["ttl" if version.layer is IP else "hlim"] = 1
    (error,) = lan.sends(1, *version.cut(sent)[::order])
    assert lan.drops() == {reason: 1}
    about = error[version.in_error]
    assert (about.src, about.dst) == (sent[version.layer].src, sent[version.layer].dst)
    assert bytes(about[UDPerror])[:8] == bytes(sent[UDP])[:8]


def test_where_the_host_cannot_ping_guests_cannot_either(lan, version):
    lan.outside.can_ping = False
    assert len(lan.sends(1, version.packet(1) / version.request())) == 1
    assert (lan.drops(), lan.outside.echo) == ({"no_ping": 1}, [])


def test_echo_replies_do_not_leave_the_lan(lan, version):
    answer = version.reply(type="echo-reply") if version.layer is IP else version.reply()
    assert lan.sends(1, version.packet(1) / answer) == []
    assert (lan.drops(), lan.outside.echo) == ({"icmp_type": 1}, [])


def test_what_the_policy_forbids_gets_no_flow(lan, version):
    lan.outside.allows_udp = lan.outside.allows_echo = lambda _: False
    for packet in (version.packet(1) / UDP(sport=1, dport=2), version.packet(1) / version.request()):
        assert len(lan.sends(1, packet)) == 1
    assert (lan.drops(), lan.outside.open_sockets()) == ({"denied": 2}, [])
