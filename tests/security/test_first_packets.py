"""First packets that begin no handshake: IDs that are too short, empty datagrams, junk."""

from __future__ import annotations

import socket
import time

import pytest
from forged_initials import ForgedInitials, crypto_frame
from quic_attacker import send_from_anywhere
from watch import spares_the_neighbour

from transport.quic.udp import send_run

ROUNDS = 200
LARGEST = 1452
"""Bytes of a datagram that Ethernet carries in any case."""


def test_connection_ids_that_are_too_short_and_packets_for_them(relay):
    lengths = range(8)
    packets = [
        packet
        for _ in range(ROUNDS)
        for length in lengths
        # What is for an ID of no bytes has none.
        for packet in (ForgedInitials(bytes(length)).packet(crypto_frame(1, b"x")), bytes(length))
    ]
    before = relay.counters()
    spares_the_neighbour(relay, lambda: send_from_anywhere(packets, relay.port))
    dropped = relay.counters() - before
    assert dropped["endpoint.drop.malformed"] > ROUNDS * len(lengths) // 2


@pytest.mark.parametrize("handshakes", [1, 40])
@pytest.mark.parametrize("content", [b"", bytes(20)], ids=["empty", "short"])
def test_datagrams_of_many_packets_that_cannot_be_decrypted(relay, handshakes, content):
    # In each packet a handshake was begun anew: 18 ms for a datagram.
    packets = []
    for number in range(400):
        junk = ForgedInitials((number % handshakes).to_bytes(8, "big")).junk(content)
        packets.append(junk * (LARGEST // len(junk)))
    before = relay.cpu_seconds
    spares_the_neighbour(relay, lambda: send_from_anywhere(packets, relay.port, at_a_time=4))
    assert relay.cpu_seconds - before < 4.0


def test_bursts_that_are_to_be_answered_one_by_one(relay):
    # The socket holds so many of them that answering each took 80 ms of one turn.
    runs = [[ForgedInitials().packet(b"\1") for _ in range(50)] for _ in range(30)]

    def attack():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", relay.port))
            for _ in range(6):
                for run in runs:
                    send_run(sender, run, None)
                time.sleep(0.2)

    before = relay.counters()
    spares_the_neighbour(relay, attack)
    answered = relay.counters() - before
    assert answered["endpoint.retry"] > 0
