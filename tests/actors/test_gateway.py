from __future__ import annotations

from contextlib import nullcontext

import pytest
from fake_loop import FakeLoop
from gateway_parts import Lan, echoes, ether, guest_ip, packet, who_asks
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import GATEWAY_IP, GATEWAY_MAC, Box, ip, mac
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from actors.flows.udp_flow import UdpFlowActor
from actors.gateway.gateway import GatewayActor
from actors.gateway.guests import MAX_MACS_PER_PORT
from actors.messages import (
    AddressAssigned,
    FramesToGateway,
    GatewayAttached,
    MacAgedOut,
    PeerList,
    PeerListRequest,
    PortClosed,
    RegistrationRefused,
)
from actors.runtime import Observe, Scheduler
from netstack.counters import Counters

MASK = ip("255.255.255.0")


@pytest.fixture
def lan(loop, counters):
    """A LAN with guests at ports 1, 2, 3: 10.0.2.10, .11, .12."""
    lan = Lan(counters)
    lan.settle(1, 2, 3)
    return lan


# -- addresses --------------------------------------------------------------------------------------


def test_the_gateway_takes_its_place_at_the_switch(lan):
    (attached,) = lan.switch.take(GatewayAttached)
    assert attached.gateway is lan.ref
    assert attached.sources is not None
    assert attached.neighbours is None, "there are no other workers for whose guests it could answer"


def test_guests_may_use_any_address_where_the_operator_says_so(loop, counters):
    (attached,) = Lan(counters, source_guard=False).switch.take(GatewayAttached)
    assert attached.sources is None


def test_addresses_come_from_the_pool_and_the_same_mac_gets_the_same_back(lan):
    assert lan.assign(4) == AddressAssigned(mac(4), ip("10.0.2.13"), GATEWAY_IP, MASK, GATEWAY_IP)
    assert lan.assign(4).ip == ip("10.0.2.13")
    lan.tell(PortClosed(4))
    assert lan.assign(5).ip == ip("10.0.2.14")
    assert lan.assign(6, mac(4)).ip == ip("10.0.2.13")


def test_a_full_pool_refuses_until_a_guest_leaves(loop, counters):
    lan = Lan(counters, pool_last=ip("10.0.2.11"))
    assert isinstance(lan.assign(1), AddressAssigned)
    assert isinstance(lan.assign(2), AddressAssigned)
    assert lan.assign(3) == RegistrationRefused("address pool is full", mac(3))
    lan.tell(PortClosed(1))
    assert lan.assign(3).ip == ip("10.0.2.10")
    assert counters["gateway.pool_full"] == 1


def test_clients_of_one_network_leave_addresses_to_others(loop, counters):
    """``client`` of a registration says whose sessions they are."""
    lan = Lan(counters, client_share=50, pool_last=ip("10.0.2.73"))
    got = [lan.assign(port, client="192.0.2.1") for port in range(1, 65)]
    assert [isinstance(answer, AddressAssigned) for answer in got] == [True] * 32 + [False] * 32
    assert isinstance(lan.assign(100, client="192.0.2.2"), AddressAssigned)


def test_an_address_moves_with_its_mac_and_survives_the_old_session(lan):
    assert lan.assign(9, mac(1)).ip == ip("10.0.2.10")
    lan.tell(PortClosed(1))
    frame = ether(1) / IP(src="10.0.2.10", dst="10.0.2.2") / ICMP()
    assert len(lan.sends(9, frame)) == 1


def test_the_peer_list_names_every_guest(lan):
    asker = Box()
    lan.tell(PeerListRequest(asker))
    assert asker == [PeerList(tuple((ip(guest_ip(n)), mac(n)) for n in (1, 2, 3)))]


def test_nobody_is_told_of_the_others_where_the_operator_says_so(loop, counters):
    lan = Lan(counters, peer_list=False)
    lan.assign(1)
    asker = Box()
    lan.tell(PeerListRequest(asker))
    assert asker == [PeerList(())]


# -- who may use which address ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("10.0.2.11", "address_conflict"),
        ("10.0.2.2", "reserved_address"),
        ("10.0.2.4", "reserved_address"),
        ("10.0.2.255", "reserved_address"),
        ("10.0.3.1", "foreign_address"),
        ("0.0.0.0", "foreign_address"),
        ("127.0.0.1", "foreign_address"),
    ],
)
def test_a_foreign_source_address_goes_nowhere(lan, source, reason):
    answers = lan.sends(1, packet(1, src=source) / UDP(), packet(1, "10.0.2.2", src=source) / ICMP())
    assert {who_asks(frame) for frame in answers} == ({source} if reason == "address_conflict" else set())
    assert lan.outside.udp == []
    assert lan.drops() == {reason: 2}


def test_a_hand_taken_address_works_and_is_free_again_afterwards(lan):
    frame = packet(1, src="10.0.2.200") / UDP() / b"x"
    lan.sends(1, frame)
    assert len(lan.outside.udp) == 1
    taken = packet(2, src="10.0.2.200") / UDP() / b"x"
    lan.sends(2, taken)
    assert lan.drops() == {"address_conflict": 1}
    lan.tell(PortClosed(1))
    lan.sends(2, taken)
    assert len(lan.outside.udp) == 2


def test_a_guest_that_sweeps_the_pool_holds_a_few_addresses_at_a_time(lan):
    lan.sends(1, *[packet(1, "10.0.2.2", src=f"10.0.2.{n}") / ICMP() for n in range(50, 150)])
    asker = Box()
    lan.tell(PeerListRequest(asker))
    held = [address for address, hardware in asker[0].peers if hardware == mac(1)]
    assert held == [ip(guest_ip(1)), *(ip(f"10.0.2.{n}") for n in range(146, 150))]


def test_a_guest_that_changes_its_address_by_hand_keeps_its_way_out(lan):
    for n in range(50, 60):
        (reply,) = echoes(lan.sends(1, packet(1, "10.0.2.2", src=f"10.0.2.{n}") / ICMP()))
        assert reply[IP].dst == f"10.0.2.{n}"


def test_of_many_addresses_the_ones_in_use_are_kept(lan):
    def pings(n):
        return echoes(lan.sends(1, packet(1, "10.0.2.2", src=f"10.0.2.{n}") / ICMP()))

    for n in (50, 51, 52, 53, 50, 54):
        assert pings(n)
    assert len(echoes(lan.sends(2, packet(2, "10.0.2.2", src="10.0.2.51") / ICMP()))) == 1
    assert not echoes(lan.sends(2, packet(2, "10.0.2.2", src="10.0.2.50") / ICMP()))


# -- guests behind a bridge ---------------------------------------------------------------------------


def test_a_bridge_may_serve_any_number_of_guests_one_after_the_other(lan):
    for n in range(3 * MAX_MACS_PER_PORT):
        lan.tell(MacAgedOut(1, mac(100 + n - 1)))
        frame = Ether(src=mac(100 + n).hex(":"), dst=GATEWAY_MAC.hex(":"))
        reply = lan.sends(1, frame / IP(src=f"10.0.2.{100 + n}", dst="10.0.2.2") / ICMP())
        assert len(echoes(reply)) == 1, n
    asker = Box()
    lan.tell(PeerListRequest(asker))
    assert len(asker[0].peers) == 4, "three guests, and the last one behind the bridge"


def test_a_mac_that_has_moved_on_is_not_forgotten_for_its_old_port(lan):
    lan.assign(9, mac(1))
    lan.tell(MacAgedOut(1, mac(1)))
    lan.tell(MacAgedOut(77, mac(1)))
    assert len(echoes(lan.sends(9, packet(1, "10.0.2.2") / ICMP()))) == 1


def test_a_port_cannot_have_addresses_for_any_number_of_macs(lan):
    frames = [
        Ether(src=mac(100 + n).hex(":"), dst=GATEWAY_MAC.hex(":"))
        / IP(src=f"10.0.2.{100 + n}", dst="10.0.2.2")
        / ICMP()
        for n in range(30)
    ]
    assert len(lan.sends(1, *frames)) == 15
    assert lan.drops() == {"too_many_macs": 15}


# -- broken input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (packet(1, chksum=1) / UDP(), "bad_ip_checksum"),
        (packet(1) / UDP(chksum=1) / b"x", "bad_udp_checksum"),
        (packet(1) / UDP(len=99) / b"x", "bad_udp_length"),
        (packet(1) / ICMP(chksum=1), "bad_icmp_checksum"),
        (packet(1, len=2000) / UDP(), "truncated"),
        (packet(1, flags="MF") / UDP() / b"x", "bad_fragment"),
        (Ether(bytes(packet(1))[:20]), "truncated"),
    ],
)
def test_broken_packets_are_counted_by_reason(lan, broken, reason):
    assert lan.sends(1, broken) == []
    assert lan.drops() == {reason: 1}
    assert lan.outside.udp == lan.outside.echo == []


def test_a_port_may_send_so_many_fragments(lan, loop):
    piece = packet(1, flags="MF") / UDP(sport=1, dport=2) / bytes(8)
    assert lan.sends(1, *[piece] * 1600) == []
    assert lan.drops() == {"fragment_rate": 100}
    assert lan.sends(2, packet(2, flags="MF") / UDP() / bytes(8)) == []
    assert lan.drops() == {"fragment_rate": 100}
    loop.advance(0.05)
    assert lan.sends(1, *[piece] * 900) == []
    assert lan.drops() == {"fragment_rate": 100}


def test_frames_for_a_flow_that_has_ended_meanwhile_are_counted(lan):
    question = packet(1) / UDP(sport=5000, dport=7) / b"x"
    lan.sends(1, question, question)
    assert lan.counters["gateway.lost_to_ended_flows"] == 0
    (flow,) = lan.ref._actor_weakref()._flows.ports[1].flows.values()
    flow.stop(block=False)
    lan.sends(1, question, question)
    assert lan.counters["gateway.lost_to_ended_flows"] == 2


def test_who_looks_on_sees_the_gateway_and_its_flows(lan):
    seen = []

    def look(actor, message):
        seen.append(type(actor))
        return nullcontext()

    question = packet(1) / UDP(sport=5000, dport=7) / b"x"
    lan.sends(1, question)
    lan.tell(Observe(look))
    lan.sends(1, question)
    assert seen == [GatewayActor, UdpFlowActor]
    lan.tell(Observe(None))
    seen.clear()
    lan.sends(1, question)
    assert seen == []


def test_an_error_in_the_gateway_costs_one_frame(lan, monkeypatch):
    def broken(frame):
        raise ZeroDivisionError

    monkeypatch.setattr(lan.ref._actor_weakref()._replies, "echo_reply", broken)
    ping = packet(1, "10.0.2.2") / ICMP()
    arp = ether(1) / ARP(hwsrc=mac(1).hex(":"), psrc="10.0.2.10", pdst="10.0.2.2")
    assert len(lan.sends(1, ping, ping, arp)) == 1
    assert lan.drops() == {"internal_error": 2}
    assert lan.ref.is_alive()


macs = st.sampled_from([mac(1), mac(2), GATEWAY_MAC, b"\xff" * 6])
ips = st.sampled_from(
    ["10.0.2.2", "10.0.2.4", "10.0.2.10", "10.0.2.11", "10.0.2.255", "0.0.0.0", "192.0.2.9"]
)
layers = st.sampled_from(
    [UDP(sport=7, dport=9) / b"u", ICMP(id=3), ICMP(type=3, code=3), TCP(flags="S"), Raw(b"raw")]
)
good = st.builds(
    lambda s, d, a, b, ttl, up: bytes(Ether(src=s.hex(":"), dst=d.hex(":")) / IP(src=a, dst=b, ttl=ttl) / up),
    macs, macs, ips, ips, st.sampled_from([0, 1, 64]), layers,
)  # fmt: skip
arps = st.builds(
    lambda s, a, b, op: bytes(
        Ether(src=s.hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(op=op, hwsrc=s.hex(":"), psrc=a, pdst=b)
    ),
    macs, ips, ips, st.integers(0, 3),
)  # fmt: skip
damaged = st.builds(
    lambda frame, at, byte, cut: (frame[:at] + bytes((byte,)) + frame[at + 1 :])[:cut],
    good, st.integers(12, 40), st.integers(0, 255), st.integers(14, 60),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.lists(good | arps | damaged | st.binary(max_size=60), max_size=8))
    )
)
def test_every_frame_is_accounted_for_and_none_kills_the_gateway(batches):
    loop, counters = FakeLoop(), Counters()
    with Scheduler(loop, counters).activate():
        lan = Lan(counters, max_flows_per_peer=3)
        lan.assign(1)
        lan.assign(2)
        for port, frames in batches:
            lan.tell(FramesToGateway(port, frames))
            for sent in lan.received():
                assert sent.src == GATEWAY_MAC.hex(":")
        assert counters["gateway.received"] == sum(len(frames) for _, frames in batches)
        outcomes = ("answered", "to_flows", "routed", "ignored")
        accounted = sum(counters[f"gateway.{name}"] for name in outcomes) + counters.total("gateway.drop.")
        assert counters["gateway.received"] == accounted
        assert "actors.failed" not in counters
        assert "gateway.drop.internal_error" not in counters
        for port in (1, 2, 3):
            lan.tell(PortClosed(port))
        assert lan.outside.open_sockets() == []
        assert lan.ref._actor_weakref()._guests.pool.held() == ()
        lan.ref.stop(block=False)
        loop.run()
