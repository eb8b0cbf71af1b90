from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_InfoRequest,
    DHCP6_Reply,
    DHCP6OptClientId,
    DHCP6OptDNSDomains,
    DHCP6OptDNSServers,
    DHCP6OptIA_NA,
    DHCP6OptIA_PD,
    DHCP6OptIA_TA,
    DHCP6OptServerId,
)
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDNSSL,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import Ether
from scapy.packet import Padding, Raw

from netstack import dhcpv6, ra_guard
from netstack.icmp import IcmpError
from netstack.icmpv6 import (
    ERRORS,
    Icmpv6Replies,
    build_echo6,
    build_icmpv6,
    may_report6,
    parse_icmpv6,
    read_icmpv6,
)
from netstack.ipv6 import UNSPECIFIED, link_local_of, pack_ipv6, parse_ipv6
from netstack.malformed import MalformedPacket
from netstack.neighbour import (
    MAX_ADDRESSES_PER_MAC,
    AddressBindings,
    advertisement,
    check_router_solicitation,
    parse_advertisement,
    parse_solicitation,
)
from netstack.router_advertisement import RouterAdvertisements

MAC = bytes.fromhex("525400123456")
GUEST_MAC = bytes.fromhex("525400aabbcc")
LINK_LOCAL = link_local_of(MAC)
ADDRESS = pack_ipv6("fd00::2")
GUEST = pack_ipv6("fd00::1234")
OWN = frozenset({LINK_LOCAL, ADDRESS})


def frame(packet, dst="52:54:00:12:34:56"):
    return bytes(Ether(src="52:54:00:aa:bb:cc", dst=dst, type=0x86DD) / packet)


def assert_intact(data):
    seen = Ether(data)
    again = seen.copy()
    for layer in again.layers():
        if "cksum" in again[layer].fields:
            del again[layer].cksum
    assert bytes(again) == data
    return seen


# -- neighbours -------------------------------------------------------------------------------------


def read(packet):
    """Read a message of neighbour discovery as the gateway does."""
    whole = parse_ipv6(frame(packet))
    message = parse_icmpv6(whole)
    if message.type == ICMPv6ND_RS().type:
        return check_router_solicitation(message, whole.source)
    if message.type == ICMPv6ND_NS().type:
        return parse_solicitation(message, whole.source, whole.destination)
    return parse_advertisement(message, whole.destination)


def discovery(message, src="fd00::1234", dst="ff02::1:ff00:2"):
    return IPv6(src=src, dst=dst, hlim=255) / message


SOURCE_MAC = ICMPv6NDOptSrcLLAddr(lladdr="52:54:00:aa:bb:cc")
EMPTY_OPTION = Raw(b"\1\0" + bytes(6))


@pytest.mark.parametrize(
    "packet",
    [
        discovery(ICMPv6ND_RS(code=1), dst="ff02::2"),
        discovery(ICMPv6ND_RS() / EMPTY_OPTION, dst="ff02::2"),
        discovery(ICMPv6ND_RS() / SOURCE_MAC, src="::", dst="ff02::2"),
        discovery(ICMPv6ND_NS(tgt="fd00::2", code=1)),
        discovery(ICMPv6ND_NS(tgt="ff02::2")),
        discovery(ICMPv6ND_NS(tgt="fd00::2") / EMPTY_OPTION),
        discovery(ICMPv6ND_NS(tgt="fd00::2") / SOURCE_MAC, src="::"),
        discovery(ICMPv6ND_NS(tgt="fd00::2"), src="::", dst="ff02::1"),
        discovery(ICMPv6ND_NS(tgt="fd00::2"), src="::", dst="fd00::2"),
        discovery(ICMPv6ND_NA(tgt="fd00::1234", code=1), dst="fd00::2"),
        discovery(ICMPv6ND_NA(tgt="ff02::2"), dst="fd00::2"),
        discovery(ICMPv6ND_NA(tgt="fd00::1234") / EMPTY_OPTION, dst="fd00::2"),
        discovery(ICMPv6ND_NA(tgt="fd00::1234", S=1), dst="ff02::1"),
    ],
)
def test_messages_of_discovery_that_are_to_be_discarded(packet):
    """RFC 4861 sections 6.1.1, 7.1.1 and 7.1.2."""
    with pytest.raises(MalformedPacket, match="bad_neighbour"):
        read(packet)


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        (discovery(ICMPv6ND_RS() / SOURCE_MAC, dst="ff02::2"), None),
        (discovery(ICMPv6ND_RS(), src="::", dst="ff02::2"), None),
        (discovery(ICMPv6ND_NS(tgt="fd00::2"), src="::"), (ADDRESS, b"")),
        (discovery(ICMPv6ND_NS(tgt="fd00::2"), dst="fd00::2"), (ADDRESS, b"")),
        (discovery(ICMPv6ND_NA(tgt="fd00::1234", S=1), dst="fd00::2"), GUEST),
        (discovery(ICMPv6ND_NA(tgt="fd00::1234", S=0), dst="ff02::1"), GUEST),
    ],
)
def test_messages_of_discovery_that_are_valid(packet, told):
    assert read(packet) == told


def test_a_solicitation_is_read_and_answered():
    asked = IPv6(src="fd00::1234", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fd00::2")
    assert read(asked / ICMPv6NDOptSrcLLAddr(lladdr="52:54:00:aa:bb:cc")) == (ADDRESS, GUEST_MAC)
    told = assert_intact(advertisement(MAC, ADDRESS, GUEST_MAC, GUEST))
    assert (told.dst, told[IPv6].src, told[IPv6].dst, told.hlim) == (
        "52:54:00:aa:bb:cc",
        "fd00::2",
        "fd00::1234",
        255,
    )
    assert (told[ICMPv6ND_NA].R, told[ICMPv6ND_NA].S, told[ICMPv6ND_NA].O) == (1, 1, 1)
    assert told[ICMPv6NDOptDstLLAddr].lladdr == "52:54:00:12:34:56"


def test_whoever_wants_the_gateways_address_hears_that_it_is_taken():
    told = assert_intact(advertisement(MAC, ADDRESS, GUEST_MAC, UNSPECIFIED))
    assert (told.dst, told[IPv6].dst, told[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)
    assert told[ICMPv6ND_NA].tgt == "fd00::2"


@given(st.binary(max_size=60))
def test_garbage_is_a_solicitation_or_malformed(data):
    with contextlib.suppress(MalformedPacket):
        parse_solicitation(read_icmpv6(bytes([135, 0]) + data), GUEST, ADDRESS)


def test_addresses_belong_to_who_came_first_within_a_bound():
    bindings = AddressBindings()
    assert bindings.claim(GUEST_MAC, GUEST)
    assert not bindings.claim(MAC, GUEST)
    for n in range(MAX_ADDRESSES_PER_MAC * 2):
        assert bindings.claim(GUEST_MAC, pack_ipv6(f"fd00::1:{n:x}"))
        assert bindings.claim(GUEST_MAC, GUEST)
    assert len(bindings) == MAX_ADDRESSES_PER_MAC
    assert bindings.holder_of(GUEST) == GUEST_MAC
    bindings.release(GUEST_MAC)
    assert len(bindings) == 0
    assert bindings.claim(MAC, GUEST)


def test_an_address_that_is_given_up_is_free_again():
    bindings = AddressBindings()
    changed = []
    bindings.changed = changed.append
    bindings.claim(GUEST_MAC, GUEST)
    bindings.give_up(MAC, GUEST)
    assert bindings.holder_of(GUEST) == GUEST_MAC, "it is not the other's to give up"
    bindings.give_up(GUEST_MAC, GUEST)
    assert (bindings.holder_of(GUEST), bindings.addresses_of(GUEST_MAC)) == (None, ())
    assert changed == [GUEST_MAC] * 2
    assert bindings.claim(MAC, GUEST)


# -- advertisements ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mtu", "told"), [(1400, 1400), (576, 1280), (9000, 1500)])
def test_an_advertisement_has_prefix_mtu_and_name_server(mtu, told):
    router = RouterAdvertisements(MAC, LINK_LOCAL, ADDRESS, ADDRESS)
    seen = assert_intact(router.frame(GUEST_MAC, mtu, is_default_router=True))
    assert (seen.dst, seen[IPv6].dst, seen.hlim) == ("52:54:00:aa:bb:cc", "ff02::1", 255)
    assert seen[ICMPv6ND_RA].routerlifetime == 1800
    assert (seen[ICMPv6ND_RA].M, seen[ICMPv6ND_RA].O) == (0, 1)
    medium = 0
    assert seen[ICMPv6ND_RA].prf == medium
    assert seen[ICMPv6NDOptMTU].mtu == told
    option = seen[ICMPv6NDOptPrefixInfo]
    assert (option.prefix, option.prefixlen, option.A, option.L) == ("fd00::", 64, 1, 1)
    assert seen[ICMPv6NDOptRDNSS].dns == ["fd00::2"]


def test_where_there_is_nothing_nothing_is_promised():
    quiet = RouterAdvertisements(MAC, LINK_LOCAL, ADDRESS, None)
    seen = Ether(quiet.frame(GUEST_MAC, 1500, is_default_router=False))
    assert seen[ICMPv6ND_RA].routerlifetime == 0
    assert ICMPv6NDOptRDNSS not in seen
    assert ICMPv6NDOptDNSSL not in seen


# -- DHCPv6 -----------------------------------------------------------------------------------------


def test_an_information_request_gets_name_server_and_domain():
    request = DHCP6_InfoRequest(trid=0x123456) / DHCP6OptClientId(duid=DUID_LL(lladdr="52:54:00:aa:bb:cc"))
    parsed = dhcpv6.parse_information_request(bytes(request))
    reply = DHCP6_Reply(dhcpv6.Dhcpv6Server(MAC, ADDRESS, ["vm.internal"]).answer(parsed))
    assert reply.trid == 0x123456
    assert reply[DHCP6OptClientId].duid.lladdr == "52:54:00:aa:bb:cc"
    assert reply[DHCP6OptServerId].duid.lladdr == "52:54:00:12:34:56"
    assert reply[DHCP6OptDNSServers].dnsservers == ["fd00::2"]
    assert reply[DHCP6OptDNSDomains].dnsdomains == ["vm.internal."]


def test_so_many_options_of_a_request_are_read_and_no_more():
    options = b"\0\x0e\0\0" * dhcpv6.MAX_OPTIONS
    assert dhcpv6.parse_information_request(b"\x0babc" + options) is not None
    with pytest.raises(MalformedPacket):
        dhcpv6.parse_information_request(b"\x0babc" + options + b"\0\x0e\0\0")


def test_an_option_without_a_value_is_one_at_the_end_too():
    """RFC 8415 section 21.14: rapid commit has none."""
    request = dhcpv6.parse_information_request(b"\x0babc" + b"\0\x0e\0\0" * 2)
    assert dhcpv6.Dhcpv6Server(MAC, ADDRESS, ["vm.internal"]).answer(request)


def test_requests_to_other_servers_and_other_messages_are_not_answered():
    server = dhcpv6.Dhcpv6Server(MAC, None, ["vm.internal"])
    other = DHCP6_InfoRequest() / DHCP6OptServerId(duid=DUID_LL(lladdr="52:54:00:00:00:01"))
    assert server.answer(dhcpv6.parse_information_request(bytes(other))) is None
    assert dhcpv6.parse_information_request(b"\1abc") is None


@pytest.mark.parametrize("association", [DHCP6OptIA_NA, DHCP6OptIA_TA, DHCP6OptIA_PD])
def test_a_request_for_information_that_wants_addresses_is_discarded(association):
    """RFC 8415 section 16.12."""
    with pytest.raises(MalformedPacket, match="bad_dhcpv6"):
        dhcpv6.parse_information_request(bytes(DHCP6_InfoRequest() / association(iaid=1)))


@given(st.binary(max_size=200))
def test_garbage_is_a_request_or_malformed(data):
    for start in (b"", b"\x0babc"):
        with contextlib.suppress(MalformedPacket):
            dhcpv6.parse_information_request(start + data)


# -- ICMPv6 -----------------------------------------------------------------------------------------


def test_echo_replies_are_scapys():
    built = build_icmpv6(GUEST_MAC + MAC, ADDRESS, GUEST, build_echo6(129, 7, 8, b"data"))
    seen = assert_intact(built)
    assert bytes(seen[IPv6]) == bytes(
        IPv6(src="fd00::2", dst="fd00::1234", hlim=64) / ICMPv6EchoReply(id=7, seq=8, data=b"data")
    )


@pytest.mark.parametrize("error", IcmpError)
def test_errors_are_read_by_scapy(error):
    replies = Icmpv6Replies(MAC, LINK_LOCAL, ADDRESS)
    sent = frame(IPv6(src="fd00::1234", dst="2606::1") / UDP() / Raw(bytes(1400)))
    seen = assert_intact(replies.icmp_error(sent, error, 1400 if error.value == (3, 4) else 0))
    icmp = seen[IPv6].payload
    assert (icmp.type, icmp.code) == ERRORS[error]
    assert (seen[IPv6].src, seen[IPv6].dst) == ("fd00::2", "fd00::1234")
    assert seen[IPv6].plen + 40 == 1280
    if error.value == (3, 4):
        assert icmp.mtu == 1400


@pytest.mark.parametrize(
    "packet",
    [
        IPv6(src="::", dst="2606::1") / UDP(),
        IPv6(src="ff02::1", dst="2606::1") / UDP(),
        IPv6(src="fd00::1", dst="ff02::1") / UDP(),
        IPv6(src="fd00::1", dst="2606::1") / ICMPv6DestUnreach(),
        IPv6(src="fd00::1", dst="2606::1") / ICMPv6TimeExceeded(),
    ],
)
def test_nothing_answers_these_with_an_error(packet):
    assert not may_report6(frame(packet))


def test_a_bad_checksum_is_seen():
    packet = parse_ipv6(frame(IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(cksum=1)))
    with pytest.raises(MalformedPacket, match="bad_icmp_checksum"):
        parse_icmpv6(packet)


# -- the guard --------------------------------------------------------------------------------------

HEADER = IPv6(src="fe80::1", dst="ff02::1", hlim=255)
SHORT = IPv6(src="fe80::1", dst="ff02::1", plen=8)
"""What is more than eight bytes behind it is padding."""
NO_LENGTH = IPv6(src="fe80::1", dst="ff02::1", hlim=255, plen=0)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (HEADER / ICMPv6ND_RA(), "rogue_router"),
        (HEADER / IPv6ExtHdrDestOpt() / ICMPv6ND_RA(), "rogue_router"),
        (HEADER / IPv6ExtHdrFragment(m=1) / ICMPv6ND_RA(), "rogue_router"),
        (HEADER / IPv6ExtHdrFragment(m=1) / IPv6ExtHdrDestOpt(nh=58, len=30), "hidden_ipv6"),
        (HEADER / IPv6ExtHdrFragment(nh=17, m=1), "hidden_ipv6"),
        (HEADER / IPv6ExtHdrFragment(m=1) / IPv6ExtHdrFragment(nh=17), "hidden_ipv6"),
        (SHORT / IPv6ExtHdrFragment(nh=58, m=1) / ICMPv6EchoRequest(), "hidden_ipv6"),
        (SHORT / IPv6ExtHdrFragment(nh=17, m=1) / UDP(dport=9), "hidden_ipv6"),
        (SHORT / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(), "hidden_ipv6"),
        (NO_LENGTH / IPv6ExtHdrHopByHop() / ICMPv6ND_RA(), "rogue_router"),
        (NO_LENGTH / ICMPv6EchoRequest(), "hidden_ipv6"),
        (HEADER / ICMPv6EchoRequest() / Padding(bytes(9)), None),
        (HEADER / ICMPv6ND_NA(tgt="fd00::2"), "gateway_ipv6"),
        (HEADER / ICMPv6ND_NA(tgt="fd00::3"), None),
        (HEADER / UDP(sport=547, dport=546), "rogue_dhcpv6"),
        (HEADER / UDP(sport=1547, dport=546), "rogue_dhcpv6"),
        (HEADER / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=546), "rogue_dhcpv6"),
        (HEADER / AH(nh=58, payloadlen=4, icv=bytes(12)) / ICMPv6ND_RA(), "rogue_router"),
        (HEADER / IPv6ExtHdrRouting() / ICMPv6ND_Redirect(), "rogue_router"),
        (IPv6(src="fd00::9", nh=135) / Raw(b"\x3a\0\0\0\0\0\0\0" + bytes(ICMPv6ND_RA())), "rogue_router"),
        (HEADER / UDP(sport=546, dport=547), None),
        (IPv6(src="fd00::2") / UDP(), "gateway_ipv6"),
        (HEADER / ICMPv6ND_NS(), None),
        (HEADER / IPv6ExtHdrDestOpt(nh=59), None),
        (HEADER / IPv6ExtHdrFragment(offset=9) / Raw(b"\x86" * 20), None),
    ],
)
def test_the_guard(packet, reason):
    assert ra_guard.refusal(frame(packet), OWN) == reason


def test_the_guard_takes_a_frame_that_is_cut_anywhere():
    whole = frame(HEADER / IPv6ExtHdrHopByHop(nh=60) / IPv6ExtHdrDestOpt(nh=58) / ICMPv6ND_RA())
    judged = [ra_guard.refusal(whole[:length], OWN) for length in range(54, 71)]
    assert judged == ["hidden_ipv6"] * 17
    assert ra_guard.refusal(whole[:71], OWN) == "rogue_router"


@given(st.binary(max_size=120))
def test_the_guard_takes_any_frame(data):
    ra_guard.refusal(frame(HEADER)[:20] + data, OWN)
