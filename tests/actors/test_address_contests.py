"""An address that two guests use, at a gateway with its switch and the world outside played by the tests."""

from __future__ import annotations

import pytest
from gateway_parts import Lan, echoes, ether, guest_ip, packet, who_asks
from lan_parts import GATEWAY_MAC, ip, mac
from scapy.layers.inet import ICMP, UDP
from scapy.layers.l2 import ARP

from actors.messages import PortClosed
from actors.settings import FixedLease
from netstack.contests import PROBE_INTERVAL, PROBES, SETTLED_AT_FIRST, SETTLED_FOR


@pytest.fixture
def lan(loop, counters):
    """A LAN with guests at ports 1, 2, 3: 10.0.2.10, .11, .12."""
    lan = Lan(counters)
    lan.settle(1, 2, 3)
    return lan


def announces(port, address, operation=1):
    hardware = mac(port).hex(":")
    destination = GATEWAY_MAC if operation == 2 else b"\xff" * 6
    return ether(port, destination) / ARP(op=operation, hwsrc=hardware, psrc=address, pdst=address)


def test_an_address_that_its_holder_gave_up_moves_to_who_announces_it(loop, lan):
    lan.sends(1, packet(1, src="10.0.2.200") / UDP(sport=5, dport=6) / b"x")
    (question,) = lan.sends(2, announces(2, "10.0.2.200"))
    assert (question.dst, question.src) == (mac(1).hex(":"), GATEWAY_MAC.hex(":"))
    assert (question[ARP].pdst, question[ARP].psrc) == ("10.0.2.200", "10.0.2.2")
    for _ in range(PROBES - 1):
        loop.advance(PROBE_INTERVAL)
        assert [who_asks(f) for f in lan.received()] == ["10.0.2.200"]
    assert not echoes(lan.sends(2, packet(2, "10.0.2.2", src="10.0.2.200") / ICMP()))
    loop.advance(PROBE_INTERVAL)
    (reply,) = echoes(lan.sends(2, packet(2, "10.0.2.2", src="10.0.2.200") / ICMP()))
    assert reply.dst == mac(2).hex(":")
    assert lan.outside.open_sockets() == [], "the flow of the guest that had the address"
    assert lan.counters["gateway.addresses_moved"] == 1


def test_a_lease_whose_guest_is_silent_moves_too_and_the_guest_gets_another(loop, lan):
    lan.sends(2, packet(2, "10.0.2.2", src=guest_ip(1)) / ICMP())
    loop.advance(PROBES * PROBE_INTERVAL)
    assert len(echoes(lan.sends(2, packet(2, "10.0.2.2", src=guest_ip(1)) / ICMP()))) == 1
    assert lan.assign(1).ip not in {ip(f"10.0.2.{n}") for n in (10, 11, 12)}


def test_a_holder_that_answers_keeps_its_address(loop, lan):
    lan.sends(2, announces(2, guest_ip(1)))
    lan.sends(1, announces(1, guest_ip(1), operation=2))
    loop.advance(PROBES * PROBE_INTERVAL)
    assert lan.received() == []
    assert (lan.counters["gateway.contests"], lan.counters["gateway.addresses_defended"]) == (1, 1)
    assert lan.sends(2, announces(2, guest_ip(1))) == [], "asked again so soon"
    loop.advance(SETTLED_FOR)
    assert [who_asks(f) for f in lan.sends(2, announces(2, guest_ip(1)))] == [guest_ip(1)]
    assert lan.counters["gateway.addresses_moved"] == 0


def test_an_address_that_its_holder_gives_up_when_it_was_asked_moves_soon(loop, lan):
    lan.sends(2, announces(2, guest_ip(1)))
    lan.sends(1, announces(1, guest_ip(1), operation=2))
    loop.advance(SETTLED_AT_FIRST)
    lan.sends(2, announces(2, guest_ip(1)))
    loop.advance(PROBES * PROBE_INTERVAL)
    assert len(echoes(lan.sends(2, packet(2, "10.0.2.2", src=guest_ip(1)) / ICMP()))) == 1


def test_another_guest_cannot_answer_for_the_holder(loop, lan):
    lan.sends(2, announces(2, guest_ip(1)))
    lan.sends(3, announces(3, guest_ip(1), operation=2))
    loop.advance(PROBES * PROBE_INTERVAL)
    assert len(echoes(lan.sends(2, packet(2, "10.0.2.2", src=guest_ip(1)) / ICMP()))) == 1


def test_an_address_that_the_operator_fixed_does_not_move(loop, counters):
    lan = Lan(counters, fixed_leases=(FixedLease(mac(1), ip("10.0.2.50")),))
    lan.assign(1)
    lan.assign(2)
    assert lan.sends(2, announces(2, "10.0.2.50")) == []
    loop.advance(PROBES * PROBE_INTERVAL)
    assert not echoes(lan.sends(2, packet(2, "10.0.2.2", src="10.0.2.50") / ICMP()))


def test_a_contest_ends_with_the_session_of_either(loop, lan):
    lan.sends(2, announces(2, guest_ip(1)))
    lan.tell(PortClosed(2))
    loop.advance(PROBES * PROBE_INTERVAL)
    assert len(echoes(lan.sends(1, packet(1, "10.0.2.2") / ICMP()))) == 1
