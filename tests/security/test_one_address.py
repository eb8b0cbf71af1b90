"""Clients of one address that take all they can get: who comes from another one joins, and its pings return.

The attackers are at 127.0.0.2, the newcomers at 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest
from aioquic.quic.connection import QuicConnection
from guests import Neighbour
from processes import PATIENCE, Relay
from test_hostile import quic_configuration
from waiting import wait_until
from watch import spares_the_neighbour
from websockets.asyncio.client import connect as websocket

ATTACKER = "127.0.0.2"
RETRY = 0xF0
"""First bits of a Retry packet (RFC 9000, section 17.2.5)."""
UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE


@pytest.fixture
def relay(request):
    relay = Relay(*getattr(request, "param", ()))
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


def newcomer_is_served(relay):
    """A guest joins now, and pings the gateway for a moment."""
    with Neighbour(relay) as neighbour:
        pass
    return neighbour.intact == neighbour.sent > 0


def begin_handshake(relay, stack):
    """Send the first packet of a handshake, again with its token where the relay asks for that (Retry)."""
    quic = QuicConnection(configuration=quic_configuration())
    quic.connect((relay.host, relay.port), now=0.0)
    attacker = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    attacker.settimeout(0.5)
    attacker.bind((ATTACKER, 0))
    attacker.connect((relay.host, relay.port))
    for packet, _ in quic.datagrams_to_send(now=0.0):
        attacker.send(packet)
    with contextlib.suppress(TimeoutError):
        answer = attacker.recv(2000)
        if answer[0] & 0xF0 == RETRY:
            quic.receive_datagram(answer, (relay.host, relay.port), now=0.0)
            attacker.send(quic.datagrams_to_send(now=0.0)[0][0])


def test_handshakes_that_nobody_goes_on_with(relay, many_files):
    """More of them at a time than the relay takes, and new ones for those that it gives up."""
    enough = threading.Event()

    def attack():
        with contextlib.ExitStack() as stack:
            while not enough.is_set():
                begin_handshake(relay, stack)

    def fill():
        enough.clear()
        attackers = [threading.Thread(target=attack) for _ in range(4)]
        for attacker in attackers:
            attacker.start()
        try:
            wait_until(lambda: relay_is_full(relay), every=0.5, patience=2 * PATIENCE)
            assert newcomer_is_served(relay)
        finally:
            enough.set()
            for attacker in attackers:
                attacker.join()

    spares_the_neighbour(relay, fill)
    assert relay.counters()["endpoint.drop.too_many_connections"] == 0


def relay_is_full(relay):
    """Whether the relay refuses connections, of one address or of all."""
    refused = (counters := relay.counters())["endpoint.drop.too_many_of_one_address"]
    return refused + counters["endpoint.drop.too_many_connections"] > 0


def silent_connections(relay, count, stack):
    """Open TCP connections that say nothing."""
    for _ in range(count):
        connection = stack.enter_context(socket.socket())
        connection.bind((ATTACKER, 0))
        connection.connect((relay.host, relay.port))


def test_tcp_connections_that_say_nothing(relay, many_files):
    def attack():
        with contextlib.ExitStack() as stack:
            silent_connections(relay, 1100, stack)
            assert newcomer_is_served_by_websocket(relay)

    spares_the_neighbour(relay, attack)
    counters = relay.counters()
    assert counters["web.drop.too_many_of_one_address"] + counters["web.evicted"] > 0


def newcomer_is_served_by_websocket(relay):
    async def join():
        async with websocket(f"wss://{relay.host}:{relay.port}/", proxy=None, ssl=UNVERIFIED) as client:
            await client.send(b'\0{"type":"Register","mac":[82,84,0,0,0,7]}')
            return await client.recv()

    return b'"Assigned"' in asyncio.run(asyncio.wait_for(join(), PATIENCE))


# On a busy machine the first of them would be silent for too long before the last one is there.
@pytest.mark.parametrize("relay", [("--peer-timeout", 600)], indirect=True, ids=["patient"])
def test_raw_sessions_that_say_nothing(relay, many_files):
    """As many as the LAN has ports, and some more."""

    async def attack():
        async with contextlib.AsyncExitStack() as stack:
            url = f"wss://{relay.host}:{relay.port}/raw"
            for _ in range(1040):
                await stack.enter_async_context(
                    websocket(url, proxy=None, ssl=UNVERIFIED, local_addr=(ATTACKER, 0))
                )
            assert await asyncio.to_thread(newcomer_is_served, relay)

    spares_the_neighbour(relay, attack)
    counters = relay.counters()
    assert counters["switch.ports_refused_to_one_address"] > 0
    assert counters["switch.silent_ports_closed"] > 0, "they give way to others"


def test_sessions_that_say_nothing_do_not_stay():
    relay = Relay("--peer-timeout", 2, "--heartbeat-interval", 1)

    async def wait_for_the_end():
        url = f"wss://{relay.host}:{relay.port}/raw"
        async with websocket(url, proxy=None, ssl=UNVERIFIED) as client:
            await asyncio.wait_for(client.wait_closed(), 10)
            return client.close_code

    assert asyncio.run(wait_for_the_end()) == 4003
    relay.stop()
