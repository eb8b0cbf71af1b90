from __future__ import annotations

import asyncio
import contextlib

import pytest
from loguru import logger

from relay.admin.events import (
    MAX_LISTENERS,
    MAX_RECENT,
    MAX_REFUSALS,
    MAX_WAITING,
    Events,
)
from relay.admin.stream_places import NoPlaceError


def on_a_loop(scenario):
    return asyncio.run(scenario())


def happen(event, message="it happened", **fields):
    logger.bind(event=event, **fields).debug(message)


def test_listeners_get_events_with_their_fields_and_nothing_else():
    async def scenario():
        events = Events()
        with events.subscribed() as one, events.subscribed() as two:
            logger.info("no event")
            happen("joined", "peer 1 with ?token=abcdef", room="lab", reason="kind")
            return await one.get(), await two.get(), one.qsize()

    first, second, left = on_a_loop(scenario)
    assert first == second
    assert (first["event"], first["room"], left) == ("joined", "lab", 0)
    assert "reason" not in first
    assert first["message"] == "peer 1 with ?token=***"


def test_who_is_too_slow_is_told_how_much_was_missed():
    async def scenario():
        events = Events()
        with events.subscribed() as queue:
            for number in range(MAX_WAITING + 5):
                happen("left", number=number)
            await asyncio.sleep(0)
            kept = [queue.get_nowait()["number"] for _ in range(MAX_WAITING)]
            happen("left", number=-1)
            return kept, await queue.get()

    kept, late = on_a_loop(scenario)
    assert kept == list(range(MAX_WAITING))
    assert (late["number"], late["missed"]) == (-1, 5)


def test_the_number_of_listeners_is_bounded_and_places_are_given_back():
    async def scenario():
        events = Events()
        with contextlib.ExitStack() as stack:
            for _ in range(MAX_LISTENERS):
                stack.enter_context(events.subscribed())
            with pytest.raises(NoPlaceError), events.subscribed():
                pass
        with events.subscribed() as queue:
            happen("joined")
            assert (await queue.get())["event"] == "joined"

    on_a_loop(scenario)


def test_nobody_listening_costs_nothing():
    async def scenario():
        events = Events()
        with events.subscribed():
            pass
        happen("joined")
        return events._sink

    assert on_a_loop(scenario) is None


def test_the_latest_events_are_kept_for_who_comes_later():
    async def scenario():
        events = Events()
        happen("joined", number=-1)
        events.begin()
        for number in range(MAX_RECENT + 5):
            logger.bind(event="left", number=number, room="lab").info("it happened")
        for _ in range(3):
            logger.bind(event="refused", room="default", mac="m", why="w", reason="kind").warning("no")
        logger.info("no event")
        events.end()
        logger.bind(event="left").info("too late")
        return events.recent(), events.recent("default")

    kept, of_one_room = on_a_loop(scenario)
    assert [event["event"] for event in kept] == ["left"] * (MAX_RECENT - 1) + ["refused"]
    assert kept[0]["number"] == 6
    assert of_one_room == kept[-1:]
    assert "reason" not in of_one_room[0]
    assert of_one_room[0]["times"] == 3


def refuse(remote, why="token", room="lab"):
    about = {"room": room, "mac": None, "remote": remote, "carrier": "websocket", "why": why}
    logger.bind(event="refused", **about).warning("no")


def kept_of(scenario):
    async def main():
        events = Events()
        events.begin()
        scenario()
        events.end()
        return events.recent()

    return on_a_loop(main)


def test_a_client_that_tries_again_is_one_refusal_and_others_are_others():
    def scenario():
        refuse("192.0.2.1:1000")
        refuse("192.0.2.2:1000")
        refuse("[2001:db8::1]:1000")
        refuse("192.0.2.1:2000", room=None)
        refuse("192.0.2.1:2000")  # the first, from another port
        refuse("[2001:db8::2]:1000")  # the same client's network

    kept = [(event["remote"], event["room"], event.get("times")) for event in kept_of(scenario)]
    assert kept == [
        ("192.0.2.2:1000", "lab", None),
        ("192.0.2.1:2000", None, None),
        ("192.0.2.1:2000", "lab", 2),
        ("[2001:db8::2]:1000", "lab", 2),
    ]


def test_refusals_of_many_leave_room_for_what_else_happened():
    def scenario():
        for number in range(MAX_RECENT):
            logger.bind(event="joined", number=number).info("it happened")
            for host in range(2):
                refuse(f"10.{host}.{number // 256}.{number % 256}:1")

    kept = [event["event"] for event in kept_of(scenario)]
    assert (kept.count("refused"), len(kept)) == (MAX_REFUSALS, MAX_RECENT)
