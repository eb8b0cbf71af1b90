from __future__ import annotations

import pytest

from relay.admin.live import Look, Session
from relay.admin.top_views import (
    DROPS,
    EVENTS,
    FLOWS,
    ROOMS,
    SESSIONS,
    VIEWS,
    Known,
    about_relay,
    about_session,
)

TOLD = {
    "room": "default",
    "remote": "192.0.2.9:4000",
    "carrier": "webtransport",
    "encapsulation": "framed",
    "name": None,
    "mac": "52:54:00:00:00:0a",
    "address": "10.0.2.34",
    "mtu": 1392,
    "age": 75.0,
    "silent": 0.5,
    "frames_in": 7,
    "frames_out": 8,
    "queued": 0,
    "round_trip": None,
    "drops": {},
    "flows": 0,
}
STATUS = {"version": "1.2", "address": "https://relay/", "uptime": 3700.0, "draining": False}


def session(port, *rates, **told):
    return Session({**TOLD, "port": port, **told}, *rates)


def known(*sessions, **rest):
    return Known(Look(0.0, STATUS, sessions, **rest))


def chosen(view, what, head, sought="", *, reverse=False):
    number = [column.head for column in view.columns].index(head)
    return view.chosen(what, sought, number, reverse=reverse)


def test_rows_are_in_the_order_of_a_column_with_what_is_not_known_last():
    what = known(session(1, 5.0), session(2), session(3, 50.0), session(4, 20.0))
    assert [row.port for row in chosen(SESSIONS, what, "FROM")] == [1, 4, 3, 2]
    assert [row.port for row in chosen(SESSIONS, what, "FROM", reverse=True)] == [3, 4, 1, 2]
    assert [row.port for row in chosen(SESSIONS, what, "PORT", reverse=True)] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("sought", "ports"),
    [
        ("", [1, 2, 3]),
        ("PRINTER", [1]),
        ("10.0.2.7", [2]),
        ("lab", [3]),
        ("rogue_dhcp", [2]),
        ("192.0.2.9", [1, 2, 3]),
        ("nothing of the kind", []),
    ],
)
def test_a_text_picks_the_rows_in_which_it_stands(sought, ports):
    what = known(
        session(1, name="printer"),
        session(2, address="10.0.2.7", drops={"switch.drop.rogue_dhcp": 1}),
        session(3, room="lab"),
    )
    assert [row.port for row in chosen(SESSIONS, what, "PORT", sought)] == ports


def test_what_a_session_moves_and_loses_is_short_enough_for_a_column():
    row = session(1, 1_234_567.0, 38_000_000.0, 0.0123, round_trip=0.0234, name="web", drops={"a.drop.b": 2})
    shown = {column.head: column.shown(row) for column in SESSIONS.columns}
    assert [shown[head] for head in ("NAME", "FROM", "TO", "RTT", "LOSS", "DROPS")] == [
        *("web", "1.2M", "38.0M", "23.4ms", "1.2%", "2"),
    ]


def test_a_session_without_a_name_goes_by_its_mac_and_what_is_not_known_is_a_dash():
    shown = {column.head: column.shown(session(1)) for column in SESSIONS.columns}
    assert [shown[head] for head in ("NAME", "FROM", "LOSS")] == ["52:54:00:00:00:0a", "-", "-"]


def test_control_characters_of_names_are_not_shown():
    shown = SESSIONS.columns[0].shown(session(1, name="\x1b[2Jweb\u202e\n"))
    assert shown == "?[2Jweb??"


def test_drops_have_their_rates_and_events_how_often_they_were():
    what = known(drops={"a": 5, "b": 9}, drop_rates={"a": 2.0})
    what.events = [
        {"time": 1.0, "message": "peer 1 left"},
        {"time": 2.0, "message": "peer 2 refused", "times": 3},
    ]
    assert chosen(DROPS, what, "PER SECOND", reverse=True) == [("a", 5, 2.0), ("b", 9, 0.0)]
    (last, first) = chosen(EVENTS, what, "TIME", reverse=True)
    assert [column.shown(last) for column in EVENTS.columns[1:]] == ["peer 2 refused", "3"]
    assert EVENTS.columns[2].shown(first) == "1"


def test_views_have_columns_to_begin_with_and_keys_that_tell_rows_apart():
    assert all(view.sort < len(view.columns) for view in VIEWS.values())
    flow = {"protocol": "udp", "guest": "10.0.2.34:1", "remote": "192.0.2.1", "age": 1.0}
    assert FLOWS.key(flow) != FLOWS.key({**flow, "guest": "10.0.2.34:2"})
    assert ROOMS.key({"name": "lab"}) == "lab"


def test_the_relay_is_told_in_two_lines_with_the_sum_of_its_sessions():
    what = known(session(1, 1000.0, 2000.0, flows=3), session(2), drop_rates={"a": 1.0, "b": 2.0})
    assert about_relay(what.look) == [
        "vmrelay 1.2 at https://relay/, up 1h01m",
        "2 sessions in 0 rooms, 3 flows; from guests 1.0 kbit/s, to them 2.0 kbit/s; 3 drops/s",
    ]
    draining = Look(0.0, {**STATUS, "draining": True})
    assert about_relay(draining)[0].endswith("DRAINING")
    assert about_relay(Look(0.0)) == ["asking the relay"]


def test_a_session_is_told_with_its_drops_the_most_frequent_first():
    what = known(session(1, 8000.0, drops={"a.drop.x": 1, "b.drop.y": 4}))
    text = "\n".join(about_session(what.look, 1))
    assert "session 1 of room default: no name, 52:54:00:00:00:0a, 10.0.2.34" in text
    assert "from it 8.0 kbit/s, 7 frames; to it -, 8 frames" in text
    assert "dropped: 4 b.drop.y, 1 a.drop.x" in text
    assert about_session(what.look, 9) == ["session 9 has ended"]
