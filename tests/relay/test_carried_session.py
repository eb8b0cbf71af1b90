"""What the end of a carried session where its port is knows, queues and drops."""

from __future__ import annotations

from dataclasses import replace

from carrying_parts import STATE, opened
from lan_parts import mac

from actors.port_policy import usual_policy
from actors.ports import SessionTerms
from actors.settings import LanSettings
from relay.carried_session import FOR_CONTROL, UNDER_WAY


def test_what_is_known_of_a_session_is_known_where_its_port_is(pair):
    policy = replace(usual_policy(LanSettings()), macs=frozenset({mac(1), mac(2)}))
    terms = SessionTerms("web", 17.5, policy, "t1")
    passage, session = opened(pair, terms)
    assert pair.accepted == [(session, terms)]
    assert (session.id, session.path, session.remote) == (7, "/?encap=framed", pair.session.remote)
    assert (session.datagram_limit, session.room) == (1160, pair.session.room)
    assert session.path_state() == pair.session.path_state()
    assert session.last_heard == pair.session.last_heard
    assert passage.answered
    assert (pair.counters["carried.passages"], pair.counters["carried.sessions"]) == (1, 1)


def test_what_waits_at_the_carrier_counts_until_it_has_left(pair):
    _, session = opened(pair)
    woken = []
    pair.session.room = 100_000
    session.hear(STATE)
    session.send([bytes(1000)] * 60)
    session.call_when_writable(lambda: woken.append(1))
    assert (session.queued_bytes, session.writable) == (60_000, False)
    pair.session.queued_bytes = 60_000
    while pair.passes():
        pass
    assert (session.queued_bytes, woken) == (60_000, [])
    pair.session.leave(20_000)
    while pair.passes():
        pass
    assert (session.queued_bytes, session.writable, woken) == (40_000, True, [1])


def test_what_is_to_be_sent_has_somebody_called_at_the_end_of_the_turn(pair):
    _, session = opened(pair)
    before = pair.works
    session.send([b"x"])
    assert pair.works == before + 1


def test_what_is_lost_on_the_way_is_not_taken_for_waiting(pair):
    _, session = opened(pair)
    session.send([bytes(1000)])
    pair.passes(drop=1)
    assert session.queued_bytes == 1000
    pair.holder.tick()
    pair.passes()
    pair.carrier.tick()
    pair.passes()
    assert session.queued_bytes == 0


def test_what_exceeds_the_bound_towards_the_client_is_dropped_and_counted(pair):
    _, session = opened(pair)
    session.send([b"\1" + bytes(999)] * 300)
    sent = UNDER_WAY // 1000
    assert session.queued_bytes == sent * 1000
    assert pair.counters["carried.drop.queue_full"] == 300 - sent
    pair.passes()
    assert len(pair.session.sent) == sent


def test_control_messages_have_room_where_there_is_none_for_frames(pair):
    _, session = opened(pair)
    session.send([b"\1" + bytes(999)] * 300)
    before = session.queued_bytes
    session.send([b"\1" + bytes(999), b"\0" + bytes(99), b"\1" + bytes(999)])
    assert session.queued_bytes == before + 100
    session.send([b"\0" + bytes(999)] * 300)
    assert UNDER_WAY < session.queued_bytes <= UNDER_WAY + FOR_CONTROL
