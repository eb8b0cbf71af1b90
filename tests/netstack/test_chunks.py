from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.chunks import (
    LIFETIME,
    MAX_BYTES,
    MAX_CHUNK_PAYLOAD,
    MAX_PARTIALS,
    Chunker,
    ChunkReassembler,
)
from netstack.counters import Counters


def chunk(chunk_id, index, total, payload=b"x" * 20):
    return b"\x02" + chunk_id.to_bytes(2, "big") + bytes([index, total]) + payload


def feed(reassembler, datagrams, now=0.0):
    return [frame for d in datagrams if (frame := reassembler.accept(d, now)) is not None]


@given(st.binary(min_size=14, max_size=4000), st.integers(30, 1300), st.randoms(use_true_random=False))
def test_any_order_and_duplicates_give_the_frame(frame, limit, random):
    datagrams = Chunker().split(frame, limit)
    assert all(len(d) <= limit for d in datagrams)
    assert all(len(d) <= 5 + MAX_CHUNK_PAYLOAD for d in datagrams)
    *early, last = random.sample(datagrams, len(datagrams))
    repeated = [d for d in early for _ in range(random.randint(1, 3))]
    reassembler = ChunkReassembler(Counters())
    assert feed(reassembler, [*repeated, last]) == [frame]
    assert reassembler.pending == 0
    assert reassembler.cost == 0


def test_payloads_of_any_length_are_taken():
    reassembler = ChunkReassembler(Counters())
    parts = [b"a" * 13, b"", b"b" * 1100, b"c"]
    assert feed(reassembler, [chunk(7, i, 4, p) for i, p in enumerate(parts)]) == [b"".join(parts)]


def test_ids_count_up_and_wrap():
    chunker = Chunker()
    ids = [int.from_bytes(chunker.split(bytes(40), 30)[0][1:3], "big") for _ in range(65538)]
    assert ids[:3] == [0, 1, 2]
    assert ids[65535:] == [65535, 0, 1]


def test_a_frame_that_255_chunks_cannot_hold_is_not_split():
    assert Chunker().split(bytes(256), 6) == []
    assert len(Chunker().split(bytes(255), 6)) == 255
    assert Chunker().split(bytes(100), 5) == []


def test_interleaved_frames_are_kept_apart():
    a, b = Chunker().split(b"a" * 1500, 1000), Chunker().split(b"b" * 1500, 1000)
    b = [d[:2] + b"\x09" + d[3:] for d in b]
    assert feed(ChunkReassembler(Counters()), [a[0], b[1], a[1], b[0]]) == [b"a" * 1500, b"b" * 1500]


def test_a_partial_frame_expires_after_its_lifetime():
    counters = Counters()
    reassembler = ChunkReassembler(counters)
    reassembler.accept(chunk(1, 0, 2), 0.0)
    assert feed(reassembler, [chunk(1, 1, 2)], now=LIFETIME - 0.01) == [b"x" * 40]
    reassembler.accept(chunk(2, 0, 2), 10.0)
    assert feed(reassembler, [chunk(2, 1, 2)], now=10.0 + LIFETIME) == []
    assert counters["peer.drop.chunk_expired"] == 1
    assert reassembler.pending == 1


def test_half_sent_sets_are_bounded_oldest_dropped_first():
    counters = Counters()
    reassembler = ChunkReassembler(counters)
    for chunk_id in range(20_000):
        reassembler.accept(chunk(chunk_id, 0, 2, b""), 0.0)
        assert reassembler.pending <= MAX_PARTIALS
    assert counters["peer.drop.chunk_overflow"] == 20_000 - MAX_PARTIALS
    assert feed(reassembler, [chunk(19_999, 1, 2, b"y" * 20)]) == [b"y" * 20]
    assert feed(reassembler, [chunk(0, 1, 2, b"y" * 20)]) == []


def test_bytes_are_bounded_whatever_the_chunks_look_like():
    for payload in (b"", b"x", b"x" * 900, b"x" * 60_000):
        reassembler = ChunkReassembler(Counters())
        for chunk_id in range(700):
            for index in range(8):
                reassembler.accept(chunk(chunk_id, index, 255, payload), 0.0)
                assert reassembler.cost <= MAX_BYTES


def test_a_set_larger_than_the_bound_goes_itself():
    counters = Counters()
    reassembler = ChunkReassembler(counters)
    for index in range(6):
        reassembler.accept(chunk(1, index, 255, b"x" * 60_000), 0.0)
    assert counters["peer.drop.chunk_overflow"] == 1


def test_a_set_that_contradicts_itself_is_dropped():
    counters = Counters()
    reassembler = ChunkReassembler(counters)
    assert feed(reassembler, [chunk(1, 0, 2), chunk(1, 1, 3), chunk(2, 0, 2), chunk(2, 0, 2, b"other")]) == []
    assert counters["peer.drop.chunk_contradiction"] == 2
    assert reassembler.pending == 0


def test_malformed_chunks_are_counted():
    counters = Counters()
    bad = [b"\x02", b"\x02\0\0\0", chunk(1, 0, 0), chunk(1, 2, 2), chunk(1, 255, 255)]
    assert feed(ChunkReassembler(counters), bad) == []
    assert counters["peer.drop.chunk_malformed"] == len(bad)


def test_whole_frames_of_impossible_length_are_counted():
    counters = Counters()
    reassembler = ChunkReassembler(counters)
    assert feed(reassembler, [chunk(1, 0, 1, b"short")]) == []
    assert feed(reassembler, [chunk(2, 0, 2, b"x" * 40_000), chunk(2, 1, 2, b"y" * 40_000)]) == []
    assert counters["peer.drop.chunk_frame_length"] == 2


@settings(max_examples=200)
@given(st.lists(st.tuples(st.binary(max_size=40), st.floats(0, 3)), max_size=60))
def test_garbage_never_raises_and_its_cost_is_kept_right(steps):
    reassembler, now = ChunkReassembler(Counters()), 0.0
    for rest, wait in steps:
        now += wait
        reassembler.accept(b"\x02" + rest, now)
        assert reassembler.cost >= 0
        assert (reassembler.cost == 0) == (reassembler.pending == 0)
