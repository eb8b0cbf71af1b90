from __future__ import annotations

import argparse

import pytest

from relay.admin.arguments import MAX_FILE_SIZE, duration_of, number_of, room_argument, size_of


def test_times_are_read_in_seconds():
    assert (duration_of("90"), duration_of("5m"), duration_of("1.5h")) == (90, 300, 5400)


def test_sizes_are_read_in_bytes():
    assert (size_of("1"), size_of("10M"), size_of("1024G")) == (1, 10 * 2**20, MAX_FILE_SIZE)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *[(duration_of, "soon"), (duration_of, "-1"), (size_of, "0"), (size_of, "1025G"), (size_of, "1T")],
        *[(number_of(1, 9), text) for text in ("0", "10", "-1", "x", "", "1.5")],
    ],
)
def test_what_is_neither_is_an_error_of_the_argument(read, text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a "):
        read(text)


def test_a_room_is_named_or_it_is_about_all():
    parser = argparse.ArgumentParser()
    room_argument(parser)
    assert parser.parse_args(["--room", "lab"]).room == "lab"
    assert parser.parse_args([]).room is None
