from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack.ipv4 import Ipv4Packet, format_ipv4, parse_ipv4
from netstack.malformed import MalformedPacket
from netstack.udp import (
    MAX_PAYLOAD,
    UdpDatagram,
    UdpFrameTemplate,
    count_alike,
    has_head,
    is_intact_udp,
    parse_udp,
    plain_payload,
    read_udp,
    udp_head,
)

MACS = bytes.fromhex("525400aabbcc525400123456")
SOURCE, DESTINATION = bytes((10, 0, 2, 15)), bytes((192, 0, 2, 7))
ETHER = Ether(dst=MACS[6:], src=MACS[:6])
address = st.binary(min_size=4, max_size=4)
port = st.integers(0, 0xFFFF)


def frame(payload=b"hello", options=(), **fields):
    ip = IP(src="10.0.2.15", dst="192.0.2.7", options=list(options))
    return bytes(ETHER / ip / UDP(**{"sport": 4000, "dport": 53, **fields}) / Raw(payload))


def reason(data):
    with pytest.raises(MalformedPacket) as caught:
        parse_udp(parse_ipv4(data))
    return caught.value.reason


@pytest.mark.parametrize("options", [(), [IPOption_NOP()] * 8])
@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_a_datagram_of_scapys_is_read(payload, options):
    data = frame(payload, options)
    expected = UdpDatagram(SOURCE, 4000, DESTINATION, 53, payload)
    assert parse_udp(parse_ipv4(data)) == expected
    assert read_udp(data) == expected
    assert read_udp(data + b"padding") == expected


def test_no_checksum_is_accepted_and_what_follows_the_length_ignored():
    assert parse_udp(parse_ipv4(frame(chksum=0))).payload == b"hello"
    assert parse_udp(parse_ipv4(frame(chksum=0, len=10))).payload == b"he"
    assert read_udp(frame(chksum=0, len=10)).payload == b"he"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame(chksum=0x1234), "bad_udp_checksum"),
        (frame(len=7), "bad_udp_length"),
        (frame(len=0), "bad_udp_length"),
        (frame(len=14), "bad_udp_length"),
        (frame(dport=0), "bad_udp_port"),
        (bytes(ETHER / IP(src="10.0.2.15", dst="192.0.2.7", proto=17) / Raw(b"1234567")), "truncated"),
    ],
)
def test_what_lies_is_refused_with_its_reason(data, expected):
    assert reason(data) == expected


@given(address, address, st.binary(max_size=40))
def test_garbage_gives_a_datagram_or_malformed(source, destination, segment):
    try:
        datagram = parse_udp(Ipv4Packet(source, destination, 17, 64, False, segment))
    except MalformedPacket:
        return
    assert len(datagram.payload) <= len(segment) - 8


@given(
    source=st.tuples(address, port),
    destination=st.tuples(address, port),
    payload=st.binary(max_size=1472),
    identification=port,
    ttl=st.integers(1, 255),
)
@example(source=(bytes(4), 0), destination=(bytes(4), 0), payload=b"", identification=0, ttl=1)
@example(
    source=(b"\xff" * 4, 0xFFFF),
    destination=(b"\xff" * 4, 0xFFFF),
    payload=b"\xff" * 1472,
    identification=0xFFFF,
    ttl=255,
)
@example(
    source=(SOURCE, 1), destination=(DESTINATION, 2), payload=bytes(MAX_PAYLOAD), identification=3, ttl=64
)
def test_what_the_template_builds_is_what_scapy_builds(source, destination, payload, identification, ttl):
    template = UdpFrameTemplate(MACS, *source, *destination)
    ip = IP(src=format_ipv4(source[0]), dst=format_ipv4(destination[0]), id=identification, ttl=ttl)
    expected = bytes(
        Ether(dst=MACS[:6], src=MACS[6:]) / ip / UDP(sport=source[1], dport=destination[1]) / Raw(payload)
    )
    assert template.build(payload, identification, ttl) == expected


def test_a_computed_checksum_of_zero_is_sent_as_ones():
    template = UdpFrameTemplate(MACS, SOURCE, 1, DESTINATION, 2)
    probe = template.build(b"\0\0", 0)
    payload = probe[40:42]  # with this payload the words add up to all ones
    built = template.build(payload, 0)
    assert built[40:42] == b"\xff\xff"
    assert parse_udp(parse_ipv4(built)).payload == payload


# -- frames that go where the one before went ------------------------------------------------------------


def test_frames_of_one_head_go_the_same_way():
    first = frame(b"one")
    assert udp_head(first) == udp_head(frame(b"another one", chksum=0))
    others = [
        bytes(ETHER / IP(src="10.0.2.15", dst="192.0.2.8") / UDP(sport=4000, dport=53)),
        bytes(ETHER / IP(src="10.0.2.16", dst="192.0.2.7") / UDP(sport=4000, dport=53)),
        bytes(ETHER / IP(src="10.0.2.15", dst="192.0.2.7", ttl=9) / UDP(sport=4000, dport=53)),
        bytes(ETHER / IP(src="10.0.2.15", dst="192.0.2.7", flags="DF") / UDP(sport=4000, dport=53)),
        bytes(Ether(dst=MACS[6:], src=MACS[6:]) / IP(src="10.0.2.15", dst="192.0.2.7") / UDP(sport=4000)),
        frame(sport=4001),
        frame(dport=54),
    ]
    heads = [udp_head(other) for other in [first, *others]]
    assert len(set(heads)) == len(heads)
    assert all(heads)
    assert [head for head in heads if has_head(first, head)] == [udp_head(first)]
    assert has_head(frame(b"another one", chksum=0), udp_head(first))


def test_a_frame_with_options_has_not_the_head_of_one_without():
    """Version, length of the header and type are part of it, though TOS, lengths and checksums are not."""
    first = frame(b"one")
    head = udp_head(first)
    for at in range(len(first)):
        other = bytearray(first)
        other[at] ^= 0x01
        assert has_head(bytes(other), head) == (at in {15, *range(16, 20), 24, 25, *range(38, len(first))})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame()[:13],
        frame(options=[IPOption_NOP()] * 4),
        bytes(ETHER / IP(flags="MF") / UDP()),
        bytes(ETHER / IP(frag=2) / UDP()),
        bytes(ETHER / IP() / TCP()),
        bytes(ETHER / IPv6() / UDP()),
    ],
)
def test_what_is_not_plain_udp_has_no_head(data):
    assert udp_head(data) is None


def accepted(data):
    try:
        parse_udp(parse_ipv4(data))
    except MalformedPacket:
        return False
    return True


KNOWN = frame(b"what came before")


@given(
    st.binary(max_size=60),
    st.sampled_from(["", "chksum", "len", "ip chksum", "ip len", "payload"]),
    st.integers(0, 0xFFFF),
    st.integers(0, 20),
    st.integers(0, 60),
)
def test_a_frame_of_a_known_head_is_intact_just_when_the_full_check_accepts_it(
    payload, lie, value, padding, cut
):
    ip, udp = {}, {}
    if lie.startswith("ip "):
        ip[lie[3:]] = value
    elif lie in {"chksum", "len"}:
        udp[lie] = value
    data = bytearray(
        bytes(
            ETHER
            / IP(src="10.0.2.15", dst="192.0.2.7", **ip)
            / UDP(**{"sport": 4000, "dport": 53, **udp})
            / Raw(payload)
        )
        + bytes(padding)
    )
    if lie == "payload" and payload:
        data[42 + value % len(payload)] ^= 1 + value % 255
    frame = bytes(data[: len(data) - cut]) if cut < len(data) - 42 else bytes(data)
    assert udp_head(frame) == udp_head(KNOWN)
    assert is_intact_udp(frame) == accepted(frame)


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_a_plain_frame_has_the_payload_that_the_full_parser_reads(payload, appended):
    data = frame(payload) + appended
    assert plain_payload(data) == read_udp(data).payload == payload


@given(st.lists(st.sampled_from(["alike", "damaged", "other"]), max_size=6), st.integers(0, 6))
def test_frames_alike_are_counted_up_to_the_first_other(kinds, start):
    damaged = bytearray(frame(b"damaged"))
    damaged[-1] ^= 1
    made = {"alike": frame(b"x"), "damaged": bytes(damaged), "other": frame(b"x", dport=54)}
    wanted = 0
    while start + wanted < len(kinds) and kinds[start + wanted] == "alike":
        wanted += 1
    assert count_alike([made[kind] for kind in kinds], start, udp_head(frame())) == wanted
