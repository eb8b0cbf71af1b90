from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import GATEWAY_IP, GATEWAY_MAC, Box, FakeSession, control, ip, mac, register
from loguru import logger
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether

from actors.close_codes import CloseCode
from actors.lan.peer import PeerActor
from actors.line import SegmentsLost
from actors.messages import (
    AddressAssigned,
    ClosePeer,
    DatagramsFromClient,
    DatagramsLost,
    FramesFromPeer,
    FramesToPeer,
    PeerList,
    PeerListRequest,
    PortClosed,
    PortOpened,
    RegisterMac,
    RegistrationRefused,
    SessionClosed,
    SourceRefused,
)
from actors.runtime import Scheduler, run_ready
from actors.settings import LanSettings
from netstack.counters import Counters
from netstack.encapsulation import DATA
from netstack.tcp_segment import ACK, TcpFrameTemplate

MAC = mac(1)
IP_FRAME = bytes(Ether(src=MAC.hex(":"), dst=GATEWAY_MAC.hex(":")) / IP(src="10.0.2.10") / UDP() / b"hello")
ROUTER_SOLICITATION = bytes(Ether(src=MAC.hex(":"), dst="33:33:00:00:00:02") / IPv6() / ICMPv6ND_RS())


class Peer:
    """A session and its actor; the test plays client and switch."""

    def __init__(self, counters, path="/", settings=None, token=None, **session):
        self.session = FakeSession(7, path, **session)
        self.switch = Box()
        self.counters = counters
        self.ref = PeerActor.start(
            self.session, self.switch, counters, settings or LanSettings(), **(token or {})
        )
        run_ready()
        self.opened = self.switch.take(PortOpened)

    def tell(self, message):
        self.ref.tell(message)
        run_ready()

    def hears(self, *datagrams):
        self.tell(DatagramsFromClient(list(datagrams)))

    def assign(self, address="10.0.2.10", hardware=MAC, **more):
        addresses = (ip(address), GATEWAY_IP, ip("255.255.255.0"), ip("8.8.8.8"))
        self.tell(AddressAssigned(hardware, *addresses, **more))

    def registered(self):
        self.hears(register(MAC))
        self.switch.clear()
        self.assign()
        self.session.take()
        return self

    def to_switch(self):
        return self.switch.take()


@pytest.fixture
def peer(loop, counters):
    return Peer(counters)


def test_a_session_opens_its_port(peer):
    assert [(m.port, m.peer, m.last_heard()) for m in peer.opened] == [(7, peer.ref, 1000.0)]


def test_a_session_ends_with_the_token_that_let_it_in(loop, counters):
    peer = Peer(counters, token={"expires": 1047.5}).registered()
    loop.advance(47)
    assert peer.session.closed is None
    loop.advance(1)
    assert peer.session.closed == (CloseCode.EXPIRED, "the token has expired")


@pytest.mark.parametrize(
    ("path", "sent"),
    [("/", control(type="Register", mac=list(MAC), name="printer")), ("/?encap=raw", IP_FRAME)],
)
def test_a_guests_name_is_that_of_its_token(loop, counters, path, sent):
    peer = Peer(counters, path, token={"name": "web"})
    peer.hears(sent)
    registered = peer.to_switch()[0]
    assert (registered.name, registered.name_is_fixed) == ("web", True)


# -- registration -----------------------------------------------------------------------------------


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


# -- what the log says of refusals ------------------------------------------------------------------

WHO = "peer 7 from 192.0.2.7:50000"


@pytest.mark.parametrize("path", ["/?encap=framed", "/?encap=raw"])
def test_a_refusal_is_one_line_with_mac_and_address_however_often_it_is_repeated(loop, counters, lines, path):
    peer = Peer(counters, path)
    del lines[:]
    for _ in range(5):
        peer.tell(RegistrationRefused("address pool is full", MAC))
    assert lines == [f"WARNING {WHO}: MAC {MAC.hex(':')} refused: address pool is full"]
    peer.tell(SourceRefused("another session uses this MAC address", mac(2)))
    assert lines[1:] == [
        f"WARNING {WHO}: MAC {mac(2).hex(':')} refused: another session uses this MAC address"
    ]


def test_a_control_message_that_is_refused_is_a_line(peer, lines):
    peer.hears(b'\0{"type":"Register","mac":[1,0,0,0,0,0]}')
    assert lines == [f"WARNING {WHO}: mac must be a unicast address and not zero"]


@pytest.mark.parametrize(
    ("path", "told", "line"),
    [
        ("/?encap=morse", None, "WARNING peer 7 closed: encap is 'morse', must be framed or raw"),
        ("/", ClosePeer(CloseCode.FULL, "this LAN is full"), "WARNING peer 7 closed: this LAN is full"),
        ("/", ClosePeer(CloseCode.SHUTDOWN, "the end"), "INFO peer 7 closed: the end"),
    ],
)
def test_an_end_is_a_line_with_the_address_and_a_warning_if_it_is_a_refusal(loop, lines, path, told, line):
    peer = Peer(Counters(), path)
    if told is not None:
        peer.tell(told)
    [said] = [text for text in lines if "closed" in text]
    assert said.startswith(line)
    assert said.endswith(" (192.0.2.7:50000)")


def test_the_end_of_a_registered_session_names_its_mac(peer, lines):
    peer.registered()
    peer.hears(control(type="Disconnect"))
    assert lines[-1] == f"INFO peer 7 closed: disconnected (192.0.2.7:50000, {MAC.hex(':')})"


# -- control messages -------------------------------------------------------------------------------


def test_a_peer_list_comes_from_the_lan(peer):
    peer.registered()
    peer.hears(control(type="PeerList"))
    assert peer.to_switch() == [PeerListRequest(peer.ref)]
    peer.tell(PeerList(((ip("10.0.2.10"), MAC),)))
    assert peer.session.controls() == [
        {"type": "PeerList", "peers": [{"ip": [10, 0, 2, 10], "mac": list(MAC)}]}
    ]


def test_a_long_peer_list_fits_datagrams(peer):
    peer.registered()
    peer.tell(PeerList(tuple((bytes((10, 0, 2, n)), mac(n)) for n in range(10, 255))))
    assert max(map(len, peer.session.sent)) <= peer.session.datagram_limit
    listed = [p["ip"][3] for message in peer.session.controls() for p in message["peers"]]
    assert listed == list(range(10, 255))


@pytest.mark.parametrize(
    "text", ['{"type":"Hello"}', "{}", "[]", "{", '{"type":"Register"}', '{"type":"Register","mac":[1]}']
)
def test_what_is_not_understood_is_answered_with_an_error(peer, text):
    peer.registered()
    peer.hears(b"\0" + text.encode())
    (answer,) = peer.session.controls()
    assert answer["type"] == "Error"
    assert peer.to_switch() == []


def test_ten_thousand_registers_cost_the_lan_nothing(loop, peer):
    peer.hears(*[register(mac(n)) for n in range(10_000)])
    assert len(peer.switch) <= 20
    assert peer.counters["peer.drop.control_rate"] >= 9_980
    loop.advance(5)
    peer.session.take()
    peer.hears(control(type="Heartbeat"))
    assert peer.session.controls()[0]["type"] == "HeartbeatAck"


def test_disconnect_ends_the_session_after_what_came_before_it(peer):
    peer.registered()
    peer.hears(b"\1" + IP_FRAME, control(type="Disconnect"))
    assert peer.to_switch() == [FramesFromPeer(7, [IP_FRAME]), PortClosed(7)]
    assert peer.session.closed == (CloseCode.DONE, "disconnected")
    assert not peer.ref.is_alive()


# -- frames -----------------------------------------------------------------------------------------


def test_one_batch_in_is_one_message_out(peer):
    peer.registered()
    peer.hears(*[b"\1" + IP_FRAME] * 5)
    assert peer.to_switch() == [FramesFromPeer(7, [IP_FRAME] * 5)]


def test_chunks_become_a_frame_in_any_order(peer):
    peer.registered()
    frame = IP_FRAME + bytes(1400)
    first, second = b"\2\0\5\0\2" + frame[:900], b"\2\0\5\1\2" + frame[900:]
    peer.hears(second)
    assert peer.to_switch() == []
    peer.hears(first)
    assert peer.to_switch() == [FramesFromPeer(7, [frame])]


def test_a_frame_that_does_not_fit_a_datagram_leaves_in_chunks(peer):
    peer.registered()
    frame = IP_FRAME + bytes(1400)
    peer.tell(FramesToPeer([frame, IP_FRAME]))
    *chunks, small = peer.session.take()
    assert [c[:1] for c in chunks] == [b"\2"] * 2
    assert b"".join(c[5:] for c in chunks) == frame
    assert small == b"\1" + IP_FRAME
    peer.session.datagram_limit = 1600  # the path's MTU was found to be larger
    peer.tell(FramesToPeer([frame]))
    assert peer.session.take() == [b"\1" + frame]


def test_raw_frames_travel_bare(loop, counters):
    peer = Peer(counters, "/?encap=raw")
    peer.tell(FramesToPeer([IP_FRAME]))
    assert peer.session.take() == [IP_FRAME]


def test_frames_for_a_client_that_said_nothing_yet_are_counted(peer):
    peer.tell(FramesToPeer([IP_FRAME, IP_FRAME]))
    assert peer.session.sent == []
    assert peer.counters["peer.drop.encapsulation_unknown"] == 2


def test_an_unknown_encapsulation_is_refused(loop, counters):
    peer = Peer(counters, "/?encap=morse")
    assert peer.session.closed[0] == CloseCode.BAD_REQUEST
    assert "morse" in peer.session.closed[1]
    assert peer.to_switch() == [PortClosed(7)]


# -- the end ----------------------------------------------------------------------------------------


def test_a_client_that_leaves_takes_its_port_along(loop, peer):
    peer.registered()
    peer.tell(SessionClosed(0, "bye"))
    assert peer.to_switch() == [PortClosed(7)]
    assert peer.session.closed is None
    assert not peer.ref.is_alive()
    assert loop.pending() == []


def test_a_peer_can_be_closed_with_a_reason(peer):
    peer.tell(ClosePeer(CloseCode.TAKEN_OVER, "another session"))
    assert peer.session.closed == (CloseCode.TAKEN_OVER, "another session")
    assert peer.to_switch() == [PortClosed(7)]


def test_a_silent_framed_session_is_removed(loop, peer):
    peer.registered()
    for _ in range(20):
        loop.advance(15)
        peer.hears(control(type="Heartbeat"))
    assert peer.session.closed is None
    for _ in range(19):
        peer.session.last_heard = loop.time()  # its QUIC lives, its VM does not
        loop.advance(10)
    assert peer.session.closed == (CloseCode.SILENT, "silent for 150 s")
    assert peer.counters["peer.timeouts"] == 1


def test_a_raw_session_lives_by_its_keep_alives(loop, counters):
    peer = Peer(counters, "/?encap=raw")
    peer.hears(IP_FRAME)
    peer.assign(hardware=IP_FRAME[6:12])
    for _ in range(30):
        peer.session.last_heard = loop.time()
        loop.advance(15)
    assert peer.session.closed is None
    loop.advance(181)
    closed: Any = peer.session.closed
    assert closed[0] == CloseCode.SILENT


def test_the_timeout_is_kept_also_when_checks_are_rarer(loop, counters):
    peer = Peer(counters, "/?encap=raw", LanSettings(peer_timeout=2, heartbeat_interval=30))
    loop.advance(4.1)
    assert peer.session.closed == (CloseCode.SILENT, "silent for 2 s")


def test_a_peer_that_fails_closes_its_session_and_its_port(peer, monkeypatch, caplog):
    peer.session.send = None
    peer.hears(control(type="Heartbeat"))
    assert peer.session.closed == (CloseCode.INTERNAL, "internal error")
    assert peer.to_switch() == [PortClosed(7)]
    assert peer.counters["actors.failed"] == 1


def test_a_dead_switch_does_not_hurt(loop, peer):
    class Dead:
        def tell(self, message):
            from pykka import ActorDeadError

            raise ActorDeadError

    peer.ref._actor_weakref()._switch = Dead()
    peer.hears(register(MAC), b"\1" + IP_FRAME, control(type="PeerList"), control(type="Disconnect"))
    assert peer.session.closed == (CloseCode.DONE, "disconnected")
    assert "actors.failed" not in peer.counters


@given(
    path=st.sampled_from(["/", "/?encap=raw", "/?encap=framed"]),
    batches=st.lists(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.binary(max_size=40).map(b"\0".__add__),
                st.binary(max_size=40).map(b"\2".__add__),
                st.sampled_from([register(MAC), control(type="Heartbeat"), b"\1" + IP_FRAME]),
                st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)).map(
                    lambda d: b"\0" + json.dumps({"type": "Register", **d}).encode()
                ),
            ),
            min_size=1,
            max_size=5,
        ),
        max_size=5,
    ),
)
def test_no_datagram_kills_the_actor(path, batches):
    from fake_loop import FakeLoop

    loop, counters = FakeLoop(), Counters()
    with Scheduler(loop, counters).activate():
        peer = Peer(counters, path)
        for batch in batches:
            peer.hears(*batch)
            loop.advance(1)
        assert peer.ref.is_alive()
        assert "actors.failed" not in counters
        peer.ref.stop(block=False)
        loop.run()


class Segments(list):
    """A flow, as the line knows it."""

    def tell(self, message):
        self.append(message)


@pytest.mark.parametrize("path", ["/?encap=framed", "/?encap=raw"])
def test_flows_hear_of_their_segments_that_were_lost(loop, counters, path):
    peer = Peer(counters, path)
    line = peer.opened[0].line
    template = TcpFrameTemplate(bytes(12), ip("192.0.2.80"), 80, ip("10.0.2.10"), 40000)
    start = b"" if path.endswith("raw") else bytes((DATA,))
    flow = Segments()
    line.follow(
        ip("192.0.2.80") + ip("10.0.2.10") + (80).to_bytes(2, "big") + (40000).to_bytes(2, "big"), flow
    )
    lost = [(start + template.build(number, 0, ACK, 0, b"x"), 5.0) for number in (7, 8)]
    others = [(start + IP_FRAME, 5.0), (b"", 5.0), (b"\x00{}", 5.0), (b"\x02" + bytes(30), 5.0)]
    peer.tell(DatagramsLost([*lost, *others]))
    assert flow == [SegmentsLost([(7, 5.0), (8, 5.0)])]


def test_losses_before_anything_was_said_are_nobodys(loop, counters):
    Peer(counters).tell(DatagramsLost([(b"x", 1.0)]))
    assert not [name for name in counters if "failed" in name]


@pytest.mark.parametrize("joins", [True, False])
def test_only_those_who_joined_are_kept_in_the_log_whatever_there_is(loop, counters, joins):
    """Anybody can connect and say nothing, as often as there are handshakes."""
    kept = []
    sink = logger.add(lambda message: kept.append(message.record["extra"]), level="INFO")
    try:
        peer = Peer(counters)
        if joins:
            peer.registered()
        peer.tell(SessionClosed(0, ""))
    finally:
        logger.remove(sink)
    marked = [(extra["event"], bool(extra["unthinned"])) for extra in kept if "event" in extra]
    assert marked == ([("joined", True), ("left", True)] if joins else [("left", False)])
