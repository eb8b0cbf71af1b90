"""Header fields that are small on the wire and large, or many, once they are decoded."""

from __future__ import annotations

import asyncio

import pytest
from aioquic.h3.connection import ErrorCode, encode_frame
from quic_attacker import attacker, send_slowly
from stream_frames import cut, in_packets, stream_frame
from watch import spares_the_neighbour

GROWTH = 8 * 1024 * 1024

SECTIONS = {
    "references to a static entry": b"\0\0" + b"\xd1" * 30_000,
    "references to the longest static entry": b"\0\0" + b"\xff\x16" * 15_000,
    "empty fields": b"\0\0" + b"\x5f\x1d\0" * 10_000,
}


@pytest.fixture
def relay(fresh_relay):
    return fresh_relay


async def send_frames(client, forge, frames):
    await send_slowly(client.send, in_packets(forge, frames))


@pytest.mark.parametrize("kind", SECTIONS)
def test_sections_that_grow_when_they_are_decoded(relay, kind):
    async def attack():
        for _ in range(5):
            async with attacker(relay) as (client, forge):
                await send_frames(client, forge, cut(4, encode_frame(1, SECTIONS[kind])))

    before = relay.memory
    spares_the_neighbour(relay, attack)
    assert relay.memory - before < GROWTH
    assert relay.counters()["request.status_431"] >= 5


def test_references_to_an_entry_of_the_dynamic_table(relay):
    """The bomb: an entry of 4 KB, and thousands of references to it."""
    insert = b"\x3f\xe1\x1f" + b"\x41a" + b"\x7f\xa1\x1e" + b"v" * 4000
    section = b"\x02\0" + b"\x80" * 58_000

    async def attack():
        async with attacker(relay) as (client, forge):
            encoder = client.http._local_encoder_stream_id
            used = client.quic._streams[encoder].sender.highest_offset
            await send_frames(client, forge, cut(encoder, insert, start=used))
            await send_frames(client, forge, cut(4, encode_frame(1, section)))
            async with asyncio.timeout(10):
                assert (await client.end())[0] == ErrorCode.QPACK_ENCODER_STREAM_ERROR

    before = relay.memory
    spares_the_neighbour(relay, attack)
    assert relay.memory - before < GROWTH


def test_a_section_that_comes_a_byte_at_a_time(relay):
    section = encode_frame(1, b"\0\0" + b"\xd1" * 16_000)

    async def attack():
        async with attacker(relay) as (client, forge):
            frames = [stream_frame(4, at, section[at : at + 1]) for at in range(len(section))]
            await send_frames(client, forge, frames)

    spares_the_neighbour(relay, attack)
