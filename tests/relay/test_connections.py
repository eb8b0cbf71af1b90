"""Connections to the admin API that are many, say nothing, or take no answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import Any, ClassVar

import pytest

from relay.admin import connections
from relay.admin.events import Events
from relay.admin.service import AdminService
from transport.turns import sockets_first
from transport.web import client_sockets

PATIENCE = 60.0
LARGE = 16 * 1024 * 1024
"""Bytes that no socket's buffers hold."""
REQUEST = b"GET %s HTTP/1.1\r\nHost: relay\r\n\r\n"


class Offered:
    """What is served here: the application below."""

    module: ClassVar[str] = __name__
    hosts = token = read_token = None
    everywhere = False

    def __init__(self):
        self.events = Events()
        self.ending = asyncio.Event()
        self.go_on = asyncio.Event()
        """Has streams say their last word."""


def application(offered):
    async def answer(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await offered.go_on.wait()
        body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
        await send({"type": "http.response.body", "body": body, "more_body": scope["path"] == "/large"})
        if scope["path"] == "/large":
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


def served(scenario):
    """Run a scenario that gets what opens a client's connection."""

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        offered: Any = Offered()
        service = AdminService(listener, offered)
        service.start()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(service.close)
            stack.callback(offered.go_on.set)

            async def connect():
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                stack.callback(writer.close)
                return reader, writer

            async with asyncio.timeout(PATIENCE):
                assert await asked(await connect()) == 200  # uvicorn is there
                return await scenario(connect, offered.go_on)

    return asyncio.run(main())


async def asked(client, path=b"/"):
    """Ask for a page; return the status."""
    reader, writer = client
    writer.write(REQUEST % path)
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    await reader.readuntil(b"\r\n\r\n")
    return status


async def goes_on(client, go_on):
    go_on.set()
    await client[0].readuntil(b"ok\r\n")
    return True


async def has_ended(client):
    with contextlib.suppress(ConnectionError):
        while await client[0].read(4096):
            pass


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 1000.0)


def test_clients_that_say_nothing_keep_nobody_out():
    async def scenario(connect, go_on):
        stream = await connect()
        assert await asked(stream, b"/stream") == 200
        silent = [await connect() for _ in range(12)]
        silent[5][1].write(b"GET / HTTP/1.1\r\n")
        for _ in range(3):
            assert await asked(await connect()) == 200
        for client in silent[:9]:
            await has_ended(client)
        assert await goes_on(stream, go_on)

    served(scenario)


def test_of_many_that_send_at_once_some_are_read_in_a_turn(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 100)
    monkeypatch.setattr(client_sockets, "LOOK", 0.0)
    read_at = []
    take = connections.Connection.data_received

    def data_received(self, data):
        read_at.append(turns[0])
        take(self, data)

    monkeypatch.setattr(connections.Connection, "data_received", data_received)
    turns = [0]

    async def scenario(connect, go_on):
        clients = [await connect() for _ in range(60)]
        for client in clients:
            client[1].write(REQUEST % b"/")
        while len(read_at) < 60:
            await sockets_first()
            turns[0] += 1

    served(scenario)
    assert max(Counter(read_at).values()) <= 2 * client_sockets.SOCKETS_AT_A_TIME


def test_little_is_read_of_one_client_at_a_time(monkeypatch):
    sizes = []
    take = connections.Connection.data_received

    def data_received(self, data):
        sizes.append(len(data))
        take(self, data)

    monkeypatch.setattr(connections.Connection, "data_received", data_received)

    async def scenario(connect, go_on):
        client = await connect()
        client[1].write(b"GET / HTTP/1.1\r\nHost: relay\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000))
        assert int((await client[0].readuntil(b"\r\n")).split()[1]) == 200

    served(scenario)
    assert max(sizes) == connections.READ_SIZE


def many_fields(count):
    return b"GET / HTTP/1.1\r\nHost: relay\r\n" + b"a:\r\n" * count + b"\r\n"


def test_a_request_of_very_many_fields_is_refused():
    async def scenario(connect, go_on):
        client = await connect()
        for fields in (100, 100, 500):  # on one connection requests are counted singly
            client[1].write(many_fields(fields))
            status = int((await client[0].readuntil(b"\r\n")).split()[1])
            assert status == (200 if fields == 100 else 400)
            if status == 200:
                await client[0].readuntil(b"ok\r\n0\r\n\r\n")
        await has_ended(client)
        client = await connect()
        client[1].write(many_fields(50_000))
        await has_ended(client)

    served(scenario)


def test_who_takes_no_answer_goes_only_after_all_that_ask_for_nothing():
    async def scenario(connect, go_on):
        greedy = [await connect() for _ in range(3)]
        for client in greedy:
            assert await asked(client, b"/large") == 200
        silent = await connect()
        one = await connect()
        await has_ended(silent)
        another = await connect()
        await has_ended(one)
        assert await asked(another, b"/stream") == 200
        assert await asked(await connect()) == 200
        assert len(await greedy[0][0].read()) < LARGE
        assert await goes_on(another, go_on)

    served(scenario)


def test_where_all_are_served_a_newcomer_is_not_let_in():
    async def scenario(connect, go_on):
        streams = [await connect() for _ in range(4)]
        for client in streams:
            assert await asked(client, b"/stream") == 200
        await has_ended(await connect())
        for client in streams:
            assert await goes_on(client, go_on)
        assert await asked(await connect()) == 200

    served(scenario)


def test_a_client_has_so_long_for_each_request(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.2)

    async def scenario(connect, go_on):
        silent, slow, again = [await connect() for _ in range(3)]
        slow[1].write(b"GET / HTTP/1.1\r\nHost:")
        assert await asked(again) == 200
        again[1].write(b"GET / HTTP/1.1\r\nHost:")
        for client in (silent, slow, again):
            await has_ended(client)

    served(scenario)


def test_what_is_asked_for_may_take_longer(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.05)

    async def scenario(connect, go_on):
        stream = await connect()
        stream[1].write(b"GET /stream HTTP/1.1\r\nHost: relay\r\n")
        stream[1].write(b"\r\n")
        assert (await stream[0].readuntil(b"begun")).startswith(b"HTTP/1.1 200")
        silent = await connect()
        await has_ended(silent)
        assert await goes_on(stream, go_on)
        assert await asked(await connect()) == 200

    served(scenario)
