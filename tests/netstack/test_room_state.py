"""Rooms over workers: what each knows of the others' guests, whatever happens to the messages between."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from netstack import room_state as rs
from netstack.counters import Counters
from netstack.room_wire import Binding

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
        first = mac[-1] % len(ADDRESSES)
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
        self.state.bind(ROOM, binding, UNIX + int(now))

    def leave(self, mac):
        self.guests.pop(mac, None)
        self.state.unbind(ROOM, mac)

    def react(self, now):
        for event in self.state.take_events():
            self.events.append(event)
            if isinstance(event, rs.Elsewhere) and event.lost:
                self.leave(event.binding.mac)
            elif isinstance(event, rs.AddressLost) and self.guests.get(event.mac) == event.address:
                self.guests[event.mac] = None
                self.announce(event.mac, now)
                self.ask(event.mac, now)
            elif isinstance(event, rs.Granted) and event.address:
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
        for number in range(count):
            self.start(number)

    def start(self, number):
        self.lives += 1
        self.workers[number] = Worker(number, self.lives)

    def flush(self):
        for number, worker in self.workers.items():
            worker.react(self.now)
            for to, message in worker.state.take_outgoing():
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


class Rooms(RuleBasedStateMachine):
    """Guests come, go and move while workers die and messages are lost; then all is well again."""

    numbers = st.integers(0, 2)

    @initialize()
    def begin(self):
        self.net = Net()
        self.net.settle(1.0)

    @rule(number=numbers, mac=st.sampled_from(MACS))
    def joins(self, number, mac):
        self.net.workers[number].join(mac, self.net.now)
        self.net.flush()

    @rule(number=numbers, mac=st.sampled_from(MACS))
    def leaves(self, number, mac):
        self.net.workers[number].leave(mac)
        self.net.flush()

    @rule(number=numbers, mac=st.sampled_from(MACS))
    def decides_alone(self, number, mac):
        worker = self.net.workers[number]
        if mac in worker.guests and worker.guests[mac] is None and worker.candidates(mac):
            worker.take(mac, worker.candidates(mac)[0], self.net.now)
        self.net.flush()

    @rule(sender=numbers, receiver=numbers, at=st.integers(0, 9), keep=st.booleans())
    def arrives(self, sender, receiver, at, keep):
        self.net.deliver((sender, receiver), at, keep)

    @rule(sender=numbers, receiver=numbers)
    def is_lost(self, sender, receiver):
        self.net.queues.pop((sender, receiver), None)

    @rule()
    def all_arrives(self):
        self.net.deliver_all()

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, rs.DEAD_AFTER]))
    def time_passes(self, seconds):
        self.net.now += seconds
        for worker in self.net.workers.values():
            worker.state.tick(self.net.now)
        self.net.flush()

    @rule(number=numbers, known=st.booleans())
    def dies(self, number, known):
        self.net.start(number)
        if known:
            for other, worker in self.net.workers.items():
                if other != number:
                    worker.state.lost(number)
        self.net.flush()

    @rule(one=numbers, other=numbers)
    def is_cut_off(self, one, other):
        if one != other:
            self.net.cut.add(frozenset((one, other)))

    @rule()
    def heals(self):
        self.net.settle()
        self.net.assert_agreed()

    def teardown(self):
        if hasattr(self, "net"):
            self.net.settle()
            self.net.assert_agreed()
            assert not any(worker.counters["trunk.drop.malformed"] for worker in self.net.workers.values())


Rooms.TestCase.settings = settings(
    max_examples=110, stateful_step_count=50, derandomize=True, deadline=None, database=None
)
TestRooms = Rooms.TestCase
