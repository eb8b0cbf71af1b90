"""Ages of messages by stamps of clocks that differ."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.message_ages import MAX_SENDERS, STEP, STEP_SEEN, WINDOW, MessageAges
from netstack.room_wire import STAMPS

SENDER = (1, 7)


@given(offset=st.integers(0, STAMPS - 1), start=st.integers(0, STAMPS - 1))
def test_whatever_the_clocks_tell_a_late_message_is_late(offset, start):
    ages = MessageAges()

    def age(sent, arrives):
        return ages.age(SENDER, (start + sent + offset) % STAMPS, (start + arrives) % STAMPS)

    assert age(0, 10) == 0
    assert age(100, 105) == 0  # faster than the one before: that one took 5 longer
    assert age(200, 210) == 5
    assert age(300, 3_305) == 3_000


def test_a_late_message_behind_a_long_silence_is_late():
    ages = MessageAges()
    assert ages.age(SENDER, 0, 1) == 0
    assert ages.age(SENDER, 100, 10 * WINDOW) == 10 * WINDOW - 101


def test_clocks_may_drift():
    """One millisecond in a second, an hour long: nothing is ever taken for much older than it is."""
    ages = MessageAges()
    assert max(ages.age(SENDER, sent, sent + sent // 1000) for sent in range(0, 3_600_000, 1000)) <= 61


@pytest.mark.parametrize("pause", [2_000, 10_000])
def test_a_clock_that_stood_still_makes_messages_late_for_a_short_time_only(pause):
    ages = MessageAges()
    rng = random.Random(1)
    late = []
    for sent in range(0, 120_000, 100):
        behind = pause if sent >= 20_000 else 0
        if ages.age(SENDER, sent, sent + behind + rng.randrange(30)) > STEP:
            late.append(sent)
    assert late == list(range(20_000, late[-1] + 100, 100))
    assert late[-1] <= 20_000 + STEP_SEEN + 100


@pytest.mark.parametrize(("sent_every", "come_every"), [(30, 130), (130, 30)], ids=["grows", "drains"])
def test_what_waits_in_a_queue_is_late(sent_every, come_every):
    ages = MessageAges()
    assert ages.age(SENDER, 0, 0) == 0
    for number in range(40):
        sent, comes = 100 + number * sent_every, 5_000 + number * come_every
        assert ages.age(SENDER, sent, comes) == comes - sent


def test_late_by_the_same_now_and_then_is_late():
    ages = MessageAges()
    for sent in range(0, 20_000, 100):
        wait = 0 if sent % 1_500 == 0 else 1_000
        assert ages.age(SENDER, sent, sent + wait) == wait


def test_another_process_at_the_same_place_has_another_clock():
    ages = MessageAges()
    assert ages.age((1, 7), 1_000_000, 1_000_000) == 0
    assert ages.age((1, 8), 5, 1_000_100) == 0


def test_no_more_senders_are_known_than_there_may_be():
    ages = MessageAges()
    ages.age((0, 0), 0, 100)
    for number in range(1, MAX_SENDERS + 1):
        ages.age((number, 0), 0, 100)
    assert ages.age((0, 0), 0, 900) == 0  # forgotten, and known anew
    assert ages.age((MAX_SENDERS, 0), 0, 900) == 800
