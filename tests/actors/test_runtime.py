"""EventLoopActor means what pykka documents: the same scenarios run on pykka's own ThreadingActor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

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
    tell_alive,
)
from netstack.counters import Counters

TIMEOUT = 10


def fail_with(error):
    def fail(_actor):
        raise error

    return fail


class Notes:
    """What an actor writes down of all that happens to it."""

    public = "seen by proxies"

    def __init__(self, events, done, fail_in=()):
        super().__init__()
        self.events, self.done, self.fail_in = events, done, fail_in

    def on_start(self):
        self.events.append("start")
        if "start" in self.fail_in:
            raise ValueError("start")

    def on_stop(self):
        self._end("stop")

    def on_failure(self, exception_type, exception_value, traceback):
        self.events.append((exception_type, str(exception_value)))
        self._end("failure")

    def _end(self, event):
        self.events.append(event)
        self.done.release()
        if event in self.fail_in:
            raise ValueError(event)

    def on_receive(self, message):
        self.events.append(message)
        if callable(message):
            message(self)
        return f"re: {message}"

    def greet(self, name):
        return f"hello {name}"


@pytest.fixture(params=[pykka.ThreadingActor, EventLoopActor], ids=["thread", "event_loop"])
def world(request):
    """Starts actors of one kind; the test itself is another thread, which may wait for replies."""
    if request.param is pykka.ThreadingActor:
        yield World(pykka.ThreadingActor, lambda call: call())
        pykka.ActorRegistry.stop_all(timeout=TIMEOUT)
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def on_loop(call):
        async def run():
            return call()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(TIMEOUT)

    yield World(EventLoopActor, on_loop)
    pykka.ActorRegistry.stop_all(timeout=TIMEOUT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class World:
    def __init__(self, base, on_loop):
        self.base, self.on_loop = base, on_loop
        self.events, self.done = [], threading.Semaphore(0)

    def start(self, **kwargs):
        cls: Any = type("Recorder", (Notes, self.base), {})
        return self.on_loop(lambda: cls.start(self.events, self.done, **kwargs))

    def wait(self):
        """Wait until one more actor has stopped or failed."""
        assert self.done.acquire(timeout=TIMEOUT)


def test_messages_are_handled_in_order_after_on_start(world):
    ref = world.start()
    for n in range(500):
        ref.tell(n)
    assert ref.ask("last", timeout=TIMEOUT) == "re: last"
    assert world.events == ["start", *range(500), "last"]


def test_ask_returns_the_reply_and_futures_compose(world):
    ref = world.start()
    future = ref.ask("a", block=False)
    assert future.map(str.upper).get(timeout=TIMEOUT) == "RE: A"
    assert future.join(ref.ask("b", block=False)).get(timeout=TIMEOUT) == ["re: a", "re: b"]


def test_an_exception_goes_to_who_asked_and_the_actor_lives_on(world):
    ref = world.start()
    with pytest.raises(ValueError, match="mine"):
        ref.ask(fail_with(ValueError("mine")), timeout=TIMEOUT)
    assert ref.ask("still there?", timeout=TIMEOUT) == "re: still there?"
    assert "failure" not in world.events


def test_an_exception_that_nobody_asked_for_stops_the_actor(world, caplog):
    ref, other = world.start(), world.start()
    ref.tell(fail_with(ValueError("oh")))
    world.wait()
    late = ref.ask("after", block=False)
    with pytest.raises(pykka.ActorDeadError):
        late.get(timeout=TIMEOUT)
    assert world.events[-2:] == [(ValueError, "oh"), "failure"]
    assert "stop" not in world.events
    assert not ref.is_alive()
    assert ref not in pykka.ActorRegistry.get_all()
    assert other.ask("you?", timeout=TIMEOUT) == "re: you?"
    assert "Unhandled exception in Recorder" in caplog.text


def test_a_base_exception_stops_everyone(world):
    ref, other = world.start(), world.start()
    ref.tell(fail_with(SystemExit(3)))
    world.wait()
    world.wait()
    assert world.events.count("stop") == 2
    assert not other.is_alive()
    assert not ref.is_alive()


def test_a_failing_on_start_stops_the_actor_before_its_first_message(world, caplog):
    ref = world.start(fail_in=("start",))
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("anyone?", timeout=TIMEOUT)
    assert world.events == ["start"]
    assert not ref.is_alive()
    assert "Unhandled exception in Recorder" in caplog.text


@pytest.mark.parametrize("where", ["stop", "failure"])
def test_a_failure_while_cleaning_up_is_logged_and_the_actor_is_dead(world, where):
    with logged("pykka", f"ValueError: {where}") as seen:
        ref = world.start(fail_in=(where,))
        if where == "stop":
            ref.stop(timeout=TIMEOUT)
        else:
            ref.tell(fail_with(RuntimeError("first")))
        assert seen.wait(TIMEOUT)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("anyone?", timeout=TIMEOUT)
    assert not ref.is_alive()


@contextlib.contextmanager
def logged(name, text):
    """An event that is set when a text is logged, in whatever thread."""
    seen = threading.Event()

    class Watcher(logging.Handler):
        def emit(self, record):
            if text in self.format(record):
                seen.set()

    watcher = Watcher()
    logging.getLogger(name).addHandler(watcher)
    try:
        yield seen
    finally:
        logging.getLogger(name).removeHandler(watcher)


def test_what_was_told_before_stop_is_handled_and_what_comes_later_is_not(world):
    ref = world.start()
    gate, entered = threading.Event(), threading.Event()
    blocked = world.base is pykka.ThreadingActor
    if blocked:
        ref.tell(lambda _: (entered.set(), gate.wait(TIMEOUT)))
        entered.wait(TIMEOUT)

    def send():
        ref.tell("before")
        stopped = ref.stop(block=False)
        return stopped, ref.ask("after", block=False), ref.stop(block=False)

    stopped, after, again = world.on_loop(send)
    gate.set()
    assert stopped.get(timeout=TIMEOUT) is True
    assert again.get(timeout=TIMEOUT) is True
    with pytest.raises(pykka.ActorDeadError):
        after.get(timeout=TIMEOUT)
    assert world.events[-2:] == ["before", "stop"]
    assert "after" not in world.events


def test_stop_says_whether_the_actor_was_alive(world):
    ref = world.start()
    assert ref.stop(timeout=TIMEOUT) is True
    assert ref.stop(timeout=TIMEOUT) is False
    assert world.events == ["start", "stop"]


def test_an_actor_stops_itself_after_what_is_already_in_its_inbox(world):
    ref = world.start()

    def send():
        ref.tell(lambda actor: actor.stop())
        ref.tell("one more")

    world.on_loop(send)
    world.wait()
    assert world.events[-1] == "stop"


def test_a_dead_actor_cannot_be_told_anything(world):
    ref = world.start()
    assert tell_alive(ref, "hello")
    ref.stop(timeout=TIMEOUT)
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("x")
    with pytest.raises(pykka.ActorDeadError):
        ref.proxy()
    assert not tell_alive(ref, "x")


def test_the_registry_knows_living_actors(world):
    ref = world.start()
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is ref
    assert pykka.ActorRegistry.get_by_class_name("Recorder") == [ref]
    pykka.ActorRegistry.broadcast("to all")
    ref.stop(timeout=TIMEOUT)
    assert "to all" in world.events
    assert pykka.ActorRegistry.get_all() == []


def test_proxies_call_read_and_write(world):
    proxy = world.start().proxy()
    assert proxy.greet("you").get(timeout=TIMEOUT) == "hello you"
    assert proxy.public.get(timeout=TIMEOUT) == "seen by proxies"
    proxy.public = "changed"
    assert proxy.public.get(timeout=TIMEOUT) == "changed"
    with pytest.raises(TypeError):
        proxy.greet().get(timeout=TIMEOUT)


def test_a_message_nobody_expects_is_logged(world, caplog):
    deaf: Any = type("Deaf", (world.base,), {})
    ref = world.on_loop(deaf.start)
    assert ref.ask("what?", timeout=TIMEOUT) is None
    assert "Unexpected message received by Deaf" in caplog.text


def test_many_threads_may_tell(world):
    ref = world.start()
    threads = [threading.Thread(target=lambda k=k: [ref.tell((k, n)) for n in range(200)]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ref.ask("last", timeout=TIMEOUT)
    for k in range(4):
        assert [e[1] for e in world.events if isinstance(e, tuple) and e[0] == k] == list(range(200))


def test_a_future_that_nobody_sets_times_out(world):
    future = world.base._create_future()
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.01)


# -- what only an event loop has ------------------------------------------------------------------


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
    assert len(loop.soon) >= 1
    ref.tell(ValueError("over"))
    ref.stop(block=False)
    loop.run()
    assert not ref.is_alive()


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
