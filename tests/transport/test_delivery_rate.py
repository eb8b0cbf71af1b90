from __future__ import annotations

import pytest

from transport.quic.delivery_rate import DeliveryRate

SIZE = 1000


def deliver(rate, flight, now, size=SIZE, min_rtt=0.0):
    rate.acknowledged(size, now)
    rate.sample(flight, min_rtt)
    return rate.rate


def test_the_rate_is_what_arrives_in_the_time_that_sending_it_took():
    rate = DeliveryRate()
    flights = []
    for tick in range(40):
        if tick >= 10:
            sampled = deliver(rate, flights[tick - 10], tick * 0.01)
        flights.append(rate.flight(tick * 0.01, min(tick, 10) * SIZE))
    assert sampled == pytest.approx(SIZE / 0.01)


def test_acknowledgements_that_come_together_do_not_exaggerate():
    rate = DeliveryRate()
    flights = [rate.flight(number * 0.01, number * SIZE) for number in range(11)]
    deliver(rate, flights[0], 0.1)
    # The other ten, sent within 100 ms, are all acknowledged at one time.
    assert deliver(rate, flights[-1], 0.2, 10 * SIZE) <= 11 * SIZE / 0.1


def test_packets_sent_together_do_not_exaggerate_either():
    rate = DeliveryRate()
    first = rate.flight(0.0, 0)
    together = rate.flight(0.05, SIZE)
    deliver(rate, first, 0.1)
    assert deliver(rate, together, 0.15, 5 * SIZE) == pytest.approx(6 * SIZE / 0.15)


def test_silence_does_not_count():
    rate = DeliveryRate()
    deliver(rate, rate.flight(0.0, 0), 0.1)
    assert deliver(rate, rate.flight(60.0, 0), 60.1) == pytest.approx(SIZE / 0.1)


def test_a_sample_of_less_than_a_round_trip_is_none():
    rate = DeliveryRate()
    assert deliver(rate, rate.flight(0.0, 0), 0.01, min_rtt=0.05) == 0


def test_packets_are_marked_while_there_was_nothing_more_to_send():
    rate = DeliveryRate()
    first = rate.flight(0.0, 0)
    assert not first.app_limited
    rate.note_app_limited(SIZE)
    second = rate.flight(0.01, SIZE)
    assert second.app_limited
    deliver(rate, first, 0.1)
    assert rate.app_limited
    deliver(rate, second, 0.11)
    assert not rate.flight(0.12, 0).app_limited
