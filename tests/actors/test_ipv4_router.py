from __future__ import annotations

import pytest
from flow_parts import lan_of_three
from gateway_parts import GRE, Lan, assert_intact, echoes, ether, packet
from lan_parts import GATEWAY_MAC, mac
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw


@pytest.fixture
def lan(loop, counters):
    """A LAN with guests at ports 1, 2, 3: 10.0.2.10, .11, .12."""
    return lan_of_three(counters)


# -- ARP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["10.0.2.10", "0.0.0.0"], ids=["request", "probe"])
@pytest.mark.parametrize("destination", [b"\xff" * 6, GATEWAY_MAC], ids=["broadcast", "unicast"])
def test_arp_for_the_gateway_is_answered(lan, sender, destination):
    (reply,) = lan.sends(
        1, ether(1, destination) / ARP(hwsrc=mac(1).hex(":"), psrc=sender, pdst="10.0.2.2") / Raw(bytes(18))
    )
    expected = Ether(src=GATEWAY_MAC.hex(":"), dst=mac(1).hex(":")) / ARP(
        op=2, hwsrc=GATEWAY_MAC.hex(":"), psrc="10.0.2.2", hwdst=mac(1).hex(":"), pdst=sender
    )
    assert bytes(reply) == bytes(expected)


@pytest.mark.parametrize("target", ["10.0.2.4", "10.0.2.11", "10.0.2.99", "192.0.2.1"])
def test_arp_for_others_is_not_the_gateways_business(lan, target):
    who_has = ether(1, b"\xff" * 6) / ARP(hwsrc=mac(1).hex(":"), psrc="10.0.2.10", pdst=target)
    assert lan.sends(1, who_has) == []


def test_the_host_address_is_answered_where_guests_may_use_it(loop, counters):
    lan = Lan(counters, host_access=True)
    lan.assign(1)
    (reply,) = lan.sends(1, ether(1) / ARP(hwsrc=mac(1).hex(":"), psrc="10.0.2.10", pdst="10.0.2.4"))
    assert (reply.psrc, reply.hwsrc) == ("10.0.2.4", GATEWAY_MAC.hex(":"))


def test_an_announced_address_belongs_to_who_announced_it(lan):
    def announce(port):
        return ether(port, b"\xff" * 6) / ARP(hwsrc=mac(port).hex(":"), psrc="10.0.2.77", pdst="10.0.2.77")

    lan.sends(1, announce(1))
    lan.sends(2, announce(2))
    assert lan.drops() == {"address_conflict": 1}
    assert len(lan.sends(1, packet(1, "10.0.2.2", src="10.0.2.77") / ICMP())) == 1
    assert not echoes(lan.sends(2, packet(2, "10.0.2.2", src="10.0.2.77") / ICMP()))


def test_arp_about_somebody_elses_mac_is_dropped(lan):
    assert lan.sends(1, ether(1) / ARP(hwsrc=mac(2).hex(":"), psrc="10.0.2.11", pdst="10.0.2.2")) == []
    assert lan.drops() == {"arp_sender": 1}


# -- the gateway as a host --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 56, 57, 1472])
def test_an_echo_request_comes_back_as_it_was(lan, size):
    data = bytes(range(256)) * 6
    request = packet(1, "10.0.2.2", ttl=1) / ICMP(id=0x1234, seq=7) / Raw(data[:size])
    (reply,) = lan.sends(1, request)
    assert (reply.dst, reply.src) == (mac(1).hex(":"), GATEWAY_MAC.hex(":"))
    assert (reply[IP].src, reply[IP].dst) == ("10.0.2.2", "10.0.2.10")
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 0x1234, 7)
    assert bytes(reply[ICMP].payload) == data[:size]
    assert_intact(reply)


def test_what_the_gateway_does_not_serve_is_refused(lan):
    for packet_to_it, code in (
        (packet(1, "10.0.2.2") / UDP(sport=5, dport=53), 3),
        (packet(1, "10.0.2.2", proto=GRE) / Raw(b"?"), 2),
    ):
        (error,) = lan.sends(1, packet_to_it)
        assert (error[ICMP].type, error[ICMP].code) == (3, code)
        assert_intact(error)


def test_a_connection_to_a_port_of_the_gateway_without_service_is_reset(lan):
    (reset,) = lan.sends(1, packet(1, "10.0.2.2") / TCP(sport=5, dport=80, flags="S", seq=7))
    assert (reset[IP].src, reset[TCP].sport, reset[TCP].dport) == ("10.0.2.2", 80, 5)
    assert (reset[TCP].flags, reset[TCP].ack) == ("RA", 8)


def test_a_packet_at_the_end_of_its_life_is_reported(lan):
    (error,) = lan.sends(1, packet(1, ttl=1) / UDP(sport=1, dport=2))
    assert (error[IP].src, error[ICMP].type, error[ICMP].code) == ("10.0.2.2", 11, 0)
    assert lan.outside.udp == []
    assert_intact(error)


def test_other_protocols_are_refused_in_a_way_that_ends_the_attempt(lan):
    (error,) = lan.sends(1, packet(1, proto=GRE) / Raw(b"?"))
    assert (error[ICMP].type, error[ICMP].code) == (3, 2)
    assert lan.drops() == {"protocol": 1}


@pytest.mark.parametrize("dst", ["255.255.255.255", "10.0.2.255", "224.0.0.251", "240.0.0.1", "0.0.0.0"])
def test_broadcasts_and_multicasts_are_not_routed(lan, dst):
    assert lan.sends(1, packet(1, dst) / UDP()) == []
    assert lan.drops() == {"not_routable": 1}


def test_what_is_not_addressed_to_the_gateway_is_ignored(lan):
    broadcast = ether(1, b"\xff" * 6) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=69)
    assert lan.sends(1, broadcast, ether(1) / IPv6() / UDP(), ether(1) / Raw(b"?")) == []
    assert lan.counters["gateway.ignored"] == 3
    assert lan.drops() == {}


def test_errors_are_limited(loop, lan):
    frames = [packet(1, proto=GRE) / Raw(bytes(n)) for n in range(500)]
    assert len(lan.sends(1, *frames)) == 100
    assert lan.counters["gateway.icmp_errors_suppressed"] == 400
    assert len(lan.sends(2, packet(2, proto=GRE) / Raw(b"?"))) == 1


def test_a_neighbour_behind_the_gateway_is_reached_in_one_hop(lan):
    sent = packet(1, "10.0.2.11", ttl=9) / UDP(sport=1, dport=2) / b"neighbour"
    (got,) = lan.sends(1, sent)
    assert (got.dst, got.src, got[IP].ttl) == (mac(2).hex(":"), GATEWAY_MAC.hex(":"), 8)
    assert bytes(got[UDP]) == bytes(sent[UDP])
    assert_intact(got)
    (error,) = lan.sends(1, packet(1, "10.0.2.99") / UDP())
    assert (error[ICMP].type, error[ICMP].code) == (3, 1)


def test_isolated_guests_are_no_neighbours_through_the_gateway_either(loop, counters):
    lan = Lan(counters, isolated=True)
    for port in (1, 2):
        lan.assign(port)
    (told,) = lan.sends(1, packet(1, "10.0.2.11") / UDP())
    assert (told[ICMP].type, told[ICMP].code) == (3, 13)
    assert lan.drops() == {"isolated": 1}
