from __future__ import annotations

import contextlib

import pytest

from relay.admin.stream_places import NoPlaceError, Places


def count(places, room, stack):
    """Take all that there are for somebody; return how many."""
    taken = 0
    with contextlib.suppress(NoPlaceError):
        while True:
            stack.enter_context(places.taken(room))
            taken += 1
    return taken


def test_the_operator_may_have_all_and_gives_them_back():
    places = Places(8, "none is left")
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            assert count(places, None, stack) == 8
            assert count(places, "lab", stack) == 0


def test_one_room_leaves_places_for_others_and_all_rooms_for_the_operator():
    places = Places(16, "none is left")
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            assert count(places, "lab", stack) == 4
            assert count(places, "class", stack) == 2
            assert 1 <= count(places, "hall", stack) <= 2
            assert count(places, None, stack) >= 8


def test_a_place_is_given_back_whatever_becomes_of_its_user():
    places = Places(2, "none is left")
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), places.taken("lab"):
            raise ZeroDivisionError
    with places.taken("lab"):
        pass
