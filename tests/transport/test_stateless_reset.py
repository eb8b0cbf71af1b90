"""Stateless resets (RFC 9000, 10.3): their shape and number, and that both ends act on them."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
from endpoint_parts import RunningEndpoint, ask, headers, pinned, running_endpoint, udp_client
from quic_parts import client_configuration
from waiting import PATIENCE, until

from guest.client import connect
from transport.quic.aioquic_client import RESET_REASON
from transport.quic.stateless_reset import (
    LONGEST_RESET,
    RESETS_PER_SECOND,
    SHORTEST_RESET,
    TOKEN_LENGTH,
    StatelessResets,
    is_reset,
)

KEY = bytes(range(32))
CLIENT = "192.0.2.1"


def packet(length, seed=1):
    """Return a short-header packet of a connection that is not known."""
    return b"\x41\0" + random.Random(seed).randbytes(length - 2)


@pytest.mark.parametrize("length", [22, 23, 40, 43, 44, 45, 100, 1200, 1452])
def test_a_reset_is_shorter_than_what_it_answers_and_ends_with_the_token_of_its_connection_id(length):
    resets = StatelessResets(KEY)
    asked = packet(length)
    answer = resets.answer(asked, CLIENT, 0.0)
    assert SHORTEST_RESET <= len(answer) <= LONGEST_RESET
    assert len(answer) < len(asked)
    assert answer[-TOKEN_LENGTH:] == StatelessResets(KEY).token_of(asked[1:9])
    assert answer[0] & 0xC0 == 0x40  # a short header with the fixed bit
    assert is_reset(answer, frozenset({resets.token_of(asked[1:9])}))


def test_what_precedes_the_token_cannot_be_foretold():
    answers = [StatelessResets(KEY).answer(packet(1200), CLIENT, 0.0)[:-TOKEN_LENGTH] for _ in range(50)]
    assert len(set(answers)) == 50
    assert len({answer[0] for answer in answers}) > 10


@pytest.mark.parametrize("length", [0, 1, 9, 20, 21])
def test_what_is_too_short_for_a_shorter_reset_gets_none(length):
    assert StatelessResets(KEY).answer(packet(21)[:length], CLIENT, 0.0) is None


def test_endpoints_that_answer_each_others_resets_soon_stop():
    one, two = StatelessResets(KEY), StatelessResets(bytes(32))
    sent, count = packet(1452), 0
    while sent is not None:
        sent, count = (one, two)[count % 2].answer(sent, CLIENT, 0.0), count + 1
    assert count <= LONGEST_RESET - SHORTEST_RESET + 2


def test_other_keys_and_connection_ids_have_other_tokens():
    tokens = [
        StatelessResets(key).token_of(bytes((0, *last)))
        for key in (KEY, KEY[::-1])
        for last in (KEY[:7], KEY[1:8])
    ]
    assert len(set(tokens)) == 4


def test_resets_have_a_rate_and_one_address_leaves_some_for_others():
    resets = StatelessResets(KEY)
    mine = [resets.answer(packet(50), CLIENT, 0.5) for _ in range(2 * RESETS_PER_SECOND)]
    assert sum(answer is not None for answer in mine) == RESETS_PER_SECOND // 2
    assert resets.answer(packet(50), "198.51.100.7", 0.5) is not None
    assert resets.answer(packet(50), CLIENT, 1.0) is None
    assert resets.answer(packet(50), CLIENT, 1.6) is not None


# -- an endpoint that has lost its connections ---------------------------------------------------------


def forget(relay):
    """Have the relay lose all connections without a word, as one does that is killed."""
    for connection in list(relay.endpoint._live):
        relay.endpoint.connection_ended(connection)


def running_with_key(key, **options):
    return running_endpoint(reset_key=key, **options)


def test_a_client_knows_a_reset_and_ends_at_once():
    async def scenario():
        async with running_with_key(KEY) as relay:
            client = await connect(relay.url, pinned(), keep_alive=1000.0, idle_timeout=1000.0)
            forget(relay)
            client.send([b"are you there?"])
            async with asyncio.timeout(PATIENCE):
                await client.wait_closed()
            assert client.end == RESET_REASON
            assert relay.counters["endpoint.stateless_resets"] >= 1

    asyncio.run(scenario())


def test_a_client_whose_relay_was_replaced_by_one_with_the_same_key_ends_at_once():
    async def scenario():
        async with running_with_key(KEY) as relay:
            client = await connect(relay.url, pinned(), keep_alive=1000.0, idle_timeout=1000.0)
            url = relay.url
            forget(relay)
            port = relay.endpoint.port
            relay.endpoint.close(0, "")
            await relay.endpoint.wait_closed()
            async with running_with_key(KEY, port=port):
                client.send([b"are you there?"])
                async with asyncio.timeout(PATIENCE):
                    await client.wait_closed()
                assert client.end == RESET_REASON
                again = await connect(url, pinned())
                again.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [b"", bytes(32)], ids=["random key", "another key"])
def test_a_reset_by_another_key_ends_nothing(key):
    async def scenario():
        async with running_with_key(KEY) as relay:
            client = await connect(relay.url, pinned())
            relay.endpoint._resets = RunningEndpoint(reset_key=key).endpoint._resets
            (live,) = relay.endpoint._live
            held = dict(relay.endpoint._connections)
            relay.endpoint._connections.clear()
            client.send([b"to nobody"])
            await until(lambda: relay.counters["endpoint.stateless_resets"])
            relay.endpoint._connections.update(held)
            client.send([b"again"])
            await until(lambda: b"again" in relay.peers[0].datagrams)
            assert client.end is None
            assert live in relay.endpoint._live
            client.close()

    asyncio.run(scenario())


def test_every_connection_id_has_its_token():
    async def scenario():
        async with (
            running_with_key(KEY) as relay,
            udp_client(client_configuration(), relay.address) as client,
        ):
            assert await ask(client, headers()) == b"200"
            await client.until(lambda: len(client.quic._peer_cid_available) > 1)
            told = [client.quic._peer_cid, *client.quic._peer_cid_available]
            assert len(told) > 2
            resets = StatelessResets(KEY)
            assert all(cid.stateless_reset_token == resets.token_of(cid.cid) for cid in told)

    asyncio.run(scenario())


def test_a_client_that_has_changed_its_connection_id_knows_the_reset_too():
    async def scenario():
        async with (
            running_with_key(KEY) as relay,
            udp_client(client_configuration(), relay.address) as client,
        ):
            assert await ask(client, headers()) == b"200"
            await client.until(lambda: client.quic._peer_cid_available)
            client.quic.change_connection_id()
            client.client.send(b"x")
            client.flush()
            await client.until(lambda: b"x" in client.client.datagrams)
            forget(relay)
            client.client.send(b"y")
            client.flush()
            await client.until(lambda: client.quic.ended is not None)
            assert client.quic.ended.reason_phrase == RESET_REASON

    asyncio.run(scenario())


def test_packets_of_strangers_get_resets_that_are_counted_and_nothing_that_is_larger():
    async def scenario():
        async with running_with_key(KEY) as relay:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.setblocking(False)
                stranger.connect(relay.address)
                loop = asyncio.get_running_loop()
                for length in (21, 22, 60, 1200):
                    stranger.send(packet(length, seed=length))
                answers = [await asyncio.wait_for(loop.sock_recv(stranger, 2000), PATIENCE) for _ in range(3)]
                assert [len(answer) for answer in answers] == [21, 43, 43]
                assert relay.counters["endpoint.drop.unknown_connection"] == 4
                assert relay.counters["endpoint.stateless_resets"] == 3

    asyncio.run(scenario())
