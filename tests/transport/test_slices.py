from __future__ import annotations

import asyncio

import pytest
from fake_loop import FakeLoop

from transport.slices import TURN, Slices


class Worker:
    """Has pieces of work; each takes ``cost`` seconds of the test's clock."""

    def __init__(self, table, name, pieces, cost=TURN / 2):
        self.table = table
        self.name = name
        self.pieces = pieces
        self.cost = cost

    def work(self):
        self.table.now += self.cost
        self.table.done.append(self.name)
        self.pieces -= 1
        return self.pieces > 0


class Table:
    def __init__(self, loop):
        self.loop = loop
        self.now = 0.0
        self.done = []
        self.slices = Slices(lambda: self.now)

    def turn(self):
        """One turn of the loop; gives what was done in it."""
        before = len(self.done)
        self.loop.turn()
        return "".join(self.done[before:])


@pytest.fixture
def table(monkeypatch):
    loop = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return Table(loop)


def test_who_is_alone_is_served_at_once(table):
    assert not table.slices.serve(Worker(table, "a", 1))
    assert table.done == ["a"]
    assert table.turn() == ""


def test_much_work_takes_turns_of_a_bounded_length(table):
    assert table.slices.serve(Worker(table, "a", 6))
    assert table.done == ["a"]
    assert [table.turn() for _ in range(4)] == ["aa", "aa", "a", ""]


def test_those_with_much_work_alternate(table):
    table.slices.serve(Worker(table, "a", 4))
    table.slices.serve(Worker(table, "b", 4))
    assert table.done == ["a"], "b waits for the turn"
    assert [table.turn() for _ in range(4)] == ["ba", "ba", "ba", "b"]


def test_who_has_just_sent_something_goes_before_those_with_more_and_keeps_nobody_out(table):
    table.slices.serve(Worker(table, "a", 9))
    table.turn()
    for name in "xyz":
        assert table.slices.serve(Worker(table, name, 1))
    assert [table.turn() for _ in range(3)] == ["xya", "za", "aa"]


def test_whom_a_worker_has_work_is_served_at_once_in_its_slice(table):
    inner = Worker(table, "i", 2)

    class Outer(Worker):
        def work(self):
            more = super().work()
            table.slices.serve(inner)
            return more

    table.slices.serve(Worker(table, "a", 2))
    assert table.slices.serve(Outer(table, "o", 1))
    assert table.done == ["a"]
    assert [table.turn() for _ in range(2)] == ["oia", "i"]


def test_who_has_ended_is_left_out(table):
    workers = [Worker(table, name, 9) for name in "ab"]
    for worker in workers:
        table.slices.serve(worker)
    for worker in workers:
        table.slices.forget(worker)
    assert table.turn() == ""
    assert not table.slices.serve(Worker(table, "c", 1))


def test_a_worker_that_is_served_again_while_it_waits_waits_once(table):
    worker = Worker(table, "a", 3)
    assert table.slices.serve(worker)
    assert table.slices.serve(worker)
    assert [table.turn() for _ in range(2)] == ["aa", ""]
