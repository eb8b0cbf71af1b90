from __future__ import annotations

import pytest

from netstack.room_names import DEFAULT_ROOM, ROOM_NAME, SESSION_PATH


@pytest.mark.parametrize("name", [DEFAULT_ROOM, "a", "0", "-", "x" * 63, "lab-2"])
def test_names(name):
    assert ROOM_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "x" * 64, "Lab", "a_b", "a b", "a\n", "é", "٣"])
def test_no_names(name):
    assert not ROOM_NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("path", "room", "encapsulation"),
    [
        ("/", None, "/"),
        ("/raw", None, "/raw"),
        ("/room/lab", "lab", ""),
        ("/room/lab/raw", "lab", "/raw"),
        ("/room/raw", "raw", ""),
        ("/room/a\n/raw", "a\n", "/raw"),
    ],
)
def test_paths_name_room_and_encapsulation(path, room, encapsulation):
    found = SESSION_PATH.fullmatch(path)
    assert (found[1], found[2]) == (room, encapsulation)


@pytest.mark.parametrize("path", ["/raw/", "/rooms/lab", "/room/a/b", "room/a", "/raw\n"])
def test_other_paths_are_no_sessions(path):
    assert not SESSION_PATH.fullmatch(path)
