"""Tasks that all could go on do so a few in a turn of the loop, in order."""

from __future__ import annotations

import asyncio

from transport.turns import TaskTurns


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
