from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from netstack.malformed import MalformedPacket
from netstack.tcp_segment import (
    SynOptions,
    TcpFrameTemplate,
    encode_sack,
    encode_syn_options,
    parse_sack,
    parse_syn_options,
    parse_tcp,
    read_quote,
    read_tcp,
    reset_for,
)

GUEST_MAC, GATEWAY_MAC = "52:54:00:00:00:aa", "52:54:00:12:34:56"
MACS = bytes.fromhex("5254000000aa525400123456")
REMOTE, GUEST = bytes((192, 0, 2, 80)), bytes((10, 0, 2, 15))
REMOTE6 = bytes.fromhex("20010db8000000000000000000000001")
GUEST6 = bytes.fromhex("fd00000000000000000000000000000f")


def recomputed(packet):
    """The same frame with all lengths and checksums as scapy computes them."""
    again = packet.copy()
    for layer, names in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum", "dataofs"))):
        if layer in again:
            for name in names:
                delattr(again[layer], name)
    return bytes(again)


@given(
    numbers=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    flags=st.integers(0, 63),
    window=st.integers(0, 65535),
    payload=st.binary(max_size=1460),
    options=st.sampled_from([b"", encode_syn_options(SynOptions(1460, 7, sack=True)), encode_sack([(1, 2)])]),
    version=st.sampled_from([4, 6]),
)
def test_frames_are_what_scapy_would_build(*, numbers, flags, window, payload, options, version):
    addresses = (REMOTE, GUEST) if version == 4 else (REMOTE6, GUEST6)
    template = TcpFrameTemplate(MACS, addresses[0], 80, addresses[1], 40000)
    seq, ack = numbers
    frame = template.build(seq, ack, flags, window, payload, options=options)
    packet = Ether(frame)
    assert recomputed(packet) == frame
    tcp = packet[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, int(tcp.flags), tcp.window) == (
        *(80, 40000),
        *numbers,
        flags,
        window,
    )
    assert bytes(tcp.payload) == payload
    segment = read_tcp(frame)
    assert segment == (*numbers, flags, window, options, payload)
    assert parse_tcp(*addresses, frame[34 if version == 4 else 54 :]) == (80, 40000, flags)


@pytest.mark.parametrize(
    "options",
    [
        [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)],
        [("NOP", None), ("WScale", 14), ("MSS", 536)],
        [],
    ],
    ids=str,
)
def test_syn_options_of_scapy(options):
    frame = bytes(Ether() / IP(src="10.0.2.15", dst="192.0.2.80") / TCP(flags="S", options=options))
    offered = dict(options)
    read = parse_syn_options(read_tcp(frame).options)
    assert read.mss == offered.get("MSS", 536)
    assert read.window_shift == offered.get("WScale")
    assert read.sack == ("SAckOK" in offered)


def test_scapy_reads_our_options():
    template = TcpFrameTemplate(MACS, REMOTE, 80, GUEST, 40000)
    syn = template.build(0, 0, 2, 0, options=encode_syn_options(SynOptions(1360, 3, sack=True)))
    assert dict(Ether(syn)[TCP].options) == {"MSS": 1360, "SAckOK": b"", "NOP": None, "WScale": 3}
    ack = template.build(0, 0, 16, 0, options=encode_sack([(1, 5), (9, 12)]))
    assert ("SAck", (1, 5, 9, 12)) in Ether(ack)[TCP].options


@given(st.binary(max_size=40))
def test_any_options_can_be_read(options):
    parse_sack(options)
    read = parse_syn_options(options)
    assert read.mss >= 1
    assert read.window_shift is None or read.window_shift <= 14


def test_sack_survives_the_way():
    blocks = [(0xFFFFFFF0, 5), (10, 20), (30, 40)]
    assert parse_sack(encode_sack(blocks)) == blocks
    assert encode_sack([]) == b""
    assert len(parse_sack(encode_sack([(n, n + 1) for n in range(9)]))) == 4


def segment_of(**fields):
    packet = IP(src="10.0.2.15", dst="192.0.2.80") / TCP(sport=40000, dport=80, **fields)
    return bytes(packet)[20:]


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (segment_of()[:19], "truncated"),
        (segment_of(dataofs=4), "bad_tcp_header_length"),
        (segment_of(dataofs=6), "bad_tcp_header_length"),
        (segment_of(chksum=0x1234), "bad_tcp_checksum"),
    ],
)
def test_malformed(segment, reason):
    with pytest.raises(MalformedPacket) as caught:
        parse_tcp(GUEST, REMOTE, segment)
    assert caught.value.reason == reason


@pytest.mark.parametrize("port", ["sport", "dport"])
def test_port_zero(port):
    ports = {"sport": 1, "dport": 1} | {port: 0}
    segment = bytes(IP(src="10.0.2.15", dst="192.0.2.80") / TCP(**ports))[20:]
    with pytest.raises(MalformedPacket, match="bad_tcp_port"):
        parse_tcp(GUEST, REMOTE, segment)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(segment):
    try:
        parse_tcp(GUEST, REMOTE, segment)
    except MalformedPacket:
        return
    raise AssertionError("random bytes with a right checksum: take another seed")


@pytest.mark.parametrize(
    ("flags", "fields", "answer"),
    [
        ("S", {"seq": 100}, {"flags": "RA", "seq": 0, "ack": 101}),
        ("A", {"seq": 100, "ack": 7}, {"flags": "R", "seq": 7, "ack": 0}),
        ("FA", {"seq": 100, "ack": 7}, {"flags": "R", "seq": 7, "ack": 0}),
        ("F", {"seq": 2**32 - 1}, {"flags": "RA", "seq": 0, "ack": 0}),
    ],
)
@pytest.mark.parametrize(
    "ip", [IP(src="10.0.2.15", dst="192.0.2.80"), IPv6(src="fd00::f", dst="2001:db8::1")]
)
def test_reset_for_a_stray_segment(ip, flags, fields, answer):
    frame = Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / ip / TCP(sport=40000, dport=80, flags=flags, **fields)
    packet = Ether(reset_for(bytes(frame)))
    assert recomputed(packet) == bytes(packet)
    assert (packet.src, packet.dst) == (GATEWAY_MAC, GUEST_MAC)
    assert (packet[1].src, packet[1].dst) == (ip.dst, ip.src)
    assert (packet[TCP].sport, packet[TCP].dport) == (80, 40000)
    assert {name: packet[TCP].getfieldval(name) for name in answer} == answer


def test_no_reset_for_a_reset():
    frame = Ether() / IP(src="10.0.2.15", dst="192.0.2.80") / TCP(flags="R")
    assert reset_for(bytes(frame)) is None


@pytest.mark.parametrize(("remote", "guest"), [(REMOTE, GUEST), (REMOTE6, GUEST6)], ids=["IPv4", "IPv6"])
def test_of_what_an_icmp_error_quotes_eight_bytes_of_the_segment_suffice(remote, guest):
    packet = TcpFrameTemplate(MACS, remote, 80, guest, 40000).build(0xFEDC_BA98, 7, 2, 9)[14:]
    header = 20 if len(guest) == 4 else 40
    for length in range(len(packet) + 1):
        told = read_quote(packet[:length])
        assert told == ((remote, 80, guest, 40000, 0xFEDC_BA98) if length >= header + 8 else None)


@pytest.mark.parametrize(
    ("version", "change"),
    [
        (4, (0, 0x46)),  # options: the relay sends none
        (4, (0, 0x55)),
        (4, (9, 17)),
        (6, (0, 0x40)),
        (6, (6, 44)),
    ],
)
def test_quotes_of_other_packets_are_none_of_ours(version, change):
    ends = (REMOTE, 80, GUEST, 40000) if version == 4 else (REMOTE6, 80, GUEST6, 40000)
    packet = bytearray(TcpFrameTemplate(MACS, *ends).build(1, 2, 2, 3)[14:])
    assert read_quote(bytes(packet)) is not None
    at, value = change
    packet[at] = value
    assert read_quote(bytes(packet)) is None
