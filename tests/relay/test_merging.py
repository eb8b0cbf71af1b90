from __future__ import annotations

from relay.supervisor.merging import summed


def test_counters_are_added_up_by_name_and_sorted():
    assert list(summed([{"b": 1, "a": 2}, {"c": 3, "a": 5}]).items()) == [("a", 7), ("b", 1), ("c", 3)]
    assert summed([]) == {}
