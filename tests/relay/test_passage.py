"""What the end of a carried session where its client is passes on, tells and drops."""

from __future__ import annotations

from carrying_parts import opened

from actors.messages import DatagramsFromClient, DatagramsLost, SessionClosed
from netstack import carried_wire as wire
from relay.passage import MAX_FROM_CLIENT


def test_datagrams_and_losses_go_both_ways_in_order(pair):
    passage, session = opened(pair)
    many = [b"%d" % number + bytes(1000) for number in range(200)]
    passage.pass_on(many[:150])
    passage.pass_on(many[150:])
    passage.lost([(b"\1lost", 3.5)])
    session.send(many)
    pair.passes()
    assert [d for m in pair.told if isinstance(m, DatagramsFromClient) for d in m.datagrams] == many
    assert pair.told[-1] == DatagramsLost([(b"\1lost", 3.5)])
    assert pair.session.take() == many


def test_an_end_is_told_as_it_was_and_once(pair):
    passage, _ = opened(pair)
    passage.end(3, "bye", lost=False)
    passage.end(4, "again", lost=True)
    passage.pass_on([b"late"])
    assert pair.passes() == 1
    assert pair.told == [SessionClosed(3, "bye", lost=False)]
    assert pair.passes() == 0


def test_a_path_that_takes_less_is_told_as_soon_as_something_is_sent(pair):
    _, session = opened(pair)
    pair.session.datagram_limit = 1000
    session.send([b"x"])
    while pair.passes():
        pass
    assert session.datagram_limit == 1000
    session.send([b"x"])
    assert pair.passes() == 1, "and once"
    assert pair.passes() == 0


def test_what_exceeds_the_bound_from_the_client_is_dropped_and_counted(pair):
    passage, _ = opened(pair)
    passage.pass_on([bytes(wire.MAX_DATAGRAM + 1), b"short"])
    passage.pass_on([b"x"] * 9000)
    pair.passes()
    assert pair.counters["carried.drop.too_long"] == 1
    assert pair.counters["carried.drop.from_client_queue_full"] == 9001 - MAX_FROM_CLIENT
    passed = [d for m in pair.told if isinstance(m, DatagramsFromClient) for d in m.datagrams]
    assert passed == [b"short", *[b"x"] * (MAX_FROM_CLIENT - 1)]
