from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import control, ip, mac, register
from peer_parts import IP_FRAME, MAC, Peer

from actors.close_codes import CloseCode
from actors.line import SegmentsLost
from actors.messages import (
    ClosePeer,
    DatagramsLost,
    FramesFromPeer,
    FramesToPeer,
    PeerList,
    PeerListRequest,
    PortClosed,
    RegistrationRefused,
    SessionClosed,
    SourceRefused,
)
from actors.runtime import Scheduler
from actors.settings import LanSettings
from netstack.counters import Counters
from netstack.encapsulation import DATA
from netstack.tcp_segment import ACK, TcpFrameTemplate


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


def test_a_session_changes_its_mac_now_and_then_and_not_all_the_time(loop, counters):
    """Each change is an event, which the audit log keeps whatever there is."""
    peer = Peer(counters).registered()
    changes = 0
    for number in range(400):
        peer.hears(register(mac(2 + number % 2)))
        for message in peer.to_switch():
            changes += 1
            peer.assign(f"10.0.2.{11 + number % 2}", message.mac)
        loop.advance(1.0)
    assert 60 < changes < 110
    assert counters["peer.drop.mac_changes"] > 0
    peer.session.take()
    peer.hears(register(mac(4)), register(mac(5)))
    assert peer.session.controls()[-1]["message"] == "this session changes its MAC too often"


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
def test_only_those_who_joined_are_kept_in_the_log_whatever_there_is(loop, counters, bound, joins):
    """Anybody can connect and say nothing, as often as there are handshakes."""
    peer = Peer(counters)
    if joins:
        peer.registered()
    peer.tell(SessionClosed(0, ""))
    marked = [(extra["event"], bool(extra["unthinned"])) for extra in bound if "event" in extra]
    assert marked == ([("joined", True), ("left", True)] if joins else [("left", False)])
