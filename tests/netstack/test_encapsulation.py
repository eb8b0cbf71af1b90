from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw as Payload

from netstack.chunks import Chunker
from netstack.counters import Counters
from netstack.encapsulation import Framed, Kind, Raw, create, kind_from_path, kind_of_first
from netstack.ipv4 import build_whole, fragment, parse_fragment
from netstack.ipv6 import build_whole6, fragment6, parse_fragment6
from netstack.reassembly import Reassembler

FRAME = bytes.fromhex("525400123456525400aabbcc0806") + b"p" * 28


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        ("", None),
        ("/?room=a", None),
        ("/?encap=raw", Kind.RAW),
        ("/any/path?room=a&encap=framed", Kind.FRAMED),
    ],
)
def test_the_path_may_name_the_encapsulation(path, kind):
    assert kind_from_path(path) is kind


@pytest.mark.parametrize(
    "path", ["/?encap=", "/?encap=RAW", "/?encap=vlan", "/?encap=raw&encap=raw", "/?" + "a=1&" * 99]
)
def test_an_unknown_encapsulation_is_an_error(path):
    with pytest.raises(ValueError, match=r"encap|fields"):
        kind_from_path(path)


def frames_to(mac):
    ether = Ether(dst=mac, src="52:54:00:aa:bb:cc")
    return [
        bytes(ether / ARP(pdst="10.0.2.2")),
        bytes(ether / IP(dst="10.0.2.2", src="10.0.2.15") / UDP() / b"data"),
        bytes(ether / IPv6(dst="ff02::1", src="fe80::1") / UDP()),
    ]


@pytest.mark.parametrize(
    "mac",
    [
        "ff:ff:ff:ff:ff:ff",
        "52:54:00:12:34:56",
        "33:33:00:00:00:01",
        "00:0c:29:01:02:03",
        "01:00:5e:00:00:fb",
        "01:80:c2:00:00:0e",
        "02:00:00:00:00:01",
        "02:42:ac:11:00:02",
    ],
)
def test_the_first_datagram_tells_frame_from_prefixed_frame(mac):
    for frame in frames_to(mac):
        assert kind_of_first(frame) is Kind.RAW
        assert kind_of_first(b"\x01" + frame) is Kind.FRAMED
        assert kind_of_first(Chunker().split(frame + bytes(1000), 1000)[0]) is Kind.FRAMED


def test_control_messages_are_framed_and_nothing_tells_nothing():
    assert kind_of_first(b'\x00{"type":"Register"}') is Kind.FRAMED
    assert kind_of_first(b"\x00garbage") is Kind.FRAMED
    assert kind_of_first(b"") is None


def test_framed_batch_of_frames():
    encapsulation = create(Kind.FRAMED, Counters())
    assert encapsulation.kind is Kind.FRAMED
    assert encapsulation.unwrap([b"\x01" + FRAME] * 3, 0.0) == ([FRAME] * 3, [])


def test_framed_batch_keeps_frames_in_order_among_others():
    big = FRAME + b"b" * 1400
    datagrams = [
        b"\x01" + FRAME,
        *Chunker().split(big, 1000),
        b'\x00{"type":"Heartbeat"}',
        b"\x01" + FRAME[::-1],
    ]
    frames, controls = Framed(Counters()).unwrap(datagrams, 0.0)
    assert frames == [FRAME, big, FRAME[::-1]]
    assert controls == [b'{"type":"Heartbeat"}']


def test_malformed_datagrams_are_counted_and_hurt_no_other():
    counters = Counters()
    bad = [b"", b"\x01", b"\x01" + FRAME[:13], b"\x03" + FRAME, b"\xff", b"\x01" + bytes(70_000)]
    assert Framed(counters).unwrap([*bad, b"\x01" + FRAME], 0.0) == ([FRAME], [])
    assert counters["peer.drop.malformed_datagram"] == len(bad)
    assert Raw(counters).unwrap([b"", FRAME[:13], FRAME, bytes(70_000)], 0.0) == ([FRAME], [])
    assert counters["peer.drop.malformed_datagram"] == len(bad) + 3


def test_only_a_frame_that_does_not_fit_is_chunked():
    framed = Framed(Counters())
    fits, too_long = bytes(1159), b"z" * 1160
    datagrams = framed.wrap([fits, too_long, FRAME], 1160)
    assert datagrams[0] == b"\x01" + fits
    assert [d[0] for d in datagrams] == [1, 2, 2, 1]
    assert [len(d) for d in datagrams[1:3]] == [905, 265]
    assert Framed(Counters()).unwrap(datagrams, 0.0).frames == [fits, too_long, FRAME]


def test_what_cannot_be_sent_is_counted():
    counters = Counters()
    assert Raw(counters).wrap([bytes(1160), bytes(1161), bytes(20)], 1160) == [bytes(1160), bytes(20)]
    assert counters["peer.drop.too_big"] == 1
    assert Framed(counters).wrap([bytes(1000), b"ab"], 5) == [b"\x01ab"]
    assert counters["peer.drop.too_big"] == 2


ETHER = Ether(dst="52:54:00:aa:bb:cc", src="52:54:00:12:34:56")
VERSIONS = [
    pytest.param(IP(src="192.0.2.1", dst="10.0.2.15", id=7), parse_fragment, build_whole, id="IPv4"),
    pytest.param(IPv6(src="2001:db8::1", dst="fd00::15"), parse_fragment6, build_whole6, id="IPv6"),
]


@pytest.mark.parametrize("limit", [590, 1155, 1420])
@pytest.mark.parametrize("size", [1381, 1472, 3000, 65_000])
@pytest.mark.parametrize(("header", "parse", "build"), VERSIONS)
def test_a_packet_that_is_too_large_for_a_raw_session_comes_in_fragments(header, parse, build, size, limit):
    """The gateway has cut it before, to what Ethernet takes."""
    counters, reassembler = Counters(), Reassembler(Counters())
    data = bytes(n % 251 for n in range(size))
    frame = bytes(ETHER / header / UDP(sport=7, dport=8) / Payload(data))
    cut = fragment if frame[12:14] == b"\x08\0" else fragment6
    sent = Raw(counters).wrap([FRAME, *cut(frame), FRAME[::-1]], limit)
    assert (sent.pop(0), sent.pop()) == (FRAME, FRAME[::-1])
    assert counters == {}
    if sent == [frame]:
        assert len(frame) <= limit
        return
    assert max(map(len, sent)) <= limit
    *parts, whole = (reassembler.accept(1, parse(piece), 0) for piece in reversed(sent))
    assert parts == [None] * len(parts)
    assert Ether(build(whole))[UDP].payload.load == data


@pytest.mark.parametrize(
    "packet",
    [
        IP(flags="DF") / UDP() / bytes(1300),
        IP(options=[IPOption_NOP()]) / UDP() / bytes(1300),
        IP(len=1400) / UDP() / bytes(1300),
        IPv6() / IPv6ExtHdrHopByHop() / UDP() / bytes(1300),
        IPv6(plen=1400) / UDP() / bytes(1300),
        ARP() / bytes(1300),
    ],
    ids=lambda packet: packet.summary(),
)
def test_what_must_stay_whole_is_too_big_for_a_raw_session(packet):
    counters = Counters()
    assert Raw(counters).wrap([bytes(ETHER / packet), FRAME], 1155) == [FRAME]
    assert counters == {"peer.drop.too_big": 1}


def test_no_fragments_are_made_that_are_smaller_than_what_everybody_takes():
    counters = Counters()
    assert Raw(counters).wrap([bytes(ETHER / IP() / UDP() / bytes(1300))], 589) == []
    assert counters == {"peer.drop.too_big": 1}


@given(st.lists(st.binary(min_size=14, max_size=3000), max_size=8), st.integers(20, 1400))
def test_wrapping_is_undone_by_unwrapping(frames, limit):
    datagrams = Framed(Counters()).wrap(frames, limit)
    assert all(len(d) <= limit for d in datagrams)
    assert Framed(Counters()).unwrap(datagrams, 0.0) == (frames, [])


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_garbage_never_raises_and_is_accounted_for(datagrams):
    counters = Counters()
    frames, _ = Raw(counters).unwrap(datagrams, 0.0)
    assert len(frames) + counters.total("peer.drop.") == len(datagrams)
    Framed(counters).unwrap(datagrams, 0.0)
    for datagram in datagrams:
        kind_of_first(datagram)


@given(st.text(max_size=60))
def test_paths_give_a_kind_or_a_value_error(path):
    with contextlib.suppress(ValueError):
        kind_from_path("/?encap=" + path)
