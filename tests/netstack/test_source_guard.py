"""Which sender's addresses pass the switch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from netstack.address_pool import AddressPool, Claim
from netstack.dhcp_options import Route
from netstack.ipv6 import pack_ipv6
from netstack.neighbour import AddressBindings
from netstack.source_guard import SourceGuard

A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
PREFIX = "fd00:0:0:1::"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


@pytest.fixture
def guard():
    """A holds 10.0.2.10 and two IPv6 addresses, B 10.0.2.11 and one."""
    pool, bindings = AddressPool(), AddressBindings()
    for holder, last in ((A, 10), (B, 11)):
        assert pool.claim(mac(holder), bytes((10, 0, 2, last))).accepted
    for holder, address in ((A, "fe80::a"), (A, f"{PREFIX}a"), (B, f"{PREFIX}b")):
        assert bindings.claim(mac(holder), pack_ipv6(address))
    return SourceGuard(pool, bindings, pack_ipv6(PREFIX)[:8])


def verdict(guard, packet, source=A):
    """What the switch does about a frame: None for nothing."""
    frame = bytes(Ether(src=source, dst=B) / packet)
    suspicion = guard.look(frame)
    if suspicion is None or suspicion.drop:
        return suspicion and suspicion.drop
    return guard.claim(frame[6:12], suspicion.address)


def arp(address, hardware=A, **fields):
    return ARP(hwsrc=hardware, psrc=address, pdst="10.0.2.11", **fields)


def advertises(address):
    return IPv6(src="fe80::a", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=address)


@pytest.mark.parametrize(
    "packet",
    [
        IP(src="10.0.2.10", dst="10.0.2.11") / UDP(),
        IP(src="0.0.0.0", dst="255.255.255.255") / UDP(),
        IP(src="169.254.3.4", dst="169.254.255.255") / UDP(),
        arp("10.0.2.10"),
        arp("0.0.0.0"),
        arp("10.0.2.10", op=2),
        IPv6(src="fe80::a", dst="ff02::1") / UDP(),
        IPv6(src=f"{PREFIX}a", dst=f"{PREFIX}b") / UDP(),
        IPv6(src="::", dst="ff02::1:ff00:9") / ICMPv6ND_NS(tgt=f"{PREFIX}b"),
        advertises(f"{PREFIX}a"),
    ],
)
def test_what_is_the_senders_own_passes(guard, packet):
    assert verdict(guard, packet) is None


@pytest.mark.parametrize("packet", [IP(src="10.0.2.11") / UDP(), arp("10.0.2.11"), arp("10.0.2.11", op=2)])
def test_a_neighbours_ipv4_address_is_taken(guard, packet):
    assert verdict(guard, packet) is Claim.TAKEN


@pytest.mark.parametrize("packet", [IPv6(src=f"{PREFIX}b", dst="ff02::1") / UDP(), advertises(f"{PREFIX}b")])
def test_a_neighbours_ipv6_address_is_taken(guard, packet):
    assert verdict(guard, packet) is Claim.TAKEN


@pytest.mark.parametrize("address", ["10.0.2.2", "10.0.2.4", "10.0.2.0", "10.0.2.255"])
def test_addresses_of_the_gateway_and_of_nobody_are_reserved(guard, address):
    assert verdict(guard, IP(src=address) / UDP()) is Claim.RESERVED
    assert verdict(guard, arp(address)) is Claim.RESERVED


@pytest.mark.parametrize("address", ["8.8.8.8", "10.0.3.10", "127.0.0.1", "224.0.0.1"])
def test_foreign_ipv4_addresses_are_no_guests(guard, address):
    assert verdict(guard, IP(src=address) / UDP()) is Claim.FOREIGN


@pytest.fixture
def router():
    """A is the router to networks that the operator named: to some beside the LAN, and to all others."""
    pool = AddressPool()
    for holder, last in ((A, 10), (B, 11)):
        assert pool.claim(mac(holder), bytes((10, 0, 2, last))).accepted
    networks = (bytes((192, 168, 0, 0)), 16), (bytes((10, 0, 0, 0)), 8)
    routes = [Route(*network, bytes((10, 0, 2, 10))) for network in networks]

    def make(*more):
        return SourceGuard(pool, AddressBindings(), None, routes=[*routes, *more])

    return make


@pytest.mark.parametrize("address", ["192.168.7.1", "192.168.255.255", "10.0.3.10", "10.255.0.1"])
def test_what_comes_through_a_guest_from_a_network_behind_it_passes(router, address):
    assert verdict(router(), IP(src=address, dst="10.0.2.11") / UDP()) is None
    assert verdict(router(), IP(src=address, dst="10.0.2.10") / UDP(), B) is Claim.FOREIGN
    assert verdict(router(), arp(address)) is Claim.FOREIGN, "such hosts are on no link of ours"


def test_the_router_of_all_other_networks_may_send_from_all_that_packets_come_from(router):
    guard = router(Route(bytes(4), 0, bytes((10, 0, 2, 11))))
    assert verdict(guard, IP(src="8.8.8.8", dst="10.0.2.10") / UDP(), B) is None
    assert verdict(guard, IP(src="8.8.8.8", dst="10.0.2.11") / UDP()) is Claim.FOREIGN
    for address in ("127.0.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255"):
        assert verdict(guard, IP(src=address, dst="10.0.2.10") / UDP(), B) is Claim.FOREIGN


def test_a_router_has_no_more_of_the_lans_addresses_than_others(router):
    guard = router(Route(bytes(4), 0, bytes((10, 0, 2, 10))))
    assert verdict(guard, IP(src="10.0.2.11") / UDP()) is Claim.TAKEN
    assert verdict(guard, IP(src="10.0.2.2") / UDP()) is Claim.RESERVED
    assert verdict(guard, IP(src="10.0.2.77") / UDP()) is Claim.GRANTED


def test_who_has_the_routers_address_no_more_is_no_router(router):
    guard, packet = router(), IP(src="192.168.7.1", dst="10.0.2.11") / UDP()
    guard._pool.move(bytes((10, 0, 2, 10)), mac(B))
    assert verdict(guard, packet) is Claim.FOREIGN
    assert verdict(guard, packet, B) is None


@pytest.mark.parametrize("address", ["2001:db8::1", "fd00:0:0:2::a", "ff02::1"])
def test_foreign_ipv6_addresses_are_no_guests(guard, address):
    assert verdict(guard, IPv6(src=address, dst="ff02::1") / UDP()) == "foreign_source"
    assert verdict(guard, advertises(address)) == "foreign_source"


def test_an_address_that_nobody_has_is_whose_who_uses_it_first(guard):
    for packet in (IP(src="10.0.2.77") / UDP(), IPv6(src="fe80::77", dst="ff02::1") / UDP()):
        assert verdict(guard, packet) is Claim.GRANTED
        assert verdict(guard, packet) is None
        assert verdict(guard, packet, B) is Claim.TAKEN


def test_arp_names_the_mac_that_sends_it(guard):
    assert verdict(guard, arp("10.0.2.10", hardware=B)) == "arp_sender"


def test_without_a_prefix_guests_choose_their_ipv6_networks():
    guard = SourceGuard(AddressPool(), AddressBindings(), None)
    packet = IPv6(src="2001:db8::1", dst="ff02::1") / UDP()
    assert verdict(guard, packet) is Claim.GRANTED
    assert verdict(guard, packet, B) is Claim.TAKEN


@given(st.binary(max_size=90), st.sampled_from([b"\x08\x00", b"\x08\x06", b"\x86\xdd", b"\x88\xb5"]))
def test_no_frame_is_too_odd(data, ethertype):
    guard = SourceGuard(AddressPool(), AddressBindings(), bytes(8))
    frame = data[:12].ljust(12, b"\2") + ethertype + data[12:]
    suspicion = guard.look(frame)
    if suspicion is not None and not suspicion.drop:
        guard.claim(frame[6:12], suspicion.address)


def test_other_protocols_are_not_looked_at(guard):
    assert verdict(guard, Raw(b"\x88\xb5" + bytes(40))) is None
