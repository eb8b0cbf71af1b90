"""CRYPTO and STREAM data in pieces with gaps between them, and far ahead of what was sent."""

from __future__ import annotations

import pytest
from aioquic.h3.connection import ErrorCode
from aioquic.quic.packet import QuicErrorCode
from forged_initials import ForgedInitials, crypto_frame
from quic_attacker import attacker, send_from_anywhere, send_slowly
from stream_frames import in_packets, stream_frame
from watch import spares_the_neighbour

GROWTH = 8 * 1024 * 1024


@pytest.fixture
def relay(fresh_relay):
    return fresh_relay


def test_initials_of_pieces_with_gaps(relay):
    # 241 KB, each packet of it from anybody: it used to cost 14 s.
    packets = list(ForgedInitials().pieces(40_000))
    before = relay.cpu_seconds
    spares_the_neighbour(relay, lambda: send_from_anywhere(packets, relay.port))
    assert relay.cpu_seconds - before < 4.0


def test_many_hellos_of_pieces_with_gaps(relay):
    packets = [packet for _ in range(60) for packet in ForgedInitials().pieces(150)]
    spares_the_neighbour(relay, lambda: send_from_anywhere(packets, relay.port, at_a_time=4, pause=0.01))


def test_crypto_data_far_ahead_of_many_handshakes(relay):
    packets = [ForgedInitials().packet(crypto_frame(60_000, b"x")) for _ in range(50)]
    before = relay.memory
    spares_the_neighbour(relay, lambda: send_from_anywhere(packets, relay.port, at_a_time=2, pause=0.02))
    assert relay.memory - before < GROWTH


@pytest.mark.parametrize("stream", [0, 2, 4])
def test_streams_of_pieces_with_gaps(relay, stream):
    async def attack():
        async with attacker(relay) as (client, forge):
            frames = (stream_frame(stream, 3000 + 2 * number, b"x") for number in range(20_000))
            await send_slowly(client.send, in_packets(forge, frames))
            assert (await client.end())[0] == ErrorCode.H3_EXCESSIVE_LOAD

    spares_the_neighbour(relay, attack)


@pytest.mark.parametrize("offset", [5, 60_000, 500_000])
def test_crypto_data_after_the_handshake(relay, offset):
    async def attack():
        async with attacker(relay) as (client, forge):
            client.send(forge.packet(crypto_frame(offset, b"x")))
            code, _ = await client.end()
            far = offset > 64 * 1024
            assert code == (QuicErrorCode.CRYPTO_BUFFER_EXCEEDED if far else QuicErrorCode.CRYPTO_ERROR + 10)

    spares_the_neighbour(relay, attack)
