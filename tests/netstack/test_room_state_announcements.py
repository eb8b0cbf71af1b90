"""Which changes of a worker's guests are announced at once, and which share the message of others."""

from __future__ import annotations

import struct

import pytest
from room_parts import ADDRESSES, MACS, ROOM, UNIX, Net

from netstack import room_events
from netstack import room_state as rs
from netstack.counters import Counters
from netstack.room_wire import Binding, Flag, Kind, read_changes, read_head


@pytest.fixture
def net():
    net = Net()
    net.settle(1.0)
    return net


def heard(state, *, late=False):
    """Take what a worker says; list the changes in each message of them."""
    messages = [message for _, message in state.take_outgoing(late=late)]
    bodies = [read_changes(message) for message in messages if read_head(message).kind == Kind.CHANGES]
    return [[change for change, _ in body] for body in bodies]


def told(address=ADDRESSES[0], flags=0, mac=MACS[0]):
    return Binding(mac, () if address is None else (address,), flags=flags)


def ports(number):
    return Binding(rs.MEMBER, port=number)


def replace(state, before, after):
    """Have one binding in place of another; None for ``after``: it is gone."""
    if after is None:
        state.unbind(ROOM, before.mac)
    else:
        state.bind(ROOM, after, UNIX)


@pytest.fixture
def state():
    return rs.RoomState(1, 1, Counters())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (told(), told(flags=Flag.SILENT | Flag.AWAY)),
        (told(flags=Flag.AWAY | Flag.NAMED_BY_TOKEN), told(flags=Flag.NAMED_BY_TOKEN)),
        (told(), None),
        (ports(1), ports(2)),
    ],
)
def test_who_is_silent_or_gone_and_how_many_ports_there_are_is_told_with_the_next_thing(state, before, after):
    state.bind(ROOM, before, UNIX)
    heard(state)
    replace(state, before, after)
    assert heard(state) == []
    assert state.has_changes
    state.bind(ROOM, told(ADDRESSES[1], mac=MACS[1]), UNIX)
    ((first, second),) = heard(state)
    assert (first.mac, second.mac) == (before.mac, MACS[1])
    assert first.binding is None if after is None else first.binding.flags == after.flags
    assert not state.has_changes


@pytest.mark.parametrize("waits", [True, False])
def test_the_end_of_a_time_brings_out_what_waits(state, waits):
    state.bind(ROOM, told(), UNIX)
    heard(state)
    state.bind(ROOM, told(flags=Flag.AWAY), UNIX)
    assert len(heard(state, late=not waits)) == (not waits)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, told()),
        (None, told(None)),
        (told(None), told()),
        (told(), told(ADDRESSES[1])),
        (told(), told()._replace(name="vm")),
        (told(), told()._replace(port=3)),
        (told(), told(flags=Flag.ISOLATED)),
        (None, ports(1)),
        (ports(1), None),
    ],
)
def test_all_else_is_told_at_once(state, before, after):
    if before is not None:
        state.bind(ROOM, before, UNIX)
    heard(state)
    replace(state, before, after)
    assert len(heard(state)) == 1


def test_a_guest_whose_address_is_asked_for_is_told_of_with_it(state):
    state.bind(ROOM, told(None), UNIX, is_pending=True)
    assert heard(state) == []
    state.bind(ROOM, told(), UNIX)
    (((change),),) = heard(state)
    assert change.binding.addresses == (ADDRESSES[0],)


def test_a_guest_that_another_worker_has_is_told_of_at_once_though_its_address_is_asked_for(net):
    one, two = net.workers[0].state, net.workers[1].state
    one.bind(ROOM, told(None), UNIX)
    net.deliver_all()
    two.bind(ROOM, told(None), UNIX, is_pending=True)
    assert len(heard(two)) == 1


def test_who_asks_for_an_address_tells_before_which_are_free_again(net):
    asking = next(w.state for w in net.workers.values() if w.state.home_of(ROOM) != w.state.number)
    asking.bind(ROOM, told(), UNIX)
    asking.bind(ROOM, told(ADDRESSES[1], mac=MACS[1]), UNIX)
    net.deliver_all()
    asking.bind(ROOM, told(flags=Flag.AWAY), UNIX)
    asking.ask(1, ROOM, MACS[2], (ADDRESSES[2],), net.now)
    kinds = [read_head(message).kind for _, message in asking.take_outgoing(late=False)]
    assert kinds == [Kind.ASK], "nothing is free that was not"
    asking.unbind(ROOM, MACS[1])
    asking.ask(2, ROOM, MACS[2], (ADDRESSES[1],), net.now)
    kinds = [read_head(message).kind for _, message in asking.take_outgoing(late=False)]
    assert kinds == [Kind.CHANGES, Kind.ASK]


def test_nobody_wants_a_snapshot_for_what_waits(net):
    one = net.workers[0]
    one.state.bind(ROOM, told(), UNIX)
    net.deliver_all()
    net.late = False
    one.state.bind(ROOM, told(flags=Flag.AWAY), UNIX)
    net.settle(1.0)
    assert net.workers[1].state.elsewhere(ROOM, MACS[0])[1].flags == Flag.AWAY
    assert [worker.counters["rooms.snapshots_wanted"] for worker in net.workers.values()] == [0, 0, 0]


def test_that_a_member_has_more_ports_is_known_and_no_event(net):
    one, two = net.workers[0].state, net.workers[1]
    seen = []
    for binding in (ports(1), ports(2), None, ports(3)):
        if binding is None:
            one.unbind(ROOM, rs.MEMBER)
        else:
            one.bind(ROOM, binding, UNIX)
        two.events.clear()
        net.deliver_all()
        seen.append((dict(two.state.members(ROOM)), two.events.count(room_events.MembersChanged(ROOM))))
    assert seen == [({0: 1}, 1), ({0: 2}, 0), ({}, 1), ({0: 3}, 1)]


def test_a_change_that_cannot_be_written_keeps_no_other_from_being_told(state):
    for mac, name, port in zip(MACS, ("before", "", "behind"), (1, 2**64, 1), strict=False):
        state.bind(ROOM, Binding(mac, name=name, port=port), UNIX)
    with pytest.raises(struct.error):
        state.take_outgoing()
    (before,), (behind,) = heard(state, late=True)
    assert [change.binding.name for change in (before, behind)] == ["before", "behind"]
