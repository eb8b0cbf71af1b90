"""Workers that are started, watched and started again; here they are small programs with manners."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import Any, cast

import pytest
from waiting import until

from relay.supervisor import child, crew
from relay.supervisor.crew import Crew, CrewError, Life

PATIENCE = 20

HEAD = """
import json, os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1])).makefile()
start = json.loads(channel.readline())
def say(kind, **fields):
    os.write(int(sys.argv[1]), json.dumps({"kind": kind, **fields}).encode() + b"\\n")
"""
OBEDIENT = """
import threading
def beat():
    while True:
        say("beat", last_port=start["first_port"], sessions=3); time.sleep(0.1)
say("ready", version="1")
assert json.loads(channel.readline()) == {"kind": "state", "of": "now"}
threading.Thread(target=beat, daemon=True).start()
for line in channel:
    told = json.loads(line)
    if told == {"kind": "reload", "settings": "new"}:
        say("reloaded")
    if told["kind"] in ("stop", "retire", "drain and stop"):
        break
"""
SHORT_LIVED = 'say("ready", version="1"); time.sleep(0.1); sys.exit(3)'
REFUSING = 'say("failed", reason="the port is taken"); sys.exit(1)'
SILENT = 'say("ready", version="1"); time.sleep(60)'
DEAF = """
say("ready", version="1")
while True:
    say("beat", last_port=0, sessions=0); time.sleep(0.05)
"""


class Ports:
    def __init__(self):
        self.steered = []

    def steer(self, live):
        self.steered.append(list(live))


class Running:
    def __init__(self, count):
        self.ports = Ports()
        self.first_ports = []
        self.crew = Crew(count, cast("Any", self.ports), self._life, lambda: {"of": "now"})

    def _life(self, number, first_port):
        self.first_ports.append(first_port)
        return Life({"number": number, "first_port": first_port}, ())


def play(monkeypatch, program, scenario, count=2):
    monkeypatch.setattr(child, "COMMAND", ("-c", HEAD + program))

    async def bounded():
        running = Running(count)
        async with asyncio.timeout(PATIENCE):
            try:
                await scenario(running)
            finally:
                await running.crew.stop()
        assert running.crew.children == {}

    asyncio.run(bounded())


async def said(lines, pattern, count=1):
    while len([line for line in lines if re.search(pattern, line)]) < count:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)


def test_all_are_ready_before_the_start_is_over_and_are_steered_to(monkeypatch, lines):
    async def scenario(running):
        await running.crew.start()
        assert running.crew.live == running.crew.accepting == [0, 1]
        assert running.ports.steered[-1] == [0, 1]
        assert sorted(running.first_ports) == [1, 2]
        assert [each.version for each in running.crew.children.values()] == ["1", "1"]
        await asyncio.gather(*(running.crew.reload("new", 5) for _ in range(3)))

    play(monkeypatch, OBEDIENT, scenario)
    assert not any("reloaded" in line for line in lines)


def test_who_does_not_reload_in_time_is_told_of_and_waited_for_no_longer(monkeypatch, lines):
    async def scenario(running):
        await running.crew.start()
        await running.crew.reload("odd", 0.01)

    play(monkeypatch, OBEDIENT, scenario)
    assert "ERROR 2 workers have not said that they have reloaded" in lines


def test_all_that_drain_have_ended_when_that_is_over_and_none_is_started_again(monkeypatch, lines):
    async def scenario(running):
        await running.crew.start()
        await running.crew.drain_and_stop(PATIENCE)
        assert running.crew.children == {}
        assert running.crew.restarts == 0

    play(monkeypatch, OBEDIENT, scenario)
    assert not any("started again" in line for line in lines)


DRAINING = """
drains = False
for line in channel:
    told = json.loads(line)
    drains |= told["kind"] == "drain and stop"
    if told["kind"] == "stop" or (drains and (start["number"] == 0 or told.get("live") == LAST)):
        break
"""
"""Worker 1 has sessions until it hears that LAST live, worker 0 has none."""


def draining(last):
    return f"LAST = {last}\n" + OBEDIENT.partition("for line")[0] + DRAINING


def test_who_still_drains_is_told_who_has_ended_and_gets_the_packets(monkeypatch):
    async def scenario(running):
        await running.crew.start()
        await running.crew.drain_and_stop(PATIENCE)
        assert running.crew.children == {}
        assert [1] in running.ports.steered[-2:]

    play(monkeypatch, draining([1]), scenario)


def test_one_that_becomes_ready_while_others_drain_does_so_too(monkeypatch):
    async def scenario(running):
        await running.crew.start()
        children = running.crew.children
        await until(lambda: children[0].last_port)
        children[0].kill()
        await until(lambda: 0 in children and not children[0].ready.is_set())
        await running.crew.drain_and_stop(PATIENCE)
        assert children == {}

    again = 'time.sleep(0.5 * (start["first_port"] > 2))\n'
    play(monkeypatch, again + draining([0, 1]), scenario)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (REFUSING, "the port is taken"),
        ("sys.exit(3)", "ended with status 3"),
        ("os.abort()", "ended by SIGABRT"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_told_at_the_start(monkeypatch, program, told):
    async def scenario(running):
        with pytest.raises(CrewError, match=told):
            await running.crew.start()

    play(monkeypatch, program, scenario)


def test_one_that_ends_soon_is_started_again_later_each_time(monkeypatch, lines):
    monkeypatch.setattr(crew, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(crew, "LONGEST_PAUSE", 0.1)

    async def scenario(running):
        await running.crew.start()
        await said(lines, "started again", 4)
        assert running.crew.restarts >= 4
        assert [] in running.ports.steered, "nothing goes to one that has ended"

    play(monkeypatch, SHORT_LIVED, scenario, count=1)
    again = [line.partition("; ")[2] for line in lines if "started again" in line]
    assert again[:4] == [
        "it is started again at once",
        "it is started again in 0.05 s",
        "it is started again in 0.1 s",
        "it is started again in 0.1 s",
    ]
    assert all("ended with status 3" in line for line in lines if "started again" in line)


def test_one_that_is_silent_is_steered_away_from_and_killed(monkeypatch, lines):
    monkeypatch.setattr(child, "SILENCE", 0.5)

    async def scenario(running):
        await running.crew.start()
        await said(lines, "worker 0 is silent for 0.5 s: it is killed")
        assert [] in running.ports.steered
        await said(lines, "was silent for 0.5 s; it is started again at once")
        await said(lines, "worker 0 is ready", 2)

    play(monkeypatch, SILENT, scenario, count=1)


def test_a_supervisor_that_was_stopped_itself_kills_nobody(monkeypatch, lines):
    monkeypatch.setattr(child, "SILENCE", 0.5)
    monkeypatch.setattr(child, "OWN_DELAY", 0.2)
    monkeypatch.setattr(crew, "STOP_PATIENCE", 0.3)

    async def scenario(running):
        await running.crew.start()
        for _ in range(3):
            await asyncio.sleep(0.05)
            time.sleep(0.6)  # noqa: ASYNC251 - the loop stands still, as at SIGSTOP
        await asyncio.sleep(0.3)

    play(monkeypatch, DEAF, scenario, count=1)
    assert not any("silent" in line for line in lines)


def test_those_that_do_not_end_are_killed(monkeypatch):
    monkeypatch.setattr(crew, "STOP_PATIENCE", 0.3)

    async def scenario(running):
        await running.crew.start()

    play(monkeypatch, DEAF, scenario)


def test_they_are_replaced_one_by_one(monkeypatch, lines):
    async def scenario(running):
        await running.crew.start()
        before = {number: found.pid for number, found in running.crew.children.items()}
        await until(lambda: all(found.last_port for found in running.crew.children.values()))
        await running.crew.restart_one_by_one(0.1)
        after = {number: found.pid for number, found in running.crew.children.items()}
        assert before.keys() == after.keys()
        assert not set(before.values()) & set(after.values())
        assert all(running.ports.steered[1:]), "there was always one"
        assert running.crew.restarts == 0
        assert running.first_ports[2] > 2, "no session gets a number that another one had"

    play(monkeypatch, OBEDIENT, scenario)
    assert "INFO all workers have been replaced" in lines
    assert not any("started again" in line for line in lines)


def test_where_one_does_not_come_back_the_others_stay(monkeypatch, lines):
    monkeypatch.setattr(crew, "RETURN_PATIENCE", 0.5)

    async def scenario(running):
        await running.crew.start()
        before = running.crew.children[1].pid
        monkeypatch.setattr(child, "COMMAND", ("-c", HEAD + REFUSING))
        await running.crew.restart_one_by_one(0.1)
        assert running.crew.children[1].pid == before
        assert running.crew.accepting == [1]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(said(lines, "the port is taken; it is started again", 1), 2)

    play(monkeypatch, OBEDIENT, scenario)
    assert "ERROR worker 0 does not come back: the others stay as they are" in lines


def test_one_that_is_away_is_not_replaced_and_keeps_no_other_from_it(monkeypatch, lines):
    monkeypatch.setattr(crew, "FIRST_PAUSE", PATIENCE)

    async def scenario(running):
        await running.crew.start()
        before = running.crew.children[1].pid
        monkeypatch.setattr(child, "COMMAND", ("-c", HEAD + REFUSING))
        running.crew.children[0].kill()
        await said(lines, f"worker 0 .* it is started again in {PATIENCE} s")
        monkeypatch.setattr(child, "COMMAND", ("-c", HEAD + OBEDIENT))
        await running.crew.restart_one_by_one(0.1)
        assert running.crew.live == [1]
        assert running.crew.children[1].pid != before

    play(monkeypatch, OBEDIENT, scenario)
    assert "INFO all workers have been replaced" in lines


def test_what_keeps_workers_from_being_kept_is_told(monkeypatch):
    async def scenario(running):
        await running.crew.start()
        monkeypatch.setattr(running.crew, "_life", lambda *_: 1 / 0)
        running.crew.children[0].kill()
        with pytest.raises(ZeroDivisionError):
            await running.crew.until_failed()

    play(monkeypatch, OBEDIENT, scenario)
