from __future__ import annotations

from transport.quic.bbr_signals import FULL_ROUNDS, WINDOW_ROUNDS, AckAggregation, FullPath

LIMIT = 100_000


def test_acknowledgements_at_the_rate_are_not_aggregated():
    aggregation = AckAggregation()
    for tick in range(100):
        aggregation.acknowledged(1000, 100_000, LIMIT, tick * 0.01)
    assert aggregation.extra <= 1000


def test_aggregated_acknowledgements_are_measured_and_forgotten():
    aggregation = AckAggregation()
    for tick in range(10):
        aggregation.acknowledged(10_000, 100_000, LIMIT, tick * 0.1)
    assert aggregation.extra == 10_000
    for tick in range(100, 300):
        aggregation.acknowledged(1000, 100_000, LIMIT, tick * 0.01)
        if tick % 10 == 0:
            aggregation.round_ended(growing=False)
    assert 2 * WINDOW_ROUNDS < 200 / 10
    assert aggregation.extra <= 2000


def test_no_more_is_believed_than_could_be_on_its_way():
    aggregation = AckAggregation()
    aggregation.acknowledged(10 * LIMIT, 1.0, LIMIT, 1.0)
    assert aggregation.extra == LIMIT


def test_a_path_is_full_when_its_rate_does_not_grow_for_three_rounds():
    full = FullPath()
    for rate in (100, 200, 400):
        full.sample(rate, round_start=True)
    for _ in range(FULL_ROUNDS):
        assert not full.ever
        full.sample(420, round_start=True)
        full.sample(430, round_start=False)
    assert full.now
    assert full.ever


def test_growth_begins_the_count_again():
    full = FullPath()
    rate = 100.0
    for _ in range(20):
        full.sample(rate, round_start=True)
        full.sample(rate, round_start=True)
        rate *= 1.3
    assert not full.ever


def test_a_full_path_may_have_grown_later():
    full = FullPath()
    for _ in range(FULL_ROUNDS + 1):
        full.sample(100, round_start=True)
    full.look_again(100)
    assert full.ever
    assert not full.now
    full.sample(130, round_start=True)
    assert not full.now
