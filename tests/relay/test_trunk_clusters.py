"""Workers of one machine that are in a cluster: what they say to all comes to each of them twice."""

from __future__ import annotations

import asyncio

import pytest
from lan_parts import mac
from waiting import until

from actors.runtime import current_scheduler
from netstack.counters import Counters
from netstack.room_state import RoomState
from netstack.room_wire import Binding
from relay.trunk import Trunk
from relay.workers.place import NODE_SHIFT, Place
from transport.trunk.nats_servers import NatsServers

HERE, FAR = 7, 9
"""Nodes."""
SERVERS = NatsServers(("nats://nowhere:4222",), "test", b"key")


class LateServer:
    """The way through a server that passes on nothing until it is told to."""

    def __init__(self, _servers, number, *, on_message, **_):
        self.said = []
        self.number, self.hear = number, on_message

    def send(self, worker, message):
        if worker is None:
            self.said.append(message)

    async def close(self):
        pass


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr("transport.trunk.nats_trunk.NatsTrunk", LateServer)

    async def bounded(scenario):
        trunks, counters = [], [Counters(), Counters()]
        for number in (0, 1):
            place = Place(number, 2, tmp_path, bytes(32), HERE)
            trunks.append(Trunk(place, turns=current_scheduler(), counters=counters[number], cluster=SERVERS))
        try:
            await until(lambda: all(len(trunk.state.live()) == 2 for trunk in trunks))
            return await scenario(*trunks, counters[1])
        finally:
            for trunk in trunks:
                trunk.close()

    return lambda scenario: asyncio.run(bounded(scenario))


def test_what_a_server_passes_on_late_of_a_worker_here_undoes_nothing_and_has_nothing_asked_for(run):
    async def scenario(one, two, counters):
        own = mac(1)
        one.state.bind("lab", Binding(own), 0)
        one.work_at_end()
        await until(lambda: two.state.elsewhere("lab", own))
        one.state.unbind("lab", own)
        one.work_at_end()
        await until(lambda: not two.state.elsewhere("lab", own))
        asked = counters["rooms.snapshots_wanted"]
        two.state._workers[one.number].want_at = 0
        found = []
        for message in list(one._nats.said):
            two._nats.hear(message)
            found.append(two.state.elsewhere("lab", own))
        assert len(found) >= 2
        return set(found), counters["rooms.snapshots_wanted"] - asked

    assert run(scenario) == ({None}, 0)


def test_a_worker_that_has_ended_does_not_live_on_by_what_a_server_passes_on_late(run):
    async def scenario(one, two, _):
        one._unix.close()
        two.lost(0)
        for message in list(one._nats.said):
            two._nats.hear(message)
        return two.state.live()

    assert run(scenario) == [HERE << NODE_SHIFT | 1]


def test_workers_of_other_machines_are_heard_and_so_is_one_that_has_this_ones_number(run):
    async def scenario(_, two, counters):
        for number in (FAR << NODE_SHIFT, two.number):
            state = RoomState(number, 1, Counters())
            state.tick(1)
            for _, message in state.take_outgoing():
                two._nats.hear(message)
        return FAR << NODE_SHIFT in two.state.live(), counters["trunk.drop.same_number"]

    assert run(scenario) == (True, 1)
