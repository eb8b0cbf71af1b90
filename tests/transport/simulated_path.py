"""A path as congestion control sees it: senders, one bottleneck, a clock that is a number.

A packet waits in the bottleneck's buffer, or is dropped where that is full, leaves at the link's rate,
arrives half a round trip later or by chance later still, and so behind others, is lost by chance on the way,
and every second one is acknowledged at once.
Everything by chance comes from a seed; no time passes but the simulation's.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left, bisect_right

from transport.quic.ledger import Ledger

PACKET = 1200
ACK_EVERY = 2
ACK_DELAY = 0.025
RANGES = 32
NEVER = float("inf")


class Clock:
    """What happens when, in order."""

    def __init__(self):
        self.now = 0.0
        self._events = []
        self._numbers = itertools.count()

    def at(self, when, call, *arguments):
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), call, arguments))

    def run(self, until):
        while self._events and self._events[0][0] <= until:
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        self.now = until


class Link:
    """The bottleneck: ``rate`` and ``buffer`` in bytes (per second), ``delay`` one way in seconds.

    Behind it packets take up to ``jitter`` seconds more, each its own time.
    """

    def __init__(self, clock, *, rate, delay, buffer=NEVER, loss=0.0, jitter=0.0, seed=1):
        self.clock = clock
        self.rate = rate
        self.delay = delay
        self.buffer = buffer
        self.loss = loss
        self.jitter = jitter
        self.dropped = 0
        self.queueing = []
        """Seconds that each packet waited, with the time."""
        self._chance = random.Random(seed)
        self._free_at = 0.0

    def carry(self, arrive, number, size):
        now = self.clock.now
        wait = max(self._free_at - now, 0.0)
        if wait * self.rate + size > self.buffer:
            self.dropped += 1
            return
        self.queueing.append((now, wait))
        self._free_at = now + wait + size / self.rate
        if self._chance.random() >= self.loss:
            late = self._chance.random() * self.jitter if self.jitter else 0.0
            self.clock.at(self._free_at + self.delay + late, arrive, number)

    def queueing_percentile(self, share, since=0.0):
        waits = sorted(wait for at, wait in self.queueing if at >= since)
        return waits[int(share * (len(waits) - 1))]


class Receiver:
    """Acknowledges every second packet, and at once where one is missing before it (RFC 9000, 13.2)."""

    def __init__(self, clock, delay, tell, unevenness):
        self.arrivals = []
        """When each packet came."""
        self._clock = clock
        self._delay = delay
        self._tell = tell
        self._ranges = []
        """(lowest, highest), highest last."""
        self._pending = 0
        self._unevenness = unevenness
        """Seconds by which acknowledgements are late at most; they stay in order."""
        self._told_at = 0.0
        self._chance = random.Random(5)

    def arrive(self, number):
        self.arrivals.append(self._clock.now)
        self._pending += 1
        gap = not self._ranges or self._ranges[-1][1] != number - 1
        if gap:
            self._enter(number)
        else:
            self._ranges[-1] = self._ranges[-1][0], number
        if self._pending >= ACK_EVERY or gap:
            self._acknowledge()
        else:
            self._clock.at(self._clock.now + ACK_DELAY, self._acknowledge_late, number)

    def _enter(self, number):
        """Note a packet that does not follow the last one: behind a gap, or late."""
        ranges = self._ranges
        index = bisect_right(ranges, (number, NEVER))
        low = high = number
        if index < len(ranges) and ranges[index][0] == number + 1:
            high = ranges.pop(index)[1]
        if index and ranges[index - 1][1] == number - 1:
            index -= 1
            low = ranges.pop(index)[0]
        ranges.insert(index, (low, high))
        del ranges[: -RANGES - 1]

    def _acknowledge_late(self, number):
        if self._pending and self._ranges[-1][1] == number:
            self._acknowledge()

    def _acknowledge(self):
        self._pending = 0
        late = self._unevenness * self._chance.random()
        self._told_at = max(self._told_at, self._clock.now + self._delay + late)
        self._clock.at(self._told_at, self._tell, self._ranges[::-1])


class Sender:
    """A connection that always has something to send, or what ``offer`` gives it."""

    def __init__(
        self, clock, link, congestion, *, start=0.0, greedy=True, lateness=0.0, unevenness=0.0, seed=1
    ):
        self.congestion = congestion
        self.receiver = Receiver(clock, link.delay, self._on_ack, unevenness)
        self.waiting = 0
        """Packets that wait, where it is not greedy."""
        self.rtt = 0.1
        self._clock = clock
        self._link = link
        self.greedy = greedy
        self._lateness = lateness
        """Seconds by which its timers are late at most."""
        self._chance = random.Random(seed)
        self._ledger = Ledger()
        self._next = 0
        self._timer_at = NEVER
        self._last_sent = start
        self.lost = 0
        clock.at(start, self._flush)
        clock.at(start + 0.1, self._check)

    def offer(self, packets):
        self.waiting += packets
        self._flush()

    @property
    def packets_waiting(self):
        return 1 << 20 if self.greedy else self.waiting

    def rate(self, since, until):
        """Bytes per second that arrived."""
        return (
            (bisect_left(self.receiver.arrivals, until) - bisect_left(self.receiver.arrivals, since))
            * PACKET
            / (until - since)
        )

    def _flush(self):
        now, congestion = self._clock.now, self.congestion
        congestion.update(now)
        window = congestion.window
        if self.packets_waiting and window > 0:
            count = min(self.packets_waiting, min(window, congestion.pacer.allowance(now)) // PACKET)
            if count > 0:
                flight = congestion.flight(now)
                packets = [bytes(PACKET)] * count
                size = self._ledger.add(self._next, packets, flight)
                congestion.sent(flight, self._next + count - 1, size)
                congestion.pacer.spend(size)
                for number in range(self._next, self._next + count):
                    self._link.carry(self.receiver.arrive, number, PACKET)
                self._next += count
                self._last_sent = now
                self.waiting = max(0, self.waiting - count)
        congestion.pacer.waiting = False
        if not self.packets_waiting:
            congestion.note_app_limited()
        elif window > 0:
            ready = congestion.pacer.ready_at(now, self.packets_waiting * PACKET)
            congestion.pacer.waiting = ready < NEVER
            if ready < self._timer_at:
                self._timer_at = ready
                late = self._lateness * self._chance.random()
                self._clock.at(ready + late, self._on_timer)

    def _on_timer(self):
        self._timer_at = NEVER
        self._flush()

    def _on_ack(self, ranges):
        now = self._clock.now
        acknowledged = self._ledger.acknowledge(ranges)
        if acknowledged is not None:
            self.congestion.acknowledged(acknowledged.newest, now)
            if acknowledged.is_largest:
                sample = now - acknowledged.newest.sent_time
                self.congestion.sample_round_trip(sample, now)
                self.rtt += (sample - self.rtt) / 8
        self._detect_lost()
        self._flush()

    def _detect_lost(self):
        lost, _ = self._ledger.detect_lost(self._clock.now, self.rtt)
        if lost:
            self.lost += len(lost)
            self.congestion.packets_lost(lost, self._clock.now)

    def _check(self):
        """Every 100 ms: losses by time, and the probe timeout."""
        now = self._clock.now
        self._detect_lost()
        if self._ledger.sent and now > self._last_sent + 3 * self.rtt + ACK_DELAY:
            self.congestion.expired(self._ledger.write_off_oldest())
            self._last_sent = now
        self._flush()
        self._clock.at(now + 0.1, self._check)
