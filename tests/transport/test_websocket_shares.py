"""A WebSocket's share of processor time: who takes more is served after the others, and closed at last."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

import pytest
from waiting import until
from web_parts import Peer, run
from websockets.exceptions import ConnectionClosed

from actors.messages import DatagramsFromClient
from transport.web import websocket as websocket_module
from transport.web.websocket import LAST_BATCH


def compute(seconds):
    """Take processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class BusyPeer(Peer):
    """A session's actor to whom each batch is work, and which answers every message."""

    served: ClassVar[list[bytes]] = []
    """What all of them got, in this order."""

    def tell(self, message):
        super().tell(message)
        if isinstance(message, DatagramsFromClient):
            self.served += message.datagrams
            compute(0.010)
            for datagram in message.datagrams:
                self.session.send([datagram])


async def talk_on(client):
    while True:
        await client.send(b"work")
        await client.recv()


async def send_on(client):
    while True:
        await client.send(b"work")
        await asyncio.sleep(0)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_the_work_of_actors_is_charged_to_the_session_that_brought_it(scheme):
    async def scenario(web):
        async with web.client("/", scheme) as client:
            with pytest.raises(ConnectionClosed) as closed:
                await talk_on(client)
        assert closed.value.rcvd.code == websocket_module.POLICY_VIOLATION
        assert closed.value.rcvd.reason == "packets cost more than their share"
        assert web.counters["connection.excessive_work"] == 1
        (peer,) = web.peers
        assert (peer.closed.code, peer.closed.reason) == (0, "packets cost more than their share")
        assert not peer.closed.lost

    run(scenario, peer=BusyPeer)


def test_who_has_taken_more_than_its_share_is_served_after_those_who_have_not(monkeypatch):
    monkeypatch.setattr(BusyPeer, "served", [])

    async def scenario(web):
        async with web.client("/") as costly, web.client("/") as modest:
            for _ in range(4):
                await costly.send(b"costly")
                await costly.recv()
            BusyPeer.served.clear()
            # Both arrive before the listener reads, the costly one's first.
            await costly.send(b"costly")
            await modest.send(b"modest")
            await costly.recv()
        assert BusyPeer.served == [b"modest", b"costly"]

    run(scenario, peer=BusyPeer)


def test_of_two_that_wait_each_gets_a_slice_in_turn(monkeypatch):
    monkeypatch.setattr(BusyPeer, "served", [])

    async def scenario(web):
        async with web.client("/") as one, web.client("/") as other:
            clients = {b"one" + bytes(60): one, b"other" + bytes(60): other}
            for name, client in clients.items():
                for _ in range(2):
                    await client.send(name)
                    await client.recv()
            BusyPeer.served.clear()
            for name, client in clients.items():
                for _ in range(12 * LAST_BATCH):
                    await client.send(name)
            await until(lambda: len(BusyPeer.served) == 24 * LAST_BATCH)
        switches = sum(a != b for a, b in zip(BusyPeer.served, BusyPeer.served[1:], strict=False))
        assert switches >= 8

    run(scenario, peer=BusyPeer)


def test_who_sends_without_end_what_costs_little_is_not_closed():
    async def scenario(web):
        async with web.client("/") as client:
            sent = [b"%05d" % number + bytes(55) for number in range(20_000)]
            for message in sent:
                await client.send(message)
            peer = await web.peer()
            await until(lambda: len(peer.datagrams) == len(sent))
            assert peer.datagrams == sent
        assert web.counters["connection.excessive_work"] == 0

    run(scenario)


def test_who_was_shut_out_is_read_no_more(monkeypatch):
    """However much it still sends: it has CLOSE_TIMEOUT to read why, and is aborted."""
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT", 0.3)

    async def scenario(web):
        async with web.client("/") as client:
            with pytest.raises(ConnectionClosed):
                await send_on(client)
        (peer,) = web.peers
        served = len(BusyPeer.served)
        await until(lambda: not web.listener.connection_count)
        assert len(BusyPeer.served) == served
        assert peer.closed.reason == "packets cost more than their share"

    run(scenario, peer=BusyPeer)
