"""However many records have come on a TLS connection, others have their turn after some of them."""

from __future__ import annotations

import asyncio

from waiting import until
from web_parts import PATIENCE, serving

from transport.web.tls_records import RECORDS_PER_SLICE, TLS_BUFFER
from transport.web.websocket import WebSocketConnection

RECORDS = 1000


def run(scenario, **options):
    async def main():
        async with asyncio.timeout(PATIENCE), serving(**options) as web:
            await scenario(web)

    asyncio.run(main())


def test_of_tiny_records_a_few_are_read_in_a_turn(monkeypatch):
    taken = []
    data_received = WebSocketConnection.data_received

    def note(connection, data):
        taken.append(len(data))
        data_received(connection, data)

    monkeypatch.setattr(WebSocketConnection, "data_received", note)

    async def scenario(web):
        async with web.client("/", "wss") as client:
            await client.send(b"first")
            peer = await web.peer()
            await until(lambda: peer.datagrams)
            taken.clear()
            message = bytes([0x82, 0x80 | 94]) + bytes(4) + bytes(94)
            for at in range(RECORDS):
                client.transport.write(message[at % 100 : at % 100 + 1])  # each is a record of its own
            await until(lambda: len(peer.datagrams) == 1 + RECORDS // 100)
        assert len(taken) >= RECORDS / RECORDS_PER_SLICE

    run(scenario)


def test_what_is_not_read_of_a_tls_connection_stays_with_its_client():
    async def scenario(web):
        async with web.client("/", "wss") as client:
            await client.send(b"first")
            await until(lambda: web.peers and web.peers[0].datagrams)
            (connection,) = web.listener._connections
            connection._transport.pause_reading()
            protocol = connection._transport._ssl_protocol
            for _ in range(40):
                client.transport.write(bytes(16_000))
            await until(lambda: protocol._incoming.pending >= TLS_BUFFER)
            for _ in range(20):
                await asyncio.sleep(0)
            assert protocol._incoming.pending <= 2 * TLS_BUFFER
            client.transport.abort()

    run(scenario)
