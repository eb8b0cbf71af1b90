"""Pieces that come in any order, cut in any way: what is held, reported and given on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.tcp_receiver import BASE_WINDOW, MAX_PIECES, SMALL, Receiver

STREAM = bytes(i * 7 % 251 for i in range(4000))
pieces = st.lists(st.tuples(st.integers(0, 3900), st.integers(1, 700)), max_size=60)


def missing(arrived):
    """Ranges of what arrived, joined."""
    ranges = []
    for at in sorted(arrived):
        if ranges and ranges[-1][1] == at:
            ranges[-1] = (ranges[-1][0], at + 1)
        else:
            ranges.append((at, at + 1))
    return ranges


@given(pieces)
def test_blocks_are_what_arrived_and_the_stream_is_whole(cuts):
    receiver = Receiver(0, 4000)
    arrived = set()
    for start, size in cuts:
        payload = STREAM[start : start + size]
        if receiver.acceptable(start, len(payload)):
            receiver.accept(start, payload, fin=False)
            arrived.update(range(start, start + len(payload)))
        ranges = missing(arrived)
        whole = ranges.pop(0)[1] if ranges and ranges[0][0] == 0 else 0
        assert receiver.next == whole
        assert b"".join(receiver.ready) == STREAM[:whole]
        assert [(piece.start, piece.end) for piece in receiver._early] == ranges
        assert all(piece.data == STREAM[piece.start : piece.end] for piece in receiver._early)
        assert receiver.held == len(arrived)
        blocks = receiver.sack_blocks()
        assert len(blocks) == len(set(blocks))
        assert set(blocks) <= set(ranges)
        assert len(blocks) >= min(4, len(ranges))
        if start > whole and ranges:
            assert blocks[0][0] <= start < blocks[0][1], "the latest first"


def test_pieces_are_few_and_what_is_left_out_is_counted():
    receiver = Receiver(0, 200_000)
    for number in range(MAX_PIECES + 10):
        receiver.accept(10 + 10 * number, b"x", fin=False)
    assert len(receiver._early) == MAX_PIECES
    assert receiver.dropped == 10
    receiver.accept(11, b"y" * 9, fin=False)
    assert len(receiver._early) == MAX_PIECES - 1, "what joins two pieces has a place"


def test_no_more_is_held_than_the_limit_says_but_what_is_in_order_is_always_taken():
    receiver = Receiver(0, 200_000)
    receiver.limit = 1000
    receiver.accept(100, bytes(900), fin=False)
    receiver.accept(2000, bytes(200), fin=False)
    assert (receiver.held, receiver.dropped) == (900, 1)
    assert not receiver.accept(0, bytes(100), fin=False), "it closes a gap"
    assert receiver.next == 1000
    receiver.accept(1000, bytes(500), fin=False)
    assert receiver.held == 1500


@pytest.mark.parametrize("limit", [64 * 1024, 2 * BASE_WINDOW])
def test_behind_what_the_host_does_not_take_no_more_is_held_than_limit_and_window(limit):
    receiver = Receiver(0, BASE_WINDOW, 8 * BASE_WINDOW)
    receiver.open_window(1, 1000, wanted=8 * BASE_WINDOW)
    receiver.limit = limit
    size, most = 1000, max(limit, BASE_WINDOW)
    for number in range(8 * BASE_WINDOW // size):
        receiver.accept(number * size, bytes(size), fin=False)
    # What comes behind the first that was refused is out of order.
    assert most - size < receiver.next <= most
    assert receiver.held <= most + limit
    assert receiver.refused == 1
    receiver.take(receiver.next)
    assert receiver.accept(receiver.next, bytes(size), fin=False) or receiver.has_gap
    assert receiver.refused == 1


@given(pieces, st.integers(1, 4000), st.integers(0, 4000), st.booleans())
def test_the_window_never_ends_before_what_has_come(cuts, room, end, in_order):
    """Cut anywhere, with a FIN anywhere: where the guest stands, it may say something."""
    receiver = Receiver(0, room)
    cuts = [(0, end), *cuts] if in_order else [*cuts, (0, end)]
    for start, size in cuts:
        stop = min(start + size, end)
        payload, fin = STREAM[start:stop], stop == end
        if start <= stop and receiver.acceptable(start, len(payload) + fin):
            receiver.accept(start, payload, fin=fin)
        assert receiver.edge >= receiver.next
        assert receiver.acceptable(receiver.next, 0)


def test_a_fin_right_behind_all_that_the_window_took_is_taken():
    receiver = Receiver(0, 1000)
    assert receiver.accept(0, STREAM[:1000], fin=True)
    assert (receiver.finished, receiver.next, receiver.edge) == (True, 1001, 1001)


@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "in pairs the other way round"])
@pytest.mark.parametrize("size", [1, 100, SMALL - 1, SMALL])
def test_what_comes_a_byte_at_a_time_waits_in_few_pieces(size, swapped):
    stream = STREAM * 10
    receiver = Receiver(0, len(stream))
    starts = list(range(0, len(stream), size))
    if swapped:
        starts = [start for at in range(0, len(starts), 2) for start in reversed(starts[at : at + 2])]
    for start in starts:
        receiver.accept(start, stream[start : start + size], fin=False)
    assert b"".join(receiver.ready) == stream
    assert len(receiver.ready) <= 2 * len(stream) // SMALL + 2
    receiver.take(SMALL + 1)
    assert b"".join(receiver.ready) == stream[SMALL + 1 :]
    assert receiver.held == len(stream) - SMALL - 1
