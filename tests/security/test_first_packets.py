"""First packets that begin no handshake: connection IDs that are too short, empty datagrams among others'."""

from __future__ import annotations

from forged_initials import ForgedInitials, crypto_frame
from quic_attacker import send_from_anywhere
from watch import spares_the_neighbour

ROUNDS = 200


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
