"""Draining, at the level of the relay's parts; tests/system does it from outside."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.close_codes import CloseCode
from relay import draining
from relay.draining import AWAY, DRAINED, Draining


class Lans(list):
    def __init__(self, sessions):
        super().__init__([SimpleNamespace(is_empty=not sessions, peers=[])])
        self.sessions = sessions
        """Carriers, as each look finds them."""
        self.told = []
        self.closed = []
        self.all_closed = asyncio.Event()

    def tell_of_drain(self, seconds):
        self.told.append(seconds)

    def close_sessions(self, code, reason):
        self.closed.append((code, reason))
        self.all_closed.set()


@pytest.fixture
def drain(monkeypatch):
    """Make a relay that drains, with these sessions at each look."""
    monkeypatch.setattr(draining, "LOOK_EVERY", 0.001)

    def make(*sessions):
        lans: Any = Lans(list(sessions))

        class Found:
            def __init__(self, _):
                pass

            async def peers(self):
                there = lans.sessions.pop(0) if len(lans.sessions) > 1 else lans.sessions[0]
                return [SimpleNamespace(carrier=carrier) for carrier in there]

        monkeypatch.setattr(draining, "Snapshots", Found)
        admission: Any = SimpleNamespace(draining=False)
        gone = []
        return Draining(lans, admission, lambda: gone.append(True)), lans, gone

    return make


def test_it_ends_with_the_last_session_and_clients_that_are_away_do_not_count(drain):
    relay, lans, gone = drain(["webtransport", AWAY], ["webtransport"], [AWAY])
    asyncio.run(relay.until_empty(600))
    assert relay.is_on
    assert (lans.told, lans.closed, gone) == ([600], [], [True])


@pytest.mark.parametrize(("sessions", "seconds"), [([[AWAY]], 600), ([["websocket"]], 0), ([], 600)])
def test_where_nobody_is_waited_for_nobody_is_told(drain, sessions, seconds):
    relay, lans, gone = drain(*sessions)
    asyncio.run(relay.until_empty(seconds))
    assert (lans.told, gone) == ([], [])


def test_the_last_word_decides_when_sessions_are_closed(drain):
    relay, lans, _ = drain(["webtransport"])

    async def scenario():
        relay.begin(0.001)
        relay.begin(600)
        relay.begin(0.001)
        relay.end()
        relay.begin()
        await asyncio.sleep(0.05)
        assert lans.closed == []
        relay.begin(0.001)
        await asyncio.wait_for(lans.all_closed.wait(), 30)

    asyncio.run(scenario())
    assert lans.closed == [(CloseCode.SHUTDOWN, DRAINED)]
