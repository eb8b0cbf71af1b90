"""What the supervisor's API has and refuses by itself; tests/system/test_workers.py asks it with workers."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from processes import PATIENCE, Relay, free_port
from starlette.exceptions import HTTPException
from starlette.requests import Request
from waiting import wait_until

from relay.admin.entrance import CALLER
from relay.admin.events import MAX_LISTENERS
from relay.admin.guard import Caller
from relay.admin.request_fields import who_asks
from relay.admin.routes import ROUTES
from relay.bans import Bans
from relay.supervisor import asking
from relay.supervisor.api import WholeApi

TOKEN = "a-token-of-some-length"
STREAMS = {"/v1/capture", "/v1/events", "/v1/trace"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_of_one_process_is_answered_for_several(route):
    assert callable(getattr(WholeApi, route.handle.__name__))


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def admin(request, tmp_path_factory):
    """Give the port of the API of a relay."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    port = free_port()
    relay = Relay("--workers", request.param, "--admin", f"127.0.0.1:{port}", "--admin-token", token)
    yield port
    relay.stop()
    assert "Traceback" not in relay.output


@pytest.mark.parametrize(
    "path", [route.path for route in ROUTES if route.method == "GET" and route.path not in STREAMS]
)
def test_whoever_asks_for_the_head_alone_is_told_the_same_status(admin, path):
    found = []
    for method in ("GET", "HEAD"):
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=PATIENCE)
        connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        found.append((response.status, response.headers["Content-Type"]))
        assert bool(response.read()) == (method == "GET")
        connection.close()
    assert found[0] == found[1]


@pytest.mark.parametrize("request_line", ["POST /v1/bans", "POST /v1/drain", "GET /v1/status"])
def test_who_leaves_in_the_middle_of_a_body_leaves_no_trace_in_the_log(admin, request_line):
    head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", admin), timeout=PATIENCE) as sock:
        sock.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1000)  # closed, or refused; then the fixture looks at the log


def test_who_leaves_before_an_event_stream_begins_keeps_no_place(admin):
    head = f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"

    def begins():
        with socket.create_connection(("127.0.0.1", admin), timeout=PATIENCE) as sock:
            sock.sendall(f"{head}\r\n".encode())
            return sock.recv(1000).startswith(b"HTTP/1.1 200 ")

    for _ in range(MAX_LISTENERS + 1):
        with socket.create_connection(("127.0.0.1", admin), timeout=PATIENCE) as sock:
            sock.sendall(f"{head}Content-Length: 10\r\n\r\n".encode())
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1000)
    wait_until(begins)


def request_of(method, path, body=b"", caller=None):
    async def receive():
        return {"type": "http.request", "body": body}

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    return Request({**scope, CALLER: caller or Caller()}, receive)


def api(monkeypatch, answer=None, **whole):
    """Make the API of a supervisor whose one worker answers so; without an answer there is no worker."""

    async def ask_all(_, question):
        return {} if answer is None else {0: answer(question)}

    monkeypatch.setattr(asking, "ask_all", ask_all)
    made: Any = SimpleNamespace(sockets=dict, draining=False, **whole)
    served: Any = SimpleNamespace(whole=made)
    return WholeApi(served)


def test_a_ban_is_kept_whether_a_worker_answers_or_not(monkeypatch):
    kept = []

    async def keep(entries):
        kept.extend(entries)

    document: Any = SimpleNamespace(read=list, tell_unreadable=lambda _: None, keep=keep)
    asked = request_of("POST", "/v1/bans", b'{"kind": "address", "what": "192.0.2.1"}')
    with pytest.raises(HTTPException, match="no worker answers"):
        asyncio.run(api(monkeypatch, bans=Bans(time.time, document)).ban(asked))
    assert [entry["what"] for entry in kept] == ["192.0.2.1/32"]


@pytest.mark.parametrize(("status", "ends_as"), [(200, True), (400, False)])
def test_a_worker_that_becomes_ready_while_others_begin_to_drain_drains_too(monkeypatch, status, ends_as):
    told = []

    def answer(_):
        told.append(made._whole.draining)  # what a worker is told that is ready now
        return asking.Answer(status, b"{}")

    made = api(monkeypatch, answer)
    try:
        asyncio.run(made.drain(request_of("POST", "/v1/drain")))
    except HTTPException:
        assert status == 400
    assert (told, made._whole.draining) == ([True], ends_as)


@pytest.mark.parametrize("token", ["boss", "x" * 200])
def test_workers_are_told_whose_token_it_is_however_long_its_id_is(monkeypatch, token):
    asked = []

    def answer(question):
        asked.append(question)
        return asking.Answer(200, b"{}")

    request = request_of("DELETE", "/v1/peers/1", caller=Caller(token))
    asyncio.run(api(monkeypatch, answer).disconnect(request))
    fields = [(name.encode(), value.encode()) for name, value in asked[0].headers.items()]
    of_worker = Request({"type": "http", "headers": fields, CALLER: Caller()})
    assert f"(token {token[:50]}" in who_asks(of_worker).text
