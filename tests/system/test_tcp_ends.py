"""How TCP connections end, and begin again, between a Linux kernel as a guest and one outside.

guest ── relay ── cable ── outside (10.99.4.2); a forward leads from outside to the guest.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from types import SimpleNamespace

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect, reset_at_close
from processes import Relay

RELAY, OUTSIDE = "10.99.4.1", "10.99.4.2"
GUEST, GUEST_MAC = "10.0.2.10", "52:54:15:ee:00:01"
"""An address, and a MAC whose place in the pool that is."""
FORWARDED, PORT, OWN_PORT = 8080, 80, 45_678
TIMES = 40
ON_A_BUSY_MACHINE = 4
"""SYNs that may be repeated, since the answer took more than a second."""
TOTAL_RETRANS = 100
"""Offset in struct tcp_info, which Linux only ever adds to."""

ANSWER = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n" + b"too large " * 300


@pytest.fixture(scope="module")
def lab():
    with contextlib.ExitStack() as stack:
        relay_namespace, outside = Namespace("endsrelay"), Namespace("endsout")
        stack.callback(relay_namespace.delete)
        stack.callback(outside.delete)
        connect(relay_namespace, f"{RELAY}/24", outside, f"{OUTSIDE}/24")
        relay = Relay(
            *("--allow-cidr", "10.99.4.0/24", "--forward", f"tcp:{RELAY}:{FORWARDED}:{GUEST}:{PORT}"),
            before=relay_namespace.prefix,
        )
        stack.callback(relay.stop)
        guest = KernelGuest("ends", relay, relay_namespace, "--mac", GUEST_MAC)
        stack.callback(guest.leave)
        assert guest.address == GUEST
        yield SimpleNamespace(guest=guest.namespace, outside=outside)
        assert "Traceback" not in relay.output


@pytest.fixture(params=["guest to server", "client to guest"])
def ends(request, lab):
    """The namespaces of client and server, where the server listens, and where the client connects to."""
    if request.param == "guest to server":
        return SimpleNamespace(client=lab.guest, server=lab.outside, at=(OUTSIDE, PORT), to=(OUTSIDE, PORT))
    return SimpleNamespace(client=lab.outside, server=lab.guest, at=(GUEST, PORT), to=(RELAY, FORWARDED))


@contextlib.contextmanager
def serving(ends, serve, times=TIMES):
    """Have ``serve`` called with as many connections, one after the other, in a thread."""
    failures = []

    def work():
        try:
            for _ in range(times):
                with listener.accept()[0] as connection:
                    connection.settimeout(listener.gettimeout())
                    serve(connection)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            failures.append(error)
            listener.close()  # clients need not wait

    with ends.server.socket(socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(ends.at)
        listener.listen()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            thread.join()
    assert failures == []


@contextlib.contextmanager
def connected(ends, port=0):
    with ends.client.socket(socket.SOCK_STREAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("0.0.0.0", port))
        opened.connect(ends.to)
        yield opened


def retransmissions(opened):
    """How many segments of this connection were sent again, SYNs too."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4)
    return int.from_bytes(info[TOTAL_RETRANS:], sys.byteorder)


def read_all(opened):
    """Read until the end or a RST."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := opened.recv(1 << 16):
            received += data
    return received


def test_the_answer_of_a_server_that_closes_with_unread_data_arrives_every_time(ends):
    def refuse(connection):
        assert connection.recv(1)  # of a whole segment
        connection.sendall(ANSWER)

    answers = []
    with serving(ends, refuse):
        for _ in range(TIMES):
            with connected(ends) as opened:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    opened.sendall(bytes(600_000))
                answers.append(read_all(opened))
    assert [len(answer) for answer in answers] == [len(ANSWER)] * TIMES
    assert set(answers) == {ANSWER}


def test_a_client_that_aborts_connects_again_from_the_same_port_every_time(ends):
    def echo(connection):
        connection.sendall(connection.recv(100))
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""

    repeated = 0
    with serving(ends, echo):
        for number in range(TIMES):
            with connected(ends, OWN_PORT) as opened:
                repeated += retransmissions(opened)
                opened.sendall(b"number %d" % number)
                assert opened.recv(100) == b"number %d" % number
                reset_at_close(opened)
    assert repeated <= ON_A_BUSY_MACHINE, "SYNs got lost"


def test_urgent_bytes_arrive_where_they_stand(ends):
    def telnet(connection):
        connection.sendall(b"before")
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(b"after")

    with serving(ends, telnet, 1), connected(ends) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        assert read_all(opened) == b"before!after"
