"""However many records have come on a TLS connection, others have their turn after some of them."""

from __future__ import annotations

import asyncio

import pytest
from waiting import until
from web_parts import get, raw, run, upgrade

from transport.web import tls_records
from transport.web.tls_records import MAX_AFTER_END, RECORDS_PER_SLICE, TLS_BUFFER, WITHOUT_CONTENT
from transport.web.websocket import WebSocketConnection

RECORDS = 1000


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


def message(content):
    """A binary message of at most 64 KB (RFC 6455, section 5.2), masked with zeros."""
    size = bytes([0x80 | len(content)]) if len(content) < 126 else b"\xfe" + len(content).to_bytes(2, "big")
    return b"\x82" + size + bytes(4) + content


def test_what_was_left_with_its_client_comes_whole_when_it_is_read():
    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            (connection,) = web.listener._connections
            protocol = connection._transport._ssl_protocol
            sent = [bytes([number]) * 16_000 for number in range(3)]
            data = b"".join(client.record(message(each)) for each in sent)
            connection._transport.pause_reading()
            # Of the third record comes more than a quarter of the buffer, below which asyncio would go on.
            for begin, end in ((0, 20_000), (20_000, 44_000)):
                client.socket.sendall(data[begin:end])
                await until(lambda end=end: protocol._incoming.pending == end)
            connection._transport.resume_reading()
            await until(lambda: peer.datagrams == sent[:2])
            client.socket.sendall(data[44_000:])
            await until(lambda: peer.datagrams == sent)

    run(scenario)


def test_records_are_read_however_tcp_cuts_them():
    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            sent = [b"%03d" % number for number in range(12)]
            data = b"".join(client.record(message(each)) for each in sent)
            for size in (1, 4, 5, 6, 7, 50):
                peer.datagrams.clear()
                for at in range(0, len(data), size):
                    client.socket.sendall(data[at : at + size])
                    await asyncio.sleep(0.0001)
                await until(lambda: len(peer.datagrams) == len(sent))
                assert peer.datagrams == sent
                data = b"".join(client.record(message(each)) for each in sent)

    run(scenario)


def test_a_record_that_is_too_long_ends_its_connection(lines):
    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            client.socket.sendall(b"\x17\x03\x03\xff\xff" + bytes(1000))
            await until(lambda: peer.closed and web.listener.connection_count == 0)

    run(scenario)
    assert not [line for line in lines if line.startswith("ERROR")]


# -- records without content -----------------------------------------------------------------------------


def key_updates(client, number):
    return b"".join(client.key_update() for _ in range(number))


def test_of_key_updates_a_few_are_read_in_a_turn(monkeypatch):
    monkeypatch.setattr(tls_records, "WITHOUT_CONTENT", RECORDS)
    slices = []
    note_reading = WebSocketConnection.note_reading

    def note(connection, seconds):
        slices.append(seconds)
        note_reading(connection, seconds)

    monkeypatch.setattr(WebSocketConnection, "note_reading", note)

    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            slices.clear()
            client.socket.sendall(key_updates(client, RECORDS) + client.record(message(b"last")))
            await until(lambda: peer.datagrams == [b"last"])
            assert len(slices) >= RECORDS / RECORDS_PER_SLICE

    run(scenario)


@pytest.mark.parametrize("opening", [b"GET / HT", upgrade()], ids=["in a request", "in a WebSocket"])
@pytest.mark.parametrize("update_requested", [False, True])
def test_who_sends_many_records_without_content_is_dropped(opening, update_requested, lines):
    async def scenario(web):
        async with raw(web) as client:
            client.send(opening)
            for _ in range(WITHOUT_CONTENT + 1):
                client.socket.sendall(client.key_update(update_requested=update_requested))
            await until(lambda: web.listener.connection_count == 0)
            assert web.counters["web.drop.tls_without_content"] == 1
            assert all(peer.closed.lost for peer in web.peers)

    run(scenario)
    assert lines == []


def test_who_changes_keys_now_and_then_stays(monkeypatch):
    monkeypatch.setattr(tls_records, "WITHOUT_CONTENT_RATE", 1e9)

    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            for number in range(2 * WITHOUT_CONTENT):
                client.socket.sendall(client.key_update(update_requested=number % 2))
                client.send(message(b"still here"))
                await until(lambda number=number: len(peer.datagrams) == number + 1)
            assert web.listener.connection_count == 1

    run(scenario)


def test_who_takes_no_answers_changes_keys_no_more_often_for_waiting(monkeypatch):
    monkeypatch.setattr(tls_records, "WITHOUT_CONTENT_RATE", 1e9)

    async def scenario(web):
        async with raw(web) as client:
            client.send(upgrade())
            peer = await web.peer()
            await web.fill()
            for number in range(WITHOUT_CONTENT):
                client.socket.sendall(client.key_update())
                client.send(message(b"still here"))
                await until(lambda number=number: len(peer.datagrams) == number + 1)
            client.socket.sendall(client.key_update())
            await until(lambda: peer.closed and web.listener.connection_count == 0)
            assert web.counters["web.drop.tls_without_content"] == 1

    run(scenario)


def test_little_is_read_of_a_client_after_its_last_answer():
    async def scenario(web):
        async with raw(web) as client:
            client.send(get(more="Connection: close\r\n"))
            (connection,) = web.listener._connections
            await until(lambda: connection.requests)
            client.socket.sendall(key_updates(client, MAX_AFTER_END // 20))
            await until(lambda: web.counters["web.drop.tls_after_end"] == 1)
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)
