from __future__ import annotations

from netstack.counters import Counters
from relay.room_labels import MAX_ROOMS, OTHER, RoomLabels


def test_so_many_rooms_have_labels_of_their_own_and_keep_them():
    labels = RoomLabels()
    for number in range(MAX_ROOMS + 1):
        labels.begin(f"room{number}")
    assert [labels.of(f"room{number}") for number in (0, MAX_ROOMS - 1, MAX_ROOMS)] == [
        *("room0", f"room{MAX_ROOMS - 1}", OTHER)
    ]
    labels.end("room0", Counters(dropped=1))
    assert not labels.of_others
    assert labels.of(f"room{MAX_ROOMS}") == OTHER
    labels.begin("new")
    labels.begin("newer")
    assert (labels.of("new"), labels.of("newer")) == ("new", OTHER)


def test_what_those_without_have_counted_is_kept():
    labels = RoomLabels()
    labels.begin(OTHER)  # as somebody may call a room
    labels.begin("lab")
    labels.end(OTHER, Counters(dropped=2))
    labels.end("lab", Counters(dropped=3))
    assert labels.of_others == {"dropped": 2}
