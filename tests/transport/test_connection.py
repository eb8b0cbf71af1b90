"""One connection in every state: who is told what, when it ends, and how often its timer fires."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode
from quic_parts import NEVER, START, Forge, Network, Pair, close_capsule_frame

from actors.close_codes import CloseCode
from transport.quic import webtransport
from transport.quic.carrier import DATAGRAMS_IN_AIOQUIC
from transport.quic.connection import (
    CLOSE_LINGER,
    KEEP_ALIVE,
    MAX_REQUEST_BYTES,
    MAX_STREAM_BYTES,
    SESSION_DEADLINE,
)

CLIENT_IDLE_TIMEOUT = 60.0
"""aioquic's default; the smaller of both sides' counts (RFC 9000, 10.1)."""


@pytest.fixture(scope="module")
def base():
    return Pair.established(stock=True)


@pytest.fixture(params=[False, True], ids=["path", "aioquic"])
def pair(base, request):
    forked = base.fork(stock=request.param)
    if not request.param:
        forked.relay.connection._path.mtu.next_at = NEVER
    return forked


def handshaken():
    """A pair with a confirmed handshake and HTTP/3, but no session."""
    pair = Pair(stock=True)
    pair.settle()
    return pair


def ends(pair):
    """Let time pass, without the client, until the relay has forgotten the connection; tell when."""
    relay = pair.relay
    for _ in range(1000):
        if relay.host.ended:
            return relay.host.now
        assert relay.due < NEVER
        relay.run_timer()
    raise AssertionError("the connection never ends")


# -- before there is a session -------------------------------------------------------------------------


def test_a_client_that_never_asks_for_a_session_is_closed():
    pair = handshaken()
    pair.settle(SESSION_DEADLINE)
    assert pair.client.quic.ended.reason_phrase == "no WebTransport session was opened"
    assert pair.relay.host.counters["connection.no_session"] == 1
    assert ends(pair) < START + SESSION_DEADLINE + 2


def test_a_client_that_goes_silent_in_the_handshake_is_forgotten():
    pair = Pair(stock=True)
    pair.relay.receive(*pair.client.packets(pair.now), now=pair.now)
    assert START + SESSION_DEADLINE <= ends(pair) < START + SESSION_DEADLINE + 10
    assert pair.relay.host.handshakes_ended >= 1
    assert pair.relay.timers_fired < 40


def test_a_handshake_ends_once():
    pair = handshaken()
    assert pair.relay.host.handshakes_ended == 1


def test_a_client_that_leaves_before_its_session_is_forgotten():
    pair = handshaken()
    pair.client.quic.close(error_code=ErrorCode.H3_NO_ERROR)
    pair.settle(0.5)
    assert ends(pair) < START + 3
    assert pair.relay.host.peers == []


@pytest.mark.parametrize(
    ("method", "protocol", "status"),
    [(b"GET", None, 405), (b"POST", None, 405), (b"CONNECT", b"connect-udp", 501)],
)
def test_other_requests_are_answered_and_open_nothing(method, protocol, status):
    pair = handshaken()
    stream = pair.client.quic.get_next_available_stream_id()
    headers = [(b":method", method), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")]
    if protocol:
        headers.append((b":protocol", protocol))
    pair.client.h3.send_headers(stream, headers, end_stream=protocol is None)
    pair.settle(0.1)
    assert pair.client.status == b"%d" % status
    assert pair.relay.host.counters[f"request.status_{status}"] == 1
    assert pair.relay.host.peers == []
    pair.request()
    pair.settle(0.1)
    assert pair.client.status == b"200"


@pytest.mark.parametrize("limit", [None, 0])
def test_a_client_that_takes_no_datagrams_gets_no_session(limit):
    """Datagrams that are sent all the same would be its reason to close the connection (RFC 9221, 3)."""
    pair = Pair(stock=True, max_datagram_frame_size=limit)
    pair.settle()
    pair.request()
    pair.settle()
    assert pair.client.status == b"400"
    assert pair.relay.host.peers == []
    assert pair.relay.quic.ended is None


@pytest.mark.parametrize("stock", [False, True], ids=["path", "aioquic"])
def test_no_datagram_frame_is_larger_than_the_client_takes(stock):
    pair = Pair.established(stock=stock, max_datagram_frame_size=100)
    session = pair.relay.session
    assert session.datagram_limit == 96
    session.send([bytes(97), bytes(96)])
    pair.settle()
    assert pair.client.datagrams == [bytes(96)]
    assert pair.relay.host.counters["session.drop.too_big"] == 1


def test_too_much_before_a_session_closes():
    pair = handshaken()
    for _ in range(20):
        stream = pair.client.quic.get_next_available_stream_id()
        pair.client.quic.send_stream_data(stream, b"\x21\x80\x00\xff\xff" + bytes(MAX_REQUEST_BYTES // 10))
    pair.settle(1)
    assert pair.client.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
    assert pair.relay.host.counters["connection.excessive_stream_data"] == 1


# -- with a session ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stock", [False, True], ids=["path", "aioquic"])
def test_a_second_session_is_refused_and_the_first_goes_on(stock):
    pair = Pair.established(stock=stock)
    pair.client.status = None
    pair.request()
    pair.client.send(b"still here")
    pair.settle(0.2)
    assert pair.client.status == b"429"
    assert len(pair.relay.host.peers) == 1
    assert pair.relay.peer.datagrams == [b"still here"]
    assert pair.relay.peer.closed == []


def test_a_silent_client_is_asked_then_given_up(pair):
    start = pair.now
    relay = pair.relay
    assert relay.pass_time(KEEP_ALIVE) != []
    assert ends(pair) <= start + CLIENT_IDLE_TIMEOUT + KEEP_ALIVE + 1
    assert [reason for _, reason in relay.peer.closed] == ["Idle timeout"]
    assert relay.peer.may_come_back
    assert relay.timers_fired < 60


def test_a_client_that_answers_pings_stays(pair):
    pair.settle(10 * KEEP_ALIVE)
    assert pair.relay.peer.closed == []
    assert not pair.relay.host.ended
    assert pair.relay.timers_fired < 80
    pair.client.send(b"still here")
    pair.settle(0.1)
    assert pair.relay.peer.datagrams == [b"still here"]


@pytest.mark.parametrize("stock", [False, True], ids=["path", "aioquic"])
@pytest.mark.parametrize("idle_timeout", [1.5, 5.0, 12.0, KEEP_ALIVE])
def test_a_client_that_gives_up_early_is_asked_before_it_does(idle_timeout, stock):
    pair = Pair.established(stock=stock, idle_timeout=idle_timeout)
    pair.settle(10 * KEEP_ALIVE)
    assert pair.client.quic.get_timer() is not None
    assert pair.relay.peer.closed == []
    pair.relay.session.send([b"still here"])
    pair.settle(0.1)
    assert pair.client.datagrams == [b"still here"]


def test_a_client_that_gives_up_at_once_is_not_asked_all_the_time(pair, monkeypatch):
    monkeypatch.setattr(type(pair.relay.quic), "idle_timeout", 0.01)
    fired = pair.relay.timers_fired
    pair.relay.pass_time(2)
    assert pair.relay.timers_fired - fired < 50


def test_one_way_traffic_of_the_relay_keeps_a_session_alive_while_it_is_acknowledged(pair):
    for _ in range(100):
        pair.relay.session.send([b"x"])
        pair.settle(1)
    assert pair.relay.peer.closed == []
    assert len(pair.client.datagrams) == 100


def test_one_way_traffic_to_a_client_that_is_gone_does_not_keep_it(pair):
    start = pair.now
    relay = pair.relay
    while not relay.host.ended and relay.host.now < start + 2 * CLIENT_IDLE_TIMEOUT:
        relay.send(b"x")
        relay.pass_time(0.1)
    assert relay.peer.closed == [(1, "Idle timeout")]
    assert relay.host.now < start + CLIENT_IDLE_TIMEOUT + KEEP_ALIVE + 1


@pytest.mark.parametrize(("code", "may_come_back"), [(0, False), (7, False), (CloseCode.COMING_BACK, True)])
def test_the_client_closes_its_session_with_a_capsule(pair, code, may_come_back):
    forge = Forge(pair.client)
    offset = pair.client.quic._streams[0].sender._buffer_stop
    pair.relay.receive(
        forge.datagram(b"last words"), forge.packet(close_capsule_frame(code, "bye", offset=offset))
    )
    assert pair.relay.peer.datagrams == [b"last words"]
    assert pair.relay.peer.closed == [(code, "bye")]
    assert pair.relay.peer.may_come_back == may_come_back
    assert ends(pair) < pair.now + 2


def test_a_client_learns_that_the_relay_takes_nothing_new(pair):
    pair.client.control = b""
    pair.relay.connection.go_away()
    pair.relay.flush()
    pair.settle(0.1)
    goaway, next_request_stream = 7, 4
    assert pair.client.control == bytes((goaway, 1, next_request_stream))
    assert pair.client.quic.ended is None


def test_the_client_closes_its_connection(pair):
    pair.client.send(b"last words")
    pair.settle(0.005)
    pair.client.quic.close(error_code=0x155, reason_phrase="tab closed")
    pair.settle(0.02)
    assert pair.relay.peer.datagrams == [b"last words"]
    assert pair.relay.peer.closed == [(0x155, "tab closed")]
    assert pair.relay.peer.may_come_back
    # Draining, for three probe timeouts: what still comes is ignored, what is sent goes nowhere.
    assert 0 < pair.relay.host.drains_until - pair.now < 2
    assert pair.relay.receive(Forge(pair.client).datagram(b"late")) == []
    assert pair.relay.send(b"to nobody") == []
    assert pair.relay.peer.datagrams == [b"last words"]
    assert ends(pair) < pair.now + 2


def test_the_relay_closes_a_session(pair):
    pair.relay.session.close(4, "another session took the MAC")
    pair.settle(0.1)
    assert pair.client.closure == (4, "another session took the MAC")
    assert pair.client.quic.ended is None
    pair.settle(CLOSE_LINGER)
    ended: Any = pair.client.quic.ended
    assert ended.error_code == ErrorCode.H3_NO_ERROR
    assert pair.relay.peer.closed == []
    assert ends(pair) < pair.now + 2


@pytest.mark.parametrize("again", ["by the relay", "by the client", "by silence"])
def test_a_closing_session_may_be_closed_again(pair, again):
    relay, session = pair.relay, pair.relay.session
    session.close(4, "first")
    relay.flush()
    if again == "by the relay":
        session.close(5, "second")
        relay.flush()
    elif again == "by the client":
        pair.client.quic.close(error_code=1)
        pair.settle(0.1)
    assert ends(pair) < pair.now + 5
    assert relay.peer.closed == []
    assert relay.timers_fired < 40


def test_a_connection_whose_session_is_being_closed_gets_no_other(pair):
    pair.relay.session.close(4, "over")
    pair.settle(0.1)
    pair.client.status = None
    pair.request()
    pair.settle(0.1)
    assert pair.client.status == b"429"
    assert ends(pair) < pair.now + CLOSE_LINGER + 4
    assert len(pair.relay.host.peers) == 1


def test_a_request_right_behind_the_end_of_a_session_opens_none(pair):
    pair.client.h3.send_data(0, webtransport.encode_close_capsule(0, "bye"), end_stream=True)
    pair.request()
    pair.settle(0.1)
    assert len(pair.relay.host.peers) == 1
    assert pair.relay.peer.closed == [(0, "bye")]


def test_sending_on_a_closing_session_is_harmless(pair):
    pair.relay.session.close(4, "over")
    pair.relay.flush()
    for _ in range(50):
        pair.relay.session.send([bytes(1000)] * 20)
        pair.settle(0.01)
    assert pair.client.datagrams == []
    assert ends(pair) < pair.now + 3


def test_a_client_that_does_not_read_the_capsule_is_closed_all_the_same(pair):
    pair.relay.session.close(4, "over")
    pair.relay.flush()
    assert ends(pair) < pair.now + CLOSE_LINGER + 4


def test_stream_data_in_the_life_of_a_session_is_bounded(pair):
    stream = pair.client.quic.get_next_available_stream_id(is_unidirectional=True)
    sent = 0
    while pair.client.quic.ended is None and sent < 2 * MAX_STREAM_BYTES:
        # A unidirectional stream of a reserved type, which is to be ignored.
        pair.client.quic.send_stream_data(stream, b"\x21" + bytes(16 * 1024))
        sent += 16 * 1024
        pair.settle(0.1)
    assert pair.client.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
    assert sent <= MAX_STREAM_BYTES + 128 * 1024
    assert len(pair.relay.peer.closed) == 1


def capsule(kind, length):
    return encode_uint_var(kind) + encode_uint_var(length) + bytes(length)


def test_unknown_capsules_of_any_length_are_passed_over(pair):
    for length in (4097, 100_000, 3 * MAX_STREAM_BYTES):
        pair.client.h3.send_data(0, capsule(0x1234, length), end_stream=False)
        pair.settle(2)
    pair.client.send(b"still here")
    pair.settle(0.1)
    assert pair.relay.peer.datagrams == [b"still here"]
    assert pair.relay.peer.closed == []
    pair.client.h3.send_data(0, webtransport.encode_close_capsule(5, "done"), end_stream=True)
    pair.settle(0.1)
    assert pair.relay.peer.closed == [(5, "done")]
    assert pair.relay.host.counters["connection.excessive_stream_data"] == 0


def test_a_closing_capsule_that_cannot_be_closes_the_connection(pair):
    pair.client.h3.send_data(0, capsule(0x2843, 5000), end_stream=False)
    pair.settle(0.1)
    assert pair.client.quic.ended.error_code == ErrorCode.H3_DATAGRAM_ERROR
    assert len(pair.relay.peer.closed) == 1
    assert not pair.relay.peer.may_come_back


@pytest.mark.parametrize(
    ("how", "may_come_back"), [("reset", True), ("stopped", True), ("ended", False), ("broken", False)]
)
def test_a_stream_that_ends_without_a_capsule_ends_the_session(pair, how, may_come_back):
    if how == "reset":
        pair.client.quic.reset_stream(0, 0x10)
    elif how == "stopped":
        pair.client.quic.stop_stream(0, 0x10)
    elif how == "ended":
        pair.client.h3.send_data(0, b"", end_stream=True)
    else:
        # A frame of a kind that there is not (RFC 9000, 12.4).
        pair.relay.receive(Forge(pair.client).packet(b"\x3f"), now=pair.now)
    pair.settle(0.1 + (CLOSE_LINGER if how == "stopped" else 0))
    assert len(pair.relay.peer.closed) == 1
    assert pair.relay.peer.may_come_back == may_come_back


@pytest.mark.parametrize("later", [0.0, CLOSE_LINGER / 2])
def test_a_client_that_stops_reading_may_still_say_why(pair, later):
    """As quic-go does: STOP_SENDING goes ahead of the capsule, and in the same packet."""
    forge = Forge(pair.client)
    stop, offset = b"\x05\x00\x10", pair.client.quic._streams[0].sender.highest_offset
    capsule = close_capsule_frame(5, "done", offset=offset)
    if later:
        pair.relay.receive(forge.packet(stop), now=pair.now)
        pair.relay.pass_time(later)
        assert pair.relay.peer.closed == []
        pair.relay.receive(forge.packet(capsule))
    else:
        pair.relay.receive(forge.packet(stop + capsule), now=pair.now)
    assert pair.relay.peer.closed == [(5, "done")]
    assert not pair.relay.peer.may_come_back


def test_a_session_whose_stream_is_not_read_any_more_may_be_closed(pair):
    pair.relay.receive(Forge(pair.client).packet(b"\x05\x00\x10"), now=pair.now)
    pair.relay.session.close(4, "over")
    pair.settle(0.1)
    assert pair.client.quic.ended.reason_phrase == "over"
    assert pair.relay.peer.closed == []


OTHER_REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"vm.test"), (b":path", b"/x")]


def other_request(pair):
    stream = pair.client.quic.get_next_available_stream_id()
    pair.client.h3.send_headers(stream, OTHER_REQUEST)
    return stream


@pytest.mark.parametrize("asks", [Pair.request, other_request], ids=["session", "other"])
def test_a_request_whose_answer_is_not_wanted_gets_none_and_the_next_does(asks):
    pair = Pair()
    pair.settle()
    pair.client.quic.stop_stream(asks(pair), 0)
    pair.settle()
    assert pair.relay.host.counters["request.not_answered"] == 1
    pair.request()
    pair.settle()
    assert pair.client.status == b"200"


@pytest.mark.parametrize("stream", ["session's", "refused request's"])
def test_trailers_change_nothing(pair, stream):
    number = 0 if stream == "session's" else other_request(pair)
    pair.settle()
    pair.client.h3.send_headers(number, [(b"trailer", b"x")])
    pair.client.send(b"still here")
    pair.settle()
    assert pair.relay.peer.datagrams == [b"still here"]
    assert pair.relay.peer.closed == []
    assert pair.relay.host.counters["request.not_answered"] == 1


def test_trailers_at_the_end_of_its_stream_end_a_session(pair):
    pair.client.h3.send_headers(0, [(b"trailer", b"x")], end_stream=True)
    pair.settle()
    assert len(pair.relay.peer.closed) == 1


@pytest.mark.parametrize("stream", [0, 14], ids=["the session's", "another"])
def test_stream_data_behind_a_gap_are_bounded(pair, stream):
    forge = Forge(pair.client)
    sent = 0
    offset = 5000  # beyond what the client has sent on either stream
    while pair.relay.quic.ended is None and sent < 3 * MAX_STREAM_BYTES:
        frame = (
            b"\x0e" + encode_uint_var(stream) + encode_uint_var(offset) + encode_uint_var(1000) + bytes(1000)
        )
        pair.relay.receive(forge.packet(frame), now=pair.now)
        offset += 1000
        sent += 1000
        pair.now += 0.001
    assert pair.relay.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
    assert sent <= MAX_STREAM_BYTES + 128 * 1024
    assert pair.relay.host.counters["connection.excessive_stream_data"] == 1


def test_a_session_that_the_relay_ends_after_much_stream_data_still_says_why(pair):
    stream = pair.client.quic.get_next_available_stream_id(is_unidirectional=True)
    pair.client.quic.send_stream_data(stream, b"\x21" + bytes(2 * MAX_REQUEST_BYTES))
    pair.settle(0.5)
    pair.relay.session.close(4, "another session took the MAC")
    pair.settle(0.5)
    assert pair.client.closure == (4, "another session took the MAC")
    assert pair.relay.host.counters["connection.excessive_stream_data"] == 0


def test_datagrams_before_the_end_come_before_the_end(pair):
    pair.client.send(*[b"%d" % n for n in range(10)])
    pair.client.quic.send_ping(1)
    packets = pair.client.packets(pair.now)
    pair.client.quic.close(error_code=0x100)
    pair.relay.receive(*packets, *pair.client.packets(pair.now), now=pair.now)
    assert pair.relay.peer.datagrams == [b"%d" % n for n in range(10)]
    assert len(pair.relay.peer.closed) == 1


# -- timers --------------------------------------------------------------------------------------------


def test_timers_do_not_grow_with_packets(pair):
    for _ in range(100):
        pair.client.send(*[b"x" * 900] * 8)
        pair.relay.session.send([b"y" * 900] * 8)
        pair.settle(0.005)
    pair.settle(0.1)
    assert len(pair.relay.peer.datagrams) == 800
    assert pair.relay.timers_fired < 400


def test_an_idle_session_wakes_the_loop_rarely(pair):
    pair.settle(1)
    fired = pair.relay.timers_fired
    pair.settle(8 * KEEP_ALIVE)
    assert pair.relay.timers_fired - fired <= 4 * 8


def test_a_client_that_falls_silent_amid_traffic_wakes_the_loop_rarely(pair):
    relay = pair.relay
    relay.send(*[bytes(1000)] * 5)
    relay.pass_time(30)
    assert relay.timers_fired < 30


def test_a_client_that_moves_and_falls_silent_wakes_the_loop_rarely(pair):
    pair.client.send(b"from a new address")
    pair.relay.receive(*pair.client.packets(pair.now), address=("192.0.2.9", 1), now=pair.now)
    pair.relay.session.send([bytes(1000)] * 20)
    pair.relay.flush()
    pair.relay.pass_time(30)
    assert pair.relay.timers_fired < 60


@pytest.mark.parametrize("loss", [0.1, 0.5, 0.9])
def test_timers_are_few_on_a_bad_network(pair, loss):
    pair.network = Network(seed=6, loss=loss)
    for _ in range(200):
        pair.relay.session.send([bytes(800)])
        pair.client.send(bytes(800))
        pair.settle(0.01)
    assert pair.relay.timers_fired < 800


# -- aioquic's own queue -------------------------------------------------------------------------------


def test_without_the_path_aioquic_is_given_no_more_than_it_may_send(base):
    pair = base.fork(stock=True)
    for _ in range(50):
        pair.relay.session.send([bytes(1000)] * 20)
        pair.relay.flush()
        assert pair.relay.quic.datagrams_waiting <= DATAGRAMS_IN_AIOQUIC
    assert not pair.relay.session.writable
