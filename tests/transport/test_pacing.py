from __future__ import annotations

import pytest

from transport.quic.pacing import (
    BURST_SECONDS,
    FIRST_BURST,
    LARGEST_BURST,
    LATENESS,
    NEVER,
    SLOWEST,
    SMALLEST_BURST,
    Pacer,
)

MANY = 1 << 30


def send_for(pacer, seconds, *, late=0.0, waiting=MANY):
    """Send whenever the pacer says so, each time ``late``; return the bytes of each burst."""
    now, sent = 0.0, []
    pacer.allowance(now)
    pacer.spend(pacer.allowance(now))
    while (now := pacer.ready_at(now, waiting) + late) <= seconds:
        pacer.waiting = True
        sent.append(pacer.allowance(now))
        pacer.spend(sent[-1])
    return sent


@pytest.mark.parametrize("late", [0.0, 0.002, 0.009])
@pytest.mark.parametrize("rate", [50_000, 1_000_000, 60_000_000])
def test_late_timers_cost_no_throughput(rate, late):
    pacer = Pacer()
    pacer.set_rate(rate)
    assert sum(send_for(pacer, 10, late=late)) == pytest.approx(10 * rate, rel=0.02)


@pytest.mark.parametrize("rate", [0.0, 1.0, SLOWEST])
def test_what_waits_leaves_at_the_slowest_rate_too(rate):
    pacer = Pacer()
    pacer.set_rate(rate)
    assert len(send_for(pacer, 10.5)) >= 10


def test_what_a_very_late_timer_missed_is_not_sent_at_once():
    pacer = Pacer()
    pacer.set_rate(1_000_000)
    assert max(send_for(pacer, 10, late=0.5)) <= FIRST_BURST + LATENESS * 1_000_000


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(1000, SMALLEST_BURST), (20_000_000, 20_000_000 * BURST_SECONDS), (1e12, LARGEST_BURST)],
)
def test_bursts_are_a_millisecond_of_the_rate(rate, burst):
    pacer = Pacer()
    pacer.set_rate(rate)
    assert pacer.burst == burst


def test_a_small_burst_after_silence_leaves_at_once_and_a_large_one_does_not():
    pacer = Pacer()
    pacer.set_rate(100_000)
    pacer.allowance(1.0)
    pacer.spend(50_000)
    assert pacer.allowance(100.0) == FIRST_BURST


def test_it_is_not_pacing_that_holds_back_what_may_leave():
    pacer = Pacer()
    pacer.set_rate(1_000_000)
    pacer.allowance(1.0)
    assert pacer.ready_at(1.0, 1000) == NEVER


def test_a_timer_for_what_is_missing_by_rounding_comes_later_than_now():
    pacer = Pacer()
    pacer.set_rate(1e9)
    now = 1e6
    pacer.spend(pacer.allowance(now))
    assert pacer.ready_at(now, 1) > now
