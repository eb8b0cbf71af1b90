from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    defragment6,
)
from scapy.layers.inet6 import (
    fragment6 as scapy_fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack import ipv6
from netstack.counters import Counters
from netstack.family import IPV4, IPV6, family_of
from netstack.malformed import MalformedPacket
from netstack.reassembly import Reassembler
from netstack.udp import UdpFrameTemplate, parse_udp, read_udp

GUEST, GATEWAY = "52:54:00:aa:bb:cc", "52:54:00:12:34:56"
MACS = bytes.fromhex("525400aabbcc525400123456")
SRC, DST = "fd00::1", "2606:4700::1111"


def ether(packet):
    return bytes(Ether(src=GUEST, dst=GATEWAY, type=0x86DD) / packet)


def udp(data=b"data", **fields):
    return IPv6(**{"src": SRC, "dst": DST, "hlim": 9} | fields) / UDP(sport=4000, dport=53) / Raw(data)


def test_a_packet_of_scapys_is_read():
    packet = ipv6.parse_ipv6(ether(udp()) + bytes(10))
    assert (packet.source, packet.destination) == (ipv6.pack_ipv6(SRC), ipv6.pack_ipv6(DST))
    assert (packet.protocol, packet.ttl, packet.extended, packet.dont_fragment) == (17, 9, False, True)
    assert parse_udp(packet)[1::2] == (4000, 53)
    assert parse_udp(packet).payload == b"data"


@pytest.mark.parametrize(
    "extensions",
    [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(),
        IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(segleft=0) / IPv6ExtHdrFragment(offset=0, m=0),
    ],
)
def test_extension_headers_are_passed_over_and_taken_out(extensions):
    frame = ether(IPv6(src=SRC, dst=DST) / extensions / UDP(sport=4000, dport=53) / Raw(b"data"))
    packet = ipv6.parse_ipv6(frame)
    assert packet.extended
    plain = ipv6.plain(frame, packet)
    assert read_udp(plain) == parse_udp(packet)
    assert ipv6.parse_ipv6(plain).dont_fragment is (IPv6ExtHdrFragment not in extensions)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "truncated"),
        (ether(udp())[:53], "truncated"),
        (ether(udp())[:-1], "truncated"),
        (ether(udp(version=4)), "bad_ip_version"),
        (ether(udp())[:12] + b"\x08\0" + ether(udp())[14:], "wrong_ethertype"),
        (ether(IPv6(nh=44) / Raw(bytes([17, 0, 0, 8, 0, 0, 0, 1]))), "fragment"),
        (ether(IPv6(nh=44) / Raw(bytes([44, *bytes(7), 17, 0, 0, 8, 0, 0, 0, 1]))), "bad_fragment"),
        (ether(IPv6(nh=44) / Raw(bytes(4))), "truncated"),
        (ether(IPv6(nh=60) / Raw(bytes([17, 9, 0, 0, 0, 0, 0, 0]))), "truncated"),
        (ether(IPv6(nh=43) / Raw(bytes([17, 0, 0, 1, 0, 0, 0, 0]))), "bad_extension_header"),
        (ether(IPv6(nh=60) / Raw(bytes([60, 0, 0, 0, 0, 0, 0, 0]) * 20)), "bad_extension_header"),
        (ether(IPv6(nh=60) / Raw(bytes([0, 0, 0, 0, 0, 0, 0, 0]) * 2)), "bad_extension_header"),
    ],
)
def test_what_is_wrong_has_a_name(frame, reason):
    with pytest.raises(MalformedPacket) as caught:
        ipv6.parse_ipv6(frame)
    assert caught.value.reason == reason


@given(st.binary(max_size=120), st.sampled_from([b"", ether(udp())[:20], ether(udp())[:54]]))
def test_garbage_is_a_packet_or_malformed(data, start):
    for parse in (ipv6.parse_ipv6, ipv6.parse_fragment6):
        with contextlib.suppress(MalformedPacket):
            parse(start + data)


@given(st.binary(min_size=1, max_size=9000), st.randoms(use_true_random=False))
def test_scapys_fragments_in_any_order_give_the_packet(data, shuffle):
    whole = IPv6(src=SRC, dst=DST, hlim=9) / IPv6ExtHdrFragment() / UDP(sport=1, dport=2) / Raw(data)
    parts = [Ether(ether(part)) for part in scapy_fragment6(whole, 1280)]
    shuffle.shuffle(parts)
    if len(parts) == 1:
        return
    reassembler = Reassembler(Counters())
    results = [reassembler.accept(1, ipv6.parse_fragment6(bytes(part)), 0) for part in parts]
    (frame,) = [ipv6.build_whole6(result) for result in results if result]
    packet = ipv6.parse_ipv6(frame)
    assert not packet.dont_fragment
    assert parse_udp(packet) == read_udp(frame)
    assert read_udp(frame).payload == data


@given(st.integers(0, 6000))
def test_fragments_built_here_are_whole_to_scapy(size):
    data = bytes(number % 251 for number in range(size))
    template = UdpFrameTemplate(MACS, ipv6.pack_ipv6(DST), 53, ipv6.pack_ipv6(SRC), 4000)
    frame = template.build(data, 0, 33)
    expected = Ether(src=GATEWAY, dst=GUEST) / IPv6(src=DST, dst=SRC, hlim=33) / UDP(sport=53, dport=4000)
    assert frame == bytes(expected / Raw(data))
    pieces = ipv6.fragment6(frame, 1280)
    assert max(map(len, pieces)) <= 1294
    if len(pieces) > 1:
        again = defragment6([Ether(piece)[IPv6] for piece in pieces])
        assert bytes(again.payload) == frame[54:]


@pytest.mark.parametrize("headers", [1, 2, 7])
@pytest.mark.parametrize(("size", "pieces"), [(1452, 1), (1453, 2), (6000, 5)])
def test_pieces_have_their_fragment_header_in_the_place_of_atomic_ones(headers, size, pieces):
    packet = IPv6(src=SRC, dst=DST)
    for _ in range(headers):
        packet /= IPv6ExtHdrFragment()
    datagram = UDP(sport=1, dport=2) / Raw(bytes(n % 251 for n in range(size)))
    cut = ipv6.fragment6(ether(packet / datagram))
    assert len(cut) == pieces
    assert max(map(len, cut)) <= 1514
    whole = ether(IPv6(src=SRC, dst=DST) / datagram)
    if pieces == 1:
        assert cut == [whole]
        return
    assert [ipv6.parse_fragment6(piece).head[54:] for piece in cut] == [b"\x11"] * pieces
    assert b"".join(ipv6.parse_fragment6(piece).data for piece in cut) == whole[54:]


def test_a_checksum_there_must_be():
    frame = ether(IPv6(src=SRC, dst=DST) / UDP(sport=1, dport=2, chksum=0) / b"x")
    with pytest.raises(MalformedPacket, match="bad_udp_checksum"):
        parse_udp(ipv6.parse_ipv6(frame))


def test_kinds_of_addresses():
    assert ipv6.link_local_of(bytes.fromhex("525400123456")) == ipv6.pack_ipv6("fe80::5054:ff:fe12:3456")
    assert ipv6.solicited_node(ipv6.pack_ipv6("fd00::12:3456")) == ipv6.pack_ipv6("ff02::1:ff12:3456")
    assert ipv6.is_multicast(ipv6.pack_ipv6("ff02::1"))
    assert ipv6.is_link_local(ipv6.pack_ipv6("febf::1"))
    assert not ipv6.is_link_local(ipv6.pack_ipv6("fec0::1"))
    assert (family_of(bytes(4)), family_of(bytes(16))) == (IPV4, IPV6)
    assert IPV6.dont_fragment(ether(IPv6() / ICMPv6EchoRequest()))
