from __future__ import annotations

import pytest

from relay.admin.tables import amount, duration, milliseconds, percent, table


def test_numbers_stand_to_the_right_and_words_to_the_left():
    text = table(("NAME", "N"), [("web", 5), ("database", 1234), (None, None)])
    assert text.splitlines() == ["NAME         N", "web          5", "database  1234", "-            -"]


def test_a_table_without_rows_is_its_heads():
    assert table(("NAME", "N"), []) == "NAME  N"


def test_what_others_say_stays_in_its_cell_and_steers_no_terminal():
    text = table(("NAME", "REASON"), [("web", "\x1b[2Jevil\nweb2  fine"), ("\u202edb", "\x9b2J")])
    assert text.splitlines() == [
        "NAME      REASON",
        r"web       \x1b[2Jevil\nweb2  fine",
        r"\u202edb  \x9b2J",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (999_000_000, "999 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_amounts_are_short(number, text):
    assert amount(number, "B") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59, "59s"), (61, "1m01s"), (3600 * 3 + 300, "3h05m"), (86_400 * 2, "2d00h"), (None, None)],
)
def test_durations_have_two_parts(seconds, text):
    assert duration(seconds) == text


def test_what_is_not_known_stays_so():
    assert (milliseconds(None), percent(None, 5), percent(1, 0)) == (None, None, None)
    assert (milliseconds(0.0123), percent(1, 200)) == ("12.3 ms", "0.5 %")
