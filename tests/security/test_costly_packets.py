"""Packets that cost more than they bring: their sender is served after the others, and never before them."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from aioquic.buffer import encode_uint_var
from guests import CHUNK, Guest
from processes import Relay
from quic_attacker import attacker, send_slowly
from quic_parts import datagram_frame
from stream_frames import stream_frame
from watch import spares_the_neighbour

SECONDS = 2.0
"""How long each attack lasts; who is closed for it stops earlier."""


@pytest.fixture
def relay():
    relay = Relay()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


def empty_stream_frames(_number):
    return stream_frame(2, 0, b"") * 230


def acknowledgements_in_ranges(_number):
    ranges = 250
    return b"\x02" + encode_uint_var(2 * ranges) + b"\0" + encode_uint_var(ranges) + b"\0" + b"\0\0" * ranges


def path_challenges(number):
    return b"".join(b"\x1a" + number.to_bytes(8, "big") for _ in range(120))


def stream_limits(_number):
    return b"\x10\x01" * 250


def pings_before_something_slow(_number):
    return b"\x01" * 200 + b"\x10\x01"


def tiny_datagrams(_number):
    return datagram_frame(CHUNK + b"\0\0\0\1") * 120


KINDS = [
    empty_stream_frames,
    acknowledgements_in_ranges,
    path_challenges,
    stream_limits,
    pings_before_something_slow,
    tiny_datagrams,
]


@pytest.mark.parametrize("payload", KINDS)
@pytest.mark.parametrize("sessions", [1])
def test_packets_full_of_work(relay, payload, sessions):
    async def one():
        async with attacker(relay) as (client, forge):
            stop = time.monotonic() + SECONDS
            for number in itertools.count():
                if client.ended.done() or time.monotonic() > stop:
                    break
                burst = [forge.packet(payload(number)) for _ in range(16)]
                await send_slowly(client.send, burst, pause=0.01 * sessions)

    async def attack():
        await asyncio.gather(*(one() for _ in range(sessions)))

    spares_the_neighbour(relay, attack)


def test_a_packet_of_more_frames_than_anybody_needs_closes_the_connection(relay):
    async def attack():
        async with attacker(relay) as (client, forge):
            client.send(forge.packet(b"\x10\x01" * 400))
            async with asyncio.timeout(20):
                assert (await client.end())[1] == "too many frames in a packet"

    spares_the_neighbour(relay, attack)


def test_a_busy_guest_is_not_closed(relay):
    async def load():
        guest = await Guest.join(relay)
        stop = time.monotonic() + SECONDS
        while time.monotonic() < stop:
            guest.send_frames([guest.echo_request(1, bytes(900))] * 32)
            await guest.client.wait_writable()
            await asyncio.sleep(0.005)
        guest.client.close()

    asyncio.run(load())
    assert relay.counters()["connection.excessive_work"] == 0
