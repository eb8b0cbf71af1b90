"""EventLoopActor means what pykka documents: the same scenarios run on pykka's own ThreadingActor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

import pykka
import pytest

from actors.runtime import (
    EventLoopActor,
    tell_alive,
)

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


def test_an_actor_that_stops_is_not_looked_for_among_all_others():
    compared = []

    class Ref:
        __hash__ = object.__hash__

        def __eq__(self, other):
            compared.append(other)
            return self is other

    refs: list[Any] = [Ref() for _ in range(1000)]
    for ref in refs:
        pykka.ActorRegistry.register(ref)
    assert pykka.ActorRegistry.get_all() == refs
    for ref in reversed(refs):
        pykka.ActorRegistry.unregister(ref)
    assert pykka.ActorRegistry.get_all() == []
    assert len(compared) < len(refs)


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
