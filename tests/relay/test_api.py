"""Who may use the admin API, and what it makes of requests that are not its own commands'."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from processes import PATIENCE, Relay, free_port, run
from prometheus_client.parser import text_string_to_metric_families
from scapy.layers.l2 import ARP, Ether
from waiting import wait_until

from guest.relay_socket import RelayPeer, RelaySocket
from relay.admin.guard import MAX_BODY
from relay.admin.routes import ROUTES
from relay.capture import MAX_CAPTURES

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(f"{TOKEN}\n")
    port = free_port()
    relay: Any = Relay("--admin", f"127.0.0.1:{port}", "--admin-token", token)
    relay.admin = port
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


def ask(relay, path, method="GET", body=None, *, token=TOKEN, host=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", relay.admin, timeout=PATIENCE)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    if host is not None:
        fields["Host"] = host
    try:
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def error(answer):
    return json.loads(answer[1])["error"]


def test_over_tcp_every_request_needs_the_token(relay):
    assert ask(relay, "/v1/rooms")[0] == 200
    for token in (None, "", "wrong", TOKEN[:-1], "\xfc" * 20):
        answer = ask(relay, "/v1/rooms", token=token)
        assert (answer[0], "--admin-token" in error(answer)) == (401, True)
    assert ask(relay, "/metrics", token=None)[0] == 401
    assert ask(relay, "/livez", token=None) == (200, "ok\n")
    assert ask(relay, "/readyz", token=None) == (200, "ready\n")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.2"])
def test_a_name_that_leads_here_by_rebinding_is_refused(relay, host):
    assert ask(relay, "/v1/rooms", host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:7"])
def test_names_of_the_machine_itself_are_served(relay, host):
    assert ask(relay, "/v1/rooms", host=host)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "http://127.0.0.1"])
def test_web_pages_of_others_are_refused(relay, origin):
    assert ask(relay, "/v1/rooms", Origin=origin)[0] == 403
    assert ask(relay, "/v1/drain", "POST", "", Origin=origin)[0] == 403
    assert ask(relay, "/readyz")[0] == 200


def test_its_own_pages_are_served(relay):
    assert ask(relay, "/v1/rooms", Origin=f"http://127.0.0.1:{relay.admin}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("POST", "/v1/rooms", "{}", 405),
        ("GET", "/v1/rooms?room=nope", None, 404),
        ("GET", "/v1/flows?port=x", None, 400),
        ("GET", "/v1/capture?snaplen=4294967296", None, 400),
        ("GET", "/v1/capture?mac=web", None, 400),
        ("GET", "/v1/trace?mac=52:54:00:00:00:01&destination=nowhere.invalid", None, 409),
        ("GET", "/v1/trace?mac=52:54:00:00:00:01&destination=192.0.2.1&room=nope", None, 404),
        ("DELETE", "/v1/peers/x", None, 400),
        ("DELETE", f"/v1/peers/{'9' * 40}", None, 400),
        ("POST", "/v1/bans", "", 400),
        ("POST", "/v1/bans", "[]", 400),
        ("POST", "/v1/bans", "[" * 50_000, 400),
        ("POST", "/v1/bans", '{"kind": "mac", "what": "x"}', 409),
        ("POST", "/v1/bans", '{"kind": "token", "what": "t", "seconds": "soon"}', 400),
        ("POST", "/v1/bans", '{"kind": "token", "what": "t", "seconds": true}', 400),
        ("POST", "/v1/bans", '{"kind": "token", "what": "t", "until": 1}', 400),
        ("POST", "/v1/bans", b"\xff", 400),
        ("POST", "/v1/bans", " " * (MAX_BODY + 1), 413),
        ("DELETE", "/v1/bans/token:none", None, 404),
        ("POST", "/v1/forwards", '{"forward": "tcp:x"}', 409),
        ("DELETE", "/v1/forwards?forward=tcp:1", None, 404),
    ],
)
def test_bad_requests_get_their_status_and_a_reason(relay, method, path, body, status):
    answer = ask(relay, path, method, body)
    assert answer[0] == status
    assert error(answer)


def test_all_that_is_answered_is_described(relay):
    told = json.loads(ask(relay, "/openapi.json")[1])
    described = {(method.upper(), path) for path, found in told["paths"].items() for method in found}
    assert described == {(route.method, route.path.replace(":path}", "}")) for route in ROUTES}
    names = [operation["operationId"] for found in told["paths"].values() for operation in found.values()]
    assert len(names) == len(set(names))


def test_every_read_is_answered(relay):
    streams = {"/v1/events", "/v1/capture", "/v1/trace"}
    for route in ROUTES:
        if route.method == "GET" and route.path not in streams:
            query = "?target=127.0.0.1" if route.path == "/v1/why" else ""
            assert ask(relay, route.path + query)[0] == 200, route.path


def test_metrics_are_what_prometheus_reads(relay):
    peer = RelayPeer(relay.url, insecure=True)
    families = {family.name: family for family in text_string_to_metric_families(ask(relay, "/metrics")[1])}
    peer.close()
    sessions = [(each.labels, each.value) for each in families["vmrelay_sessions"].samples]
    assert sessions == [
        ({"room": "default", "carrier": carrier}, float(carrier == "webtransport"))
        for carrier in ("websocket", "webtransport")
    ]
    assert {each.labels["edge"] for each in families["vmrelay_frames"].samples} == {"guest", "udp", "icmp"}
    buckets = [s for s in families["vmrelay_event_loop_lag_seconds"].samples if s.name.endswith("_bucket")]
    assert buckets[-1].labels == {"le": "+Inf"}
    assert families["vmrelay_client_round_trip_seconds"].samples[0].value == 1.0


def test_counters_with_a_room_are_that_rooms(relay):
    with RelaySocket(f"{relay.url}room/lab", insecure=True) as one:
        asked = ARP(hwsrc=one.peer.mac, psrc=str(one.peer.assigned.ip), pdst="10.0.2.2")
        assert one.sr1(Ether(src=one.peer.mac, dst="ff:ff:ff:ff:ff:ff") / asked, timeout=PATIENCE, verbose=0)
    assert json.loads(ask(relay, "/v1/counters?room=lab")[1])["switch.received"] >= 1


def test_the_relay_goes_on_when_a_client_leaves_in_the_middle(relay):
    with socket.create_connection(("127.0.0.1", relay.admin)) as hasty:
        hasty.sendall(
            b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            + TOKEN.encode()
            + b"\r\n\r\n"
        )
        assert hasty.recv(1)
    assert ask(relay, "/readyz")[0] == 200


def refused(*options):
    relay_command = (sys.executable, "-m", "relay.main", "--bind", "127.0.0.1", "--port", 0, *options)
    done = run(*relay_command, check=False)
    return done.returncode, done.stderr


def test_an_address_without_a_token_is_refused_at_the_start(tmp_path):
    status, said = refused("--admin", "127.0.0.1:0")
    assert (status, "--admin-token" in said) == (2, True)
    short = tmp_path / "short"
    short.write_text("short")
    for token in (short, tmp_path / "none"):
        status, said = refused("--admin", "127.0.0.1:0", "--admin-token", token)
        assert (status, said.splitlines()[-1].startswith("vmrelay: error: --admin-token: ")) == (1, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_takes_over_the_token_that_the_file_has_now(tmp_path, workers):
    file, port, other = tmp_path / "token", free_port(), "another-token-of-length"
    file.write_text(TOKEN)
    relay: Any = Relay("--admin", f"127.0.0.1:{port}", "--admin-token", file, "--workers", workers)
    relay.admin = port
    try:
        file.write_text("short")
        (wrong,) = json.loads(ask(relay, "/v1/reload", "POST")[1])["errors"]
        assert "--admin-token" in wrong
        file.write_text(other)
        assert ask(relay, "/v1/rooms")[0] == 200, "as it was until it is told to"
        assert json.loads(ask(relay, "/v1/reload", "POST")[1])["changed"] == ["admin-token"]
        assert [ask(relay, "/v1/rooms", token=token)[0] for token in (TOKEN, other)] == [401, 200]
        assert json.loads(ask(relay, "/v1/reload", "POST", token=other)[1])["changed"] == []
    finally:
        relay.stop()


def test_a_socket_that_cannot_be_had_is_refused_at_the_start(tmp_path):
    status, said = refused("--admin", tmp_path / "no" / "folder.sock")
    assert (status, "No such file" in said.splitlines()[-1]) == (1, True)


def test_by_default_the_socket_is_there_while_the_relay_runs(tmp_path):
    relay = Relay(environment={"RUNTIME_DIRECTORY": str(tmp_path / "run")})
    path = tmp_path / "run" / f"{relay.port}.sock"
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        relay.wait_for(f"admin API at {path}")
    finally:
        relay.stop()
    assert not path.exists()


def test_none_opens_nothing(tmp_path):
    relay = Relay("--admin", "none", environment={"RUNTIME_DIRECTORY": str(tmp_path / "run")})
    relay.stop()
    assert not (tmp_path / "run").exists()
    assert "admin" not in relay.output


CAPTURE = f"GET /v1/capture HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()


def test_no_more_captures_run_than_there_may_be(relay):
    with contextlib.ExitStack() as stack:
        several = [
            stack.enter_context(socket.create_connection(("127.0.0.1", relay.admin)))
            for _ in range(MAX_CAPTURES + 3)
        ]
        for one in several:
            one.sendall(CAPTURE)
        answers = [one.recv(64).split()[1] for one in several]
    assert sorted(answers) == [b"200"] * MAX_CAPTURES + [b"503"] * 3


def test_streams_that_are_left_before_or_after_they_begin_give_their_places_back(relay):
    for number in range(3 * MAX_CAPTURES):
        with socket.create_connection(("127.0.0.1", relay.admin)) as hasty:
            hasty.sendall(CAPTURE)
            if number % 2:
                assert hasty.recv(1)

    def is_taken():
        with socket.create_connection(("127.0.0.1", relay.admin)) as one:
            one.sendall(CAPTURE)
            return one.recv(64).startswith(b"HTTP/1.1 200")

    wait_until(is_taken)


SILENT_NAME_SERVERS = """
import sys, threading
from relay import bpf, main

class Filter(bpf.Filter):
    def __init__(self, expression):
        if expression == "host silent.example":
            print("a name is looked up", flush=True)
            threading.Event().wait()
        super().__init__(expression)

bpf.Filter, bpf.COMPILE_TIMEOUT = Filter, 1.0
sys.exit(main.main(sys.argv[1:]))
"""


def test_a_filter_whose_names_are_not_answered_is_refused_and_holds_nobody_up(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    port = free_port()
    options = ("--admin", f"127.0.0.1:{port}", "--admin-token", token)
    relay: Any = Relay(*options, program=(sys.executable, "-c", SILENT_NAME_SERVERS))
    relay.admin = port
    try:
        with ThreadPoolExecutor() as pool:
            named = pool.submit(ask, relay, "/v1/capture?filter=host+silent.example")
            relay.wait_for("a name is looked up")
            assert ask(relay, "/livez", token=None) == (200, "ok\n")
            for answer in (named.result(), ask(relay, "/v1/capture?filter=icmp")):
                assert (answer[0], "give addresses" in error(answer)) == (400, True)
        assert json.loads(ask(relay, "/v1/reload", "POST")[1])["errors"] == []
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
    finally:
        relay.stop()


def test_streams_end_with_the_relay(tmp_path):
    relay = Relay("--admin", tmp_path / "admin.sock")
    with contextlib.ExitStack() as stack:
        stack.callback(relay.stop)
        streams = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for stream, path in zip(streams, ("events", "capture"), strict=True):
            stream.settimeout(PATIENCE)
            stream.connect(str(tmp_path / "admin.sock"))
            stream.sendall(f"GET /v1/{path} HTTP/1.1\r\nHost: relay\r\n\r\n".encode())
            assert stream.recv(16).startswith(b"HTTP/1.1 200")
        relay.stop()
    assert '"level": "error"' not in relay.output
