"""Messages over unix datagram sockets: to one, to all, to those that are slow, gone or back again."""

from __future__ import annotations

import asyncio
import stat
from contextlib import ExitStack

import pytest
from waiting import until

from actors.runtime import current_scheduler
from netstack.counters import Counters
from transport.trunk import unix_trunk
from transport.trunk.unix_trunk import UnixTrunk


class End:
    def __init__(self, folder, number, count=3):
        self.counters = Counters()
        self.got = []
        self.trunk = UnixTrunk(
            folder,
            number,
            count,
            on_message=self.got.append,
            turns=current_scheduler(),
            counters=self.counters,
        )

    def close(self):
        self.trunk.close()


def run(scenario, folder):
    async def main():
        with ExitStack() as stack:

            def start(number):
                end = End(folder, number)
                stack.callback(end.close)
                return end

            await scenario(start)

    asyncio.run(main())


def test_a_message_goes_to_one_or_to_all_others(tmp_path):
    async def scenario(start):
        ends = [start(number) for number in range(3)]
        ends[0].trunk.send(2, b"to two")
        ends[0].trunk.send(None, b"to all")
        await until(lambda: len(ends[2].got) == 2 and ends[1].got)
        assert [end.got for end in ends] == [[], [b"to all"], [b"to two", b"to all"]]
        assert ends[0].counters["trunk.sent"] == 3
        assert stat.S_IMODE((tmp_path / "trunk-0").stat().st_mode) == 0o600

    run(scenario, tmp_path)


def test_a_message_of_the_largest_size_comes_whole(tmp_path):
    async def scenario(start):
        one, two = start(0), start(1)
        message = bytes(range(256)) * 234
        one.trunk.send(1, message)
        await until(lambda: two.got)
        assert two.got == [message]

    run(scenario, tmp_path)


def test_who_is_not_there_is_sent_nothing_and_is_found_once_it_is(tmp_path):
    async def scenario(start):
        one = start(0)
        one.trunk.send(1, b"early")
        assert one.counters["trunk.drop.no_worker"] == 1
        two = start(1)
        one.trunk.send(1, b"late")
        await until(lambda: two.got)
        assert two.got == [b"late"]

    run(scenario, tmp_path)


def test_a_worker_that_was_started_anew_is_found_at_its_new_socket(tmp_path):
    async def scenario(start):
        one, two = start(0), start(1)
        one.trunk.send(1, b"first")
        await until(lambda: two.got)
        asyncio.get_running_loop().remove_reader(two.trunk._socket)
        two.trunk._socket.close()  # killed: its file stays
        one.trunk.send(1, b"lost")
        again = start(1)
        one.trunk.send(1, b"second")
        await until(lambda: again.got)
        assert again.got == [b"second"]
        assert one.counters["trunk.drop.no_worker"] == 1

    run(scenario, tmp_path)


def test_what_a_slow_worker_has_not_read_waits_within_a_bound_and_comes_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(unix_trunk, "MAX_QUEUED", 500_000)

    async def scenario(start):
        one, two = start(0), start(1)
        for number in range(2000):
            one.trunk.send(1, number.to_bytes(2) * 500)
        dropped = one.counters["trunk.drop.queue_full"]
        assert one.trunk._ways[1]._queued <= 500_000
        assert dropped > 0
        await until(lambda: len(two.got) == 2000 - dropped)
        numbers = [int.from_bytes(message[:2]) for message in two.got]
        assert numbers == list(range(2000 - dropped))
        one.trunk.send(1, b"after")
        await until(lambda: two.got[-1] == b"after")

    run(scenario, tmp_path)


def test_others_have_their_turn_between_many_messages(tmp_path):
    async def scenario(start):
        one, two = start(0), start(1)
        for _ in range(100):
            one.trunk.send(1, b"x")
        await until(lambda: two.got, every=0)
        assert len(two.got) <= unix_trunk.MESSAGES_PER_TURN

    run(scenario, tmp_path)


def test_nothing_is_left_of_a_trunk_that_was_closed(tmp_path):
    async def scenario(start):
        one = start(0)
        one.close()
        one.close()
        assert list(tmp_path.iterdir()) == []

    run(scenario, tmp_path)


def test_where_no_trunk_can_be_opened_nothing_is_left_open(tmp_path):
    async def scenario(start):
        start(0)
        with pytest.raises(FileNotFoundError):
            End(tmp_path / "none", 0)

    run(scenario, tmp_path)
