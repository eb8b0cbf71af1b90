"""What the supervisor's API has and refuses by itself; tests/system/test_workers.py asks it with workers."""

from __future__ import annotations

import http.client
import socket

import pytest
from processes import PATIENCE, Relay, free_port
from waiting import wait_until

from relay.admin.api import ROUTES
from relay.admin.events import MAX_LISTENERS
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
