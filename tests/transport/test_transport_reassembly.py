"""Putting data in order: against a plain model, and its limits."""

from __future__ import annotations

import random

import pytest

from transport.quic.reassembly import MAX_PIECES, Reassembly, TooFragmentedError


@pytest.mark.parametrize("seed", range(50))
def test_pieces_in_any_order_give_the_data(seed):
    chance = random.Random(seed)
    data = chance.randbytes(2000)
    pieces = [(at, data[at : at + 100]) for at in range(0, len(data), 100)]
    for _ in range(20):
        start = chance.randrange(len(data))
        pieces.append((start, data[start : start + chance.randrange(400)]))
    chance.shuffle(pieces)
    reassembly = Reassembly()
    delivered = b"".join(reassembly.add(offset, piece) for offset, piece in pieces)
    assert delivered == data
    assert reassembly.start == len(data)
    assert reassembly.waiting == 0


def test_a_far_offset_keeps_no_more_than_came():
    reassembly = Reassembly()
    assert reassembly.add(60_000, b"x") == b""
    assert reassembly.waiting == 1


def test_pieces_that_touch_are_one():
    reassembly = Reassembly()
    for offset in reversed(range(1, 10 * MAX_PIECES)):
        assert reassembly.add(offset, b"x") == b""
    assert reassembly.add(0, b"y") == b"y" + b"x" * (10 * MAX_PIECES - 1)


def test_gaps_are_limited():
    reassembly = Reassembly()
    for number in range(MAX_PIECES):
        reassembly.add(2 + 2 * number, b"x")
    reassembly.add(2, b"x")  # a duplicate is no further piece
    with pytest.raises(TooFragmentedError):
        reassembly.add(1000, b"x")


def test_nothing_is_kept_once_cleared():
    reassembly = Reassembly()
    reassembly.add(5, b"later")
    reassembly.clear()
    assert reassembly.waiting == 0
    assert reassembly.add(0, b"first") == b"first"


def test_empty_data_changes_nothing():
    reassembly = Reassembly()
    assert reassembly.add(10, b"") == reassembly.add(0, b"") == b""
    assert (reassembly.start, reassembly.waiting) == (0, 0)
