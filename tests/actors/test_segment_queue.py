"""Segments of several senders that wait: whose is next, and which find no room."""

from __future__ import annotations

from collections import Counter

import pytest
from lan_parts import mac

from actors.segment_queue import SegmentQueue

ROOM = {"most_bytes": 60_000, "most": 1000}


def segment(sender, size=1000):
    return mac(99) + mac(sender) + bytes(size - 12)


def senders(segments):
    return [one[11] for one in segments]


def sender_number(one):
    return one[6:12]


def test_segments_of_one_sender_keep_their_order():
    queue = SegmentQueue()
    segments = [segment(1, size) for size in (60, 1000, 1500, 100)]
    assert all(queue.put(one, **ROOM) for one in segments)
    assert len(queue) == 4
    assert queue.next_size() == 60
    assert queue.take_all() == segments
    assert len(queue) == 0


def test_senders_get_the_same_bytes_whatever_the_size_of_their_segments():
    queue = SegmentQueue()
    for _ in range(20):
        queue.put(segment(1, 1500), **ROOM)
    for _ in range(300):
        queue.put(segment(2, 100), **ROOM)
    taken = Counter()
    while sum(taken.values()) < 40_000:
        one = queue.take()
        taken[sender_number(one)] += len(one)
    assert taken[mac(1)] == pytest.approx(taken[mac(2)], abs=3100)


def test_who_has_more_than_its_part_waiting_loses_what_comes_and_others_find_room():
    queue = SegmentQueue()
    greedy = sum(queue.put(segment(1), **ROOM) for _ in range(100))
    assert greedy == 60
    assert sum(queue.put(segment(2), **ROOM) for _ in range(100)) == 30
    assert sum(queue.put(segment(3), **ROOM) for _ in range(100)) == 20
    assert not queue.put(segment(1), **ROOM)
    while len(queue) > 60:
        queue.take()
    assert senders(queue.take_all()).count(mac(3)[5]) > 0


def test_there_is_a_bound_for_all_senders_together():
    queue = SegmentQueue()
    for sender in range(200):
        for _ in range(30):
            queue.put(segment(sender), **ROOM)
    assert 60 <= len(queue) <= 120
    queue = SegmentQueue()
    for sender in range(200):
        queue.put(segment(sender, 60), most_bytes=60_000, most=150)
    assert len(queue) == 150


def test_a_segment_of_any_size_gets_its_turn():
    queue = SegmentQueue()
    queue.put(segment(1, 20_000), **ROOM)
    queue.put(segment(2, 100), **ROOM)
    assert sorted(map(len, queue.take_all())) == [100, 20_000]
