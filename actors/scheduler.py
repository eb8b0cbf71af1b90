"""What lets the actors of an event loop work: their inboxes, and the line in which they wait.

``actors.runtime`` has what makes pykka's actors of it. Every message comes by here, so mypyc compiles this.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import pykka
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from netstack.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pykka._envelope import Envelope

INBOX_FRAMES: Final = 4096
"""Frames or datagrams that may wait in one inbox: 6 MB at most, and far more than one turn brings."""

MESSAGES_PER_VISIT: Final = 64
"""Messages an actor handles before the next one has its turn: a busy peer must not starve the others."""

MESSAGES_PER_RUN: Final = 4096
"""Messages of one run; the rest waits until the loop has looked at its sockets (some 10 ms at worst)."""

MESSAGES_PER_END: Final = 32
"""Messages for which the end of an actor counts: that of a flow closes a socket, which takes 25 µs or more,
and a client may have thousands of them end at once."""

_PYKKA_MESSAGES: Final = frozenset({_ActorStop, ProxyCall, ProxyGetAttr, ProxySetAttr})

DATA_MESSAGES: Final[set[type]] = set()
"""Messages that a full inbox may drop (oldest first, counted); all others are control, and never dropped."""

active: ContextVar[Scheduler | None] = ContextVar("active scheduler", default=None)
"""The scheduler of tests, where no event loop runs."""


class TimerHandle(Protocol):
    """What ``call_at`` returns."""

    def cancel(self) -> None:
        """Forget the call."""


class Loop(Protocol):
    """The part of an asyncio loop that actors need; tests have one whose time they set."""

    def time(self) -> float:
        """Monotonic time in seconds."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call in the next turn."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> TimerHandle:
        """Call when :meth:`time` has reached ``when``."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object:
        """Like :meth:`call_soon`, from any thread; RuntimeError when the loop is closed."""


class Worker(Protocol):
    """The part of an actor that its inbox and its scheduler need."""

    actor_stopped: threading.Event

    def visit(self, limit: int) -> int:
        """Handle up to ``limit`` messages, as the scheduler's turn for this actor; return their number."""

    def on_receive(self, message: Any) -> Any:
        """Give the message to its handler."""

    def _handle_receive(self, message: Any) -> Any: ...

    def _actor_failed(self, envelope: Envelope[Any]) -> None:
        """Take note of the exception that handling the message has raised."""

    def _actor_broken(self, envelope: Envelope[Any], error: BaseException) -> None:
        """Take note of ``error``, after which nobody goes on."""


class Inbox:
    """An actor's mail. On the loop's thread it only queues; from other threads it passes through the loop."""

    __slots__ = ("actor", "frames", "queue", "queued", "scheduler")

    def __init__(self) -> None:
        self.queue: deque[Envelope[Any]] = deque()
        self.frames = 0
        self.queued = False
        """True while the actor stands in the scheduler's line, or is at work."""
        self.scheduler: Scheduler | None = None
        self.actor: Worker | None = None

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue a message. Raises ActorDeadError when the actor's loop is closed."""
        scheduler = self.scheduler
        if scheduler is None:  # not started yet
            self._append(envelope)
        elif scheduler.thread_id == threading.get_ident():
            self._deliver(envelope)
        else:
            try:
                scheduler.loop.call_soon_threadsafe(self._deliver, envelope)
            except RuntimeError as closed:
                raise pykka.ActorDeadError("the actor's event loop is closed") from closed

    def get(self) -> Envelope[Any]:
        """Take the oldest message; IndexError when there is none."""
        envelope = self.queue.popleft()
        message = envelope.message
        if type(message) in DATA_MESSAGES:
            self.frames -= len(message[-1])
        return envelope

    def empty(self) -> bool:
        """Whether there is no mail."""
        return not self.queue

    def open(self, actor: Worker, scheduler: Scheduler) -> None:
        """Start delivery, beginning with what was queued before the actor's start."""
        self.actor = actor
        self.scheduler = scheduler
        self.queued = True
        scheduler.make_ready(actor)

    def serve(self, actor: Worker, limit: int) -> int:
        """Hand the actor up to ``limit`` messages; return their number, and one for the visit itself."""
        queue = self.queue
        stopped = actor.actor_stopped.is_set
        handled = 1
        while queue and handled <= limit and not stopped():
            handled += 1
            envelope = self.get()
            message = envelope.message
            try:
                if type(message) in _PYKKA_MESSAGES:
                    response = actor._handle_receive(message)  # noqa: SLF001 - pykka's, for its own messages
                else:
                    response = actor.on_receive(message)
                if envelope.reply_to is not None:
                    envelope.reply_to.set(response)
            except Exception:  # noqa: BLE001 - supervision: whatever it is, it ends here
                actor._actor_failed(envelope)  # noqa: SLF001 - named as pykka's own
            except BaseException as error:  # noqa: BLE001 - pykka's way: stop everyone
                actor._actor_broken(envelope, error)  # noqa: SLF001 - named as pykka's own
        return handled

    def go_on(self) -> None:
        """Have the actor visited again if there is more mail."""
        self.queued = bool(self.queue)
        if self.queued and self.scheduler is not None and self.actor is not None:
            self.scheduler.make_ready(self.actor)

    def close(self) -> None:
        """Let go of the actor: what comes later finds nobody."""
        self.actor = None

    def _deliver(self, envelope: Envelope[Any]) -> None:
        actor = self.actor
        if actor is None:  # it stopped while the message was on its way from another thread
            reply_dead(envelope)
            return
        self._append(envelope)
        if not self.queued:
            self.queued = True
            if self.scheduler is not None:
                self.scheduler.make_ready(actor)

    def _append(self, envelope: Envelope[Any]) -> None:
        message = envelope.message
        if type(message) in DATA_MESSAGES:
            self.frames += len(message[-1])
            if self.frames > INBOX_FRAMES:
                self._drop_oldest(len(message[-1]))
        self.queue.append(envelope)

    def _drop_oldest(self, incoming: int) -> None:
        """Drop data, oldest first, until the bound holds or only the ``incoming`` frames are left."""
        keep: deque[Envelope[Any]] = deque()
        dropped = 0
        while self.queue and self.frames > max(INBOX_FRAMES, incoming):
            envelope = self.queue.popleft()
            if type(envelope.message) not in DATA_MESSAGES:
                keep.append(envelope)
                continue
            count = len(envelope.message[-1])
            self.frames -= count
            dropped += count
            reply_dead(envelope)
        self.queue.extendleft(reversed(keep))
        if dropped and self.scheduler is not None:
            self.scheduler.counters.add("actors.drop.inbox_full", dropped)


class Scheduler:
    """Runs the actors of one event loop, first come, first served."""

    def __init__(self, loop: Loop, counters: Counters | None = None) -> None:
        self.loop = loop
        self.counters = Counters() if counters is None else counters
        """Takes ``actors.failed`` and ``actors.drop.inbox_full``; the relay sets the process's own."""
        self.thread_id = threading.get_ident()
        self._ready: deque[Worker] = deque()
        self._running = False
        self._called = False
        self._at_end: list[Callable[[], object]] = []

    def make_ready(self, actor: Worker) -> None:
        """Put an actor in the line, and see to it that the line moves."""
        self._ready.append(actor)
        if not self._running:
            self._call_soon()

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, as soon as the actors are done: at the end of this run, or of the next.

        What actors have written can leave then, without waiting for another turn of the loop.
        """
        self._at_end.append(callback)
        if not self._running:
            self._call_soon()

    def run_ready(self) -> None:
        """Let all actors with mail work until no mail is left, or until MESSAGES_PER_RUN.

        What is left is done in the loop's next turn. Returns at once when called by an actor at work.
        """
        if self._running:
            return
        self._running = True
        ready = self._ready
        budget = MESSAGES_PER_RUN
        try:
            while ready and budget > 0:
                actor = ready.popleft()
                budget -= actor.visit(MESSAGES_PER_VISIT)
        finally:
            self._running = False
            if ready and not self._called:
                self._called = True
                self.after_sockets(self._run_called)
        callbacks, self._at_end = self._at_end, []
        called = 0
        try:
            for callback in callbacks:
                called += 1
                callback()  # what it brings about waits for the loop's next turn
        finally:
            if called < len(callbacks):
                # One has failed, which the loop reports; the others are not to suffer from it.
                self._at_end[:0] = callbacks[called:]
                self._call_soon()

    def after_sockets(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` in the loop's next turn, once what has come by then to any socket was served.

        ``call_soon`` would call it before that: whoever has more to do than fits a turn would be ahead of all
        others in every turn.
        """
        self.loop.call_at(self.loop.time(), callback)

    def _call_soon(self) -> None:
        if not self._called:
            self._called = True
            self.loop.call_soon(self._run_called)

    def turn(self, feed: Callable[[], object]) -> None:
        """Call ``feed``, which tells actors things, then let them work: no wake-up of the loop between."""
        self._running = True
        try:
            feed()
        finally:
            self._running = False
            self.run_ready()

    def _run_called(self) -> None:
        self._called = False
        self.run_ready()

    @contextlib.contextmanager
    def activate(self) -> Iterator[Scheduler]:
        """Make this the :func:`current_scheduler` although no event loop runs, as tests with a clock do."""
        token = active.set(self)
        try:
            yield self
        finally:
            active.reset(token)


def reply_dead(envelope: Envelope[Any]) -> None:
    """Answer a message whose actor has stopped before it came to it."""
    if envelope.reply_to is None:
        return
    if isinstance(envelope.message, _ActorStop):
        envelope.reply_to.set(None)
        return
    dead = pykka.ActorDeadError("the actor stopped before handling the message")
    envelope.reply_to.set_exception(exc_info=(pykka.ActorDeadError, dead, None))
