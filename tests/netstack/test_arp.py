from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from netstack.arp import REPLY, REQUEST, ArpPacket, parse_arp
from netstack.malformed import MalformedPacket

GUEST_MAC = bytes.fromhex("525400aabbcc")
GUEST = bytes((10, 0, 2, 15))
GATEWAY = bytes((10, 0, 2, 2))


def frame(**fields):
    arp = ARP(**{"hwsrc": "52:54:00:aa:bb:cc", "psrc": "10.0.2.15", "pdst": "10.0.2.2", "op": 1, **fields})
    return bytes(Ether(src="52:54:00:aa:bb:cc", dst="ff:ff:ff:ff:ff:ff") / arp)


def test_a_request_of_scapys_is_read_with_and_without_padding():
    expected = ArpPacket(REQUEST, GUEST_MAC, GUEST, bytes(6), GATEWAY)
    assert parse_arp(frame()) == expected
    assert parse_arp(frame() + bytes(18)) == expected


def test_probe_and_announcement():
    assert parse_arp(frame(psrc="0.0.0.0")).sender_ip == bytes(4)
    announcement = parse_arp(frame(pdst="10.0.2.15", op=REPLY))
    assert announcement == ArpPacket(REPLY, GUEST_MAC, GUEST, bytes(6), GUEST)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame()[:41], "truncated"),
        (b"", "truncated"),
        (frame()[:12] + b"\x08\x00" + frame()[14:], "wrong_ethertype"),
        (frame(op=3), "bad_arp"),
        (frame(op=0), "bad_arp"),
        (frame(hwtype=6), "bad_arp"),
        (frame(ptype=0x86DD), "bad_arp"),
        (frame()[:18] + b"\x08\x04" + frame()[20:], "bad_arp"),
        (frame()[:18] + b"\x06\x10" + frame()[20:], "bad_arp"),
    ],
)
def test_what_is_not_arp_for_ipv4_is_refused(data, expected):
    with pytest.raises(MalformedPacket) as caught:
        parse_arp(data)
    assert caught.value.reason == expected


@given(st.binary(max_size=60))
def test_garbage_gives_a_packet_or_malformed(data):
    for start in (b"", frame()[:14], frame()[:20]):
        try:
            parse_arp(start + data)
        except MalformedPacket:
            continue
