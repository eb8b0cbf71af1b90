from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from relay.supervisor.exposition import Totals, of_relay


def text(frames, rtt=0.1, lag=1, sessions=2):
    return f"""\
# HELP vmrelay_frames_total Frames.
# TYPE vmrelay_frames_total counter
vmrelay_frames_total{{room="default"}} {frames}
# HELP vmrelay_client_round_trip_max_seconds The longest.
# TYPE vmrelay_client_round_trip_max_seconds gauge
vmrelay_client_round_trip_max_seconds {rtt}
# HELP vmrelay_sessions Sessions.
# TYPE vmrelay_sessions gauge
vmrelay_sessions{{room="default"}} {sessions}
# HELP vmrelay_rooms Rooms.
# TYPE vmrelay_rooms gauge
vmrelay_rooms 5
# HELP lag Late.
# TYPE lag histogram
lag_bucket{{le="+Inf"}} {lag}
lag_count {lag}
lag_sum 0.5
"""


def read(totals, told):
    own = of_relay(rooms=3, running=len(told), wanted=2, restarts=1)
    families = text_string_to_metric_families(totals.expose(told, own).decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_what_each_counts_is_added_up_and_the_longest_is_the_longest():
    found = read(Totals(), {0: (10, text(3, rtt=0.2)), 1: (11, text(4, lag=2))})
    assert found["vmrelay_frames_total"] == 7
    assert found["vmrelay_sessions"] == 4
    assert found["vmrelay_client_round_trip_max_seconds"] == 0.2
    assert (found["lag_bucket"], found["lag_count"], found["lag_sum"]) == (3, 3, 1)
    assert (found["vmrelay_rooms"], found["vmrelay_workers"]) == (3, 2)
    assert found["vmrelay_worker_restarts_total"] == 1


def test_counters_do_not_go_back_when_a_worker_is_replaced():
    totals = Totals()
    assert read(totals, {0: (10, text(100)), 1: (11, text(1))})["vmrelay_frames_total"] == 101
    away = read(totals, {1: (11, text(2))})
    assert (away["vmrelay_frames_total"], away["vmrelay_sessions"]) == (102, 2), "gauges are of now"
    assert read(totals, {0: (20, text(5)), 1: (11, text(3))})["vmrelay_frames_total"] == 108
    assert read(totals, {0: (20, text(6)), 1: (11, text(3))})["vmrelay_frames_total"] == 109
    assert read(totals, {0: (20, text(6)), 1: (30, text(0))})["vmrelay_frames_total"] == 109


def test_what_nobody_tells_any_more_is_still_told():
    totals = Totals()
    read(totals, {0: (10, text(100))})
    assert read(totals, {})["vmrelay_frames_total"] == 100


def frames_by_room(totals, *workers):
    """Have workers tell the frames of rooms; give what is told of all."""
    head = "# HELP vmrelay_frames_total Frames.\n# TYPE vmrelay_frames_total counter\n"
    told = {
        number: (
            number,
            head + "".join(f'vmrelay_frames_total{{room="{room}"}} {n}\n' for room, n in each.items()),
        )
        for number, each in enumerate(workers)
    }
    families = text_string_to_metric_families(totals.expose(told, ()).decode())
    return {sample.labels["room"]: sample.value for family in families for sample in family.samples}


def test_what_a_worker_counted_of_a_room_stays_while_others_have_it():
    totals = Totals()
    assert frames_by_room(totals, {"lab": 100}, {"lab": 5}) == {"lab": 105}
    assert frames_by_room(totals, {}, {"lab": 6}) == {"lab": 106}
    assert frames_by_room(totals, {"lab": 2}, {"lab": 6}) == {"lab": 108}
    assert frames_by_room(totals, {"lab": 1}, {"lab": 6}) == {"lab": 109}, "it ended there, and began again"
    assert frames_by_room(totals, {}, {}) == {}, "nobody has it any more"
    assert frames_by_room(totals, {}, {"lab": 3}) == {"lab": 3}


def test_what_the_other_rooms_and_none_have_counted_is_kept_for_good():
    totals = Totals()
    frames_by_room(totals, {"": 3, "other": 4, "lab": 5})
    totals.expose({0: (100, "")}, ())  # another process, which has counted nothing yet
    assert frames_by_room(totals, {}) == {"": 3, "other": 4}


def test_of_rooms_that_came_and_went_nothing_is_kept():
    totals = Totals()
    for number in range(100):
        frames_by_room(totals, {f"room{number}": 1}, {})
    assert (len(totals._metrics), len(totals._ended)) == (1, 0)
