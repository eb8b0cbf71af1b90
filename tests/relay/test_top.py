"""The screen of ``vmrelay top``, with a relay that is made up; somebody presses keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from textual.widgets import DataTable, Static
from waiting import until

from relay.admin.client import AskError
from relay.admin.live import Look, Session
from relay.admin.top import MOST_ROWS, Top

STATUS = {
    "version": "1.2",
    "address": "https://relay/",
    "uptime": 3700.0,
    "draining": False,
    "rooms": [
        {
            "name": name,
            "network": "10.0.2.0/24",
            "sessions": sessions,
            "leases": 1,
            "pool": 245,
            "flows": 0,
            "forwards": 0,
        }
        for name, sessions in (("default", 2), ("lab", 1))
    ],
}


def session(port, name, to_guest, **told):
    return Session(
        {
            "port": port,
            "room": "default",
            "remote": "192.0.2.9:1",
            "carrier": "webtransport",
            "encapsulation": "framed",
            "name": name,
            "mac": f"52:54:00:00:00:{port:02x}",
            "address": f"10.0.2.{port}",
            "mtu": 1392,
            "age": 75.0,
            "silent": 0.5,
            "frames_in": 7,
            "frames_out": 8,
            "queued": 0,
            "round_trip": 0.0234,
            "drops": {},
            "flows": 1,
            **told,
        },
        *(1000.0, to_guest, 0.0),
    )


class Relay:
    """What is looked at, as ``relay.admin.live.Live`` does it."""

    def __init__(self):
        self.sessions = [
            session(1, "web", 3e6),
            session(2, "db", 1e6, drops={"switch.drop.rogue_dhcp": 2}),
            session(3, "cache", 2e6, room="lab"),
        ]
        self.problem = None
        self.looks = 0
        self.asked_for = []

    def look(self):
        self.looks += 1
        if self.problem:
            raise AskError(self.problem)
        return Look(0.0, STATUS, tuple(self.sessions), {"switch.drop.rogue_dhcp": 2}, {})

    def flows(self, session):
        self.asked_for.append(session.port)
        return [
            {
                "protocol": "tcp",
                "guest": "10.0.2.2:4000",
                "remote": "192.0.2.1:80",
                "state": "established",
                "age": 3.0,
                "bytes_out": 500,
                "bytes_in": 7000,
            }
        ]

    def events(self):
        return [{"time": 1.0, "message": "peer 9 refused: [red]no[/red]", "times": 4}]


class Seen:
    """What stands on the screen."""

    def __init__(self, app, pilot):
        self.app, self.pilot = app, pilot

    @property
    def table(self):
        return self.app.query_one(DataTable)

    def column(self, number=0):
        return [str(cell) for cell in self.table.get_column_at(number)]

    @property
    def heads(self):
        return [str(column.label) for column in self.table.ordered_columns]

    def text(self, name):
        return str(self.app.query_one(f"#{name}", Static).content)

    @property
    def at_cursor(self):
        return str(self.table.get_row_at(self.table.cursor_row)[0])

    async def press(self, *keys):
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition):
        await until(condition)


def on_screen(scenario, interval=60.0, relay=None):
    async def main():
        made: Any = relay or Relay()
        app = Top(made, interval)
        async with app.run_test(size=(80, 24)) as pilot:
            seen = Seen(app, pilot)
            await until(lambda: made.looks and "sessions in" in seen.text("relay"))
            await pilot.pause()
            return await scenario(made, seen)

    return asyncio.run(main())


def test_sessions_are_shown_those_that_get_most_first():
    async def scenario(_, seen):
        return seen.column(), seen.heads[:8], seen.text("relay"), seen.text("state")

    names, heads, relay, state = on_screen(scenario)
    assert names == ["web", "cache", "db"]
    assert heads == ["NAME", "ADDRESS", "FROM", "TO▼", "RTT", "LOSS", "FLOWS", "DROPS"]
    assert "3 sessions in 2 rooms, 3 flows" in relay
    assert state == "3 sessions; by TO, largest first"


def test_the_first_columns_and_the_keys_fit_a_terminal_of_80_by_24():
    async def scenario(_, seen):
        return ["".join(part.text for part in line) for line in seen.app.screen._compositor.render_strips()]

    lines = on_screen(scenario)
    assert len(lines) == 24
    assert all(len(line) == 80 for line in lines)
    (heads,) = [line for line in lines if "ADDRESS" in line]
    assert heads.split()[:9] == ["NAME", "ADDRESS", "FROM", "TO▼", "RTT", "LOSS", "FLOWS", "DROPS", "ROOM"]
    assert lines[-1].split() == [
        *("q", "Quit", "/", "Filter", "s", "Sort", "p", "Peers", "r", "Rooms", "d", "Drops"),
        *("e", "Events", "space", "Pause"),
    ]


def test_keys_choose_the_column_and_the_order():
    async def scenario(_, seen):
        told = []
        for key in ("1", "1", "8", "s", "S", "i"):
            await seen.press(key)
            told.append((seen.text("state").split("; ")[1], seen.column()[0]))
        return told

    assert on_screen(scenario) == [
        ("by NAME, smallest first", "cache"),
        ("by NAME, largest first", "web"),
        ("by DROPS, largest first", "db"),
        ("by ROOM, smallest first", "web"),
        ("by DROPS, largest first", "db"),
        ("by DROPS, smallest first", "web"),
    ]


def test_a_click_on_a_head_sorts_too():
    async def scenario(_, seen):
        await seen.pilot.click(DataTable, offset=(2, 0))
        await seen.pilot.pause()
        return seen.heads[0], seen.column()

    assert on_screen(scenario) == ("NAME▲", ["cache", "db", "web"])


def test_a_filter_leaves_the_rows_in_which_it_stands_until_it_is_taken_off():
    async def scenario(_, seen):
        await seen.press("slash", *"rogue")
        typed = seen.column(), seen.text("state")
        await seen.press("enter")
        kept = seen.column(), seen.app.focused is seen.table
        await seen.press("escape")
        return typed, kept, seen.column()

    typed, kept, after = on_screen(scenario)
    assert typed[0] == ["db"]
    assert "with 'rogue'" in typed[1]
    assert kept == (["db"], True)
    assert len(after) == 3


def test_keys_are_text_while_the_filter_is_typed():
    async def scenario(_, seen):
        await seen.press("slash", *"q1", "slash", "s")
        return seen.text("state")

    assert "with 'q1/s'" in on_screen(scenario)


def test_a_session_is_opened_with_its_flows_and_left_again():
    async def scenario(relay, seen):
        await seen.press("down", "down", "enter")
        await seen.until(lambda: seen.table.row_count)
        opened = seen.text("session"), seen.column(2), list(relay.asked_for)
        relay.sessions = relay.sessions[:1]
        seen.app._wake.set()
        await seen.until(lambda: "has ended" in seen.text("session"))
        ended = seen.table.row_count
        await seen.press("escape")
        return opened, ended, seen.heads[0], seen.app.query_one("#session").display

    (about, remotes, asked), ended, head, shown = on_screen(scenario)
    assert "session 2 of room default: db" in about
    assert "dropped: 2 switch.drop.rogue_dhcp" in about
    assert (remotes, asked) == (["192.0.2.1:80"], [2])
    assert (ended, head, shown) == (0, "NAME", False)


def test_rooms_lead_to_their_sessions():
    async def scenario(_, seen):
        await seen.press("r")
        rooms = seen.column()
        await seen.press("down", "enter")
        return rooms, seen.column()

    assert on_screen(scenario) == (["default", "lab"], ["cache"])


def test_drops_and_events_have_views_and_what_others_write_is_no_markup():
    async def scenario(_, seen):
        await seen.press("d")
        drops = seen.column()
        await seen.press("e")
        await seen.until(lambda: seen.table.row_count)
        return drops, seen.column(1), seen.column(2)

    assert on_screen(scenario) == (["switch.drop.rogue_dhcp"], ["peer 9 refused: [red]no[/red]"], ["4"])


def test_the_cursor_stays_on_its_session_when_the_order_changes():
    async def scenario(relay, seen):
        await seen.press("down")
        before = seen.at_cursor
        relay.sessions[2] = session(3, "cache", 9e6)
        seen.app._wake.set()
        await seen.until(lambda: seen.column()[0] == "cache")
        return before, seen.at_cursor, seen.table.cursor_row

    assert on_screen(scenario) == ("cache", "cache", 0)


def test_a_relay_that_does_not_answer_is_said_and_asked_again():
    async def scenario(relay, seen):
        relay.problem = "gone.sock: Connection refused"
        await seen.until(lambda: "trying again" in seen.text("state"))
        said, kept = seen.text("state"), seen.column()
        relay.problem = None
        await seen.until(lambda: "trying again" not in seen.text("state"))
        return said, kept

    said, kept = on_screen(scenario, interval=0.01)
    assert said == "no answer, trying again: gone.sock: Connection refused"
    assert len(kept) == 3


def test_nothing_is_asked_while_it_is_paused():
    async def scenario(relay, seen):
        await seen.press("space")
        paused, before = seen.text("state"), relay.looks
        for _ in range(20):
            await asyncio.sleep(0.01)  # ten times as long as between two looks
        during = relay.looks
        await seen.press("space")
        await seen.until(lambda: relay.looks > during)
        return paused, during - before

    paused, asked = on_screen(scenario, interval=0.02)
    assert "PAUSED" in paused
    assert asked <= 1  # one may have been under way


def test_of_many_sessions_the_first_are_drawn():
    relay = Relay()
    relay.sessions = [session(number, f"vm{number}", float(number)) for number in range(MOST_ROWS + 7)]

    async def scenario(_, seen):
        return seen.table.row_count, seen.text("state")

    rows, state = on_screen(scenario, relay=relay)
    assert rows == MOST_ROWS
    assert state.startswith(f"{MOST_ROWS + 7} sessions, the first {MOST_ROWS} of them shown")


@pytest.mark.parametrize("key", ["q", "ctrl+q"])
def test_it_ends_by_a_key(key):
    async def scenario(_, seen):
        await seen.press(key)
        return seen.app.return_code

    assert on_screen(scenario) == 0
