"""TLS handshakes begun on the TCP port and never finished: what they hold is bounded, and given back."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys

import pytest
from processes import PATIENCE
from waiting import wait_until
from watch import spares_the_neighbour

CONNECTIONS = 1500
"""More than the relay takes of one address, so that each gives way to a later one."""
MEGABYTE = 1024 * 1024
MOST_AT_ONCE, MOST_AFTERWARDS = 128 * MEGABYTE, 32 * MEGABYTE
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection."""


def client_hello():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


HELLO = client_hello()
BEGINNINGS = {
    "half a hello": HELLO[: len(HELLO) // 2],
    "a hello": HELLO,
    "a hello and no TLS behind it": HELLO + b"\x16\3\3\0\4abcd",
}


pytestmark = pytest.mark.usefixtures("many_files")


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give back what they like")
@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("held", [True, False], ids=["held", "aborted"])
def test_handshakes_that_are_never_finished(relay, beginning, held):
    before = relay.memory

    def attack():
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS):
                client = stack.enter_context(socket.create_connection((relay.host, relay.port), PATIENCE))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # Who was given up already for a later one may not be written to.
                with contextlib.suppress(ConnectionError):
                    client.sendall(beginning)
                if not held:
                    client.close()
            assert relay.memory - before < MOST_AT_ONCE

    spares_the_neighbour(relay, attack)
    wait_until(
        lambda: relay.memory - before <= MOST_AFTERWARDS,
        lambda: f"{(relay.memory - before) / MEGABYTE:.0f} MB are kept",
        every=0.2,
        patience=PATIENCE,
    )


@pytest.mark.parametrize("before", [0, 1], ids=["silent before", "begun before"])
def test_handshakes_that_begin_all_at_once(relay, before):
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(1000):
            clients.append(stack.enter_context(socket.create_connection((relay.host, relay.port), PATIENCE)))
            clients[-1].sendall(HELLO[:before])

        def attack():
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    client.sendall(HELLO[before:])

        spares_the_neighbour(relay, attack)
