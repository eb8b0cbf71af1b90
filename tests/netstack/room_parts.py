"""Workers that tell each other of rooms, over a network of the test's own."""

from __future__ import annotations

from netstack import room_events
from netstack import room_state as rs
from netstack.counters import Counters
from netstack.room_wire import (
    Binding,
)

ROOM = "default"
MACS = [bytes((2, 0, 0, 0, 0, n)) for n in range(1, 6)]
ADDRESSES = [bytes((10, 0, 2, n)) for n in range(10, 18)]
UNIX = 1_800_000_000


class Worker:
    """A worker that follows the rules: it keeps what it may, and gives up what it must."""

    def __init__(self, number, incarnation):
        self.counters = Counters()
        self.state = rs.RoomState(number, incarnation, self.counters)
        self.guests = {}
        """Addresses by MAC, None for a guest that waits for one."""
        self.events = []

    def join(self, mac, now):
        known = self.state.elsewhere(ROOM, mac)
        self.guests[mac] = known[1].addresses[0] if known and known[1].addresses else None
        self.announce(mac, now)
        if self.guests[mac] is None:
            self.ask(mac, now)

    def candidates(self, mac):
        first = mac[-1] % 2  # so that they often want the same
        free = [a for a in ADDRESSES[first:] + ADDRESSES[:first] if not self.state.holders_of(ROOM, a)]
        return tuple(free)

    def ask(self, mac, now):
        answer = self.state.ask(mac[-1], ROOM, mac, self.candidates(mac), now)
        if answer:
            self.take(mac, answer, now)

    def take(self, mac, address, now):
        if mac in self.guests and self.guests[mac] is None:
            self.guests[mac] = address
            self.announce(mac, now)

    def announce(self, mac, now):
        address = self.guests[mac]
        binding = Binding(mac, () if address is None else (address,), f"vm{mac[-1]}", 7, "192.0.2.1")
        self.state.bind(ROOM, binding, UNIX + int(now), is_pending=address is None)

    def leave(self, mac):
        self.guests.pop(mac, None)
        self.state.unbind(ROOM, mac)

    def react(self, now):
        for event in self.state.take_events():
            self.events.append(event)
            if isinstance(event, room_events.Elsewhere) and event.lost:
                self.leave(event.binding.mac)
            elif isinstance(event, room_events.AddressLost) and self.guests.get(event.mac) == event.address:
                self.guests[event.mac] = None
                self.announce(event.mac, now)
                self.ask(event.mac, now)
            elif isinstance(event, room_events.Granted) and event.address:
                self.take(event.mac, event.address, now)

    def view(self):
        """All guests that this worker knows of: where they are and what is said of them."""
        own = [(self.state.number, self.state.own(ROOM, mac)) for mac in self.guests]
        return sorted(own + self.state.all_elsewhere(ROOM))


class Net:
    """Workers, and messages under way between them."""

    def __init__(self, count=3):
        self.now = 0.0
        self.workers = {}
        self.queues = {}
        self.cut = set()
        self.lives = 0
        self.late = True
        """Whether all is told at once, or what can wait does until a worker says Hello."""
        for number in range(count):
            self.start(number)

    def start(self, number):
        self.lives += 1
        self.workers[number] = Worker(number, self.lives)

    def flush(self):
        for number, worker in self.workers.items():
            worker.react(self.now)
            for to, message in worker.state.take_outgoing(late=self.late):
                for other in self.workers if to is None else [to]:
                    if other != number and frozenset((number, other)) not in self.cut:
                        self.queues.setdefault((number, other), []).append(message)

    def deliver(self, way, at=0, keep=False):
        queue = self.queues.get(way, [])
        if queue:
            at %= len(queue)
            message = queue[at] if keep else queue.pop(at)
            self.workers[way[1]].state.receive(message, self.now)
            self.flush()

    def deliver_all(self):
        self.flush()
        for _ in range(10_000):
            way = next((way for way, queue in self.queues.items() if queue), None)
            if way is None:
                return
            self.deliver(way)
        raise AssertionError("the workers never stop talking")

    def settle(self, seconds=6.0):
        self.cut.clear()
        end = self.now + seconds
        while self.now < end:
            self.now += rs.HELLO_EVERY
            for worker in self.workers.values():
                worker.state.tick(self.now)
            self.deliver_all()
            for worker in self.workers.values():
                for mac, address in list(worker.guests.items()):
                    if address is None:
                        worker.ask(mac, self.now)
            self.deliver_all()

    def assert_agreed(self):
        views = [worker.view() for worker in self.workers.values()]
        assert all(view == views[0] for view in views), views
        guests = [(mac, a) for worker in self.workers.values() for mac, a in worker.guests.items()]
        assert len({mac for mac, _ in guests}) == len(guests), guests
        assert None not in [a for _, a in guests], guests
        assert len({a for _, a in guests}) == len(guests), guests
