"""Who has more to do than fits a turn of the loop goes on in the next, after the sockets and in order."""

from __future__ import annotations

import asyncio
import socket
from itertools import count

import pytest
from endpoint_parts import PATIENCE

from actors.runtime import EventLoopActor
from actors.scheduler import MESSAGES_PER_RUN
from transport import work_shares
from transport.slices import TURN, Slices
from transport.turns import TaskTurns, sockets_first
from transport.work_shares import BEHIND_SHARE, LastTurns


async def go_on(turns, done, number):
    await turns.next()
    done.append(number)


def test_of_many_tasks_a_few_go_on_in_a_turn_and_in_the_order_in_which_they_came():
    async def scenario():
        turns, done = TaskTurns(4), []
        tasks = [asyncio.create_task(go_on(turns, done, number)) for number in range(20)]
        seen = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            assert len(done) - seen <= 4
            seen = len(done)
        assert done == list(range(20))

    asyncio.run(scenario())


def test_who_is_alone_does_not_wait():
    async def scenario():
        turns = TaskTurns(4)
        for _ in range(10):
            next_turn = turns.next().__await__()
            assert next(next_turn, "went on") == "went on"
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_task_that_was_cancelled_takes_no_place():
    async def scenario():
        turns, done = TaskTurns(1), []
        tasks = [asyncio.create_task(go_on(turns, done, number)) for number in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:4]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert done == [0, 4]

    asyncio.run(scenario())


PIECES = 5


class Patient:
    """Has five pieces of work, each of which takes a turn; for slices, and for those who are served last."""

    def __init__(self, piece):
        self.piece = piece
        self.left = PIECES
        self.last = LastTurns()

    def work(self):
        self.piece()
        self.left -= 1
        return self.left > 0

    def serve_last(self):
        if self.work():
            self.last.add(self, "192.0.2.1", 0.0)

    def keep_waiting(self, packets):
        pass


def slices(piece, monkeypatch):
    Slices(count(step=TURN).__next__).serve(Patient(piece))


def last_turns(piece, monkeypatch):
    monkeypatch.setattr(work_shares, "perf_counter", count(step=BEHIND_SHARE * 0.6).__next__)
    patient = Patient(piece)
    patient.last.add(patient, "192.0.2.1", 0.0)


def a_task(piece, monkeypatch):
    async def go_on():
        for _ in range(PIECES):
            await sockets_first()
            piece()

    return asyncio.create_task(go_on())


def actors(piece, monkeypatch):
    class Talker(EventLoopActor):
        """Tells itself something all the time; a piece is a run of the scheduler."""

        def on_receive(self, number):
            if number % MESSAGES_PER_RUN == 0:
                piece()
            if number < (PIECES - 1) * MESSAGES_PER_RUN:
                self.actor_ref.tell(number + 1)
            else:
                self.stop()

    Talker.start().tell(0)


@pytest.mark.parametrize("begin", [slices, last_turns, a_task, actors])
def test_what_comes_to_a_socket_meanwhile_is_served_before_the_rest(begin, monkeypatch):
    async def scenario():
        loop = asyncio.get_running_loop()
        done, all_done = [], asyncio.Event()
        ours, theirs = socket.socketpair()

        def piece():
            done.append("piece")
            theirs.send(b"x")

        def read():
            done.append("socket")
            ours.recv(1)
            if len(done) == 2 * PIECES:
                all_done.set()

        with ours, theirs:
            loop.add_reader(ours, read)
            task = begin(piece, monkeypatch)
            await asyncio.wait_for(all_done.wait(), PATIENCE)
            loop.remove_reader(ours)
        assert done == ["piece", "socket"] * PIECES
        assert task is None or task.done()

    asyncio.run(scenario())
