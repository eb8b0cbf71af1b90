"""TCP clients that ask for much and read nothing, or say nothing: a neighbour does not notice."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import PATIENCE
from raw_clients import RawTls
from watch import spares_the_neighbour
from websocket_attacker import BINARY, CONTINUED, PING, TEXT, TinyRecords, frame, many, upgrade

ATTACK = 3.0
"""Seconds."""
MEGABYTE = 1024 * 1024


FLOODS = {
    "pings": (b"", many(frame(PING, bytes(125)))),
    "empty pings": (b"", many(frame(PING))),
    "tiny messages": (b"", many(frame(BINARY, b"x"))),
    "empty messages": (b"", many(frame(BINARY))),
    "empty fragments": (frame(BINARY, b"x", fin=False), many(frame(CONTINUED, fin=False))),
    "fragments of text": (frame(TEXT, b"x", fin=False), many(frame(CONTINUED, fin=False))),
    "pings within a message": (frame(BINARY, b"x", fin=False), many(frame(PING, b"x"))),
    "pings and messages": (b"", many(frame(PING, b"x") + frame(BINARY, bytes(60)))),
}


def flood(relay, opening, data, until):
    """Send and never read; connect again whenever the relay has ended it."""
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.settimeout(0.2)
            client.sendall(upgrade("/raw"))
            client.recv(4096)
            client.sendall(opening)
            while time.monotonic() < until:
                with contextlib.suppress(TimeoutError):
                    client.send(data)


@pytest.mark.parametrize("case", FLOODS)
def test_a_client_that_sends_without_end_and_reads_nothing(relay, case):
    opening, data = FLOODS[case]

    def attack():
        until = time.monotonic() + ATTACK
        attackers = [threading.Thread(target=flood, args=(relay, opening, data, until)) for _ in range(4)]
        for attacker in attackers:
            attacker.start()
        for attacker in attackers:
            attacker.join(PATIENCE)

    before = relay.memory
    spares_the_neighbour(relay, attack)
    assert relay.memory - before < 24 * MEGABYTE


FIELDS = {
    "blanks": "X: a" + " " * 31_000 + "b",
    "tabs and blanks": "X: a" + "\t " * 15_500 + "b",
    "blanks at the end": "X: a" + " " * 31_000,
    "commas": "Upgrade: " + "," * 31_000,
    "a cookie": "Cookie: " + "a" * 31_000,
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_request_with_a_large_field(relay, case):
    def attack():
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client:
                client.sendall(upgrade("/raw", FIELDS[case]))
                assert client.recv(4096).startswith(b"HTTP/1.1 101 ")

    spares_the_neighbour(relay, attack)


CHUNKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES = {
    "trailers": (CHUNKED + b"0\r\n" + b"a\n" * 10_800 + b"\r\n", 431),
    "chunks": (CHUNKED + b"1\na\n" * 1000 + b"0\n\n", 413),
}


@pytest.mark.parametrize("case", LINES)
def test_requests_of_thousands_of_lines(relay, case):
    data, status = LINES[case]

    def ask(until):
        while time.monotonic() < until:
            with socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client:
                client.sendall(data)
                assert client.recv(4096).startswith(b"HTTP/1.1 %d " % status)

    def attack():
        with ThreadPoolExecutor(4) as attackers:
            list(attackers.map(ask, [time.monotonic() + ATTACK] * 4))

    spares_the_neighbour(relay, attack)


@contextlib.contextmanager
def clients_with_records_of_a_byte_each(relay, clients, records):
    data = frame(BINARY, b"\x01" + bytes(99))
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(TinyRecords(relay, data, records)) for _ in range(clients)]


def test_tls_records_of_a_byte_each_from_64_clients(relay):
    with clients_with_records_of_a_byte_each(relay, 64, 5000) as clients:
        spares_the_neighbour(relay, lambda: [client.send() for client in clients])


@pytest.mark.usefixtures("many_files")
def test_a_tls_record_of_a_byte_from_each_of_900_clients_at_a_time(relay):
    with clients_with_records_of_a_byte_each(relay, 900, 60) as clients:

        def attack():
            for number in range(60):
                for client in clients:
                    client.send(number)
                time.sleep(0.02)

        spares_the_neighbour(relay, attack)


KEY_UPDATES = {"in a request": b"GET / HT", "in a WebSocket": upgrade("/raw")}


@pytest.mark.parametrize("case", KEY_UPDATES)
def test_key_updates_from_16_clients_that_read_nothing(relay, case):
    before = relay.counters()["web.drop.tls_without_content"]
    with contextlib.ExitStack() as stack:

        def attack():
            for _ in range(16):
                client = stack.enter_context(RawTls(relay.port))
                opening = client.record(KEY_UPDATES[case])
                data = opening + b"".join(client.key_update() for _ in range(2400))
                with contextlib.suppress(OSError):
                    client.socket.sendall(data)

        spares_the_neighbour(relay, attack)
        assert relay.counters()["web.drop.tls_without_content"] == before + 16


SILENCE = {
    "nothing": b"",
    "half a request": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "half a handshake": b"\x16\x03\x01\x02\x00\x01",
}


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("case", SILENCE)
def test_2048_connections_that_say_little_leave_room(relay, case):
    def attack():
        with contextlib.ExitStack() as stack:
            for _ in range(2100):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
                client.sendall(SILENCE[case])
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", relay.port), PATIENCE) as client:
                    client.sendall(upgrade("/raw"))
                    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")

    before = relay.counters()["web.evicted"]
    spares_the_neighbour(relay, attack)
    assert relay.counters()["web.evicted"] > before
