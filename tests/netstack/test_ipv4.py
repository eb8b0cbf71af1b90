from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP, defragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack.ipv4 import build_ipv4, format_ipv4, fragment, pack_ipv4, parse_ipv4
from netstack.malformed import MalformedPacket

GATEWAY = "52:54:00:12:34:56"
GUEST = "52:54:00:aa:bb:cc"
MACS = bytes.fromhex("525400aabbcc525400123456")
address = st.binary(min_size=4, max_size=4)


def frame(payload=b"payload!", padding=b"", **fields):
    ip = IP(**{"src": "10.0.2.15", "dst": "192.0.2.7", "proto": 17, "flags": "DF", **fields})
    return bytes(Ether(src=GUEST, dst=GATEWAY, type=0x800) / ip / Raw(payload)) + padding


def reason(data):
    with pytest.raises(MalformedPacket) as caught:
        parse_ipv4(data)
    return caught.value.reason


def test_a_packet_of_scapys_is_read():
    packet = parse_ipv4(frame(ttl=7))
    assert packet.source == bytes((10, 0, 2, 15))
    assert packet.destination == bytes((192, 0, 2, 7))
    assert (packet.protocol, packet.ttl, packet.dont_fragment) == (17, 7, True)
    assert packet.payload == b"payload!"


def test_options_are_skipped_and_padding_cut_off():
    packet = parse_ipv4(frame(options=[IPOption_NOP()] * 5, flags=0, padding=bytes(20)))
    assert packet.payload == b"payload!"
    assert not packet.dont_fragment


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "truncated"),
        (frame()[:33], "truncated"),
        (frame()[:-1], "truncated"),
        (frame()[:12] + b"\x86\xdd" + frame()[14:], "wrong_ethertype"),
        (frame(version=6), "bad_ip_version"),
        (frame(ihl=4), "bad_ip_header_length"),
        (frame(ihl=15, len=59), "bad_ip_total_length"),
        (frame(len=19), "bad_ip_total_length"),
        (frame(len=0), "bad_ip_total_length"),
        (frame(len=0xFFFF), "truncated"),
        (frame(chksum=0x1234), "bad_ip_checksum"),
        (frame(flags="MF"), "fragment"),
        (frame(frag=1), "fragment"),
    ],
)
def test_what_lies_is_refused_with_its_reason(data, expected):
    assert reason(data) == expected


@given(st.binary(max_size=80))
def test_garbage_gives_a_packet_or_malformed(data):
    for start in (b"", frame()[:14], frame()[:15]):
        try:
            parse_ipv4(start + data)
        except MalformedPacket:
            continue


@given(st.integers(14, 41), st.integers(0, 255), st.integers(0, 20))
def test_any_single_changed_byte_is_survived(position, value, cut):
    data = bytearray(frame())
    data[position] = value
    try:
        packet = parse_ipv4(bytes(data[: len(data) - cut]))
    except MalformedPacket:
        return
    assert len(packet.payload) <= 8


@given(
    addresses=st.tuples(address, address),
    protocol=st.integers(0, 255),
    payload=st.binary(max_size=1480),
    ttl=st.integers(1, 255),
    identification=st.integers(0, 0xFFFF),
)
def test_what_is_built_is_what_scapy_builds(addresses, protocol, payload, ttl, identification):
    source, destination = addresses
    built = build_ipv4(MACS, source, destination, protocol, payload, ttl=ttl, identification=identification)
    ip = IP(src=format_ipv4(source), dst=format_ipv4(destination), proto=protocol, ttl=ttl, id=identification)
    assert built == bytes(Ether(src=GATEWAY, dst=GUEST, type=0x800) / ip / Raw(payload))
    assert parse_ipv4(built) == (source, destination, protocol, ttl, False, payload)


@given(st.integers(0, 9000), st.sampled_from([1500, 1400, 576, 68]))
def test_fragments_are_put_together_by_scapy(size, mtu):
    payload = bytes(number % 251 for number in range(size))
    whole = bytes(
        Ether(src=GATEWAY, dst=GUEST) / IP(src="192.0.2.7", dst="10.0.2.15", id=7) / UDP() / Raw(payload)
    )
    frames = fragment(whole, mtu)
    assert all(len(piece) <= 14 + mtu for piece in frames)
    packets = [Ether(piece) for piece in frames]
    for packet in packets:
        stated = packet[IP].chksum
        del packet[IP].chksum
        assert IP(bytes(packet[IP])).chksum == stated
    # scapy puts them together when it sees the last one, so that one has to come last.
    (result,) = defragment([Ether(piece) for piece in (*reversed(frames[:-1]), frames[-1])])
    if len(frames) > 1:
        assert bytes(result[IP].payload) == whole[34:]
    else:
        assert frames == [whole]


@given(address)
def test_addresses_survive_their_text(packed):
    assert pack_ipv4(format_ipv4(packed)) == packed


@pytest.mark.parametrize("text", ["", "10.0.2", "010.0.2.1", "10.0.2.256", "0x7f000001", "::1"])
def test_text_that_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        pack_ipv4(text)
