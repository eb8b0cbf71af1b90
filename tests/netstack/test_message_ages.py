"""Ages of messages by stamps of clocks that differ."""

from hypothesis import given
from hypothesis import strategies as st

from netstack.message_ages import MAX_SENDERS, WINDOW, MessageAges
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
