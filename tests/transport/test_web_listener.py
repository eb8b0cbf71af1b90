from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest
from host_parts import has_addresses
from loguru import logger
from waiting import until
from web_parts import PATIENCE, ask, connected, get, read_answer, run
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from transport.admission import Refusal
from transport.certificates import RENEW_AFTER, EphemeralCertificateStore
from transport.slices import TURN
from transport.web import web_listener


@pytest.fixture
def lines():
    said = []
    sink = logger.add(said.append, format="{level} {message}", level="WARNING")
    yield said
    logger.remove(sink)


def test_what_utf8_cannot_say_of_a_refusal_is_replaced():
    assert web_listener._refused(Refusal(HTTPStatus.FORBIDDEN, "tired\udcff")).body == b"tired?\n"


@pytest.mark.parametrize("secure", [False, True])
def test_pages_are_served_with_and_without_tls_on_one_port(secure):
    async def scenario(web):
        status, headers, body = await ask(web, get(), secure=secure)
        assert (status, body, headers["X-Test"]) == (200, b"a page", "yes")
        assert headers["X-Content-Type-Options"] == "nosniff"

    run(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/nothing"), 404),
        (get("/%2e%2e/etc/passwd"), 404),
        (get("//["), 404),
        (get("/?query#fragment"), 200),
        (get(method="POST"), 405),
        (get(method="TRACE"), 405),
        (get("127.0.0.1:443", method="CONNECT"), 405),
        (get(method="BREW"), 501),
        (get(method="get"), 501),
        (get(method="OPTIONS"), 204),
        (get("*", method="OPTIONS"), 204),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (get(host="attacker.example"), 421),
        (get(host="127.0.0.1.attacker.example:4433"), 421),
        (get("http://attacker.example/"), 421),
        (get("http://127.0.0.1/", host="attacker.example"), 421),
        (get("http://127.0.0.1/"), 200),
        (get(host="["), 400),
        (get("/" + "a" * 10_000), 414),
        (get(more="Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\n"), 200),
        (get(more="Upgrade: h2c\r\n"), 200),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (get(more="Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), 426),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_every_request_gets_its_status(request_bytes, status, secure):
    async def scenario(web):
        assert (await ask(web, request_bytes, secure=secure)).status == status

    run(scenario)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4433",
        "[::1]:4433",
        "[fe80::1%eth0]:4433",
        "[fe80::1%25eth0.1]:4433",
        "localhost",
        "vm.localhost:1",
        "myhost:4433",
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_it_answers_to_addresses_and_to_names_of_this_machine_and_of_its_certificate(host, secure):
    async def scenario(web):
        assert (await ask(web, get(host=host), secure=secure)).status == 200

    run(scenario, certificates=EphemeralCertificateStore(["127.0.0.1", "myhost"], datetime.now(UTC)))


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("path", ["/", "/raw", "/?encap=raw"])
def test_a_page_of_another_origin_is_refused_before_there_is_a_session(secure, path, lines):
    async def scenario(web):
        answer = await ask(web, get(path, more=f"{UPGRADE}Origin: https://evil.example\r\n"), secure=secure)
        assert answer.status == 403
        assert b"--allow-origin https://evil.example " in answer.body
        assert web.peers == []
        for origin in ("", "Origin: http://localhost:8000\r\n", "Origin: https://app.example\r\n"):
            async with connected(web, secure=secure) as (reader, writer):
                writer.write(get(path, more=f"{UPGRADE}{origin}"))
                assert (await read_answer(reader)).status == 101
        assert web.counters["web.status_403"] == 1

    run(scenario, allow_origin=["https://app.example"])
    [line] = lines
    assert f"was refused a WebSocket at {path}: 403 Forbidden: " in line
    assert "--allow-origin https://evil.example " in line


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_hash_is_for_pages_that_may_connect(method, lines):
    async def scenario(web):
        async def read(origin):
            more = "" if origin is None else f"Origin: {origin}\r\n"
            return await ask(web, get("/cert-hash", method=method, more=more), head_only=method == "HEAD")

        refused = await read("https://evil.example")
        assert refused.status == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
        for origin in ("http://localhost:8000", "https://app.example"):
            answer = await read(origin)
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Vary"] == "Origin"
        answer = await read(None)
        assert (answer.status, answer.headers["Vary"]) == (200, "Origin")
        assert "Access-Control-Allow-Origin" not in answer.headers

    run(scenario, allow_origin=["https://app.example"])
    [line] = lines
    assert "was refused /cert-hash: 403 Forbidden: " in line


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("/admission/", 204, b""),
        ("/admission/room/lab?token=secret", 204, b""),
        ("/admission/room/Lab", 400, b"1 to 63 of a-z"),
        ("/admission/elsewhere", 404, b"Sessions are at"),
        ("/admission", 404, b"nothing here"),
    ],
)
def test_pages_that_may_connect_are_told_why_a_session_would_be_refused(target, status, said, lines):
    async def scenario(web):
        async def read(origin):
            return await ask(web, get(target, more=f"Origin: {origin}\r\n"))

        answered = await read("https://app.example")
        assert (answered.status, said in answered.body) == (status, True)
        readers = answered.headers.get("Access-Control-Allow-Origin")
        assert readers == (None if target == "/admission" else "https://app.example")
        other = await read("https://evil.example")
        assert other.status == (404 if target == "/admission" else 403)
        assert "Access-Control-Allow-Origin" not in other.headers
        assert web.door.asked == []

    run(scenario, allow_origin=("https://app.example",))


def test_pages_that_may_connect_are_told_where_a_room_is():
    async def scenario(web):
        async def read(origin, path="/room/lab/where"):
            return await ask(web, get(path, more=f"Origin: {origin}\r\n"))

        answered = await read("https://app.example")
        assert (answered.status, answered.headers["Content-Type"]) == (200, "application/json")
        assert json.loads(answered.body) == {"urls": ["https://here", "https://lab"]}
        assert answered.headers["Access-Control-Allow-Origin"] == "https://app.example"
        other = await read("https://evil.example")
        assert other.status == 403
        assert "Access-Control-Allow-Origin" not in other.headers
        for bad in ("Lab", "a" * 64, "a/b", "", "a%20b"):
            assert (await read("https://app.example", f"/room/{bad}/where")).status == 404
        assert web.door.asked == []

    run(scenario, allow_origin=("https://app.example",))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/room/lab/where", "authorization"), ("/admission/room/lab", "authorization"), ("/", None)],
)
def test_pages_that_may_connect_may_show_their_token_in_a_header(path, allowed):
    async def scenario(web):
        async def ask_before(origin):
            more = f"Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\n"
            more += "Access-Control-Request-Headers: authorization\r\n"
            return await ask(web, get(path, method="OPTIONS", more=more))

        answered = await ask_before("https://app.example")
        assert (answered.status, answered.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
        assert answered.headers.get("Access-Control-Allow-Headers") == allowed
        assert answered.headers.get("Access-Control-Allow-Origin") == (allowed and "https://app.example")
        other = await ask_before("https://evil.example")
        assert other.status == (403 if allowed else 204)
        assert "Access-Control-Allow-Origin" not in other.headers

    run(scenario, allow_origin=("https://app.example",))


def test_head_is_get_without_the_body():
    async def scenario(web):
        status, headers, body = await ask(web, get(method="HEAD"), head_only=True)
        assert (status, body, headers["Content-Length"]) == (200, b"", "6")

    run(scenario)


WEBSOCKET = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: bm9uY2Ugb2YgMTYgYnl0ZQ==\r\n"
VERSION = "Sec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/room/lab", more=WEBSOCKET + VERSION), 101),
        (get("/room/lab", more=WEBSOCKET), 426),
        (get("/room/lab", more=WEBSOCKET + VERSION.replace("13", "8")), 426),
        (get("/room/lab", more=WEBSOCKET.replace("bm9u", "") + VERSION), 400),
        (get("/room/lab", more=WEBSOCKET.replace("Key", "Hey") + VERSION), 400),
        (get("/room/lab", more=WEBSOCKET.replace("Connection", "Proxy") + VERSION), 426),
        (get("/room/lab", more=WEBSOCKET + VERSION, method="HEAD"), 404),
        (get("/room/lab", more=WEBSOCKET + VERSION, method="POST"), 405),
    ],
)
def test_a_session_is_asked_for_only_when_the_handshake_is_right(request_bytes, status):
    async def scenario(web):
        answered = await ask(web, request_bytes, head_only=request_bytes.startswith(b"HEAD"))
        assert answered.status == status
        assert web.door.asked == (["/room/lab"] if status == 101 else [])

    run(scenario)


def test_websockets_are_at_two_paths_only():
    async def scenario(web):
        with pytest.raises(InvalidStatus) as refused:
            async with web.client("/elsewhere"):
                pass
        assert refused.value.response.status_code == 404
        assert web.peers == []

    run(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "location"),
    [
        (get("/page?q", "relay.example:4433"), "https://relay.example:4433/page?q"),
        (get("/", "[2001:db8::1]:4433", method="HEAD"), "https://[2001:db8::1]:4433/"),
        (get("/", "relay.example"), "https://relay.example:80/"),
        (get("/", "relay.example:8443", method="POST"), "https://relay.example:8443/"),
        (get("http://relay.example:4433/", "other"), "https://relay.example:4433/"),
        (get("*", "relay.example:4433", method="OPTIONS"), "https://relay.example:4433/"),
        (
            get("/raw", "relay.example:4433", more="Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            "wss://relay.example:4433/raw",
        ),
    ],
)
def test_plain_http_is_sent_to_https_where_it_is_not_allowed(request_bytes, location):
    async def scenario(web):
        status, headers, body = await ask(web, request_bytes, head_only=b"HEAD" in request_bytes)
        assert (status, headers["Location"], headers["Cache-Control"]) == (307, location, "no-store")
        assert b"HEAD" in request_bytes or body.decode() == f"This port speaks HTTPS: {location}\n"
        assert web.counters["web.not_https"] == 1
        assert (await ask(web, get(), secure=True)).status == 200
        assert web.peers == []

    run(scenario, plain=False)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (get(host=""), 400),
        (get("relay.example:443", method="CONNECT"), 400),
        (b"SSH-2.0-client\r\n", 400),
        (b"\0\1\2\3", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_what_cannot_be_sent_elsewhere_gets_a_sentence(request_bytes, status):
    async def scenario(web):
        answer = await ask(web, request_bytes)
        assert answer.status == status
        assert answer.body.endswith(b".\n")

    run(scenario, plain=False)


def test_a_websocket_client_that_follows_is_led_to_a_session():
    async def scenario(web):
        host = f"127.0.0.1:{web.port}"
        request = get("/raw", host, more="Connection: Upgrade\r\nUpgrade: websocket\r\n")
        answer = await ask(web, request)
        async with connect(answer.headers["Location"], proxy=None, ssl=web.trust()):
            assert (await web.peer()).session.path == "/?encap=raw"

    run(scenario, plain=False)


@pytest.mark.parametrize("rubbish", [b"", b"\0\1\2\3", b"\x16rubbish that is no TLS", b"\x16"])
def test_rubbish_is_dropped_and_hurts_nobody(rubbish, monkeypatch):
    monkeypatch.setattr(web_listener, "REQUEST_TIMEOUT", 0.2)

    async def scenario(web):
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(rubbish)
        writer.write_eof()
        assert (await ask(web, get())).status == 200
        await until(lambda: web.listener.connection_count == 0)
        writer.close()

    run(scenario)


def test_connections_have_a_limit(bound):
    async def scenario(web):
        async with web.client("/"), web.client("/"):
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
                assert await reader.read() == b""
                writer.close()
            assert web.counters["web.drop.too_many_connections"] == 3
        await until(lambda: web.listener.connection_count == 0)
        assert (await ask(web, get())).status == 200

    run(scenario, max_connections=2)
    event = next(extra for extra in bound if extra.get("event") == "refused")
    assert (event["carrier"], event["why"], event["mac"]) == ("http", "too many TCP connections", None)
    assert event["remote"].startswith("127.0.0.1:")


@contextlib.asynccontextmanager
async def silent_connections(web, count):
    """Connections of 127.0.0.1 that say nothing; for want of room the oldest are ended."""
    writers = [(await asyncio.open_connection("127.0.0.1", web.port))[1] for _ in range(count)]
    try:
        yield
    finally:
        for writer in writers:
            writer.close()


def test_silent_connections_of_one_address_leave_half_for_others():
    async def scenario(web):
        async with silent_connections(web, 12):
            await until(lambda: web.counters["web.evicted"] == 7)
            assert web.listener.connection_count == 5
            async with web.client("/", local_addr=("127.0.0.2", 0)):
                assert (await web.peer()).session.remote.startswith("127.0.0.2:")
        await until(lambda: web.listener.connection_count == 0)
        assert (await ask(web, get())).status == 200

    run(scenario, max_connections=10, client_share=90)


def test_websockets_of_one_address_leave_their_share_for_others():
    async def scenario(web):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(web.client("/"))
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", web.port)
                stack.callback(writer.close)
            await until(lambda: web.counters["web.evicted"] == 1)
            await stack.enter_async_context(web.client("/", local_addr=("127.0.0.2", 0)))
        await until(lambda: web.listener.connection_count == 0)

    run(scenario, max_connections=10, client_share=90)


def test_without_a_share_one_address_may_have_all_connections():
    async def scenario(web):
        async with silent_connections(web, 12):
            await until(lambda: web.counters["web.evicted"] == 2)

    run(scenario, max_connections=10, client_share=0)


async def is_closed(reader):
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: ", b"\x16\3\1\2\0\1", get()], ids=repr)
def test_who_has_said_least_makes_room_for_a_newcomer(secure, said):
    async def scenario(web):
        async with web.client("/") as session:
            held = [await asyncio.open_connection("127.0.0.1", web.port) for _ in range(3)]
            for _, writer in held:
                writer.write(said)
            if said == get():
                assert [(await read_answer(reader)).status for reader, _ in held] == [200] * 3
            else:
                await until(lambda: web.listener.connection_count >= 4)
            for _ in range(9):
                assert (await ask(web, get(more="Connection: close\r\n"), secure=secure)).status == 200
            assert web.counters["web.evicted"] >= 1
            assert await is_closed(held[0][0])
            await session.send(b"still there")
            peer = await web.peer()
            await until(lambda: peer.datagrams == [b"still there"])
            for _, writer in held:
                writer.close()
        await until(lambda: web.listener.connection_count == 0)
        assert web.listener._shares.total == web.listener._requests.total == 0

    run(scenario, max_connections=4)


def test_a_handshake_that_one_newcomer_has_ended_is_no_place_for_another():
    """Each listening socket has a task, and two may look for room in one turn."""

    async def scenario(web):
        listener = web.listener
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"\x16\3\1\2\0\1")
        await until(lambda: len(listener._connections) == 1)
        assert listener._evict("127.0.0.1")
        assert not listener._evict("127.0.0.1")
        await until(lambda: web.listener.connection_count == 0)
        writer.close()

    run(scenario, max_connections=1)


def test_a_client_that_cannot_be_taken_costs_the_port_nothing(monkeypatch):
    async def scenario(web):
        with monkeypatch.context() as patched:
            patched.setattr(web.listener, "_has_room_for", None)
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            assert await is_closed(reader)
            writer.close()
        assert web.counters["web.failed"] == 1
        assert (await ask(web, get())).status == 200

    run(scenario)


def test_new_connections_get_a_renewed_certificate_and_old_sessions_go_on():
    async def scenario(web):
        before = web.certificates.current
        async with web.client("/", "wss") as client:
            peer = await web.peer()
            assert web.certificates.refresh(before.not_before + RENEW_AFTER + timedelta(hours=2))
            assert web.certificates.current is not before
            # Still inside its validity by the test's clock, or TLS would refuse it.
            assert (await ask(web, get(), secure=True)).status == 200
            await client.send(b"as before")
            await until(lambda: peer.datagrams == [b"as before"])

    past = datetime.now(UTC) - RENEW_AFTER
    run(scenario, certificates=EphemeralCertificateStore(["127.0.0.1"], past))


def test_the_end_tells_clients_and_frees_the_port():
    async def scenario(web):
        port = web.port
        async with web.client("/") as client:
            peer = await web.peer()
            peer.session.close(6, "relay is shutting down")
            await web.listener.close()
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "relay is shutting down")
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))

    run(scenario)


def test_what_is_for_many_is_sent_with_others_served_in_between(monkeypatch):
    class Slow:
        """A connection that takes a whole slice of time to send what it has."""

        def __init__(self, number):
            self.number = number

        def flush(self, _now):
            done.append(self.number)
            clock[0] += TURN
            asyncio.get_running_loop().call_soon(done.append, "others")

    done, clock = [], [0.0]

    async def scenario(web):
        monkeypatch.setattr(web.listener, "clock", lambda: clock[0])
        for number in range(3):
            web.listener.want_flush(Slow(number))
        await until(lambda: len(done) == 6)
        assert done == [0, "others", 1, "others", 2, "others"]
        web.listener.want_flush(Slow(3))
        await until(lambda: len(done) == 8)

    run(scenario)


def test_it_listens_at_all_addresses_of_a_name(monkeypatch):
    has_addresses(monkeypatch, "localhost", "127.0.0.1", "::1")

    async def scenario(web):
        port = web.port
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(get())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        await web.listener.close()
        for host in ("127.0.0.1", "::1"):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, port)

    run(scenario, host="localhost")


def test_a_taken_port_is_an_oserror():
    async def scenario(web):
        with pytest.raises(OSError, match="in use"):
            web_listener.listening_sockets("127.0.0.1", web.port)

    run(scenario)


def test_an_ordinary_http_client_is_served():
    async def scenario(web):
        def fetch():
            connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE)
            connection.request("GET", "/")
            body = connection.getresponse().read()
            connection.close()
            return body

        assert await asyncio.to_thread(fetch) == b"a page"

    run(scenario)
