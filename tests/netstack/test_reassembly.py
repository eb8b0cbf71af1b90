from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack.counters import Counters
from netstack.ipv4 import build_whole, parse_fragment, parse_ipv4
from netstack.malformed import MalformedPacket
from netstack.reassembly import (
    FRAGMENT_COST,
    LIFETIME,
    MAX_BYTES,
    MAX_BYTES_PER_OWNER,
    MAX_EXPIRED,
    MAX_PIECES,
    PACKET_COST,
    Fragment,
    Reassembler,
)


def piece(offset, data, more=True, key="packet", head=b"head"):
    return Fragment(key, offset, more, head, data)


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def reassembler(counters):
    return Reassembler(counters)


def test_two_halves_in_either_order(reassembler):
    first, second = piece(0, b"first...", head=b"first"), piece(8, b"second", more=False, head=b"second")
    for order in ((first, second), (second, first)):
        assert reassembler.accept(1, order[0], 0) is None
        assert reassembler.accept(1, order[1], 0) == (b"first", b"first...second")
        assert reassembler.cost == 0


@given(st.binary(min_size=9, max_size=4000), st.integers(1, 100), st.randoms(use_true_random=False))
def test_any_order_with_duplicates(data, units, shuffle):
    reassembler = Reassembler(Counters())
    size = units * 8
    pieces = [piece(at, data[at : at + size], at + size < len(data)) for at in range(0, len(data), size)]
    shuffle.shuffle(pieces)
    results = []
    for fragment_ in pieces:
        results.append(reassembler.accept(1, fragment_, 0))
        if results[-1] is None:
            assert reassembler.accept(1, fragment_, 0) is None
    assert [whole.data for whole in results if whole] == [data]
    assert reassembler.cost == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, bytes(16)), piece(8, bytes(16))],
        [piece(0, bytes(32)), piece(8, bytes(8), more=False)],  # teardrop: the second inside the first
        [piece(0, bytes(8)), piece(0, b"other!!!")],
        [piece(16, bytes(8)), piece(8, bytes(4), more=False)],
        [piece(16, bytes(4), more=False), piece(24, bytes(8))],
        [piece(16, bytes(4), more=False), piece(8, bytes(4), more=False)],
    ],
)
def test_overlaps_and_contradictions_end_the_packet(reassembler, counters, pieces):
    for fragment_ in pieces:
        assert reassembler.accept(1, fragment_, 0) is None
    assert counters["gateway.reassembly.overlap"] == 1
    assert reassembler.cost == 0


@pytest.mark.parametrize(
    "bad", [piece(0, b""), piece(0, bytes(7)), piece(65_528, bytes(8), more=False), piece(65_528, bytes(80))]
)
def test_impossible_fragments(reassembler, bad):
    with pytest.raises(MalformedPacket, match="bad_fragment"):
        reassembler.accept(1, bad, 0)
    assert reassembler.cost == 0


def test_guests_do_not_mix(reassembler):
    reassembler.accept(1, piece(0, bytes(8)), 0)
    assert reassembler.accept(2, piece(8, b"x", more=False), 0) is None
    assert reassembler.accept(1, piece(8, b"y", more=False, key="another"), 0) is None
    reassembler.forget(1)
    reassembler.forget(2)
    assert reassembler.cost == 0


def test_what_is_not_whole_in_time_is_gone(reassembler, counters):
    reassembler.accept(1, piece(0, bytes(8)), 0)
    reassembler.accept(1, piece(0, bytes(8), key="later"), LIFETIME - 0.1)
    assert reassembler.accept(1, piece(8, b"x", more=False), LIFETIME) is None
    assert reassembler.accept(1, piece(8, b"x", more=False, key="later"), LIFETIME) is not None
    assert counters["gateway.reassembly.expired"] == 1


def test_a_flood_stays_within_the_session_and_total_bounds(reassembler, counters):
    for number in range(3000):
        reassembler.accept(1, piece(0, bytes(1480), key=number), 0)
    assert MAX_BYTES_PER_OWNER - 2000 < reassembler.cost <= MAX_BYTES_PER_OWNER
    reassembler.accept(2, piece(0, bytes(8)), 0)
    assert reassembler.accept(2, piece(8, b"x", more=False), 0) is not None
    for owner in range(3, 100):
        for number in range(200):
            reassembler.accept(owner, piece(0, bytes(1480), key=number), 0)
    assert reassembler.cost <= MAX_BYTES
    assert counters["gateway.reassembly.overflow"] > 3000
    for owner in range(100):
        reassembler.forget(owner)
    assert reassembler.cost == 0


def test_small_fragments_pay_for_their_objects(reassembler):
    for at in range(0, 65_000, 16):
        reassembler.accept(1, piece(at, bytes(8)), 0)
    assert reassembler.cost <= MAX_BYTES_PER_OWNER
    assert MAX_BYTES_PER_OWNER // FRAGMENT_COST < 2100


def test_a_packet_has_a_bounded_number_of_pieces(counters):
    reassembler = Reassembler(counters, max_bytes_per_owner=MAX_BYTES)
    for number in range(MAX_PIECES + 1):
        reassembler.accept(1, piece(number * 16, bytes(8)), 0)
    assert counters["gateway.reassembly.pieces"] == 1
    assert reassembler.cost == 0


def test_where_all_together_hold_too_much_it_is_not_who_holds_little_that_loses(counters):
    reassembler = Reassembler(counters, max_bytes=40_000, max_bytes_per_owner=10_000)
    reassembler.accept(0, piece(0, bytes(8)), 0)
    for number in range(100):
        for owner in range(1, 9):
            reassembler.accept(owner, piece(0, bytes(1000), key=number), 0)
    assert reassembler.cost <= 40_000
    assert reassembler.accept(0, piece(8, b"x", more=False), 0) is not None


def test_what_is_old_goes_little_by_little(reassembler, counters):
    for owner in range(40):
        for number in range(100):
            reassembler.accept(owner, piece(0, bytes(8), key=number), 0)
    for number in range(1, 500):
        reassembler.accept(99, piece(0, bytes(8), key=number, more=False), LIFETIME)
        assert counters["gateway.reassembly.expired"] == MAX_EXPIRED * number
    # A piece that comes for one which is still there begins another packet.
    assert reassembler.accept(39, piece(8, b"x", key=99, more=False), LIFETIME) is None


def lines_run(function, *arguments):
    """Count the lines of Python that a call runs: its work, whatever else the machine does."""
    lines = 0

    def trace(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return lines


def test_the_work_for_a_piece_does_not_grow_with_what_others_hold(reassembler):
    held = MAX_BYTES_PER_OWNER // (PACKET_COST + FRAGMENT_COST + 12) - 2
    for owner in range(31):
        for number in range(held):
            reassembler.accept(owner, piece(0, bytes(8), key=number), 0)
    assert reassembler.cost > 31 * MAX_BYTES_PER_OWNER * 0.9
    for number in range(20):
        for owner in (0, 30, 31):
            assert lines_run(reassembler.accept, owner, piece(0, bytes(8), key=("new", number)), 0) < 150


@pytest.mark.parametrize("order", [range(1300), range(1299, -1, -1)])
def test_the_work_for_a_piece_does_not_grow_with_its_packet(reassembler, order):
    for number in order:
        assert lines_run(reassembler.accept, 1, piece(number * 16, bytes(8)), 0) < 100
    assert reassembler.cost > 1300 * FRAGMENT_COST


@given(st.integers(0, 9000), st.integers(8, 1480), st.booleans())
def test_scapys_fragments_give_scapys_packet(length, size, df):
    data = random.Random(length).randbytes(length)
    ip = IP(src="10.0.2.10", dst="192.0.2.1", id=77, ttl=9) / UDP(sport=1, dport=2) / Raw(data)
    whole = Ether(bytes(Ether(src="52:54:00:aa:bb:cc", dst="52:54:00:12:34:56") / ip))
    reassembler = Reassembler(Counters())
    results = [
        reassembler.accept(1, parse_fragment(bytes(Ether(src=whole.src, dst=whole.dst) / part)), 0)
        for part in reversed(fragment(whole[IP], size))
    ]
    (built,) = [build_whole(result) for result in results if result]
    assert built == bytes(whole)
    assert parse_ipv4(built).payload == bytes(whole[IP].payload)


@given(st.binary(max_size=80))
def test_garbage_is_a_fragment_or_malformed(frame):
    try:
        parsed = parse_fragment(frame)
    except MalformedPacket:
        return
    assert parsed.data in frame
