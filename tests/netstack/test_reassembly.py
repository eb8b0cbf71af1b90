from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netstack.counters import Counters
from netstack.ipv4 import build_whole, parse_fragment, parse_ipv4
from netstack.malformed import MalformedPacket
from netstack.reassembly import FRAGMENT_COST, LIFETIME, MAX_BYTES, MAX_BYTES_PER_OWNER, Fragment, Reassembler


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
