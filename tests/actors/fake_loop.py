"""An event loop for tests: its time stands still until a test moves it."""

from __future__ import annotations

import heapq
import itertools


class Timer:
    def __init__(self, callback):
        self.callback = callback
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class FakeLoop:
    def __init__(self):
        self.clock = 1000.0
        self.soon = []
        self.timers = []
        self.timers_set = 0
        self._numbers = itertools.count()

    def time(self):
        return self.clock

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_soon_threadsafe(self, callback, *args):
        self.soon.append(lambda: callback(*args))

    def call_at(self, when, callback):
        self.timers_set += 1
        timer = Timer(callback)
        heapq.heappush(self.timers, (when, next(self._numbers), timer))
        return timer

    def pending(self):
        return [when for when, _, timer in self.timers if not timer.cancelled]

    def run(self):
        """Turn the loop until nothing is left to do now."""
        while not self.idle:
            self.turn()

    def turn(self):
        """Make the calls that are to be made now, and none that these ask for."""
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        for _ in range(sum(when <= self.clock for when, _, _ in self.timers)):
            self._fire()

    @property
    def idle(self):
        """Whether nothing is left to do now."""
        return not (self.soon or any(when <= self.clock for when in self.pending()))

    def _fire(self):
        when, _, timer = heapq.heappop(self.timers)
        if not timer.cancelled:
            self.clock = max(self.clock, when)
            timer.callback()

    def advance(self, seconds):
        """Let time pass, firing what falls due on the way at its own time."""
        end = self.clock + seconds
        self.run()
        while self.timers and self.timers[0][0] <= end:
            self._fire()
            self.run()
        self.clock = end
