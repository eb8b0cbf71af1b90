"""What a path shows of packets that overtake each other."""

from __future__ import annotations

import pytest

from transport.quic.reordering import (
    GRANULARITY,
    MEMORY,
    MOST_WRITTEN_OFF,
    PACKET_THRESHOLD,
    TIME_THRESHOLD,
    WRITTEN_OFF_ROUNDS,
    Reordering,
)

RTT = 0.1


def test_a_path_that_keeps_the_order_has_the_thresholds_of_the_rfc():
    reordering = Reordering()
    assert reordering.packets == PACKET_THRESHOLD
    assert reordering.patience(1.0, RTT) == pytest.approx(TIME_THRESHOLD * RTT)
    assert reordering.patience(1.0, 0.0001) == GRANULARITY


@pytest.mark.parametrize("distance", [1, 2, 7, 300])
def test_more_packets_may_overtake_one_than_have_done_so(distance):
    reordering = Reordering()
    reordering.came_late(distance, 1.0)
    assert reordering.packets > distance
    assert reordering.packets >= PACKET_THRESHOLD


@pytest.mark.parametrize(("late", "patience"), [(0.004, 0.1125), (0.04, 0.145), (0.09, 0.2), (5.0, 0.2)])
def test_time_allows_for_the_latest_up_to_two_round_trips(late, patience):
    reordering = Reordering()
    reordering.came_late(1, 2.0)
    reordering.came_late(1, 2.0 + late / 2)
    assert reordering.patience(2.0 + RTT + late, RTT) == pytest.approx(patience)
    assert reordering.patience(2.5 + RTT + late, RTT) == pytest.approx(patience)


def test_what_was_seen_holds_for_a_while_and_no_longer():
    reordering = Reordering()
    reordering.patience(0.0, RTT)
    reordering.came_late(20, 1.0)
    reordering.patience(1.15, RTT)
    for now in (MEMORY - 0.1, MEMORY, 2 * MEMORY - 0.1):
        assert reordering.patience(now, RTT) > TIME_THRESHOLD * RTT
        assert reordering.packets > 20
    assert reordering.patience(2 * MEMORY, RTT) == pytest.approx(TIME_THRESHOLD * RTT)
    assert reordering.packets == PACKET_THRESHOLD


def test_those_taken_for_lost_are_known_when_they_come():
    reordering = Reordering()
    for number in (3, 4, 9, 12):
        reordering.write_off(number, 1.0)
    reordering.acknowledged([(14, 20), (10, 12), (5, 8), (0, 3)], 15)
    assert list(reordering.written_off) == [4, 9]
    assert reordering.packets > 15 - 3
    reordering.acknowledged([(0, 1)], 20)
    assert list(reordering.written_off) == [4, 9]


def test_few_of_them_are_remembered_and_not_for_long():
    reordering = Reordering()
    for number in range(2 * MOST_WRITTEN_OFF):
        reordering.write_off(number, 1.0 + number / 1000)
    assert len(reordering.written_off) == MOST_WRITTEN_OFF
    newest = 1.0 + (2 * MOST_WRITTEN_OFF - 1) / 1000
    reordering.patience(newest + (1 + WRITTEN_OFF_ROUNDS) * RTT, RTT)
    assert list(reordering.written_off) == [2 * MOST_WRITTEN_OFF - 1]
    reordering.patience(newest + (1 + WRITTEN_OFF_ROUNDS) * RTT + 0.001, RTT)
    assert not reordering.written_off
