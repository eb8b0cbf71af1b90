"""``vmrelay dashboard``: what passes between a browser and a relay that is asked over a unix socket."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys

import pytest
from operators import OperatedRelay
from processes import PATIENCE, Program, run
from waiting import wait_until

from guest.relay_socket import RelayPeer
from relay.admin.bridge import MAX_CONNECTIONS
from relay.admin.events import MAX_LISTENERS
from relay.admin.guard import MAX_BODY


class Dashboard(Program):
    """The command; ``token`` and ``port`` are those of its link."""

    def __init__(self, relay):
        super().__init__(sys.executable, "-m", "relay.main", "dashboard", "--admin", relay.admin)
        link = self.wait_for(r"^http://127\.0\.0\.1:(\d+)/dashboard/#token=([\w-]{43})$")
        self.port, self.token = int(link[1]), link[2]

    def open(self, path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **headers})
        return connection.getresponse()

    def ask(self, path, *arguments, **headers):
        with self.open(path, *arguments, **headers) as response:
            return response.status, response.read()


@pytest.fixture(scope="module")
def dashboard(relay):
    dashboard = Dashboard(relay)
    yield dashboard
    dashboard.stop()
    assert "Traceback" not in dashboard.output


def test_what_the_relay_answers_comes_through(relay, dashboard):
    status, body = dashboard.ask("/v1/overview?find=x")
    assert (status, json.loads(body)["relay"]["address"]) == (200, relay.url)
    assert dashboard.ask("/v1/rooms?room=nope")[0] == 404
    added = dashboard.ask("/v1/bans", "POST", '{"kind": "mac", "what": "52:54:00:00:00:09"}')
    assert added[0] == 201
    assert dashboard.ask("/v1/bans/mac:52:54:00:00:00:09", "DELETE")[0] == 200
    relay.wait_for(r"the operator \(\w+\) lifted the ban")


def test_programs_get_the_link_as_json(relay):
    command = Program(sys.executable, "-m", "relay.main", "dashboard", "--json", "--admin", relay.admin)
    try:
        told = json.loads(command.wait_for(r"^\{.*\}$")[0])
    finally:
        command.stop()
    assert told["link"].startswith("http://127.0.0.1:")


def test_the_page_comes_with_its_policy_to_whoever_has_no_token(dashboard):
    with dashboard.open("/dashboard/", Authorization="") as response:
        assert response.status == 200
        assert "require-trusted-types-for" in response.headers["Content-Security-Policy"]
        assert response.read().startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_others_of_this_machine_and_other_pages_are_refused(dashboard, headers, status):
    assert dashboard.ask("/v1/rooms", **headers)[0] == status
    assert dashboard.ask("/v1/drain", "POST", "", **headers)[0] == status
    assert json.loads(dashboard.ask("/v1/status")[1])["draining"] is False


@pytest.mark.parametrize("length", ["x", "-1", str(MAX_BODY + 1), "9" * 30])
def test_bodies_are_bounded(dashboard, length):
    assert dashboard.ask("/v1/bans", "POST", b"", **{"Content-Length": length})[0] == 413


def test_events_come_as_they_happen_and_the_stream_ends_with_its_browser(relay, dashboard):
    for _ in range(MAX_LISTENERS + 1):  # places are given back
        with dashboard.open("/v1/events") as stream:
            assert stream.status == 200
            assert stream.readline() == b": connected\n"
        wait_until(lambda: dashboard.ask("/livez") == (200, b"ok\n"))
    with dashboard.open("/v1/events") as stream:
        guest = RelayPeer(relay.url, insecure=True, name="web")
        try:
            while not (line := stream.readline()).startswith(b"event: "):
                assert line
            assert line == b"event: joined\n"
        finally:
            guest.close()


def test_connections_are_bounded_and_their_places_are_given_back(dashboard):
    several = [socket.create_connection(("127.0.0.1", dashboard.port)) for _ in range(MAX_CONNECTIONS)]
    with socket.create_connection(("127.0.0.1", dashboard.port)) as one_more:
        one_more.settimeout(PATIENCE)
        assert one_more.recv(1) == b""
    for one in several:
        one.close()

    def is_served():
        try:
            return dashboard.ask("/livez")[0] == 200
        except (ConnectionError, http.client.HTTPException):
            return False

    wait_until(is_served)


def test_a_relay_that_ends_meanwhile_is_said(tmp_path):
    relay = OperatedRelay(tmp_path)
    dashboard = Dashboard(relay)
    try:
        relay.stop()
        status, body = dashboard.ask("/v1/rooms")
        assert (status, "No such file" in json.loads(body)["error"]) == (502, True)
    finally:
        dashboard.stop()


def test_without_a_relay_or_with_a_port_that_is_taken_it_says_so(tmp_path, relay, dashboard):
    command = (sys.executable, "-m", "relay.main", "dashboard", "--admin")
    done = run(*command, tmp_path / "none.sock", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    done = run(*command, relay.admin, "--http-port", dashboard.port, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"vmrelay: error: port {dashboard.port}: .*in use\n", done.stderr)
