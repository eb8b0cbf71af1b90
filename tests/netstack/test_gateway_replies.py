from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_NOP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Padding, Raw

from netstack.arp import parse_arp
from netstack.ethernet import parse_mac
from netstack.gateway_replies import GatewayReplies
from netstack.icmp import IcmpError, parse_icmp
from netstack.ipv4 import parse_ipv4

MAC = "52:54:00:12:34:56"
GUEST = "52:54:00:aa:bb:cc"
replies = GatewayReplies(parse_mac(MAC), bytes((10, 0, 2, 2)))


def to_gateway(payload, ether=None, **fields):
    ip = IP(**{"src": "10.0.2.15", "dst": "192.0.2.7", "id": 77, **fields})
    return bytes(Ether(**{"src": GUEST, "dst": MAC, **(ether or {})}) / ip / payload)


def assert_checksums_are_scapys(frame):
    again = Ether(frame)
    for layer in (IP, ICMP):
        if layer in again:
            del again[layer].chksum
    assert bytes(again) == frame


def test_arp_reply_to_a_request():
    request = bytes(
        Ether(src=GUEST, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=GUEST, psrc="10.0.2.15", pdst="10.0.2.2")
    )
    expected = Ether(src=MAC, dst=GUEST) / ARP(
        op=2, hwsrc=MAC, psrc="10.0.2.2", hwdst=GUEST, pdst="10.0.2.15"
    )
    assert replies.arp_reply(parse_arp(request)) == bytes(expected)


def test_arp_reply_to_a_probe_and_for_another_service_address():
    probe = bytes(Ether(src=GUEST) / ARP(hwsrc=GUEST, psrc="0.0.0.0", pdst="10.0.2.4"))
    reply = Ether(replies.arp_reply(parse_arp(probe)))
    assert (reply[ARP].op, reply[ARP].psrc, reply[ARP].pdst, reply.dst) == (2, "10.0.2.4", "0.0.0.0", GUEST)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=1472), st.booleans())
def test_echo_reply_is_scapys(identifier, sequence, data, options):
    request = to_gateway(
        ICMP(id=identifier, seq=sequence) / Raw(data),
        dst="10.0.2.2",
        options=[IPOption_NOP()] * 4 if options else [],
    )
    expected = (
        Ether(src=MAC, dst=GUEST)
        / IP(src="10.0.2.2", dst="10.0.2.15", id=0, flags="DF")
        / ICMP(type=0, id=identifier, seq=sequence)
        / Raw(data)
    )
    assert replies.echo_reply(request) == bytes(expected)
    assert replies.echo_reply(request + bytes(18)) == bytes(expected)


@pytest.mark.parametrize("error", IcmpError)
def test_an_error_names_its_kind_and_quotes_the_guests_packet(error):
    frame = to_gateway(UDP(sport=4000, dport=53) / Raw(b"question"))
    reply = replies.icmp_error(frame, error, mtu=1400 if error is IcmpError.FRAGMENTATION_NEEDED else 0)
    assert_checksums_are_scapys(reply)
    parsed = Ether(reply)
    assert (parsed.src, parsed.dst) == (MAC, GUEST)
    assert (parsed[IP].src, parsed[IP].dst, parsed[IP].tos) == ("10.0.2.2", "10.0.2.15", 0xC0)
    assert (parsed[ICMP].type, parsed[ICMP].code) == error.value
    assert bytes(parsed[ICMP].payload) == frame[14:]
    assert parsed[IPerror].src == "10.0.2.15"
    if error is IcmpError.FRAGMENTATION_NEEDED:
        assert parsed[ICMP].nexthopmtu == 1400


@given(st.integers(0, 1500), st.integers(0, 30))
def test_an_error_fits_576_bytes_and_quotes_all_that_fits(length, padding):
    frame = to_gateway(UDP(sport=4000, dport=53) / Raw(bytes(length)))
    reply = replies.icmp_error(frame + bytes(padding), IcmpError.PROHIBITED)
    packet = parse_ipv4(reply)
    parse_icmp(packet.payload)
    assert len(reply) == 14 + min(576, 28 + 28 + length)
    assert packet.payload[8:] == frame[14 : 14 + 548]


UNANSWERED = {
    "broadcast MAC": to_gateway(UDP(), {"dst": "ff:ff:ff:ff:ff:ff"}),
    "multicast MAC": to_gateway(UDP(), {"dst": "01:00:5e:00:00:fb"}),
    "multicast source MAC": to_gateway(UDP(), {"src": "01:00:5e:00:00:fb"}),
    "multicast": to_gateway(UDP(), dst="224.0.0.251"),
    "broadcast": to_gateway(UDP(), dst="255.255.255.255"),
    "LAN broadcast": to_gateway(UDP(), dst="10.0.2.255"),
    "LAN network": to_gateway(UDP(), dst="10.0.2.0"),
    "later fragment": to_gateway(UDP(), frag=3),
    "no source": to_gateway(UDP(), src="0.0.0.0"),
    "loopback source": to_gateway(UDP(), src="127.0.0.1"),
    "multicast source": to_gateway(UDP(), src="224.0.0.1"),
    "broadcast source": to_gateway(UDP(), src="255.255.255.255"),
    "LAN broadcast source": to_gateway(UDP(), src="10.0.2.255"),
    "error": to_gateway(ICMP(type=3, code=1) / IP() / UDP()),
    "time exceeded": to_gateway(ICMP(type=11) / IP() / UDP()),
    "source quench": to_gateway(ICMP(type=4) / IP() / UDP()),
    "redirect": to_gateway(ICMP(type=5) / IP() / UDP()),
    "parameter problem": to_gateway(ICMP(type=12) / IP() / UDP()),
    "empty ICMP": to_gateway(Raw(b""), proto=1),
    "ARP": bytes(Ether(src=GUEST, dst=MAC) / ARP() / Padding(bytes(20))),
    "short": to_gateway(UDP())[:33],
}


@pytest.mark.parametrize("frame", UNANSWERED.values(), ids=UNANSWERED)
def test_what_must_not_be_answered_with_an_error(frame):
    assert not replies.may_report(frame)
    assert replies.icmp_error(frame, IcmpError.PROHIBITED) is None


@pytest.mark.parametrize(
    "frame",
    [
        to_gateway(ICMP() / Raw(b"ping")),
        to_gateway(TCP(dport=80)),
        to_gateway(UDP() / Raw(b"first fragment"), flags="MF"),
        to_gateway(UDP(), options=[IPOption_NOP()] * 4),
    ],
)
def test_what_may_be_answered(frame):
    assert_checksums_are_scapys(replies.icmp_error(frame, IcmpError.HOST_UNREACHABLE))


@given(st.binary(max_size=80))
def test_garbage_never_raises(data):
    for start in (b"", to_gateway(ICMP())[:14], to_gateway(ICMP())[:24]):
        replies.icmp_error(start + data, IcmpError.PROHIBITED)
