from __future__ import annotations

import pytest

from netstack.tcp_congestion import (
    INITIAL_RTO,
    MAX_RTO,
    MIN_BURST_SEGMENTS,
    MIN_RTO,
    NewReno,
    Pacer,
    RoundTrip,
)

MSS = 1000
CEILING = 256 * 1024


def test_timeout_before_any_sample_doubles_up_to_a_minute():
    round_trip = RoundTrip()
    assert round_trip.timeout == INITIAL_RTO
    timeouts = []
    for round_trip.backoff in range(12):
        timeouts.append(round_trip.timeout)
    assert timeouts[:4] == [1, 2, 4, 8]
    assert max(timeouts) == MAX_RTO


def test_round_trip_is_smoothed_as_rfc_6298_says():
    round_trip = RoundTrip()
    round_trip.sample(0.1)
    assert (round_trip.smoothed, round_trip.variation) == (0.1, 0.05)
    assert round_trip.timeout == pytest.approx(0.1 + 4 * 0.05)
    round_trip.sample(0.2)
    assert round_trip.variation == pytest.approx(0.75 * 0.05 + 0.25 * 0.1)
    assert round_trip.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.2)


def test_timeout_is_never_short():
    round_trip = RoundTrip()
    for _ in range(50):
        round_trip.sample(0.001)
    assert MIN_RTO <= round_trip.timeout < MIN_RTO + 0.01


def test_window_doubles_each_round_trip_then_grows_by_a_segment():
    reno = NewReno(MSS, CEILING)
    assert reno.window == 10 * MSS
    reno.acknowledged(10 * MSS)
    assert reno.window == 20 * MSS
    reno.lost(20 * MSS)
    assert reno.window == reno.threshold == 14 * MSS
    reno.acknowledged(14 * MSS)
    assert reno.window == 15 * MSS


def test_a_loss_never_makes_the_window_larger():
    reno = NewReno(MSS, CEILING)
    reno.lost(100 * MSS)
    assert reno.window == reno.threshold == 10 * MSS


def test_window_has_a_ceiling():
    reno = NewReno(MSS, CEILING)
    for _ in range(100):
        reno.acknowledged(reno.window)
    assert reno.window == CEILING


def test_window_after_time_outs():
    reno = NewReno(MSS, CEILING)
    reno.timed_out(10 * MSS, again=False)
    assert (reno.window, reno.threshold) == (MSS, 5 * MSS)
    reno.timed_out(MSS, again=True)
    assert reno.threshold == 5 * MSS
    assert reno.slow_start


def test_a_short_burst_may_always_leave_and_more_at_the_pace():
    reno = NewReno(MSS, CEILING)
    pacer = Pacer(MSS, 0.0)
    assert pacer.allowance(reno, 0.1, 0.0) == MIN_BURST_SEGMENTS * MSS
    pacer.sent(MIN_BURST_SEGMENTS * MSS)
    assert pacer.allowance(reno, 0.1, 0.0) == 0
    # Twice ten segments in a tenth of a second: one each 5 ms.
    assert pacer.ready_at(MSS) == pytest.approx(0.005)
    assert pacer.allowance(reno, 0.1, 0.005) == pytest.approx(MSS, abs=1)
    assert pacer.allowance(reno, 0.1, 100) == MIN_BURST_SEGMENTS * MSS


def test_fast_connections_may_send_what_their_pace_gives_between_timers():
    reno = NewReno(MSS, CEILING)
    pacer = Pacer(MSS, 0.0)
    reno.window = 200 * MSS
    pacer.allowance(reno, 0.001, 0.0)
    assert pacer.allowance(reno, 0.001, 0.01) == 800 * MSS
