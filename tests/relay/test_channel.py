from __future__ import annotations

import asyncio
import socket

import pytest

from relay.workers import channel
from relay.workers.channel import Channel, ChannelError

PATIENCE = 10


def run(scenario):
    async def bounded():
        async with asyncio.timeout(PATIENCE):
            left, right = socket.socketpair()
            with left, right:
                for end in (left, right):
                    end.setblocking(False)
                await scenario(left, right)

    asyncio.run(bounded())


def say(end, times):
    for _ in range(times):
        end.send("more", text="x" * 10_000)


def test_messages_arrive_in_order_with_their_fields_and_then_the_end():
    async def scenario(left, right):
        one, two = await Channel.open(left), await Channel.open(right)
        large = {"text": "a\n" * 500_000, "until": float("inf"), "nothing": None}
        one.send("first", **large)
        one.send("second")
        assert await two.receive() == {"kind": "first", **large}
        assert await two.receive() == {"kind": "second"}
        one.close()
        assert await two.receive() is None
        two.close()

    run(scenario)


@pytest.mark.parametrize("said", [b"hello\n", b"[]\n", b"7\n", b"\xff\xfe\n"])
def test_what_is_no_message_is_told(said):
    async def scenario(left, right):
        two = await Channel.open(right)
        left.send(said)
        with pytest.raises(ChannelError):
            await two.receive()
        two.close()

    run(scenario)


def test_a_message_is_bounded(monkeypatch):
    async def scenario(left, right):
        monkeypatch.setattr(channel, "MAX_MESSAGE", 1000)
        two = await Channel.open(right)
        left.send(b"x" * 3000 + b"\n")
        with pytest.raises(ChannelError):
            await two.receive()
        two.close()

    run(scenario)


def test_half_a_message_is_the_end():
    async def scenario(left, right):
        two = await Channel.open(right)
        left.send(b'{"kind": "be')
        left.shutdown(socket.SHUT_WR)
        assert await two.receive() is None
        two.close()

    run(scenario)


def test_who_reads_nothing_is_found_out_before_memory_is(monkeypatch):
    async def scenario(left, right):
        monkeypatch.setattr(channel, "MAX_WAITING", 100_000)
        one = await Channel.open(left)
        say(one, 10)
        with pytest.raises(ChannelError):
            say(one, 1000)
        one.close()
        right.close()

    run(scenario)
