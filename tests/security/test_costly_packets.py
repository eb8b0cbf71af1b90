"""Packets that cost more than they bring: their sender is served after the others, and never before them."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time

import costly_frames
import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode
from guests import Guest, Neighbour
from quic_attacker import attacker, send_slowly
from quic_parts import datagram_frame
from stream_frames import stream_frame
from watch import spares_the_neighbour

SECONDS = 1.0
"""How long each attack lasts; who is closed for it stops earlier."""
ENDED_WITHIN = 30.0
"""Seconds after which who goes on has been closed."""
REASONS = {
    "packets cost more than their share",
    "it goes on sending more packets than there is time for",
}


def empty_stream_frames(_number):
    return stream_frame(2, 0, b"") * 230


def acknowledgement(ranges):
    return b"\x02" + encode_uint_var(2 * ranges) + b"\0" + encode_uint_var(ranges) + b"\0" + b"\0\0" * ranges


def acknowledgements_in_ranges(_number):
    return acknowledgement(250)


def acknowledgements_in_fragments(_number):
    """60 KB, which IP carries in fragments; each used to cost 0.2 s."""
    return acknowledgement(30_000)


def datagrams_in_fragments(_number):
    return datagram_frame(b"") * 15_000


def path_challenges(number):
    return b"".join(b"\x1a" + number.to_bytes(8, "big") for _ in range(120))


def stream_limits(_number):
    return b"\x10\x01" * 250


def pings_before_something_slow(_number):
    return b"\x01" * 200 + b"\x10\x01"


def in_a_packet(kind):
    """Have the datagrams of a kind of frame in QUIC packets."""

    def packet(number):
        return b"".join(map(datagram_frame, kind(number)))

    packet.__name__ = kind.__name__
    return packet


KINDS = [
    empty_stream_frames,
    acknowledgements_in_ranges,
    path_challenges,
    stream_limits,
    pings_before_something_slow,
    *map(in_a_packet, costly_frames.KINDS),
]


async def flood(relay, payload, *, sessions, seconds, pause=None, moving=False):
    """Have sessions send packets of a kind; return with what the relay has closed each of them.

    ``moving``: each packet from the other of two ports.
    """

    async def one():
        async with attacker(relay) as (client, forge):
            stop = time.monotonic() + seconds
            packets = [payload(number) for number in range(16)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.connect(("127.0.0.1", relay.port))
                ways = itertools.cycle([client.send, other.send] if moving else [client.send])

                def send(packet):
                    next(ways)(packet)

                while not client.ended.done() and time.monotonic() < stop:
                    burst = [forge.packet(packet) for packet in packets]
                    await send_slowly(send, burst, pause=pause or max(0.01, 0.0025 * sessions))
            return client.ended.result() if client.ended.done() else None

    return await asyncio.gather(*(one() for _ in range(sessions)))


@pytest.mark.parametrize("payload", KINDS)
@pytest.mark.parametrize("sessions", [1, 8])
def test_packets_full_of_work(relay, payload, sessions):
    spares_the_neighbour(relay, lambda: flood(relay, payload, sessions=sessions, seconds=SECONDS))


@pytest.mark.parametrize("payload", [empty_stream_frames, in_a_packet(costly_frames.tiny_datagrams)])
@pytest.mark.parametrize("sessions", [1, 8])
def test_packets_full_of_work_from_two_ports_by_turns(relay, payload, sessions):
    before = relay.counters()
    spares_the_neighbour(
        relay, lambda: flood(relay, payload, sessions=sessions, seconds=SECONDS, moving=True)
    )
    assert (relay.counters() - before)["endpoint.drop.moving"] > 0


@pytest.mark.parametrize("payload", [acknowledgements_in_fragments, datagrams_in_fragments])
def test_packets_larger_than_any_path_carries(relay, payload):
    before = relay.counters()
    # 20 MB/s: how much a kernel has room for is another question.
    spares_the_neighbour(relay, lambda: flood(relay, payload, sessions=4, seconds=SECONDS, pause=0.2))
    assert (relay.counters() - before)["endpoint.drop.too_large"] > 0


def test_eight_sessions_that_go_on_are_closed(relay):
    async def attack():
        return await flood(relay, stream_limits, sessions=8, seconds=ENDED_WITHIN, pause=0.004)

    with Neighbour(relay) as neighbour:  # how late it is, is told above
        ends = asyncio.run(attack())
    assert neighbour.intact == neighbour.sent > 0
    for end in ends:
        assert end is not None
        assert end[0] == ErrorCode.H3_EXCESSIVE_LOAD
        assert end[1] in REASONS


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

    before = relay.counters()["connection.excessive_work"]
    asyncio.run(load())
    assert relay.counters()["connection.excessive_work"] == before
