"""Connections that their clients have closed: gone at once, but for the silence owed to late packets."""

from __future__ import annotations

import asyncio

import pytest
from endpoint_parts import ask, headers, running_endpoint, udp_client
from quic_parts import client_configuration
from waiting import until

from netstack.counters import Counters
from transport.quic import draining
from transport.quic.draining import Draining


def test_ids_are_known_until_their_time_and_forgotten_then():
    gone = Draining(Counters())
    gone.add([b"a", b"b"], 3.0, now=0.0)
    gone.add([b"c"], 2.0, now=0.0)
    assert all(gone.has(name, 1.9) for name in (b"a", b"b", b"c"))
    assert [gone.has(name, 2.0) for name in (b"a", b"c", b"d")] == [True, False, False]
    gone.add([b"d"], 9.0, now=3.0)
    assert len(gone) == 1
    assert not gone._until.keys() - {b"d"}


def test_of_too_many_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(draining, "MOST_DRAINING", 3)
    counters = Counters()
    gone = Draining(counters)
    for number in range(5):
        gone.add([b"%d" % number, b"%d too" % number], 9.0, now=0.0)
    assert [gone.has(b"%d too" % number, 1.0) for number in range(5)] == [False, False, True, True, True]
    assert len(gone) == 3
    assert len(gone._until) == 6
    assert counters["endpoint.draining_cut_short"] == 2


async def drains(relay):
    """Wait until the relay's only connection drains; return until when. Its clock stands before that."""
    await until(lambda: relay.endpoint.connection_count == 0)
    ((over_at, _),) = relay.endpoint._draining._waiting
    relay.endpoint.clock = lambda: over_at - 0.001
    return over_at


@pytest.mark.parametrize("begun", [True, False], ids=["with a session", "before the handshake is over"])
def test_who_closes_its_connection_leaves_nothing_but_silence_for_late_packets(begun):
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            sent = []
            to_send = client.quic.datagrams_to_send

            def remember(now):
                packets = to_send(now)
                sent.extend(packet for packet, _ in packets)
                return packets

            client.quic.datagrams_to_send = remember
            if begun:
                assert await ask(client, headers()) == b"200"
                client.client.send(b"x")
                client.flush()
                await client.until(lambda: b"x" in client.client.datagrams)
            else:
                await until(lambda: relay.endpoint.connection_count == 1)
            client.quic.close()
            client.flush()
            await drains(relay)
            client.fall_silent()
            first = relay.counters["endpoint.drop.draining"]
            late = list(sent)
            for packet in late:
                client.transport.sendto(packet)
            await until(lambda: relay.counters["endpoint.drop.draining"] >= first + len(late))
            assert relay.endpoint.connection_count == 0
            assert relay.counters["endpoint.accepted"] == 1
            assert relay.counters["endpoint.stateless_resets"] == 0

    asyncio.run(scenario())


def test_once_it_is_over_late_packets_are_anybodys():
    async def scenario():
        async with running_endpoint() as relay, udp_client(client_configuration(), relay.address) as client:
            assert await ask(client, headers()) == b"200"
            client.quic.close()
            client.flush()
            over_at = await drains(relay)
            late = b"\x40" + client.quic._peer_cid.cid + bytes(40)
            client.transport.sendto(late)
            await until(lambda: relay.counters["endpoint.drop.draining"])
            relay.endpoint.clock = lambda: over_at
            client.transport.sendto(late)
            await until(lambda: relay.counters["endpoint.stateless_resets"])

    asyncio.run(scenario())
