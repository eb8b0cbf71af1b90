from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time

import pytest
from waiting import until

from transport.web.client_sockets import LOOK, SOCKETS_AT_A_TIME, TIMES_A_TURN, ClientSockets

CROWD = 5 * SOCKETS_AT_A_TIME


class Bench:
    """Pairs of connected sockets, and whose callbacks have failed."""

    def __init__(self, stack, pairs=1):
        self.loop = asyncio.get_running_loop()
        self.failures = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context["exception"]))
        self.sockets = ClientSockets(self.loop)
        stack.callback(self.sockets.close)
        self.pairs = [socket.socketpair() for _ in range(pairs)]
        for pair in self.pairs:
            for end in pair:
                end.setblocking(False)
                stack.callback(end.close)


def run(scenario, **options):
    async def main():
        with contextlib.ExitStack() as stack:
            await asyncio.wait_for(scenario(Bench(stack, **options)), 10)

    asyncio.run(main())


def test_of_a_crowd_some_are_read_in_a_turn_and_all_in_the_end():
    async def scenario(bench):
        turns, read = [], []

        def read_slowly(number, ours):
            read.append(number)
            turns[-1] += 1
            ours.recv(1)
            time.sleep(LOOK / 2)

        def count_turns():
            turns.append(0)
            if len(read) < CROWD:
                bench.loop.call_soon(count_turns)

        count_turns()
        for number, (ours, theirs) in enumerate(bench.pairs):
            theirs.send(b"x")
            bench.sockets.add_reader(ours.fileno(), read_slowly, number, ours)
        await until(lambda: len(read) == CROWD)
        assert sorted(read) == list(range(CROWD)), "one that was read waits for the others"
        assert max(turns) == SOCKETS_AT_A_TIME

    run(scenario, pairs=CROWD)


def test_of_a_crowd_that_costs_nothing_so_many_are_read_in_a_turn():
    async def scenario(bench):
        turns, read = [], []

        def read_quickly(ours):
            read.append(ours.recv(1))
            turns[-1] += 1

        def count_turns():
            turns.append(0)
            if len(read) < len(bench.pairs):
                bench.loop.call_soon(count_turns)

        bench.loop.time = lambda: 0.0  # no time passes: only their number counts
        count_turns()
        for ours, theirs in bench.pairs:
            theirs.send(b"x")
            bench.sockets.add_reader(ours.fileno(), read_quickly, ours)
        while len(read) < len(bench.pairs):  # noqa: ASYNC110 - no time passes, so no timer rings
            await asyncio.sleep(0)
        del bench.loop.time
        assert max(turns) == SOCKETS_AT_A_TIME * TIMES_A_TURN

    run(scenario, pairs=150)


def test_nobody_is_read_who_is_not_watched_any_more():
    async def scenario(bench):
        read = []
        ours, theirs = bench.pairs[0]
        bench.sockets.add_reader(ours.fileno(), read.append, "first")
        assert bench.sockets.remove_reader(ours.fileno())
        assert not bench.sockets.remove_reader(ours.fileno())
        theirs.send(b"x")
        for _ in range(5):
            await asyncio.sleep(0)
        assert read == []
        bench.sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(1)))
        await until(lambda: read == [b"x"])

    run(scenario)


def test_a_callback_that_fails_keeps_nobody_from_being_read():
    async def scenario(bench):
        read = []

        def fail():
            bench.sockets.remove_reader(bench.pairs[0][0].fileno())
            raise ValueError

        bench.sockets.add_reader(bench.pairs[0][0].fileno(), fail)
        ours = bench.pairs[1][0]
        bench.sockets.add_reader(ours.fileno(), lambda: read.append(ours.recv(1)))
        for _, theirs in bench.pairs:
            theirs.send(b"x")
        await until(lambda: read == [b"x"] and bench.failures)
        assert [type(error) for error in bench.failures] == [ValueError]

    run(scenario, pairs=2)


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="the loop watches by itself there")
def test_a_transport_that_was_adopted_is_read_here_and_writes_as_ever():
    async def scenario(bench):
        ours, theirs = bench.pairs[0]
        received = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                bench.sockets.adopt(transport)

            def data_received(self, data):
                received.append(data)

        transport, _ = await bench.loop.connect_accepted_socket(Protocol, ours)
        assert ours.fileno() in bench.sockets._readers
        assert not bench.loop._remove_reader(ours.fileno()), "the loop does not watch it"
        theirs.send(b"one")
        await until(lambda: received == [b"one"])
        transport.pause_reading()
        theirs.send(b"two")
        for _ in range(5):
            await asyncio.sleep(0)
        assert received == [b"one"]
        transport.resume_reading()
        await until(lambda: received == [b"one", b"two"])
        # More than the kernel takes at once: the rest is written when the other side reads.
        transport.write(bytes(4_000_000))
        got = 0
        while got < 4_000_000:
            got += len(await bench.loop.sock_recv(theirs, 1_000_000))
        transport.close()
        assert await bench.loop.sock_recv(theirs, 1) == b""
        assert bench.sockets._readers == {}
        assert bench.failures == []

    run(scenario)
