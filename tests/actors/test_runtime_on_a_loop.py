"""What EventLoopActor has beside what pykka documents: turns of the loop, bounded inboxes, timers."""

from __future__ import annotations

import asyncio
import threading

import pykka
import pytest
from fake_loop import FakeLoop

from actors import scheduler
from actors.messages import ClosePeer, DatagramsFromClient, FramesToPeer
from actors.runtime import (
    NEVER,
    EventLoopActor,
    Scheduler,
    Tick,
    ask_async,
    current_scheduler,
    handles,
    run_ready,
)
from netstack.counters import Counters


class Echo(EventLoopActor):
    def on_receive(self, message):
        if isinstance(message, Exception):
            raise message
        return message


def test_waiting_on_the_loop_is_an_error_and_awaiting_is_not():
    async def scenario():
        ref = Echo.start()
        with pytest.raises(RuntimeError, match="block the event loop"):
            ref.ask("x")
        assert await ask_async(ref, "y") == "y"
        assert await ref.ask("z", block=False) == "z"
        with pytest.raises(KeyError):
            await ask_async(ref, KeyError("k"))
        done = ref.ask("done", block=False)
        run_ready()
        assert await done == "done"
        assert done.get() == "done"
        assert await ref.stop(block=False) is True
        with pytest.raises(pykka.ActorDeadError):
            await ask_async(ref, "late")

    asyncio.run(scenario())


def test_an_actor_needs_a_loop():
    with pytest.raises(RuntimeError, match="none is running"):
        Echo.start()
    assert pykka.ActorRegistry.get_all() == []


def test_every_loop_has_its_own_scheduler():
    async def scheduler():
        assert current_scheduler() is current_scheduler()
        return current_scheduler()

    assert asyncio.run(scheduler()) is not asyncio.run(scheduler())


def test_asking_an_actor_of_a_closed_loop_says_that_it_is_dead():
    async def start():
        return Echo.start()

    ref = asyncio.run(start())
    failures = []

    def tell():
        try:
            ref.tell("x")
        except pykka.ActorDeadError as error:
            failures.append(error)

    thread = threading.Thread(target=tell)
    thread.start()
    thread.join()
    pykka.ActorRegistry.unregister(ref)
    assert len(failures) == 1


class Worker(EventLoopActor):
    def __init__(self, seen, work=None):
        super().__init__()
        self.seen = seen
        self.work = work

    def on_receive(self, message):
        self.seen.append(message)
        if self.work:
            self.work(self, message)


@pytest.fixture
def loop():
    loop = FakeLoop()
    with Scheduler(loop, Counters()).activate():
        yield loop
        pykka.ActorRegistry.stop_all(block=False)
        loop.run()


def test_run_ready_works_until_every_inbox_is_empty(loop):
    seen = []
    last = Worker.start(seen)
    first = Worker.start([], lambda _, message: last.tell(message))
    first.tell("through two actors")
    run_ready()
    assert seen == ["through two actors"]


def test_without_run_ready_the_loop_moves_the_mail(loop):
    seen = []
    Worker.start(seen).tell("hello")
    assert seen == []
    loop.run()
    assert seen == ["hello"]


def test_run_ready_inside_an_actor_does_not_nest(loop):
    seen, depth = [], []

    def work(_, message):
        depth.append("in")
        run_ready()
        depth.append("out")

    ref = Worker.start(seen, work)
    ref.tell(1)
    ref.tell(2)
    run_ready()
    assert depth == ["in", "out"] * 2


def test_what_waits_for_the_end_runs_when_the_actors_are_done_and_once(loop):
    seen = []
    echo = Worker.start(seen)
    scheduler = current_scheduler()

    def feed():
        echo.tell("mail")
        scheduler.at_end(lambda: seen.append("end"))
        seen.append("fed")

    scheduler.turn(feed)
    assert seen == ["fed", "mail", "end"]
    scheduler.turn(lambda: echo.tell("more"))
    assert seen == ["fed", "mail", "end", "more"]


def test_an_end_that_is_wanted_while_nobody_works_comes_soon(loop):
    seen = []
    current_scheduler().at_end(lambda: seen.append("end"))
    assert seen == []
    loop.run()
    assert seen == ["end"]


def test_what_the_end_brings_about_leaves_room_for_the_loop(loop):
    seen = []
    worker = Worker.start(seen)
    scheduler = current_scheduler()

    def end():
        seen.append("end")
        worker.tell("mail")
        scheduler.at_end(lambda: seen.append("second end"))

    scheduler.at_end(end)
    run_ready()
    assert seen == ["end"]
    loop.run()
    assert seen == ["end", "mail", "second end"]


def test_an_end_that_fails_takes_no_others_along(loop):
    seen = []

    def fail():
        seen.append("failed")
        raise RuntimeError("a fault of the test's own")

    scheduler = current_scheduler()
    for callback in (lambda: seen.append("before"), fail, lambda: seen.append("behind")):
        scheduler.at_end(callback)
    with pytest.raises(RuntimeError):
        run_ready()
    assert seen == ["before", "failed"]
    loop.run()
    assert seen == ["before", "failed", "behind"]


def test_a_busy_actor_leaves_room_for_others(loop):
    seen = []
    busy, quiet = Worker.start(seen), Worker.start(seen)
    for n in range(1000):
        busy.tell(n)
    quiet.tell("quiet")
    run_ready()
    assert seen.index("quiet") <= scheduler.MESSAGES_PER_VISIT
    assert len(seen) == 1001


def test_an_endless_conversation_leaves_room_for_the_loop(loop):
    seen = []
    ref = Worker.start(seen, lambda actor, message: actor.actor_ref.tell(message))
    ref.tell("again")
    run_ready()
    assert len(seen) <= scheduler.MESSAGES_PER_RUN
    assert not loop.idle
    ref.tell(ValueError("over"))
    ref.stop(block=False)
    loop.run()
    assert not ref.is_alive()


def test_many_that_end_at_once_leave_room_for_the_loop(loop):
    """Sockets are closed then; those whose turn has not come yet handle nothing more all the same."""
    seen = []
    actors = [Worker.start(seen) for _ in range(300)]
    run_ready()
    for actor in actors:
        actor.stop(block=False)
        actor.tell("more")
    run_ready()
    ended = sum(not actor.is_alive() for actor in actors)
    assert 0 < ended <= scheduler.MESSAGES_PER_RUN // scheduler.MESSAGES_PER_END
    loop.run()
    assert not any(actor.is_alive() for actor in actors)
    assert seen == []


def test_a_full_inbox_drops_the_oldest_frames_and_no_control_message(loop):
    seen = []
    ref = Worker.start(seen)
    counters = current_scheduler().counters
    run_ready()
    control = ClosePeer(0, "bye")
    ref.tell(control)
    for n in range(scheduler.INBOX_FRAMES + 10):
        ref.tell(FramesToPeer([b"%d" % n]))
    ref.tell(DatagramsFromClient([b"d"] * 5))
    run_ready()
    assert seen[0] is control
    assert seen[1] == FramesToPeer([b"15"])
    kept = [len(message[-1]) for message in seen[1:]]
    assert sum(kept) == scheduler.INBOX_FRAMES
    assert counters == {"actors.drop.inbox_full": 15}


def test_a_batch_above_the_bound_replaces_all_older_ones(loop):
    seen = []
    ref = Worker.start(seen)
    run_ready()
    ref.tell(FramesToPeer([b"old"] * 7))
    huge = FramesToPeer([b"new"] * (scheduler.INBOX_FRAMES + 1))
    ref.tell(huge)
    run_ready()
    assert seen == [huge]
    assert current_scheduler().counters["actors.drop.inbox_full"] == 7
    ref.tell(FramesToPeer([b"after"]))
    run_ready()
    assert seen[-1] == FramesToPeer([b"after"])


def test_a_dropped_question_is_answered(loop):
    ref = Worker.start([])
    run_ready()
    question = ref.ask(FramesToPeer([b"?"]), block=False)
    ref.tell(FramesToPeer([b"x"] * scheduler.INBOX_FRAMES))
    with pytest.raises(pykka.ActorDeadError):
        question.get()


def test_a_failure_is_counted_and_the_neighbour_works_on(loop, caplog):
    def fail(actor, message):
        raise RuntimeError(message)

    seen = []
    bad, good = Worker.start([], fail), Worker.start(seen)
    bad.tell("x")
    good.tell("fine")
    run_ready()
    assert seen == ["fine"]
    assert not bad.is_alive()
    assert current_scheduler().counters["actors.failed"] == 1


class Sleeper(EventLoopActor):
    def __init__(self, ticks):
        super().__init__()
        self.ticks = ticks

    @handles(Tick)
    def _tick(self, _message):
        self.ticks.append(self.now())

    @handles(float, int)
    def _set(self, when):
        self.poll_at = when


def test_a_tick_comes_at_its_time_and_once(loop):
    ticks = []
    Sleeper.start(ticks).tell(loop.time() + 5)
    loop.advance(4.9)
    assert ticks == []
    loop.advance(60)
    assert ticks == [1005.0]


def test_postponing_costs_no_timer(loop):
    ticks = []
    ref = Sleeper.start(ticks)
    for n in range(1, 1000):
        ref.tell(loop.time() + 5 + n)
        run_ready()
    assert loop.timers_set == 1
    loop.advance(1003.5)
    assert ticks == []
    loop.advance(1)
    assert ticks == [2004.0]
    assert loop.timers_set == 2


def test_an_earlier_time_replaces_the_timer(loop):
    ticks = []
    ref = Sleeper.start(ticks)
    ref.tell(loop.time() + 50)
    run_ready()
    ref.tell(loop.time() + 1)
    run_ready()
    assert loop.pending() == [1001.0]
    loop.advance(2)
    assert ticks == [1001.0]


def test_no_tick_where_none_is_needed_any_more(loop):
    ticks = []
    ref = Sleeper.start(ticks)
    ref.tell(loop.time() + 5)
    run_ready()
    ref.tell(NEVER)
    loop.advance(60)
    assert ticks == []
    assert loop.pending() == []


def test_a_stopped_actor_leaves_no_timer(loop):
    ref = Sleeper.start([])
    ref.tell(loop.time() + 5)
    run_ready()
    ref.stop(block=False)
    run_ready()
    assert loop.pending() == []


def test_mail_sent_before_the_start_is_delivered(loop):
    class Early(Worker):
        def __init__(self, seen):
            super().__init__(seen)
            self.actor_ref.tell("from my own constructor")

        def on_start(self):
            self.seen.append("start")

    seen = []
    Early.start(seen)
    run_ready()
    assert seen == ["start", "from my own constructor"]


def test_handlers_are_inherited_and_overridden(loop):
    class Base(EventLoopActor):
        @handles(int)
        def _int(self, message):
            return "base int"

        @handles(str)
        def _str(self, message):
            return "base str"

    class Derived(Base):
        @handles(str)
        def _text(self, message):
            return "derived str"

    ref = Derived.start()
    replies = [ref.ask(m, block=False) for m in (1, "x")]
    run_ready()
    assert [r.get() for r in replies] == ["base int", "derived str"]
