from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack.ipv4 import Ipv4Packet, format_ipv4, parse_ipv4
from netstack.malformed import MalformedPacket
from netstack.udp import MAX_PAYLOAD, UdpDatagram, UdpFrameTemplate, parse_udp, read_udp

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
