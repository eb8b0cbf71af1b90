from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack.dhcp import MAX_LENGTH, MessageType, build_reply, is_for_client, is_for_server, parse_dhcp
from netstack.dhcp_options import MAX_FIELDS, Code
from netstack.malformed import MalformedPacket

MAC = bytes.fromhex("525400aa0001")


def message(*options, kind="discover", **fields):
    header = BOOTP(**{"chaddr": MAC + bytes(10), "xid": 0xDEADBEEF, **fields})
    return bytes(header / DHCP(options=[("message-type", kind), *options, "end"]))


@pytest.mark.parametrize("kind", ["discover", "request", "decline", "release", "inform"])
def test_what_scapy_builds_is_understood(kind):
    found = parse_dhcp(
        message(
            ("requested_addr", "10.0.2.15"),
            ("server_id", "10.0.2.2"),
            ("hostname", b"web"),
            kind=kind,
            ciaddr="10.0.2.16",
            giaddr="10.0.2.17",
            flags="B",
        )
    )
    assert found.type is MessageType[kind.upper()]
    assert (found.xid, found.mac, found.broadcast) == (0xDEADBEEF, MAC, True)
    assert (found.client_address, found.relay_address) == (bytes((10, 0, 2, 16)), bytes((10, 0, 2, 17)))
    assert found.address(Code.REQUESTED_ADDRESS) == bytes((10, 0, 2, 15))
    assert found.address(Code.SERVER_ID) == bytes((10, 0, 2, 2))
    assert found.address(Code.ROUTER) is None
    assert found.host_name == "web"


def test_an_option_in_pieces_is_joined():
    assert parse_dhcp(message((12, b"lo"), ("pad"), (12, b"ng"))).host_name == "long"


@pytest.mark.parametrize("option", [b"\x0c\0", b"\x0c\1a", b"\0"], ids=["empty", "a byte", "padding"])
def test_what_fragments_may_bring_beyond_any_message_is_refused_unread(option):
    """64 KB of options of a byte took 50 ms."""
    beginning = message(("hostname", b"web"))[:-1]
    with pytest.raises(MalformedPacket):
        parse_dhcp(beginning + option * (60_000 // len(option)))
    parse_dhcp((beginning + option * 100).ljust(MAX_LENGTH, b"\0"))
    with pytest.raises(MalformedPacket):
        parse_dhcp(beginning.ljust(MAX_LENGTH + 1, b"\0"))


def test_so_many_options_are_read():
    beginning = message()[:-1]
    assert parse_dhcp(beginning + b"\x0c\1a" * (MAX_FIELDS - 1)).host_name == "a" * (MAX_FIELDS - 1)
    with pytest.raises(MalformedPacket):
        parse_dhcp(beginning + b"\x0c\1a" * MAX_FIELDS)


def test_options_continue_in_file_and_sname():
    """RFC 2132 section 9.3; the file comes before the server's name (RFC 3396 section 5)."""
    found = parse_dhcp(
        message(
            (52, b"\x03"), file=b"\x0c\x02fi\xff".ljust(128, b"\0"), sname=b"\x0c\x02sn\xff".ljust(64, b"\0")
        )
    )
    assert found.host_name == "fisn"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], ""),
        ([(12, b"web\0")], "web"),
        ([(81, b"\x00\x00\x00web.example.com")], "web.example.com"),
        ([(81, b"\x04\x00\x00\x03web\x07example\x00")], "web"),
        ([(81, b"\x04\x00\x00\xc0\xff")], "\ufffd"),
        ([(81, b"\x00\x00\x00"), (12, b"web")], "web"),
        ([(12, b"\xff\xfe")], "\ufffd\ufffd"),
    ],
)
def test_the_clients_name(options, name):
    assert parse_dhcp(message(*options)).host_name == name


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        message()[:239],
        message(op=2),
        message(htype=6),
        message(hlen=16),
        bytes(BOOTP(chaddr=MAC)) + b"\x63\x82\x53\x64",
        message(kind=0),
        message(kind=99),
        message()[:240] + b"\x35",
        message()[:240] + b"\x35\x02\x01",
        message()[:240] + b"\x35\x02\x01\x01",
    ],
)
def test_what_is_no_message_of_a_client_is_refused(payload):
    with pytest.raises(MalformedPacket, match="bad_dhcp"):
        parse_dhcp(payload)


@pytest.mark.parametrize(
    "payload",
    [
        bytes(BOOTP(chaddr=MAC)),
        bytes(BOOTP(chaddr=MAC)) + bytes(64),
        bytes(BOOTP(chaddr=MAC) / DHCP(options=["end"])),
        bytes(BOOTP(chaddr=MAC) / DHCP(options=[("hostname", b"old"), "end"])),
    ],
    ids=["no vendor area", "an empty one", "RFC 1497, nothing", "RFC 1497"],
)
def test_without_a_message_type_it_is_bootp(payload):
    found = parse_dhcp(payload)
    assert (found.type, found.mac) == (MessageType.BOOTP, MAC)
    assert found.host_name in ("", "old")


@given(st.binary(max_size=60), st.integers(0, 400))
def test_no_options_whatever_raise_anything_else(options, cut):
    for payload in (message()[:240] + options, (message()[:243] + options)[:cut]):
        with contextlib.suppress(MalformedPacket):
            parse_dhcp(payload).host_name.encode()


def test_scapy_understands_a_reply():
    request = parse_dhcp(message(kind="request", ciaddr="10.0.2.16", flags="B"))
    options = {Code.LEASE_TIME: (3600).to_bytes(4, "big"), Code.DOMAIN_NAME: b"vm.internal"}
    payload = build_reply(request, MessageType.ACK, bytes((10, 0, 2, 15)), options)
    assert len(payload) >= 300
    reply = BOOTP(payload)
    assert (reply.op, reply.htype, reply.hlen, reply.xid) == (2, 1, 6, 0xDEADBEEF)
    assert (reply.yiaddr, reply.ciaddr, reply.siaddr) == ("10.0.2.15", "10.0.2.16", "0.0.0.0")
    assert reply.chaddr == MAC + bytes(10)
    assert reply.flags == "B"
    assert [option for option in reply[DHCP].options if option != "pad"] == [
        ("message-type", 5),
        ("lease_time", 3600),
        ("domain", b"vm.internal"),
        "end",
    ]
    assert Raw not in reply


@pytest.mark.parametrize("options", [[], [IPOption(b"\x94\x04\0\0")], [IPOption(b"\x01" * 40)]])
def test_what_is_for_a_client_is_known_by_its_destination_port(options):
    ip = Ether() / IP(dst="10.0.2.15", options=options)
    for source in (67, 1067, 68):
        assert is_for_client(bytes(ip / UDP(sport=source, dport=68) / BOOTP(op=2)))
    assert not is_for_client(bytes(ip / UDP(sport=68, dport=67) / BOOTP()))
    assert not is_for_client(bytes(ip / UDP(sport=67, dport=1000)))
    assert not is_for_client(bytes(ip / TCP(sport=67, dport=68)))
    first, later = (
        bytes(Ether() / f) for f in fragment(ip[IP] / UDP(dport=68) / Raw(b"\0\x44" * 500), 600)[:2]
    )
    assert is_for_client(first)
    assert is_for_client(bytes(ip / UDP(dport=68)))
    assert not is_for_client(later)
    assert not is_for_client(bytes(Ether() / IPv6() / UDP(dport=68)))


@pytest.mark.parametrize("options", [[], [IPOption(b"\x01" * 40)]])
def test_what_is_for_a_server_is_known_by_its_destination_port(options):
    ip = Ether() / IP(dst="255.255.255.255", options=options)
    assert is_for_server(bytes(ip / UDP(sport=68, dport=67) / BOOTP()))
    assert is_for_server(bytes(ip / UDP(sport=67, dport=67) / BOOTP())), "a relay agent's"
    assert not is_for_server(bytes(ip / UDP(sport=67, dport=68) / BOOTP()))
    assert not is_for_server(bytes(ip / TCP(sport=68, dport=67)))
    assert not is_for_server(bytes(Ether() / IPv6() / UDP(dport=67)))


@given(st.binary(max_size=80))
def test_no_frame_whatever_is_too_odd_to_judge(frame):
    assert is_for_client(frame) in (True, False)
    assert is_for_server(frame) in (True, False)
