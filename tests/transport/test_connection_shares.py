"""A connection's share of a turn: what is left waits, the others go first, and who goes on is closed."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

import pytest
from aioquic.h3.connection import ErrorCode
from endpoint_parts import PATIENCE, EchoPeer, pinned, receive, running_endpoint
from quic_parts import Forge, Pair, datagram_frame

from actors.messages import DatagramsFromClient
from guest.client import SessionEndedError, connect
from transport import work_shares
from transport.quic import carrier as carrier_module
from transport.quic import endpoint as endpoint_module
from transport.quic.carrier import ORDINARY_COST, SLICE
from transport.quic.datagram_path import MOST_ARRIVED
from transport.work_shares import MOST_EXCESS, MOST_OVERRUNS, STRICT, TOLERATED_EXCESS

STREAM_LIMITS = b"\x10\x01" * 200
"""Frames that only aioquic reads."""


class SlowClock:
    """Gives each look at the clock a number of seconds more than the last."""

    def __init__(self, step):
        self.step = step
        self.now = 0.0

    def __call__(self):
        self.now += self.step
        return self.now


def test_a_batch_of_frames_is_taken_in_one_go():
    pair = Pair.established()
    forge = Forge(pair.client)
    packets = [forge.datagram(b"frame") for _ in range(SLICE)]
    assert pair.relay.connection.receive(packets, pair.address, pair.now) == SLICE


def test_a_slow_packet_is_the_last_when_the_share_is_used_up(monkeypatch):
    pair = Pair.established()
    forge = Forge(pair.client)
    packets = [forge.packet(STREAM_LIMITS), *(forge.datagram(b"%d" % n) for n in range(3))]
    monkeypatch.setattr(carrier_module, "perf_counter", SlowClock(0.01))
    connection = pair.relay.connection
    assert connection.receive(packets, pair.address, pair.now) == 1
    assert connection.receive(packets[1:], pair.address, pair.now) == 3
    connection.deliver()
    assert pair.relay.peer.datagrams == [b"0", b"1", b"2"]


def test_an_actor_is_told_of_no_more_datagrams_at_a_time_than_it_can_work_on():
    pair = Pair.established()
    forge = Forge(pair.client)
    packets = [forge.packet(datagram_frame(b"") * 100) for _ in range(20)]
    taken = pair.relay.connection.receive(packets, pair.address, pair.now)
    assert taken == -(-MOST_ARRIVED // 100)


def test_who_goes_on_costing_too_much_is_closed_with_a_reason(monkeypatch):
    pair = Pair.established()
    forge = Forge(pair.client)
    for clock in ("perf_counter", "work_time"):
        monkeypatch.setattr(carrier_module, clock, SlowClock(0.005))
    packets = 0
    while pair.relay.quic.ended is None:
        pair.relay.receive(forge.packet(STREAM_LIMITS), now=pair.now)
        packets += 1
        assert packets < 200
    assert pair.relay.quic.ended.error_code == ErrorCode.H3_EXCESSIVE_LOAD
    assert pair.relay.quic.ended.reason_phrase == "packets cost more than their share"
    assert pair.relay.host.counters["connection.excessive_work"] == 1
    assert pair.relay.peer.closed


def test_excess_is_forgiven_in_time(monkeypatch):
    pair = Pair.established()
    forge = Forge(pair.client)
    for clock in ("perf_counter", "work_time"):
        monkeypatch.setattr(carrier_module, clock, SlowClock(0.005))
    for _ in range(200):
        pair.now += 1.0
        pair.relay.receive(forge.packet(STREAM_LIMITS), now=pair.now)
    assert pair.relay.quic.ended is None
    assert pair.relay.connection.work.excess < MOST_EXCESS / 10


def test_what_the_machine_does_meanwhile_is_no_work_of_a_client(monkeypatch):
    pair = Pair.established()
    forge = Forge(pair.client)
    monkeypatch.setattr(carrier_module, "perf_counter", SlowClock(0.05))
    monkeypatch.setattr(carrier_module, "work_time", SlowClock(ORDINARY_COST / 2))
    for number in range(200):
        pair.relay.receive(forge.datagram(b"%d" % number), now=pair.now)
    assert pair.relay.quic.ended is None
    assert pair.relay.connection.work.excess <= TOLERATED_EXCESS


def test_what_is_left_of_a_batch_comes_in_order_in_later_turns(monkeypatch):
    monkeypatch.setattr(carrier_module, "SHARE", 0.0)

    async def scenario():
        async with running_endpoint() as relay:
            client = await connect(relay.url, pinned())
            sent = [b"%04d" % number + bytes(800) for number in range(400)]
            for at in range(0, len(sent), 100):
                client.send(sent[at : at + 100])
                await client.wait_writable()
            assert await receive(client, len(sent)) == sent
            assert relay.counters["endpoint.drop.behind"] == 0
            client.close()

    asyncio.run(scenario())


def test_those_with_an_excess_are_served_after_the_others(monkeypatch):
    monkeypatch.setattr(endpoint_module, "SLOW_TURN", 0.0)
    monkeypatch.setattr(endpoint_module, "USUAL_COST", 0.0)
    monkeypatch.setattr(work_shares, "TOLERATED_EXCESS", -1.0)

    async def scenario():
        async with running_endpoint() as relay:
            # Everybody is behind: all the more, everything works.
            client = await connect(relay.url, pinned())
            client.send([b"hello"])
            assert await receive(client, 1) == [b"hello"]
            client.close()
            await asyncio.wait_for(relay.peers[0].closed, 10)

    asyncio.run(scenario())


def compute(seconds):
    """Take processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class BusyPeer(EchoPeer):
    """A session's actor to whom datagrams are work."""

    served: ClassVar[list[bytes]] = []
    """What all of them got, in this order."""
    takes = 0.010
    """Seconds for what came in one turn."""

    def tell(self, message):
        if isinstance(message, DatagramsFromClient):
            self.served += message.datagrams
            compute(self.takes)
        super().tell(message)


async def talk_on(client):
    while True:
        client.send([b"work"])
        await receive(client, 1)


def test_the_work_of_actors_is_charged_to_the_session_that_brought_it():
    async def scenario():
        async with running_endpoint(make_peer=BusyPeer) as relay:
            client = await connect(relay.url, pinned())
            with pytest.raises(SessionEndedError, match="packets cost more than their share"):
                await asyncio.wait_for(talk_on(client), PATIENCE)
            assert relay.counters["connection.excessive_work"] == 1
            assert await relay.peers[0].closed == (0, "packets cost more than their share")

    asyncio.run(scenario())


class StoppedPeer(EchoPeer):
    """A session's actor during whose turns the machine does something else."""

    takes = 0.010

    def tell(self, message):
        if isinstance(message, DatagramsFromClient):
            time.sleep(self.takes)
        super().tell(message)


@pytest.mark.parametrize(("make_peer", "is_watched"), [(BusyPeer, True), (StoppedPeer, False)])
def test_those_whose_turns_take_long_are_watched_if_that_is_their_work(make_peer, is_watched, monkeypatch):
    # So long that no turn's own work comes near, with coverage measured on a busy machine.
    for bound in ("SLOW_TURN", "LONG_TURN"):
        monkeypatch.setattr(endpoint_module, bound, 0.1)
    monkeypatch.setattr(make_peer, "takes", 0.12)

    async def scenario():
        async with running_endpoint(make_peer=make_peer) as relay:
            client = await connect(relay.url, pinned())
            for _ in range(4):
                client.send([b"work"])
                await receive(client, 1)
            (connection,) = relay.endpoint._live
            assert (connection.watched_until > 0.0) is is_watched
            client.close()

    asyncio.run(scenario())


def test_within_a_turn_those_who_cost_little_are_served_first(monkeypatch):
    monkeypatch.setattr(BusyPeer, "served", [])

    async def scenario():
        async with running_endpoint(make_peer=BusyPeer) as relay:
            costly, modest = [await connect(relay.url, pinned()) for _ in range(2)]
            for number in range(4):
                costly.send([b"costly %d" % number])
                await receive(costly, 1)
            BusyPeer.served.clear()
            # Both arrive before the relay reads.
            for _ in range(3):
                costly.send([b"costly"])
            modest.send([b"modest"])
            await receive(modest, 1)
            await receive(costly, 3)
            for client in (costly, modest):
                client.close()

    asyncio.run(scenario())
    assert BusyPeer.served == [b"modest", b"costly", b"costly", b"costly"]


def have_turn(connection, taken, left_out, now):
    """Tell a connection of a turn of its own, and of what was dropped before."""
    connection.left_out += left_out
    connection.begin_own_turn(STRICT)
    connection.end_own_turn(0.0, taken, 1200 * taken, STRICT, now)


def test_who_does_not_slow_down_though_its_packets_are_dropped_is_closed():
    pair = Pair.established()
    connection = pair.relay.connection
    for second in range(20):
        assert (connection.quic.ended is None) == (second <= MOST_OVERRUNS), second
        have_turn(connection, 100, 60, pair.now + second * 1.01)
    assert connection.quic.ended.reason_phrase == "it goes on sending more packets than there is time for"
    assert pair.relay.peer.closed


def test_who_slows_down_is_not_closed():
    pair = Pair.established()
    connection = pair.relay.connection
    for second in range(60):
        have_turn(connection, 100, 60 if second % 5 else 10, pair.now + second * 1.01)
    assert connection.quic.ended is None
