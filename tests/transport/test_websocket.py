from __future__ import annotations

import asyncio
import contextlib

import pytest
from web_parts import PATIENCE, Peer, serving, until
from websockets.exceptions import ConnectionClosed

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient, SessionClosed
from transport import websocket
from transport.session import QUEUE_BYTES
from transport.websocket import MAX_MESSAGE, MAX_REASON, websocket_code


def run(scenario, **options):
    async def main():
        async with asyncio.timeout(PATIENCE), serving(**options) as web:
            await scenario(web)

    asyncio.run(main())


def test_closing_codes_are_of_the_range_for_private_use():
    assert websocket_code(CloseCode.DONE) == 1000
    assert websocket_code(CloseCode.SHUTDOWN) == 1001
    assert websocket_code(CloseCode.TAKEN_OVER) == 4004
    assert len({websocket_code(code) for code in CloseCode}) == len(CloseCode)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/", "/"),
        ("/raw", "/?encap=raw"),
        ("/raw?room=1", "/?encap=raw&room=1"),
        ("/?encap=raw", "/?encap=raw"),
    ],
)
def test_a_binary_message_is_a_datagram_in_both_directions(scheme, path, seen):
    async def scenario(web):
        async with web.client(path, scheme) as client:
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            await client.send(b"one")
            await client.send([b"tw", b"", b"o"])  # a message in fragments
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"one", b"two"])
            assert peer.session.path == seen
            assert peer.session.remote == "{}:{}".format(*client.local_address)
            assert peer.session.datagram_limit == 65535
            peer.session.send([b"three", b"four"])
            assert [await client.recv(), await client.recv()] == [b"three", b"four"]

    run(scenario)


def test_sessions_take_their_numbers_from_the_relays():
    async def scenario(web):
        async with web.client("/"), web.client("/raw"):
            await until(lambda: len(web.peers) == 2)
            assert {peer.session.id for peer in web.peers} == {100, 101}

    run(scenario)


def test_text_is_dropped_and_counted():
    async def scenario(web):
        async with web.client("/raw") as client:
            await client.send("hello")
            await client.send(["in ", "fragments"])
            await client.send(b"frame")
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"frame"])
            assert web.counters["websocket.drop.text"] == 2

    run(scenario)


def test_a_message_that_is_too_large_ends_its_session_only():
    async def scenario(web):
        async with web.client("/") as bystander, web.client("/") as client:
            await until(lambda: len(web.peers) == 2)
            with contextlib.suppress(ConnectionClosed):
                await client.send(bytes(MAX_MESSAGE + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 1009
            await until(lambda: any(peer.closed for peer in web.peers))
            await bystander.send(b"still here")
            await until(lambda: any(peer.datagrams for peer in web.peers))

    run(scenario)


def test_a_producer_that_waits_is_told_when_the_queue_has_left():
    async def scenario(web):
        async with web.client("/") as client:
            session = (await web.peer()).session
            told = asyncio.Event()
            session.send([bytes(1000)] * 200)
            assert not session.writable
            session.call_when_writable(told.set)
            await asyncio.wait_for(told.wait(), 5)
            assert session.writable
            assert await client.recv() == bytes(1000)

    run(scenario)


def test_the_relay_closes_with_code_and_reason():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            peer.session.send([b"last words"])
            peer.session.close(CloseCode.TAKEN_OVER, "taken over " + "é" * 100)
            assert await client.recv() == b"last words"
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 4004
            assert closed.value.rcvd.reason == ("taken over " + "é" * 100).encode()[:MAX_REASON].decode()
            await until(lambda: web.listener.connection_count == 0)
            assert peer.closed is None  # who closes needs not be told

    run(scenario)


def test_the_client_closes_with_code_and_reason():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            await client.close(4321, "enough")
            await until(lambda: peer.closed)
            assert peer.closed == SessionClosed(4321, "enough")

    run(scenario)


def test_a_vanished_client_ends_its_session():
    async def scenario(web):
        async with web.client("/") as client:
            peer = await web.peer()
            client.transport.abort()
            await until(lambda: peer.closed)

    run(scenario)


def test_a_client_that_does_not_read_costs_a_bounded_queue(monkeypatch):
    async def scenario(web):
        async with web.client("/") as slow:
            peer = await web.peer()
            slow.transport.pause_reading()
            for number in range(3000):
                peer.session.send([number.to_bytes(4, "big") + bytes(4000)])
                if number % 100 == 0:
                    await asyncio.sleep(0)
                assert peer.session.queued_bytes <= QUEUE_BYTES
            assert web.counters["session.drop.queue_full"] > 0
            assert not peer.session.writable
            slow.transport.resume_reading()
            numbers = [int.from_bytes((await slow.recv())[:4], "big")]
            while numbers[-1] != 2999:
                numbers.append(int.from_bytes((await slow.recv())[:4], "big"))
            assert numbers == sorted(numbers)
            assert len(numbers) < 3000

    monkeypatch.setattr("transport.session.QUEUE_SECONDS", 3600.0)
    run(scenario)


def test_silent_clients_are_pinged_and_given_up(monkeypatch):
    monkeypatch.setattr(websocket, "PING_INTERVAL", 0.02)
    monkeypatch.setattr(websocket, "IDLE_TIMEOUT", 0.2)

    async def scenario(web):
        async with web.client("/") as answering, web.client("/") as deaf:
            await until(lambda: len(web.peers) == 2)
            deaf.transport.pause_reading()
            await until(lambda: any(peer.closed for peer in web.peers))
            assert web.counters["websocket.idle_timeouts"] == 1
            await answering.send(b"alive")
            await until(lambda: any(peer.datagrams for peer in web.peers))

    run(scenario)


def test_who_never_completes_a_request_is_dropped(monkeypatch):
    monkeypatch.setattr(websocket, "REQUEST_TIMEOUT", 0.05)

    async def scenario(web):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await until(lambda: web.listener.connection_count == 0)

    run(scenario)


def test_an_error_in_one_connection_is_that_connections(monkeypatch):
    class Broken(Peer):
        def tell(self, message):
            match message:
                case DatagramsFromClient():
                    raise RuntimeError("a defect")
                case _:
                    super().tell(message)

    async def scenario(web):
        async with web.client("/") as client:
            await client.send(b"anything")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            await until(lambda: web.listener.connection_count == 0)
            assert web.counters["websocket.failed"] == 1

    run(scenario, peer=Broken)
