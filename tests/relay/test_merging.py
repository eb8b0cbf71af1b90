from __future__ import annotations

import pytest

from relay.admin.events import MAX_RECENT
from relay.admin.overview import MAX_ROWS
from relay.supervisor import merging


def test_counters_are_added_up_by_name_and_sorted():
    assert list(merging.counters({0: {"b": 1, "a": 2}, 1: {"c": 3, "a": 5}}).items()) == [
        ("a", 7),
        ("b", 1),
        ("c", 3),
    ]
    assert merging.counters({}) == {}


def test_the_most_frequent_reason_of_all_comes_first():
    assert list(merging.drops({0: {"x": 3, "y": 2}, 1: {"y": 2}}).items()) == [("y", 4), ("x", 3)]


def test_sessions_tell_their_worker_and_are_sorted_by_port():
    assert merging.peers({1: [{"port": 2}, {"port": 4}], 0: [{"port": 3}]}) == [
        {"port": 2, "worker": 1},
        {"port": 3, "worker": 0},
        {"port": 4, "worker": 1},
    ]


def test_flows_are_all_told():
    flow = {"port": 1}
    assert merging.flows({0: {"default": [flow]}, 1: {"default": [flow], "lab": []}}) == {
        "default": [{"port": 1, "worker": 0}, {"port": 1, "worker": 1}],
        "lab": [],
    }


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_lease_is_told_once_by_who_has_the_guest(order):
    lease = {"address": "10.0.2.15", "mac": "52:54:00:00:00:01", "name": "web", "fixed": False}
    known = {0: {"default": [{**lease, "port": 7}]}, 1: {"default": [{**lease, "port": None}]}}
    [told] = merging.shared("leases")({worker: known[worker] for worker in order})["default"]
    assert (told["port"], told["worker"]) == (7, 0)


def test_who_holds_an_address_that_another_holds_elsewhere_is_told_too():
    lease = {"address": "10.0.2.15", "mac": "a", "port": 1}
    found = merging.shared("leases")({0: {"default": [lease]}, 1: {"default": [{**lease, "mac": "b"}]}})
    assert [told["mac"] for told in found["default"]] == ["a", "b"]


def test_names_of_a_room_are_put_together():
    server = {"cached": 2, "in_flight": 1}
    found = merging.names(
        {
            0: {"default": {"names": {"web": ["10.0.2.1"]}, **server}},
            1: {"default": {"names": {"web": ["10.0.2.1", "10.0.2.9"], "db": ["10.0.2.2"]}, **server}},
        }
    )
    assert found == {
        "default": {
            "names": {"web": ["10.0.2.1", "10.0.2.9"], "db": ["10.0.2.2"]},
            "cached": 4,
            "in_flight": 2,
        }
    }


def room(name, **figures):
    return {
        "name": name,
        "sessions": 1,
        "flows": 2,
        "macs": 3,
        "leases": 3,
        "pool": 245,
        "forwards": 1,
    } | figures


def test_a_room_that_several_serve_is_one():
    answers = {0: [room("default"), room("lab")], 1: [room("default", macs=4, forwards=2)]}
    whole = room("default", sessions=2, flows=4, macs=7, leases=6, forwards=2)
    assert merging.rooms(answers) == [whole, room("lab")]
    assert answers[0][0] == room("default"), "answers stay as they are"


def test_the_dashboard_shows_no_more_than_of_one():
    def seen(first):
        return {
            "rooms": [room("default")],
            "traffic": {"bytes_in": 1, "bytes_out": 2},
            "peers": [{"port": first + 2 * n} for n in range(MAX_ROWS)],
            "peers_found": MAX_ROWS + 7,
            "flows": [["default", {"age": first + n}] for n in range(MAX_ROWS)],
            "flows_found": MAX_ROWS,
            "forwards": [["default", {"forward": "tcp::80", "guest": None if first else "web"}]],
            "drops": {"x": 1},
        }

    whole = merging.overview({0: {"seen": seen(0)}, 1: {"seen": seen(1)}})
    assert [len(whole[name]) for name in ("peers", "flows", "forwards", "rooms")] == [
        MAX_ROWS,
        MAX_ROWS,
        1,
        1,
    ]
    assert (whole["peers_found"], whole["flows_found"]) == (2 * MAX_ROWS + 14, 2 * MAX_ROWS)
    assert [flow["age"] for _, flow in whole["flows"][:3]] == [0, 1, 1]
    assert whole["traffic"] == {"bytes_in": 2, "bytes_out": 4}
    assert whole["drops"] == {"x": 2}
    assert whole["forwards"][0][1]["guest"] == "web"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_a_forward_the_worker_is_believed_that_knows_its_guest(order):
    none = {
        "rooms": [],
        "traffic": {},
        "peers": [],
        "peers_found": 0,
        "flows": [],
        "flows_found": 0,
        "drops": {},
    }
    told = [["default", {"forward": "tcp::80", "guest": guest}] for guest in (None, "web")]
    answers = {worker: {"seen": none | {"forwards": [told[n]]}} for worker, n in enumerate(order)}
    assert [list(each) for each in merging.overview(answers)["forwards"]] == [told[1]]


def test_the_latest_events_of_all_are_told_in_their_order():
    answers = {0: [{"time": 2 * n} for n in range(MAX_RECENT)], 1: [{"time": 3}], -1: [{"time": 10_000}]}
    found = merging.recent_events(answers)
    assert len(found) == MAX_RECENT
    assert found == sorted(found, key=lambda event: event["time"])
    assert found[-1] == {"time": 10_000}
