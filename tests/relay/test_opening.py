from __future__ import annotations

import asyncio
import signal
import socket
import urllib.request
from codecs import BOM_UTF8
from types import SimpleNamespace
from typing import Any

import pytest
from processes import PATIENCE, Relay, free_port

from relay.admin.opening import KEEP_ALIVE, LEAST_TOKEN, AdminError, open_admin, read_token
from relay.admin.service import Offered
from relay.admin_place import Address


@pytest.mark.parametrize("mark", [b"", BOM_UTF8])
def test_a_token_is_read_without_its_line_end_and_a_mark_ahead_of_it(tmp_path, mark):
    path = tmp_path / "token"
    path.write_bytes(mark + b"x" * LEAST_TOKEN + b"\r\n")
    assert read_token(path) == "x" * LEAST_TOKEN


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 5000, b"\xff" * 20, "ü".encode() * 20, b"a\tb" * 9]
)
def test_what_is_no_token_is_said_with_the_file(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(AdminError, match=str(path)):
        read_token(path)
    with pytest.raises(AdminError, match="No such file"):
        read_token(tmp_path / "none")


def test_a_name_that_no_host_can_have_is_said_in_one_line():
    served: Any = SimpleNamespace(read_token=None)
    with pytest.raises(AdminError, match=r"^--admin a\.\.b:9000: a\.\.b is not a host name$"):
        open_admin(Address("a..b", 9000), "x" * LEAST_TOKEN, 4433, served)


def test_a_client_whose_machine_vanishes_keeps_no_place():
    """The system asks for a sign of life where nothing is sent, as in captures of what nobody does."""

    async def scenario():
        service = open_admin(Address("127.0.0.1", 0), "x" * LEAST_TOKEN, 4433, Offered(facts={}))
        with socket.create_connection(service._listener.getsockname()):
            accepted, _ = service._listener.accept()
            with accepted:
                options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
                options += [(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEP_ALIVE]
                found = [accepted.getsockopt(*option) for option in options]
        await service.close()
        return found

    assert asyncio.run(scenario()) == [1, *KEEP_ALIVE.values()]


def test_a_relay_that_starts_removes_what_a_killed_one_has_left(tmp_path):
    environment = {"RUNTIME_DIRECTORY": str(tmp_path)}
    killed = Relay(environment=environment)
    left = tmp_path / f"{killed.port}.sock"
    killed.signal(signal.SIGKILL)
    killed.stop()
    assert left.is_socket()
    running = Relay("--port", free_port(), environment=environment)
    try:
        assert [path.name for path in tmp_path.iterdir()] == [f"{running.port}.sock"]
    finally:
        running.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_at_all_ipv6_addresses_it_is_at_those_of_ipv4_too(tmp_path, host):
    token, port = tmp_path / "token", free_port()
    token.write_text("x" * LEAST_TOKEN)
    relay = Relay("--admin", f"[::]:{port}", "--admin-token", token)
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/livez", timeout=PATIENCE) as answer:
            assert answer.read() == b"ok\n"
    finally:
        relay.stop()
