"""Rooms over workers: what each knows of the others' guests, whatever happens to the messages between."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from room_parts import ADDRESSES, MACS, ROOM, UNIX, Net, Worker

from netstack import room_events
from netstack import room_state as rs
from netstack.counters import Counters
from netstack.room_wire import (
    MAX_SEQ,
    Binding,
    Change,
    Flag,
    Kind,
    pack_about,
    pack_change,
    pack_changes,
    pack_head,
    read_head,
)


class Rooms(RuleBasedStateMachine):
    """Guests come, go and move while workers die and messages are lost; then all is well again."""

    numbers = st.integers(0, 2)

    @initialize(late=st.booleans())
    def begin(self, late):
        self.net = Net()
        self.net.late = late
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


# -- single rules -------------------------------------------------------------------------------------


@pytest.fixture
def net():
    net = Net()
    net.settle(1.0)
    return net


def home(net):
    return net.workers[0].state.home_of(ROOM)


def test_who_takes_a_mac_over_announces_one_more_and_the_other_is_told(net):
    net.workers[0].join(MACS[0], net.now)
    net.deliver_all()
    address = net.workers[0].guests[MACS[0]]
    net.workers[1].join(MACS[0], net.now)
    net.deliver_all()
    assert net.workers[0].guests == {}
    assert net.workers[1].guests == {MACS[0]: address}
    assert net.workers[1].state.own(ROOM, MACS[0]).seq == 1
    net.assert_agreed()


def test_who_was_beaten_unaware_may_announce_one_more_than_the_winner(net):
    for number in (0, 1):
        net.workers[number].join(MACS[0], net.now)
    state = net.workers[1].state
    for message in [m for _, m in net.workers[0].state.take_outgoing()]:
        state.receive(message, net.now)
    (lost,) = [e for e in state.take_events() if isinstance(e, room_events.Elsewhere)]
    assert lost.lost
    state.bind(ROOM, Binding(MACS[0], (ADDRESSES[0],)), UNIX, again=True)
    net.deliver_all()
    assert state.own(ROOM, MACS[0]).seq == 1
    assert net.workers[0].guests == {}


def test_a_guest_that_was_taken_over_for_a_moment_only_is_its_former_workers_again(net):
    one, two = net.workers[0], net.workers[1]
    one.join(MACS[0], net.now)
    net.deliver_all()
    two.join(MACS[0], net.now)
    assert two.state.elsewhere(ROOM, MACS[0]) is None
    two.state.take_events()
    two.leave(MACS[0])  # the other has not heard of it
    assert two.state.take_events() == [room_events.Elsewhere(ROOM, 0, one.state.own(ROOM, MACS[0]))]
    net.deliver_all()
    assert one.guests.keys() == {MACS[0]}
    net.assert_agreed()


@pytest.mark.parametrize(
    ("granted", "since", "keeper"),
    [
        ((False, False), (7, 7), 0),
        ((False, False), (8, 7), 1),
        ((False, False), (7, 8), 0),
        ((False, True), (7, 8), 1),
        ((True, True), (8, 7), 1),
        ((True, False), (8, 7), 0),
    ],
)
def test_all_workers_say_the_same_of_whose_a_name_is(net, granted, since, keeper):
    for number in (0, 1):
        flags = Flag.GRANTED_NAME if granted[number] else 0
        binding = Binding(MACS[number], (ADDRESSES[number],), "web", flags=int(flags))
        net.workers[number].state.bind(ROOM, binding, UNIX + since[number])
    net.deliver_all()
    for worker in net.workers.values():
        assert worker.state.keeps_name(ROOM, MACS[keeper], MACS[1 - keeper])
        assert not worker.state.keeps_name(ROOM, MACS[1 - keeper], MACS[keeper])
        assert worker.state.keeps_name(ROOM, MACS[keeper], MACS[4]), "who was not announced has nothing"


@pytest.mark.parametrize("fixed", [0, 1])
def test_an_address_that_is_fixed_for_a_guest_is_its_whoever_had_it_before(net, fixed):
    for number in (0, 1):
        binding = Binding(MACS[number], (ADDRESSES[0],))
        known = ADDRESSES[0] if number == fixed else None
        net.workers[number].state.bind(ROOM, binding, UNIX + (number == fixed), fixed=known)
    net.deliver_all()
    lost = [
        (number, event.mac)
        for number, worker in net.workers.items()
        for event in worker.events
        if isinstance(event, room_events.AddressLost)
    ]
    assert lost == [(1 - fixed, MACS[1 - fixed])]


def test_the_highest_sequence_number_can_be_announced_too(net):
    """A member may announce any; one more than the highest could not be written, in no snapshot either."""
    one, other = net.workers[0].state, net.workers[1].state
    one._former[ROOM, MACS[0]] = MAX_SEQ
    one.bind(ROOM, Binding(MACS[0], (ADDRESSES[0],)), UNIX)
    one.bind(ROOM, Binding(MACS[1], (ADDRESSES[1],)), UNIX)
    net.deliver_all()
    assert {binding.mac: binding.seq for _, binding in other.all_elsewhere(ROOM)} == {
        MACS[0]: MAX_SEQ,
        MACS[1]: 0,
    }


def test_an_older_change_does_not_undo_a_newer_one(net):
    state, other = net.workers[0].state, net.workers[1].state
    state.take_outgoing()
    for name in ("old", "new"):
        state.bind(ROOM, Binding(MACS[0], (ADDRESSES[0],), name), UNIX)
        messages = state.take_outgoing()
        if name == "old":
            kept = messages
        for _, message in messages:
            other.receive(message, net.now)
    for _, message in kept:
        other.receive(message, net.now)
    assert other.elsewhere(ROOM, MACS[0])[1].name == "new"


def test_a_former_incarnation_is_not_listened_to(net):
    old = net.workers[0]
    old.join(MACS[0], net.now)
    messages = [m for _, m in old.state.take_outgoing()]
    net.start(0)
    net.settle(1.0)
    for message in messages:
        net.workers[1].state.receive(message, net.now)
    assert net.workers[1].counters["trunk.drop.former_incarnation"] == len(messages)
    assert net.workers[1].view() == []


def test_what_a_worker_said_before_its_end_brings_it_not_back(net):
    one, two = net.workers[0], net.workers[1].state
    net.settle(1.0)
    one.join(MACS[0], net.now)
    messages = [message for _, message in one.state.take_outgoing()]
    assert 0 in two.live()
    two.lost(0)
    for beat in range(5):  # on its way for 2 s, which no message is
        for message in messages:
            two.receive(message, net.now + beat * rs.HELLO_EVERY)
        two.tick(net.now + beat * rs.HELLO_EVERY)
        assert 0 not in two.live()
    assert net.workers[1].counters["trunk.drop.former_incarnation"] == 5 * len(messages) > 0
    # Should it live nevertheless, it is one of them again soon.
    later = net.now + 2 * rs.DEAD_AFTER
    two.tick(later)
    two.receive(messages[0], later)
    assert 0 in two.live()


def test_another_that_goes_by_ones_own_number_is_told_from_oneself():
    one, namesake = Worker(1, 100), Worker(1, 200)
    namesake.state.tick(5.0)
    one.state.tick(5.0)
    own = [message for _, message in one.state.take_outgoing()]
    foreign = [message for _, message in namesake.state.take_outgoing()]
    assert own
    assert foreign
    for message in own:
        one.state.receive(message, 5.0)
    assert one.state.same_number_at == 0.0
    for message in foreign:
        one.state.receive(message, 6.0)
    assert one.state.same_number_at == 6.0
    assert dict(one.counters.items()) == {"trunk.drop.same_number": len(foreign)}
    assert one.state.live() == [1]


def test_what_a_home_has_granted_it_grants_to_nobody_else_for_a_while(net):
    state = net.workers[home(net)].state
    assert state.grant(ROOM, MACS[0], ADDRESSES[:1], net.now) == ADDRESSES[0]
    assert state.grant(ROOM, MACS[1], ADDRESSES[:2], net.now) == ADDRESSES[1]
    assert state.grant(ROOM, MACS[2], ADDRESSES[:2], net.now) == b""
    assert state.grant(ROOM, MACS[0], ADDRESSES[:1], net.now) == ADDRESSES[0]
    assert state.grant(ROOM, MACS[2], ADDRESSES[:2], net.now + rs.GRANT_KEPT) == ADDRESSES[0]


def test_a_home_does_not_grant_what_a_guest_of_any_worker_has(net):
    other = net.workers[next(n for n in net.workers if n != home(net))]
    other.join(MACS[0], net.now)
    net.deliver_all()
    state = net.workers[home(net)].state
    taken = other.guests[MACS[0]]
    assert state.grant(ROOM, MACS[1], (taken, ADDRESSES[7]), net.now) == ADDRESSES[7]


def test_fifty_guests_that_come_at_once_over_all_workers_have_addresses_of_their_own(net):
    pool = [bytes((10, 0, 2, n)) for n in range(10, 70)]
    given = {}
    for n in range(50):
        worker = net.workers[n % 3]
        mac = bytes((2, 0, 0, 0, 1, n))
        answer, tries = worker.state.ask(n, ROOM, mac, tuple(pool[n % 5 :][:16]), net.now), 0
        while not answer and tries < 10:
            net.deliver_all()
            granted = [
                e for e in worker.events if isinstance(e, room_events.Granted) and e.token == n + 1000 * tries
            ]
            answer = granted[-1].address if granted else b""
            if not answer:
                tries += 1
                answer = worker.state.ask(
                    n + 1000 * tries, ROOM, mac, tuple(pool[(n + 7 * tries) % 45 :][:16]), net.now
                )
        given[mac] = answer
    assert b"" not in given.values()
    assert len(set(given.values())) == 50


def test_the_guest_that_has_an_address_for_longer_keeps_it(net):
    net.cut = {frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2))}
    net.deliver_all()
    net.workers[2].guests[MACS[0]] = ADDRESSES[0]
    net.workers[2].announce(MACS[0], net.now)
    net.workers[0].guests[MACS[1]] = ADDRESSES[0]
    net.workers[0].announce(MACS[1], net.now + 60)
    net.settle()
    assert net.workers[2].guests == {MACS[0]: ADDRESSES[0]}
    assert net.workers[0].guests[MACS[1]] not in (None, ADDRESSES[0])
    assert net.workers[0].counters["rooms.addresses_lost"] >= 1
    assert net.workers[2].counters["rooms.addresses_lost"] == 0
    net.assert_agreed()


def test_a_worker_that_is_silent_has_no_guests_any_more(net):
    net.workers[0].join(MACS[0], net.now)
    net.settle(1.0)
    state = net.workers[1].state
    state.tick(net.now + rs.DEAD_AFTER - 0.01)
    assert state.elsewhere(ROOM, MACS[0]) is not None
    state.tick(net.now + rs.DEAD_AFTER)
    assert state.elsewhere(ROOM, MACS[0]) is None
    assert room_events.NowhereElse(ROOM, MACS[0]) in state.take_events()
    assert state.live() == [1]


def test_what_is_elsewhere_in_one_room_is_not_in_another(net):
    for room, mac in ((ROOM, MACS[0]), ("lab", MACS[0]), ("lab", MACS[1]), ("lab", rs.MEMBER)):
        net.workers[0].state.bind(room, Binding(mac, port=1), UNIX)
    net.deliver_all()
    state = net.workers[1].state
    state.bind(ROOM, Binding(rs.MEMBER, port=1), UNIX)
    found = {room: [b.mac for _, b in state.all_elsewhere(room)] for room in (ROOM, "lab", "other")}
    assert found == {ROOM: [MACS[0]], "lab": [MACS[0], MACS[1]], "other": []}


def test_who_has_heard_every_change_asks_for_no_snapshot(net):
    net.workers[0].join(MACS[0], net.now)
    net.workers[0].join(MACS[1], net.now)
    net.deliver_all()
    net.workers[0].guests[MACS[0]] = ADDRESSES[7]
    net.workers[0].announce(MACS[0], net.now)
    net.workers[0].leave(MACS[1])
    net.settle()
    net.assert_agreed()
    assert [worker.counters["rooms.snapshots_wanted"] for worker in net.workers.values()] == [0, 0, 0]


def test_a_contest_reaches_the_worker_that_is_told_and_no_other(net):
    net.workers[0].state.contest(1, ROOM, ADDRESSES[0], MACS[0])
    net.deliver_all()
    contested = {
        n: [e for e in w.events if isinstance(e, room_events.Contested)] for n, w in net.workers.items()
    }
    assert contested == {0: [], 1: [room_events.Contested(ROOM, ADDRESSES[0], MACS[0])], 2: []}


def test_members_are_told_with_their_ports(net):
    state, other = net.workers[0].state, net.workers[1].state
    state.bind(ROOM, Binding(rs.MEMBER, port=3), UNIX)
    net.deliver_all()
    assert other.members(ROOM) == {0: 3}
    state.unbind(ROOM, rs.MEMBER)
    net.deliver_all()
    assert other.members(ROOM) == {}


def test_tables_are_bounded(net, monkeypatch):
    monkeypatch.setattr(rs, "MAX_ENTRIES", 3)
    monkeypatch.setattr(rs, "MAX_GRANTS", 3)
    state = net.workers[0].state
    for n in range(5):
        state.bind(ROOM, Binding(bytes((2, 0, 0, 0, 2, n))), UNIX)
        state.grant(ROOM, bytes((2, 0, 0, 0, 2, n)), [bytes((10, 0, 2, n))], net.now)
    net.deliver_all()
    assert net.workers[0].counters["rooms.drop.table_full"] == 2
    assert len(net.workers[1].state.all_elsewhere(ROOM)) == 3
    assert len(state._grants) == 3


def test_a_snapshot_of_many_parts_is_taken_whole(net):
    state = net.workers[0].state
    for n in range(3000):
        mac = bytes((2, 0, 0, 0, n >> 8, n & 0xFF))
        state.bind(ROOM, Binding(mac, (bytes((10, 1, n >> 8, n & 0xFF)),), "n" * 40), UNIX)
    state.take_outgoing()  # all of it is lost
    net.settle(2.0)
    assert len(net.workers[1].state.all_elsewhere(ROOM)) == 3000


@settings(max_examples=200)
@given(st.sampled_from(Kind), st.binary(max_size=120), st.integers(0, 3))
def test_no_message_however_wrong_does_more_than_being_counted(kind, body, sender):
    worker = Worker(0, 1)
    worker.join(MACS[0], 0.0)
    for message in (pack_head(kind, sender, 99) + body, body):
        worker.state.receive(message, 0.0)
    worker.react(0.0)
    worker.state.tick(rs.DEAD_AFTER)
    assert worker.state.live() == [0]


def test_one_address_said_twice_is_one(net):
    state = net.workers[0].state
    twice = Binding(MACS[0], (ADDRESSES[0], ADDRESSES[0]), since=(UNIX, UNIX))
    for version, binding in ((1, twice), (2, None)):
        body = pack_changes([pack_change(Change(ROOM, MACS[0], version, binding))])[0]
        state.receive(pack_head(Kind.CHANGES, 7, 1) + body, net.now)
        assert state.holders_of(ROOM, ADDRESSES[0]) == ({MACS[0]} if binding else set())


def test_where_a_machine_is_reached_is_known_at_once_told_now_and_then_and_forgotten_with_it():
    one = rs.RoomState(1, 1, Counters(), ["https://one"])
    two = rs.RoomState(2, 1, Counters(), ["https://two"])
    silent = rs.RoomState(3, 1, Counters())
    states = {1: one, 2: two, 3: silent}

    def exchange(now):
        told = 0
        for number, state in states.items():
            for to, message in state.take_outgoing():
                told += read_head(message).kind == Kind.ABOUT
                for other in states.keys() - {number} if to is None else {to}:
                    states[other].receive(message, now)
        return told

    one.tick(0.0)
    while exchange(0.0):
        pass
    assert [two.urls_of(n) for n in (1, 2, 3)] == [("https://one",), ("https://two",), ()]
    for state in states.values():
        state.tick(rs.ABOUT_EVERY)
    while exchange(rs.ABOUT_EVERY):
        pass  # they have been silent for so long that they are new to each other
    told = 0
    for beat in range(1, 41):  # 20 s
        for state in states.values():
            state.tick(rs.ABOUT_EVERY + beat * rs.HELLO_EVERY)
        told += exchange(rs.ABOUT_EVERY + beat * rs.HELLO_EVERY)
    assert told == 8
    assert one.urls_of(2) == ("https://two",)
    one.lost(2)
    assert one.urls_of(2) == ()


def test_urls_that_are_none_are_dropped_and_counted():
    counters = Counters()
    state = rs.RoomState(1, 1, counters)
    state.receive(pack_head(Kind.ABOUT, 2, 1) + pack_about(["javascript:x"]), 0.0)
    assert state.urls_of(2) == ()
    assert counters["trunk.drop.malformed"] == 1


def test_a_worker_that_was_only_silent_does_not_take_back_a_guest_that_went_elsewhere():
    one, two = rs.RoomState(1, 1, Counters()), rs.RoomState(2, 1, Counters())
    states = {1: one, 2: two}

    def exchange(now):
        for number, state in states.items():
            for _, message in state.take_outgoing():
                states[3 - number].receive(message, now)

    mac = MACS[0]
    one.bind(ROOM, Binding(mac, (ADDRESSES[0],)), UNIX)
    exchange(0.0)
    exchange(0.0)
    assert two.elsewhere(ROOM, mac)[0] == 1
    two.tick(rs.DEAD_AFTER)
    assert two.elsewhere(ROOM, mac) is None
    two.bind(ROOM, Binding(mac, (ADDRESSES[0],)), UNIX + 3)
    for now in (4.0, 4.5, 5.0, 5.5, 6.0):
        for state in states.values():
            state.tick(now)
        exchange(now)
        exchange(now)
    assert [
        event.worker for event in one.take_events() if isinstance(event, room_events.Elsewhere) and event.lost
    ] == [2]
    assert not any(isinstance(event, room_events.Elsewhere) and event.lost for event in two.take_events())
    assert one.elsewhere(ROOM, mac)[0] == 2


def test_what_is_remembered_of_lost_workers_is_bounded(monkeypatch):
    monkeypatch.setattr(rs, "MAX_ENTRIES", 10)
    state = rs.RoomState(1, 1, Counters())
    for worker in range(2, 8):
        changes = [
            pack_change(
                Change(ROOM, bytes((2, 0, 0, 0, worker, n)), 1, Binding(bytes((2, 0, 0, 0, worker, n))))
            )
            for n in range(8)
        ]
        state.receive(pack_head(Kind.CHANGES, worker, 1) + pack_changes(changes)[0], 0.0)
        state.lost(worker)
    assert len(state._former) == 10


def test_a_worker_is_known_once_it_was_heard_with_all_that_it_has():
    one, two = rs.RoomState(1, 1, Counters()), rs.RoomState(2, 1, Counters())
    one.bind(ROOM, Binding(MACS[0]), UNIX)
    one.take_outgoing()  # the other is not there yet

    def says(sender, receiver, kind):
        kinds = set()
        for _, message in sender.take_outgoing():
            receiver.receive(message, 1.0)
            kinds.add(read_head(message).kind)
        assert kind in kinds

    two.tick(1.0)
    says(two, one, Kind.HELLO)
    assert one.knows(2), "it has nothing"
    assert not two.knows(1)
    says(one, two, Kind.HELLO)
    assert not two.knows(1)
    two.tick(1.6)
    says(two, one, Kind.WANT)
    says(one, two, Kind.SNAPSHOT)
    assert two.knows(1)
    two.lost(1)
    assert not two.knows(1)


def test_a_worker_is_told_everything_now_and_then_however_often_it_asks():
    counters = Counters()
    state = rs.RoomState(1, 1, counters)
    want = pack_head(Kind.WANT, 2, 7)

    def snapshots(now):
        for _ in range(50):
            state.receive(want, now)
        return sum(read_head(each.message).kind == Kind.SNAPSHOT for each in state.take_outgoing())

    assert [snapshots(now) for now in (10.0, 10.0 + rs.TOLD_EVERY / 2, 10.0 + rs.TOLD_EVERY)] == [1, 0, 1]
    assert counters["rooms.drop.snapshots_wanted"] == 148
