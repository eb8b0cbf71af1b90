from __future__ import annotations

import asyncio

import pytest

from relay.admin.streams import until


async def numbers(last, seen):
    try:
        for number in range(last):
            yield number
        await asyncio.Event().wait()
    finally:
        seen.append("let go")


async def few():
    yield 1
    yield 2


def test_pieces_pass_until_there_are_no_more():
    async def scenario():
        return [piece async for piece in until(asyncio.Event(), few())]

    assert asyncio.run(scenario()) == [1, 2]


def test_a_stream_that_waits_ends_with_the_relay_and_lets_go():
    async def scenario():
        ending, seen = asyncio.Event(), []
        async for piece in until(ending, numbers(3, seen)):
            seen.append(piece)
            if piece == 2:
                asyncio.get_running_loop().call_soon(ending.set)
        await asyncio.sleep(0)
        return seen

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == [0, 1, 2, "let go"]


def test_an_error_is_the_readers():
    async def broken():
        yield 1
        raise ValueError("broken")

    async def scenario():
        stream = until(asyncio.Event(), broken())
        first = await anext(stream)
        with pytest.raises(ValueError, match="broken"):
            await anext(stream)
        return first

    assert asyncio.run(scenario()) == 1
