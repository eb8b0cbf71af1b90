from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from datetime import UTC, datetime, timedelta

import pytest
from web_parts import PATIENCE, serving, until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from transport import web_listener
from transport.certificates import RENEW_AFTER, EphemeralCertificateStore


def run(scenario, **options):
    async def main():
        async with asyncio.timeout(PATIENCE), serving(**options) as web:
            await scenario(web)

    asyncio.run(main())


async def ask(web, request, *, secure=False):
    """Send raw bytes; give status, headers and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port, ssl=web.trust() if secure else None)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def get(path="/", host="127.0.0.1", method="GET"):
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.mark.parametrize("secure", [False, True])
def test_pages_are_served_with_and_without_tls_on_one_port(secure):
    async def scenario(web):
        status, headers, body = await ask(web, get(), secure=secure)
        assert (status, body, headers["X-Test"]) == (200, b"a page", "yes")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Connection"] == "close"

    run(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/nothing"), 404),
        (get("/%2e%2e/etc/passwd"), 404),
        (get("/", method="POST"), 405),
        (get("//[", method="GET"), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (get(host="attacker.example"), 421),
        (get(host="127.0.0.1.attacker.example:4433"), 421),
        (get(host="["), 421),
        (get("/" + "a" * 10_000), 414),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\r\n", 426),
    ],
)
def test_bad_requests_get_a_status(request_bytes, status):
    async def scenario(web):
        assert (await ask(web, request_bytes))[0] == status

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1:4433", "[::1]:4433", "localhost", "vm.localhost:1"])
def test_plain_http_answers_to_names_of_this_machine(host):
    async def scenario(web):
        assert (await ask(web, get(host=host)))[0] == 200

    run(scenario)


def test_https_answers_to_any_name():
    async def scenario(web):
        assert (await ask(web, get(host="relay.example"), secure=True))[0] == 200

    run(scenario)


def test_head_is_get_without_the_body():
    async def scenario(web):
        status, headers, body = await ask(web, get(method="HEAD"))
        assert (status, body, headers["Content-Length"]) == (200, b"", "6")

    run(scenario)


def test_websockets_are_at_two_paths_only():
    async def scenario(web):
        with pytest.raises(InvalidStatus) as refused:
            async with web.client("/elsewhere"):
                pass
        assert refused.value.response.status_code == 404
        assert web.peers == []

    run(scenario)


def test_plain_http_is_refused_where_it_is_not_allowed():
    async def scenario(web):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(get())
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert web.counters["web.drop.not_https"] == 1
        assert (await ask(web, get(), secure=True))[0] == 200

    run(scenario, plain=False)


@pytest.mark.parametrize("rubbish", [b"", b"\0\1\2\3", b"\x16rubbish that is no TLS", b"\x16"])
def test_rubbish_is_dropped_and_hurts_nobody(rubbish, monkeypatch):
    monkeypatch.setattr(web_listener, "REQUEST_TIMEOUT", 0.2)

    async def scenario(web):
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(rubbish)
        writer.write_eof()
        assert (await ask(web, get()))[0] == 200
        await until(lambda: web.listener.connection_count == 0)
        writer.close()

    run(scenario)


def test_connections_have_a_limit(monkeypatch):
    monkeypatch.setattr(web_listener, "MAX_CONNECTIONS", 2)

    async def scenario(web):
        async with web.client("/"), web.client("/"):
            reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
            assert await reader.read() == b""
            writer.close()
            assert web.counters["web.drop.too_many_connections"] == 1
        await until(lambda: web.listener.connection_count == 0)
        assert (await ask(web, get()))[0] == 200

    run(scenario)


def test_new_connections_get_a_renewed_certificate_and_old_sessions_go_on():
    async def scenario(web):
        before = web.certificates.current
        async with web.client("/", "wss") as client:
            peer = await web.peer()
            assert web.certificates.refresh(before.not_before + RENEW_AFTER + timedelta(hours=2))
            assert web.certificates.current is not before
            # Still inside its validity by the test's clock, or TLS would refuse it.
            assert (await ask(web, get(), secure=True))[0] == 200
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


def test_a_taken_port_is_an_oserror():
    async def scenario(web):
        with pytest.raises(OSError, match="in use"):
            web_listener._listen("127.0.0.1", web.port)

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
