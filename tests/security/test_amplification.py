"""What a forged sender address gets: at most three times what was sent in its name, however it ends."""

from __future__ import annotations

import socket
import time

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from forged_initials import ForgedInitials, crypto_frame
from watch import spares_the_neighbour

AMPLIFICATION = 3
AFTER_THE_DEADLINE = 13.0
"""Seconds: a handshake that nobody continues is closed after ten."""


def hello():
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="127.0.0.1")
    quic = QuicConnection(configuration=configuration)
    quic.connect(("127.0.0.1", 1), now=0.0)
    return [packet for packet, _ in quic.datagrams_to_send(0.0)]


def flights():
    initials = ForgedInitials()
    return {
        "a hello": hello(),
        "a piece of a hello": [ForgedInitials().packet(crypto_frame(1, b"x"))],
        "a TLS message that is none": [ForgedInitials().packet(crypto_frame(0, bytes(8)))],
        "no CRYPTO frame": [ForgedInitials().packet(b"\1")],
        "an unknown version": [b"\xc0\x1a\x2a\x3a\x4a" + initials.packet(b"\1")[5:]],
        "a hello far ahead": [ForgedInitials().packet(crypto_frame(1 << 30, b"x"))],
    }


def test_what_goes_to_an_address_that_never_answers(relay):
    sent = {kind: sum(map(len, packets)) for kind, packets in flights().items()}
    received = spares_the_neighbour(relay, lambda: received_by_victims(relay))
    assert received["a hello"] > sent["a hello"], "the handshake was answered"
    for kind in received:
        assert received[kind] <= AMPLIFICATION * sent[kind], kind


def received_by_victims(relay):
    sockets = {}
    for kind, packets in flights().items():
        victim = sockets[kind] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        victim.setblocking(False)
        for packet in packets:
            victim.sendto(packet, ("127.0.0.1", relay.port))
    received = dict.fromkeys(sockets, 0)
    deadline = time.monotonic() + AFTER_THE_DEADLINE
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for kind, victim in sockets.items():
            try:
                while True:
                    received[kind] += len(victim.recv(65535))
            except BlockingIOError:
                pass
    for victim in sockets.values():
        victim.close()
    return received
