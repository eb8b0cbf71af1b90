"""What a guest may say through the switch, however it wraps it up, and from which addresses."""

from __future__ import annotations

import pytest
from lan_parts import GATEWAY_MAC, mac
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from switch_parts import BROADCAST

from actors.lan.forwarding import CLAIM_BURST, CLAIMS_PER_SECOND
from actors.messages import (
    AddressUsed,
    GatewayAttached,
)
from netstack.address_pool import AddressPool
from netstack.neighbour import AddressBindings
from netstack.source_guard import SourceGuard
from netstack.vlan import MAX_TAGS

WRAPPINGS = {
    "priority": [Dot1Q(vlan=0, prio=5)],
    "service tag": [Dot1AD(vlan=0)],
    "two priorities": [Dot1Q(vlan=0), Dot1Q(vlan=0)],
    "a vlan": [Dot1Q(vlan=7)],
    "stacked": [Dot1AD(vlan=7), Dot1Q(vlan=0), Dot1Q(vlan=8)],
}
CLAIMS = {
    "gateway_arp": ARP(op=2, hwsrc=mac(1).hex(":"), psrc="10.0.2.2"),
    "rogue_dhcp": IP(dst="10.0.2.11") / UDP(sport=1067, dport=68) / b"offer",
    "rogue_router": IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
    "rogue_dhcpv6": IPv6(src="fe80::1", dst="ff02::1") / UDP(sport=1547, dport=546) / b"reply",
    "gateway_ipv6": IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fe80::5054:ff:fe12:3456"),
}


def wrapped(tags, packet, destination=BROADCAST):
    built = Ether(src=mac(1).hex(":"), dst=destination.hex(":"))
    for tag in tags:
        built /= tag
    return bytes(built / packet)


@pytest.mark.parametrize("tags", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize(("reason", "packet"), CLAIMS.items(), ids=CLAIMS)
def test_no_tag_gets_a_claim_past_the_guards(trio, tags, reason, packet):
    trio.sends(1, wrapped(tags, packet), wrapped(tags, packet, mac(2)))
    assert (trio.got(2), trio.got(3), trio.gateway_got()) == ([], [], [])
    assert trio.drops() == {reason: 2}


def test_priority_tags_are_taken_off_and_vlans_pass(trio):
    packet = IP(src="10.0.2.10", dst="10.0.2.11") / UDP() / b"data"
    plain, vlan = wrapped([], packet, mac(2)), wrapped(WRAPPINGS["a vlan"], packet, mac(2))
    trio.sends(1, plain, wrapped(WRAPPINGS["two priorities"], packet, mac(2)), vlan, plain, vlan)
    assert trio.got(2) == [plain, plain, vlan, plain, vlan]
    to_gateway = wrapped(WRAPPINGS["priority"], packet, GATEWAY_MAC)
    trio.sends(1, to_gateway)
    assert trio.gateway_got() == [wrapped([], packet, GATEWAY_MAC)]


@pytest.fixture
def guarded(trio):
    """Three guests of which each holds an address: 10.0.2.10, .11, .12."""
    pool = AddressPool()
    for number in (1, 2, 3):
        pool.claim(mac(number), pool.assign(mac(number)))
    trio.tell(GatewayAttached(trio.gateway, SourceGuard(pool, AddressBindings(), bytes(8))))
    return trio


def from_address(source, number=1, destination=None, sport=1000):
    ether = Ether(src=mac(number).hex(":"), dst=(destination or mac(2)).hex(":"))
    return bytes(ether / IP(src=source, dst="10.0.2.11") / UDP(sport=sport, dport=9) / b"data")


def test_a_guest_sends_from_its_own_address_only(guarded):
    own = from_address("10.0.2.10")
    spoofed = [from_address(f"10.0.2.{n}") for n in (12, 2)] + [from_address("8.8.8.8")]
    guarded.sends(1, own, *spoofed, own, spoofed[0], own)
    assert guarded.got(2) == [own, own, own]
    assert guarded.drops() == {"spoofed_address": 2, "reserved_address": 1, "foreign_source": 1}


def test_the_gateway_hears_of_new_and_of_contested_addresses(guarded):
    guarded.sends(1, from_address("10.0.2.77"), from_address("10.0.2.77"), from_address("10.0.2.12"))
    assert len(guarded.got(2)) == 2
    used = guarded.gateway.take(AddressUsed)
    assert [(m.port, m.mac, m.address[3], m.contested) for m in used] == [
        (1, mac(1), 77, False),
        (1, mac(1), 12, True),
    ]


def test_a_guest_that_tries_many_addresses_is_slowed_down(loop, guarded):
    frames = [from_address(f"10.0.2.{n}") for n in range(20, 170)]
    guarded.sends(1, *frames)
    assert guarded.drops() == {"claim_rate": 150 - CLAIM_BURST}
    assert len(guarded.gateway.take(AddressUsed)) == CLAIM_BURST
    loop.advance(1)
    guarded.sends(1, *frames[:50])
    assert guarded.drops() == {"claim_rate": 200 - CLAIM_BURST - CLAIMS_PER_SECOND}
    own = from_address("10.0.2.11", 2, mac(1))
    guarded.sends(2, own)
    assert guarded.got(1) == [own], "a neighbour is not affected"


def test_what_passed_does_not_speak_for_the_next_frame(guarded):
    """Nor is a DHCP offer between other frames of the same guests to the same one passed over."""
    own, spoofed = from_address("10.0.2.10"), from_address("10.0.2.12")
    packet = Ether(own)
    packet[UDP].dport = 68
    del packet[UDP].chksum
    offer = bytes(packet)
    guarded.sends(1, own, offer, own, spoofed, offer, own)
    assert guarded.got(2) == [own, own, own]
    assert guarded.drops() == {"rogue_dhcp": 2, "spoofed_address": 1}


def test_frames_of_a_vlan_may_have_addresses_of_another_network(guarded):
    frame = wrapped(WRAPPINGS["a vlan"], IP(src="192.168.7.1", dst="192.168.7.2") / UDP(), mac(2))
    guarded.sends(1, frame)
    assert guarded.got(2) == [frame]


def test_what_hides_its_protocol_goes_nowhere(trio):
    snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=0x0806)
    hidden = Dot3(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff") / snap / CLAIMS["gateway_arp"]
    deep = wrapped([Dot1Q(vlan=7)] * (MAX_TAGS + 1), CLAIMS["gateway_arp"])
    trio.sends(1, bytes(hidden), deep)
    assert trio.got(2) == []
    assert trio.drops() == {"hidden_protocol": 2}
