from __future__ import annotations

import asyncio
import select
import socket
import time
from pathlib import Path

import pytest
from waiting import until

from actors.runtime import current_scheduler
from transport.host import readiness
from transport.host.readiness import Readiness


class Turns:
    """The real scheduler; counts its turns."""

    def __init__(self):
        self.count = 0
        self._scheduler = current_scheduler()
        self.at_end = self._scheduler.at_end

    def turn(self, feed):
        self.count += 1
        self._scheduler.turn(feed)


class Bench:
    """Pairs of connected sockets and who watches them; no callback fails of which the test does not know."""

    def __init__(self, pairs=1):
        self.failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.failures.append(context))
        self.turns = Turns()
        self.ready = Readiness(self.turns)
        self.pairs = [socket.socketpair() for _ in range(pairs)]
        for pair in self.pairs:
            for end in pair:
                end.setblocking(False)
        self.seen = asyncio.Queue()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ready.close()
        for pair in self.pairs:
            for end in pair:
                end.close()
        assert self.failures == []

    def read(self, ours, name):
        """Watch ``ours``; what arrives is seen under ``name``."""
        self.ready.add_reader(ours, lambda: self.seen.put_nowait((name, ours.recv(100))))

    async def is_quiet(self):
        """Let the loop look at all that it watches, several times: it finds nothing."""
        before = self.turns.count
        for _ in range(5):
            await asyncio.sleep(0)
        assert self.turns.count == before

    async def next(self):
        return await asyncio.wait_for(self.seen.get(), 10)


@pytest.fixture(params=["epoll", "the loop's own watches"], autouse=True)
def system(request, monkeypatch):
    """Both ways of watching; the second one is that of systems without epoll."""
    if request.param == "epoll":
        assert hasattr(select, "epoll")
    else:
        monkeypatch.delattr(readiness.select, "epoll")


def test_what_arrives_is_read_again_and_again():
    async def main():
        with Bench() as bench:
            ours, theirs = bench.pairs[0]
            bench.read(ours, "a")
            for data in (b"one", b"two"):
                theirs.send(data)
                assert await bench.next() == ("a", data)

    asyncio.run(main())


def test_a_later_callback_takes_the_place_of_an_earlier_one():
    async def main():
        with Bench() as bench:
            ours, theirs = bench.pairs[0]
            bench.read(ours, "old")
            bench.read(ours, "new")
            theirs.send(b"x")
            assert await bench.next() == ("new", b"x")

    asyncio.run(main())


def test_reading_and_writing_are_watched_apart():
    async def main():
        with Bench() as bench:
            ours, theirs = bench.pairs[0]

            def writable():
                bench.ready.remove_writer(ours)
                bench.seen.put_nowait("writable")

            bench.read(ours, "read")
            bench.ready.add_writer(ours, writable)
            assert await bench.next() == "writable"
            await bench.is_quiet()
            theirs.send(b"x")
            assert await bench.next() == ("read", b"x")
            bench.ready.remove_reader(ours)
            bench.ready.add_writer(ours, writable)
            theirs.send(b"nobody reads this")
            assert await bench.next() == "writable"
            assert bench.seen.empty()

    asyncio.run(main())


def test_removing_what_is_not_watched_is_harmless():
    async def main():
        with Bench() as bench:
            ours, _ = bench.pairs[0]
            bench.ready.remove_reader(ours)
            bench.ready.remove_writer(ours)
            bench.read(ours, "a")
            bench.ready.remove_reader(ours)
            bench.ready.remove_reader(ours)

    asyncio.run(main())


def test_nothing_is_watched_after_the_end_not_even_what_was_closed_before():
    async def main():
        with Bench(3) as bench:
            (ours, theirs), (other, _), (full, _) = bench.pairs
            bench.read(ours, "late")
            bench.read(other, "closed before")
            bench.ready.add_writer(full, lambda: bench.seen.put_nowait("writable"))
            other.close()
            bench.ready.close()
            theirs.send(b"x")
            await bench.is_quiet()
            assert bench.seen.empty()
            # Those who watched learn of the end later.
            bench.ready.remove_reader(ours)
            bench.ready.remove_writer(full)
            bench.ready.close()

    asyncio.run(main())


def test_nothing_stays_open_and_its_numbers_may_be_watched_by_others():
    def descriptors():
        # Without the one by which they were listed, which is closed again.
        return {int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}

    async def main():
        before = descriptors()
        with Bench() as bench:
            bench.read(bench.pairs[0][0], "a")
            during = descriptors() - before
            assert len(during) >= 2
        assert not during & descriptors()
        loop = asyncio.get_running_loop()
        assert [number for number in during if loop.remove_reader(number)] == []

    asyncio.run(main())


def test_whoever_reads_is_told_of_an_end_and_nobody_else_is_looked_for():
    async def main():
        with Bench() as bench:
            ours, theirs = bench.pairs[0]
            theirs.close()
            bench.read(ours, "end")
            assert await bench.next() == ("end", b"")

    asyncio.run(main())


def test_the_end_of_a_connection_wakes_who_reads_and_who_writes():
    async def main():
        with Bench() as bench:
            ours, theirs = bench.pairs[0]

            def told(name, forget):
                forget(ours)
                bench.seen.put_nowait(name)

            bench.ready.add_reader(ours, lambda: told("reader", bench.ready.remove_reader))
            theirs.close()
            assert await bench.next() == "reader"
            bench.ready.add_writer(ours, lambda: told("writer", bench.ready.remove_writer))
            assert await bench.next() == "writer"

    asyncio.run(main())


def test_an_error_in_one_callback_is_reported_and_the_others_go_on():
    async def main():
        with Bench(2) as bench:
            (ours, theirs), (other, to_other) = bench.pairs

            def fail():
                ours.recv(100)
                raise ValueError("broken")

            bench.ready.add_reader(ours, fail)
            bench.read(other, "other")
            theirs.send(b"x")
            to_other.send(b"y")
            assert await bench.next() == ("other", b"y")
            await until(lambda: bench.failures)
            assert [str(failure["exception"]) for failure in bench.failures] == ["broken"]
            bench.failures.clear()

    asyncio.run(main())


def test_what_one_look_finds_is_one_turn(system, request):
    async def main():
        with Bench(20) as bench:
            for number, (ours, theirs) in enumerate(bench.pairs):
                bench.read(ours, number)
                theirs.send(b"x")
            found = {await bench.next() for _ in bench.pairs}
            assert found == {(number, b"x") for number in range(20)}
            assert bench.turns.count == (1 if "[epoll]" in request.node.name else 20)

    asyncio.run(main())


def test_a_look_has_a_bound_and_the_rest_is_next(monkeypatch):
    monkeypatch.setattr(readiness, "SOCKETS_PER_LOOK", 4)

    async def main():
        with Bench(10) as bench:
            for number, (ours, theirs) in enumerate(bench.pairs):
                bench.read(ours, number)
                theirs.send(b"x")
            found = {await bench.next() for _ in bench.pairs}
            assert len(found) == 10
            assert bench.turns.count >= 3

    asyncio.run(main())


@pytest.mark.parametrize("system", ["epoll"], indirect=True)  # the other has no looks
def test_after_a_long_look_the_next_ones_serve_fewer_sockets_until_they_are_quick_again():
    async def main():
        served = {}
        cost = 0.002

        def serve():  # and leave what there is to read: all are ready again
            time.sleep(cost)
            served[bench.turns.count] = served.get(bench.turns.count, 0) + 1

        with Bench(20) as bench:
            for ours, theirs in bench.pairs:
                theirs.send(b"x")
                bench.ready.add_reader(ours, serve)
            await until(lambda: len(served) > 5)
            first, *others = served.values()
            assert first == 20
            assert max(others) <= 10
            assert sum(others) / len(others) <= 6
            cost = 0
            served.clear()
            await until(lambda: 20 in served.values())

    asyncio.run(main())
