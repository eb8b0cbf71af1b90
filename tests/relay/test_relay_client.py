"""The commands' half of the admin API, against servers that are none."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from processes import Relay, run

from relay.admin import client as module
from relay.admin.client import (
    AdminClient,
    AskError,
    Stream,
    UsageError,
    _user,
    add_arguments,
    captured,
    connect,
    port_of,
)


@contextlib.contextmanager
def server(path, answer):
    """Answer one request with these bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield AdminClient(path)
        thread.join()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "no JSON"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n<html>", "the relay says 404: Not Found"),
        (b'HTTP/1.1 404 Not Found\r\n\r\n{"error": "no such thing"}', "404: no such thing"),
        (b"220 mail.example ESMTP\r\n", "220 mail"),
        (b"", "the relay ended before it had answered"),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{",
            "the relay ended before it had answered",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{",
            "the relay ended before it had answered",
        ),
    ],
)
def test_answers_of_others_are_said_in_one_line(tmp_path, answer, complaint):
    with server(tmp_path / "x.sock", answer) as client, pytest.raises(AskError) as caught:
        client.ask("/v1/status")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_socket_that_a_relay_has_left_is_told_from_one_that_there_is_not(tmp_path):
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(AskError, match="no relay is there"):
        AdminClient(path).ask("/v1/status")


def test_lines_end_where_the_relay_does(tmp_path):
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server(tmp_path / "x.sock", head + b"4\r\none\n\r\n9\r\n") as client:
        lines = client.lines("/v1/events")
        assert next(lines) == "one"
        with pytest.raises(AskError, match="sends no more"):
            next(lines)


class Source:
    """An answer, its connection and the clock: each read takes some seconds, and may time out."""

    def __init__(self, *reads):
        self.now, self.timeouts = 100.0, []
        self._reads = list(reads)

    def settimeout(self, timeout):
        self.timeouts.append(timeout)

    def monotonic(self):
        return self.now

    def read(self, _amount):
        seconds, data = self._reads.pop(0)
        self.now += min(seconds, self.timeouts[-1])
        if seconds >= self.timeouts[-1]:
            raise TimeoutError
        return data


def test_a_stream_ends_at_its_deadline_however_seldom_something_comes(monkeypatch):
    source: Any = Source((9.0, b"one"), (20.0, b"two"))
    monkeypatch.setattr(module, "time", source)
    stream = Stream(source, source, deadline=110.0)
    assert [stream.read(8) for _ in range(3)] == [b"one", b"", b""]
    assert (source.timeouts, source.now) == ([10.0, 1.0], 110.0)
    stream.expect_no_end()


def test_a_stream_of_a_machine_that_has_vanished_ends():
    """Over TCP the system asks whether it is there, and says ETIMEDOUT where it is not."""

    class Vanished:
        def read(self, _amount):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\none\n")

        thread = threading.Thread(target=serve)
        thread.start()
        relay = AdminClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with relay.stream("/v1/events", {}, None) as stream:
            connection = stream._connection
            assert stream.readline() == b"one\n"
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        thread.join()
    vanished: Any = Vanished()
    stream = Stream(vanished, connection, None)
    assert stream.read(8) == b""
    with pytest.raises(AskError, match="sends no more"):
        stream.expect_no_end()


def test_a_stream_that_the_relay_ends_before_is_told_from_one_whose_time_is_over(monkeypatch):
    source: Any = Source((1.0, b"one"), (1.0, b""))
    monkeypatch.setattr(module, "time", source)
    stream = Stream(source, source, deadline=110.0)
    assert [stream.read(8) for _ in range(2)] == [b"one", b""]
    with pytest.raises(AskError, match="sends no more"):
        stream.expect_no_end()


PEERS = [
    {"port": 1, "room": "default", "name": "web", "address": "10.0.2.15", "mac": "52:54:00:00:00:01"},
    {"port": 2, "room": "default", "name": None, "address": None, "mac": "52:54:00:00:00:0a"},
    {"port": 3, "room": "lab", "name": "db", "address": "10.0.3.15", "mac": "52:54:00:00:00:01"},
]
NAMES = {
    "default": {"names": {"web": ["10.0.2.15", "fd76::1"], "db": ["10.0.2.99", "fd76::3"]}},
    "lab": {"names": {"db": ["10.0.3.15", "fd77::3"]}},
}


class Told:
    def ask(self, path, query=None):
        room = (query or {}).get("room")
        if path == "/v1/names":
            return {name: server for name, server in NAMES.items() if room in (None, name)}
        assert path == "/v1/peers"
        return [peer for peer in PEERS if room in (None, peer["room"])]


@pytest.mark.parametrize(
    ("who", "port"),
    [
        *(("7", 7), ("web", 1), ("WEB", 1), ("10.0.3.15", 3), ("52:54:00:00:00:0A", 2)),
        *(("52-54-00-00-00-0a", 2), ("fd76:0::1", 1), ("FD77::3", 3)),
    ],
)
def test_a_session_is_found_by_port_name_address_or_mac(who, port):
    assert port_of(cast("Any", Told()), who) == port


def test_a_session_that_there_is_not_or_not_once_is_said():
    with pytest.raises(AskError, match="no session is called mail"):
        port_of(cast("Any", Told()), "mail")
    with pytest.raises(AskError, match="no session is called fd76::3"):
        port_of(cast("Any", Told()), "fd76::3")
    with pytest.raises(AskError, match="several sessions are called 52:54:00:00:00:01"):
        port_of(cast("Any", Told()), "52:54:00:00:00:01")


def test_a_session_is_looked_for_in_one_room_and_has_to_be_there():
    relay = cast("Any", Told())
    assert port_of(relay, "52:54:00:00:00:01", "lab") == 3
    assert captured(relay, "db", "lab") == {"room": "lab", "mac": "52:54:00:00:00:01"}
    assert captured(relay, "web", None) == {"room": "default", "mac": "52:54:00:00:00:01"}
    assert captured(relay, "1", None) == {"room": None, "peer": "1"}
    assert captured(relay, None, "lab") == {"room": "lab"}
    with pytest.raises(AskError, match="there is no session 1 in room lab"):
        captured(relay, "1", "lab")
    with pytest.raises(AskError, match=r"there is no session 7$"):
        captured(relay, "7", None)


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_several_relays_are_told_apart_by_their_ports(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("VMRELAY_ADMIN", raising=False)
    with contextlib.ExitStack() as stack:
        for port in (10001, 10002):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tmp_path / f"{port}.sock"))
            listener.listen()
        with pytest.raises(AskError, match=r"10001.*10002"):
            connect(arguments())
        connect(arguments("--port", "10002"))


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("127.0.0.1:9433", "http://127.0.0.1:9433"),
        ("0.0.0.0:9433", "http://127.0.0.1:9433"),
        ("[::]:9433", "http://[::1]:9433"),
        ("admin.example:80", "http://admin.example:80"),
        ("http://127.0.0.1:9433", "http://127.0.0.1:9433"),
    ],
)
def test_it_is_asked_where_the_relay_was_told_to_be(tmp_path, monkeypatch, place, asked):
    """In its container the commands have the relay's environment."""
    token = tmp_path / "token"
    token.write_text("a-token-of-some-length\n")
    monkeypatch.setenv("VMRELAY_ADMIN", place)
    monkeypatch.setenv("VMRELAY_ADMIN_TOKEN", str(token))
    client = connect(arguments())
    assert (client._place, client._token) == (asked, "a-token-of-some-length")
    monkeypatch.setenv("VMRELAY_ADMIN_TOKEN", "")
    assert connect(arguments())._token is None


@pytest.mark.parametrize("place", ["run/admin.sock", "admin.sock", "/run/admin.sock"])
def test_all_else_is_a_socket(monkeypatch, place):
    monkeypatch.setenv("VMRELAY_ADMIN", place)
    assert connect(arguments())._place == Path(place)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("http://localhost:abc", "abc"),
        ("http://localhost:99999", "out of range"),
        ("http://[::1", "Invalid IPv6"),
        ("http://:9433", "names no host"),
        ("https://127.0.0.1:9433", "has no TLS"),
    ],
)
def test_a_url_at_which_no_api_can_be_is_refused_before_the_token_is_read(monkeypatch, place, complaint):
    monkeypatch.setenv("VMRELAY_ADMIN_TOKEN", "/nowhere")
    with pytest.raises(UsageError, match=complaint):
        connect(arguments("--admin", place))


@pytest.mark.parametrize(
    ("name", "told"),
    [("ann", "ann"), ("жук", r"\u0436\u0443\u043a"), ("a\nb", r"a\nb"), ("\udcff", r"\udcff")],
)
def test_the_user_is_named_in_what_a_header_may_hold(monkeypatch, name, told):
    monkeypatch.setenv("LOGNAME", name)
    assert _user() == told


def test_a_token_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(AskError, match="No such file"):
        connect(arguments("--admin", "http://127.0.0.1:1", "--admin-token", str(tmp_path / "none")))


def given(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder in which relays of this user are looked for."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr("relay.admin_place.folders", lambda _: iter((folder,)))
    monkeypatch.delenv("VMRELAY_ADMIN", raising=False)
    return folder


def test_of_several_relays_each_is_named_by_a_flag_that_finds_it(folder):
    with contextlib.ExitStack() as stack:
        for name in ("4433.sock", "4434.sock", "admin.sock"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(folder / name))
            listener.listen()
        with pytest.raises(AskError) as caught:
            connect(given())
        assert str(caught.value) == (
            "several relays run here: --port says which (4433, 4434), "
            f"or --admin says which ({folder}/admin.sock)"
        )
        assert connect(given("--port", "4434"))
        assert connect(given("--admin", f"{folder}/admin.sock"))


_AS_ANOTHER = """
import os, sys
from relay.main import main
import relay.admin.commands
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("whose", ["nobody's", "another's"])
def test_another_user_is_told_who_may_ask(tmp_path, whose):
    relay = Relay("--no-ipv6")  # its socket is where root's are
    tmp_path.chmod(0o700)
    session = str(tmp_path) if whose == "another's" else ""  # as after su, or with sudo -E
    environment = {"TMPDIR": "/tmp", "XDG_RUNTIME_DIR": session, "VMRELAY_ADMIN": ""}
    try:
        for words, complaint in (
            (("status",), "those in /run/vmrelay may be asked by root, or as the user that they run as"),
            (("status", "--admin", f"/run/vmrelay/{relay.port}.sock"), "only the user that runs the relay"),
        ):
            done = run(sys.executable, "-c", _AS_ANOTHER, *words, env=environment, check=False)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert complaint in done.stderr
    finally:
        relay.stop()
