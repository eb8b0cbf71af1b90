"""Connections in TIME-WAIT: what is said for them, what takes their place, and how many there are."""

from __future__ import annotations

import pytest

from netstack.tcp_segment import ACK, FIN, RST, SYN, Segment
from netstack.tcp_time_wait import MAX_TIME_WAITS, TIME_WAIT, Reaction, TimeWait, TimeWaits

KEY = b"a connection"
EXPECTED = 5000


def segment(flags, sequence, payload=b""):
    return Segment(sequence % 2**32, 0, flags, 1000, b"", payload)


def resting(expected=EXPECTED):
    table = TimeWaits()
    entry = TimeWait(expected, 7000, b"answer")
    assert not table.add(KEY, entry, 0.0)
    return table, entry


@pytest.mark.parametrize(
    ("flags", "ahead", "payload", "reaction"),
    [
        (FIN | ACK, -1, b"", Reaction.ANSWER),  # our last ACK was lost
        (FIN | ACK, -101, b"x" * 100, Reaction.ANSWER),
        (ACK, -100, b"x" * 100, Reaction.ANSWER),
        (ACK, 0, b"", Reaction.IGNORE),  # the answer to our FIN
        (ACK, -1, b"", Reaction.ANSWER),  # a keep-alive
        (ACK, 1, b"", Reaction.ANSWER),
        (SYN, -1, b"", Reaction.ANSWER),  # an old one
        (SYN, -(2**31), b"", Reaction.ANSWER),
        (SYN, 0, b"", Reaction.OPEN),
        (SYN, 1, b"", Reaction.OPEN),
        (SYN, 2**31 - 1, b"", Reaction.OPEN),
        (SYN | ACK, 1, b"", Reaction.ANSWER),
        (SYN | RST, 1, b"", Reaction.IGNORE),
        (RST, 0, b"", Reaction.IGNORE),
        (RST, -1, b"", Reaction.IGNORE),
        (RST | ACK, 1, b"", Reaction.IGNORE),
    ],
)
@pytest.mark.parametrize("expected", [EXPECTED, 0, 2**32 - 1], ids=["amid", "at zero", "at the end"])
def test_what_becomes_of_a_segment(flags, ahead, payload, reaction, expected):
    table, entry = resting(expected)
    assert table.react(KEY, entry, segment(flags, expected + ahead, payload), 1.0) is reaction
    assert (KEY in table) is (reaction is not Reaction.OPEN and (flags, ahead) != (RST, 0))


def test_an_entry_ends_by_itself():
    table, entry = resting()
    assert table.find(KEY, TIME_WAIT - 0.01) == entry
    assert table.find(KEY, TIME_WAIT) is None
    assert len(table) == 0


def test_a_repeated_fin_begins_the_wait_again():
    table, entry = resting()
    table.add(b"another", entry, 1.0)
    table.react(KEY, entry, segment(FIN | ACK, EXPECTED - 1), 6.0)
    table.react(KEY, entry, segment(ACK, EXPECTED - 1), 7.0)
    assert table.find(KEY, TIME_WAIT + 5.9) == entry
    assert table.find(b"another", TIME_WAIT + 5.9) is None
    assert table.find(KEY, TIME_WAIT + 6.0) is None


def test_a_full_table_forgets_the_entry_that_ends_soonest():
    table, entry = TimeWaits(), TimeWait(0, 0, b"")
    for number in range(MAX_TIME_WAITS):
        assert not table.add(number.to_bytes(2, "big"), entry, number / 1000)
    assert not table.add(b"\0\0", entry, 2.0)  # its second connection takes the place of the first
    assert table.add(b"one more", entry, 2.0)
    assert len(table) == MAX_TIME_WAITS
    assert b"\0\1" not in table
    assert b"\0\0" in table
    assert not table.add(b"and one", entry, 2.0 + TIME_WAIT)
    assert len(table) == 1
