"""How guests are registered: by a Register, or by their first frame."""

from __future__ import annotations

import pytest
from lan_parts import GATEWAY_MAC, control, mac, register
from peer_parts import IP_FRAME, MAC, ROUTER_SOLICITATION, Peer
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from actors.close_codes import CloseCode
from actors.messages import (
    FramesFromPeer,
    PortClosed,
    RegisterMac,
    RegistrationRefused,
    SourceRefused,
)
from actors.settings import LanSettings


@pytest.fixture
def peer(loop, counters):
    return Peer(counters)


def test_register_is_passed_on_and_answered(peer):
    peer.hears(register(MAC))
    assert peer.to_switch() == [RegisterMac(7, MAC, True)]
    assert peer.session.sent == []
    peer.assign()
    (assigned,) = peer.session.sent
    assert assigned == (
        b'\0{"type":"Assigned","ip":[10,0,2,10],"gateway":[10,0,2,2],"netmask":[255,255,255,0],"dns":[8,8,8,8],'
        b'"mtu":1500,"room":"default"}'
    )


def test_a_client_is_told_of_another_room_and_domain(loop, counters):
    peer = Peer(counters, settings=LanSettings(room="lab", domain="lab.example"))
    peer.hears(register(MAC))
    peer.assign()
    (assigned,) = peer.session.sent
    assert assigned.endswith(b',"room":"lab","domain":"lab.example"}')


def test_a_client_is_told_the_urls_of_machines_and_with_a_heartbeat_that_they_are_others(loop, counters):
    urls = ["https://one:4433", "https://two:4433"]
    peer = Peer(counters, token={"urls": lambda: urls})
    peer.hears(register(MAC))
    peer.assign(resume="4567")
    (assigned,) = peer.session.controls()
    assert assigned["urls"] == urls
    peer.hears(b"\1" + IP_FRAME)
    peer.session.take()
    for now in (urls, ["https://one:4433"], []):
        changed, urls[:] = now != urls, now
        peer.hears(control(type="Heartbeat"))
        ack, *again = peer.session.controls()
        assert ack["type"] == "HeartbeatAck"
        assert [each.get("urls", []) for each in again] == ([now] if changed else [])
        peer.session.take()


@pytest.mark.parametrize("shown", [False, True])
def test_a_heartbeats_answer_tells_of_another_mtu_once(peer, shown):
    peer.hears(register(MAC))
    peer.assign(resume="4567", mtu=1280)
    if shown:
        peer.hears(b"\1" + IP_FRAME)
    peer.session.take()
    for limit, mtu in ((1407, 1392), (1200, 1280)):
        peer.session.datagram_limit = limit
        peer.hears(control(type="Heartbeat"))
        ack, assigned = peer.session.controls()
        assert ack["type"] == "HeartbeatAck"
        assert (assigned["type"], assigned["mtu"], assigned["resume"]) == ("Assigned", mtu, "4567")
        assert assigned["ip"] == [10, 0, 2, 10]
        peer.session.take()
        peer.hears(control(type="Heartbeat"))
        assert len(peer.session.take()) == (1 if shown else 2)
    # A Register that comes again gets what holds now.
    peer.hears(register(MAC))
    assert peer.session.controls()[-1]["mtu"] == 1280


def test_the_secret_of_a_mac_goes_both_ways(peer):
    peer.hears(control(type="Register", mac=list(MAC), resume="0123"))
    assert peer.to_switch() == [RegisterMac(7, MAC, True, resume="0123")]
    peer.assign(resume="4567")
    assert peer.session.controls()[0]["resume"] == "4567"


def test_the_address_that_a_client_had_is_passed_on(peer):
    peer.hears(control(type="Register", mac=list(MAC), ip=[10, 0, 2, 99]))
    assert peer.to_switch() == [RegisterMac(7, MAC, True, wanted=bytes((10, 0, 2, 99)))]


def test_a_repeated_register_gets_the_same_answer_without_bothering_the_lan(peer):
    peer.hears(register(MAC))
    peer.assign()
    first = peer.session.take()
    peer.switch.clear()
    peer.hears(register(MAC))
    assert peer.session.take() == first
    assert peer.to_switch() == []


def test_a_client_may_say_a_name_later_and_another_one(peer):
    peer.registered()
    for name in ("web", "db"):
        peer.hears(control(type="Register", mac=list(MAC), name=name))
        assert peer.to_switch() == [RegisterMac(7, MAC, True, name)]
        peer.assign()
        assert [told["ip"] for told in peer.session.controls()] == [[10, 0, 2, 10]]
    for fields in ({"name": "db"}, {}):
        peer.hears(control(type="Register", mac=list(MAC), **fields))
        assert peer.to_switch() == []
        assert len(peer.session.controls()) == 1


def test_another_mac_is_another_registration(peer):
    peer.registered()
    peer.hears(register(mac(2)))
    assert peer.to_switch() == [RegisterMac(7, mac(2), True)]
    peer.assign("10.0.2.11", mac(2))
    assert peer.session.controls()[0]["ip"] == [10, 0, 2, 11]


def test_a_host_name_is_passed_on(peer):
    peer.hears(control(type="Register", mac=list(MAC), name="web"))
    assert peer.to_switch() == [RegisterMac(7, MAC, True, "web")]


@pytest.mark.parametrize(("path", "mtu"), [("/", 1395), ("/?encap=raw", 1141)])
def test_the_switch_may_ask_for_the_links_mtu(loop, counters, path, mtu):
    peer = Peer(counters, path=path, limit=1410)
    (opened,) = peer.opened
    assert opened.link_mtu() == mtu


def test_assigned_is_repeated_until_the_guest_shows_an_address(loop, peer):
    peer.hears(register(MAC))
    peer.assign()
    assigned = peer.session.take()
    for delay, expected in [(0.2, 0), (0.1, 1), (0.6, 0), (0.1, 1), (2.9, 0), (0.1, 1), (10, 0)]:
        loop.advance(delay)
        assert peer.session.take() == assigned * expected
    peer.hears(control(type="Heartbeat"))
    assert peer.session.take() == [control(type="HeartbeatAck"), *assigned]
    # Kernels solicit IPv6 routers before they have any IPv4 address.
    peer.hears(b"\1" + ROUTER_SOLICITATION)
    peer.hears(control(type="Heartbeat"))
    assert peer.session.take() == [control(type="HeartbeatAck"), *assigned]
    peer.hears(b"\1" + IP_FRAME)
    peer.hears(control(type="Heartbeat"))
    assert peer.session.take() == [control(type="HeartbeatAck")]


@pytest.mark.parametrize(
    ("frame", "repeats"),
    [
        (IP_FRAME, 0),
        (bytes(Ether() / ARP(psrc="10.0.2.10", pdst="10.0.2.2")), 0),
        (bytes(Ether() / ARP(psrc="0.0.0.0", pdst="10.0.2.10")), 3),
        (bytes(Ether() / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)), 3),
        (ROUTER_SOLICITATION, 3),
    ],
    ids=["ipv4", "arp", "arp_probe", "dhcp_discover", "router_solicitation"],
)
def test_what_ends_the_repetition(loop, peer, frame, repeats):
    peer.registered()
    peer.hears(b"\1" + frame)
    loop.advance(10)
    assert len(peer.session.controls()) == repeats


def test_a_frame_stands_for_a_register_that_was_lost(peer):
    peer.hears(b"\1" + IP_FRAME)
    assert peer.to_switch() == [RegisterMac(7, MAC, False), FramesFromPeer(7, [IP_FRAME])]
    peer.assign()
    assert peer.session.controls()[0]["type"] == "Assigned"


def test_a_raw_session_is_registered_by_its_first_frame_and_told_nothing(loop, counters):
    peer = Peer(counters)
    peer.hears(IP_FRAME)
    assert peer.to_switch() == [RegisterMac(7, MAC, False), FramesFromPeer(7, [IP_FRAME])]
    peer.assign()
    loop.advance(60)
    assert peer.session.sent == []
    assert peer.session.closed is None


@pytest.mark.parametrize("source", [bytes(6), b"\xff" * 6, b"\1" + MAC[1:], GATEWAY_MAC])
def test_no_registration_for_an_address_that_no_guest_may_have(peer, source):
    frame = IP_FRAME[:6] + source + IP_FRAME[12:]
    peer.hears(b"\1" + frame)
    assert peer.to_switch() == [FramesFromPeer(7, [frame])]


def test_a_raw_session_whose_guest_has_the_gateways_mac_is_ended_with_the_reason(loop, counters):
    peer = Peer(counters)
    peer.hears(IP_FRAME[:6] + GATEWAY_MAC + IP_FRAME[12:])
    peer.tell(SourceRefused("it is the gateway's", GATEWAY_MAC))
    assert peer.session.closed == (CloseCode.REFUSED, "it is the gateway's")


def test_a_session_that_has_other_guests_goes_on_when_one_is_refused(loop, counters):
    raw, framed = Peer(counters), Peer(counters, "/?encap=framed")
    raw.hears(IP_FRAME)
    framed.hears(b"\1" + IP_FRAME[:6] + GATEWAY_MAC + IP_FRAME[12:])
    for peer in (raw, framed):
        peer.tell(SourceRefused("it is the gateway's", GATEWAY_MAC))
        assert peer.session.closed is None
    assert raw.session.sent == []
    assert framed.session.controls() == [{"type": "Error", "message": "it is the gateway's"}]


def test_a_register_in_the_same_batch_comes_before_the_frames(peer):
    peer.hears(b"\1" + IP_FRAME, register(mac(2)))
    assert peer.to_switch() == [RegisterMac(7, mac(2), True), FramesFromPeer(7, [IP_FRAME])]


def test_a_refused_register_is_an_error_and_may_be_tried_again(peer):
    peer.hears(register(MAC))
    peer.tell(RegistrationRefused("address pool is full", MAC))
    assert peer.session.controls() == [{"type": "Error", "message": "address pool is full"}]
    peer.switch.clear()
    peer.hears(register(MAC))
    assert peer.to_switch() == [RegisterMac(7, MAC, True)]


def test_a_refused_implicit_registration_is_tried_again_but_not_for_every_frame(loop, counters):
    peer = Peer(counters, "/?encap=raw")
    for _ in range(10):
        peer.hears(IP_FRAME)
        peer.tell(RegistrationRefused("another session uses this MAC address", MAC))
    assert len(peer.switch.take(RegisterMac)) == 1
    loop.advance(1)
    peer.hears(IP_FRAME)
    assert len(peer.switch.take(RegisterMac)) == 1
    assert peer.session.sent == []


def test_an_answer_for_a_mac_that_is_no_longer_wanted_is_ignored(peer):
    peer.hears(register(MAC))
    peer.hears(register(mac(2)))
    peer.assign("10.0.2.10", MAC)
    assert peer.session.sent == []


def test_a_framed_client_that_never_registers_is_closed(loop, counters):
    peer = Peer(counters, "/?encap=framed")
    loop.advance(29.9)
    assert peer.session.closed is None
    loop.advance(0.2)
    assert peer.session.closed == (CloseCode.NOT_REGISTERED, "no registration within 30 s")
    assert not peer.ref.is_alive()
    assert peer.to_switch() == [PortClosed(7)]


@pytest.mark.parametrize("path", ["/", "/?encap=raw", "/?encap=framed"])
def test_a_client_that_never_says_anything_is_removed(loop, counters, path):
    peer = Peer(counters, path)
    for _ in range(15):
        peer.session.last_heard = loop.time()  # QUIC's keep-alives, or a WebSocket's pongs
        loop.advance(10)
    assert peer.session.closed[0] in (CloseCode.SILENT, CloseCode.NOT_REGISTERED)
    assert PortClosed(7) in peer.to_switch()
