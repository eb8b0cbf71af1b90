from __future__ import annotations

import asyncio
import random

import pytest
from admission_parts import OpenDoor
from waiting import until
from web_parts import PAGES, ask, connected, get, raw, read_answer, run, upgrade

from transport.web import http_connection, web_listener
from transport.web.http1 import MAX_BODY, MAX_HEAD

POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("secure", [False, True])
def test_requests_are_answered_in_order_however_they_are_sent(secure):
    kinds = [
        (get(), 200),
        (POST + b"Content-Length: 5\r\n\r\nhello", 405),
        (get("/nothing"), 404),
        (CHUNKS, 405),
        (get(more="Content-Length: 5\r\n") + b"hello", 200),
        (b"GET / HTTP/1.1\nHost: localhost\n\n", 200),
        (get(more="Connection: close\r\n"), 200),
    ]

    async def scenario(web):
        for pieces in (
            [data for data, _ in kinds],  # one after the other, as browsers do
            [b"".join(data for data, _ in kinds)],  # at once
        ):
            async with connected(web, secure=secure) as (reader, writer):
                statuses = []
                for piece in pieces:
                    writer.write(piece)
                    if len(pieces) > 1:
                        statuses.append((await read_answer(reader)).status)
                while (answer := await read_answer(reader)) is not None:
                    statuses.append(answer.status)
                assert statuses == [status for _, status in kinds]

    run(scenario)


def test_only_the_last_answer_says_so():
    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.write(get() + get(more="Connection: close\r\n") + get())
            first, second = await read_answer(reader), await read_answer(reader)
            assert "Connection" not in first.headers
            assert second.headers["Connection"] == "close"
            assert await read_answer(reader) is None

    run(scenario)


@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n"])
def test_http_1_0_gets_one_answer(more):
    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.write(f"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n{more}\r\n".encode())
            assert (await read_answer(reader)).headers["Connection"] == "close"
            assert await read_answer(reader) is None

    run(scenario)


def test_a_connection_has_a_bounded_number_of_requests(monkeypatch):
    monkeypatch.setattr(http_connection, "MAX_REQUESTS", 3)

    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.write(get() * 5)
            answers = [await read_answer(reader) for _ in range(3)]
            assert answers[-1].headers["Connection"] == "close"
            assert await read_answer(reader) is None

    run(scenario)


def test_answers_wait_for_a_client_that_does_not_read(monkeypatch):
    monkeypatch.setitem(PAGES, "/large", ("text/plain", bytes(500_000), {}))

    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.transport.pause_reading()
            writer.write(get("/large") * 60)
            await until(lambda: web.listener._connections)
            [connection] = web.listener._connections
            await until(lambda: connection._paused)
            assert connection._transport.get_write_buffer_size() < 2 * 500_000
            assert web.counters["web.status_200"] < 30
            writer.transport.resume_reading()
            for _ in range(60):
                assert len((await read_answer(reader)).body) == 500_000

    run(scenario)


# -- refusals: an answer, and nothing in the way of it ------------------------------------------------

REFUSED = {
    "large fields": (b"GET / HTTP/1.1\r\nCookie: " + b"a" * 1_000_000, 431),
    "many bytes and no line": (b"a" * 1_000_000, 414),
    "a large body": (POST + b"Content-Length: 2000000\r\n\r\n" + bytes(2_000_000), 413),
    "a large body in chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"4000\r\n" + bytes(16384) + b"\r\n") * 100,
        413,
    ),
    "chunks that are none": (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"hello\r\n" * 1000, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100_000), 505),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + bytes(100_000), 400),
    "a body nobody waits for": (
        POST + b"Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n" + bytes(60_000),
        405,
    ),
}


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_who_is_refused_while_it_sends_gets_the_answer(case, secure, lines):
    data, status = REFUSED[case]

    async def scenario(web):
        async with connected(web, secure=secure) as (reader, writer):
            for start in range(0, len(data), 50_000):
                writer.write(data[start : start + 50_000])
                await writer.drain()
            answer = await read_answer(reader)
            assert answer.status == status
            assert answer.headers["Connection"] == "close"
            assert answer.body.endswith(b".\n")
            if not secure:
                # The end, and not a reset, which other systems read before the answer. (TLS has no half.)
                assert await reader.read() == b""
        await until(lambda: web.listener.connection_count == 0)
        assert (await ask(web, get())).status == 200

    run(scenario)
    assert lines == []


def test_a_client_that_goes_on_for_ever_is_dropped(monkeypatch):
    monkeypatch.setattr(http_connection, "LINGER_BYTES", 200_000)

    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.write(b"a" * MAX_HEAD)
            assert (await read_answer(reader)).status == 414
            writer.write(bytes(10_000_000))
            with pytest.raises(ConnectionError):
                await writer.drain()

    run(scenario)


def test_a_client_that_stays_after_it_was_refused_is_given_up(monkeypatch):
    monkeypatch.setattr(http_connection, "LINGER", 0.05)

    async def scenario(web):
        async with connected(web, secure=True) as (reader, writer):
            writer.write(b"rubbish\r\n")
            assert (await read_answer(reader)).status == 400
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (get(), [200]),
        (get() * 2, [200, 200]),
        (b"GET / HTT", [400]),
        (get() + b"GET /", [200, 400]),
        (POST + b"Content-Length: 5\r\n\r\nhel", [400]),
        (b"", []),
        (b"\r\n", []),
    ],
)
def test_who_ends_its_side_gets_what_it_asked_for(sent, statuses):
    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            found = []
            while (answer := await read_answer(reader)) is not None:
                found.append(answer.status)
            assert found == statuses
        await until(lambda: web.listener.connection_count == 0)

    run(scenario)


@pytest.mark.parametrize("ends", ["TLS", "TLS and TCP", "TCP"])
def test_who_ends_tls_gets_what_it_asked_for_however_busy_the_relay_is(ends, monkeypatch):
    monkeypatch.setattr(http_connection, "SLICE", 0.0)  # each answer waits for the one before
    monkeypatch.setitem(PAGES, "/large", ("text/plain", bytes(4000), {}))

    async def scenario(web):
        async with raw(web) as client:
            requests = client.record(get("/large") * 3)
            client.socket.sendall(requests + (client.close_notify() if "TLS" in ends else b""))
            if "TCP" in ends:
                client.end()
            received = await asyncio.to_thread(client.read_to_end)
            assert len(received) > 3 * 4000
        await until(lambda: web.listener.connection_count == 0)
        assert web.counters["web.status_400"] == 0

    run(scenario)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n", POST + b"Content-Length: %d\r\n\r\n" % MAX_BODY, b"\r\nG"]
)
def test_who_never_completes_a_request_is_told_so(sent, secure, monkeypatch):
    monkeypatch.setattr(http_connection, "REQUEST_TIMEOUT", 0.1)

    async def scenario(web):
        async with connected(web, secure=secure) as (reader, writer):
            writer.write(sent)
            assert (await read_answer(reader)).status == 408
        await until(lambda: web.listener.connection_count == 0)

    run(scenario)


def test_who_asks_for_nothing_more_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr(http_connection, "IDLE_TIMEOUT", 0.05)

    async def scenario(web):
        async with connected(web) as (reader, writer):
            writer.write(get())
            assert (await read_answer(reader)).status == 200
            assert await read_answer(reader) is None
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)


def test_who_does_not_take_its_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(http_connection, "IDLE_TIMEOUT", 0.1)
    monkeypatch.setattr(http_connection, "REQUEST_TIMEOUT", 0.1)
    monkeypatch.setitem(PAGES, "/large", ("text/plain", bytes(5_000_000), {}))

    async def scenario(web):
        async with connected(web) as (_, writer):
            writer.transport.pause_reading()
            writer.write(get("/large") * 2)
            await until(lambda: web.counters["web.status_200"])
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)


def test_who_ends_tls_and_does_not_take_what_tcp_has_of_its_answers_is_given_up(lines, monkeypatch):
    monkeypatch.setitem(PAGES, "/large", ("text/plain", bytes(40_000), {}))

    async def scenario(web):
        async with raw(web) as client:
            [connection] = web.listener._connections
            await until(lambda: hasattr(connection, "_transport"))
            tls = connection._transport
            tcp = tls._ssl_protocol._transport
            while not tcp.get_write_buffer_size():
                answered = web.counters["web.status_200"]
                client.send(get("/large"))
                await until(lambda number=answered: web.counters["web.status_200"] > number)
            assert not tls.get_write_buffer_size()
            # Not before: requests may come late on a busy machine.
            monkeypatch.setattr(http_connection, "REQUEST_TIMEOUT", 0.1)
            client.socket.sendall(client.close_notify())
            await until(tls.is_closing)
            connection._timed_out()
            await until(lambda: tcp.is_closing() and not tcp.get_write_buffer_size())
            await until(lambda: web.listener.connection_count == 0)

    run(scenario)
    assert lines == []


@pytest.mark.parametrize(
    ("unsent", "given_up"),
    [
        ([900, 800, 700, 0], False),
        ([900, 900], True),
        ([900, 800, 800], True),
        (list(range(900, 900 - http_connection.SLOW_PERIODS, -1)), False),
        (list(range(900, 899 - http_connection.SLOW_PERIODS, -1)), True),
    ],
    ids=["it takes all", "it takes nothing", "it stops", "it takes little", "it takes little for too long"],
)
def test_a_client_that_takes_its_answer_slowly_is_waited_for_within_bounds(unsent, given_up):
    class SlowTransport(asyncio.Transport):
        """Its buffer has as many bytes as the test says each time that it is looked at."""

        closed = aborted = False

        def get_write_buffer_size(self):
            return unsent.pop(0)

        def close(self):
            self.closed = True

        def is_closing(self):
            return self.closed

        def abort(self):
            self.aborted = True

    async def scenario(web):
        connection = http_connection.HttpConnection(web.listener, "192.0.2.1:5", secure=False)
        connection._transport = transport = SlowTransport()
        while unsent:
            assert not transport.aborted
            connection._timed_out()
        connection.connection_lost(None)
        assert transport.aborted is given_up

    run(scenario)


def test_a_defect_costs_one_connection_and_is_an_answer(lines, monkeypatch):
    monkeypatch.setattr(OpenDoor, "admit", None)

    async def scenario(web):
        answer = await ask(web, upgrade())
        assert answer.status == 500
        assert web.counters["web.failed"] == 1
        assert (await ask(web, get())).status == 200

    run(scenario)
    assert lines[0].startswith("ERROR An HTTP connection failed and is dropped")


def test_no_request_however_garbled_is_a_defect_or_goes_without_an_answer(lines):
    chance = random.Random(10)
    sound = [*(data[:2000] for data, _ in REFUSED.values()), get(), CHUNKS, upgrade(), upgrade("/raw")]

    def garbled():
        data = bytearray(chance.choice(sound))
        for _ in range(chance.randrange(1, 6)):
            where = chance.randrange(len(data))
            kind = chance.randrange(3)
            if kind == 0:
                data[where] = chance.randrange(256)
            elif kind == 1:
                del data[where : where + chance.randrange(1, 20)]
            else:
                data[where:where] = chance.choice(
                    [b"\n", b"\r\n", b"\0", b" ", b":", b",", b"\xff", b"HTTP/1.1"]
                )
            data = data or bytearray(b"\n")
        return bytes(data)

    async def scenario(web):
        for _ in range(500):
            async with connected(web) as (reader, writer):
                data = garbled()
                writer.write(data)
                writer.write_eof()
                if data[0] != web_listener.TLS_RECORD and data.strip(b"\r\n"):
                    assert (await read_answer(reader)).status in range(101, 600), data
        assert "web.failed" not in web.counters
        assert not [line for line in lines if line.startswith("ERROR")]

    run(scenario)


# -- WebSockets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (upgrade(), 101),
        (upgrade(Upgrade="WebSocket"), 101),
        (upgrade(Upgrade="h2c, websocket", Connection="keep-alive, Upgrade"), 101),
        (upgrade(Content_Length="0"), 101),
        (upgrade("/nothing"), 404),
        (upgrade(Connection=None), 426),
        (upgrade(Sec_WebSocket_Version="12"), 426),
        (upgrade(Sec_WebSocket_Version=None), 426),
        (upgrade(Sec_WebSocket_Key=None), 400),
        (upgrade(Sec_WebSocket_Key="short"), 400),
        (upgrade(Sec_WebSocket_Key="é"), 400),
        (upgrade(Sec_WebSocket_Protocol=",,;="), 400),
        (upgrade().replace(b"GET", b"POST"), 405),
        (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    ],
)
def test_requests_for_a_websocket_get_their_status(request_bytes, status, lines):
    async def scenario(web):
        answer = await ask(web, request_bytes)
        assert answer.status == status
        if status == 426:
            assert answer.headers["Upgrade"] == "websocket"
            assert answer.headers["Connection"].lower() == "upgrade"
        if status == 426 and b"Version: 13" not in request_bytes:
            assert answer.headers["Sec-WebSocket-Version"] == "13"
        if status == 101:
            assert answer.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    run(scenario)
    refused = [line for line in lines if "was refused a WebSocket at " in line]
    # A POST is no request for a WebSocket, whatever it says of an upgrade (RFC 6455, section 4.1).
    assert len(refused) == len(lines) == (status not in (101, 200, 405))
    if refused:
        assert refused[0].startswith("WARNING 127.0.0.1:")
        assert f": {status} " in refused[0]


def test_a_websocket_may_follow_other_requests_and_its_first_message_its_request():
    async def scenario(web):
        async with connected(web) as (reader, writer):
            # A masked frame with two bytes (RFC 6455, section 5.2), before the answer has come.
            writer.write(get() + upgrade("/raw") + b"\x82\x82\0\0\0\0hi")
            assert [(await read_answer(reader)).status for _ in range(2)] == [200, 101]
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"hi"])
            assert peer.session.path == "/?encap=raw"
            assert web.listener.connection_count == 1
        await until(lambda: peer.closed and web.listener.connection_count == 0)

    run(scenario)
