"""The kernel, with the program, against the same rule in Python: every first byte, in each form of header."""

from __future__ import annotations

import contextlib
import select
import socket
import sys

import pytest

from transport.quic.steering import first_byte, owner, steer
from transport.quic.udp import bound_udp_sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux steers packets")

SHORT, INITIAL, HANDSHAKE = 0x40, 0xC0, 0xE0


def packet(form, first):
    header = bytes([form]) if form < 0x80 else bytes([form]) + b"\0\0\0\1\x08"
    return header + bytes([first]) + bytes(30)


@contextlib.contextmanager
def group(host, count):
    with contextlib.ExitStack() as stack:
        port = 0
        sockets = []
        for _ in range(count):
            [opened] = bound_udp_sockets(host, port, shared=True)
            stack.callback(opened.close)
            port = opened.getsockname()[1]
            sockets.append(opened)
        yield sockets, port


def receivers(sockets, port, to, packets):
    """Tell which of the sockets got each packet."""
    found = {}
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as client:
        for sent in packets:
            client.sendto(sent, (to, port))
            [ready], _, _ = select.select(sockets, [], [], 5)
            found[ready.recv(100)] = sockets.index(ready)
    return found


ALL = [packet(form, first) for form in (SHORT, INITIAL, HANDSHAKE) for first in range(256)]


@pytest.mark.parametrize(
    ("count", "live"),
    [(2, [0, 1]), (2, [1]), (3, [0, 2]), (5, [1, 3, 4]), (5, []), (64, [*range(60)])],
    ids=lambda value: str(value)[:20],
)
def test_the_kernel_knows_whose_packets_are_whose(count, live):
    with group("127.0.0.1", count) as (sockets, port):
        steer(sockets[0], count, live)
        found = receivers(sockets, port, "127.0.0.1", ALL)
        assert found == {sent: owner(first_byte(sent), count, live) for sent in ALL}
        assert set(found.values()) == set(live or range(count)), "all get some"


@pytest.mark.parametrize(("bind", "to"), [("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")])
def test_by_both_ip_versions(bind, to):
    with group(bind, 2) as (sockets, port):
        steer(sockets[0], 2, [0, 1])
        some = ALL[::7]
        assert receivers(sockets, port, to, some) == {sent: first_byte(sent) % 2 for sent in some}


def test_the_program_can_be_replaced_while_packets_come():
    with group("127.0.0.1", 2) as (sockets, port):
        steer(sockets[0], 2, [0, 1])
        odd = packet(SHORT, 1)
        assert receivers(sockets, port, "127.0.0.1", [odd]) == {odd: 1}
        steer(sockets[0], 2, [0])
        assert receivers(sockets, port, "127.0.0.1", [odd]) == {odd: 0}
        steer(sockets[0], 2, [0, 1])
        assert receivers(sockets, port, "127.0.0.1", [odd]) == {odd: 1}


def test_what_has_no_connection_id_is_the_first_workers():
    with group("127.0.0.1", 2) as (sockets, port):
        steer(sockets[0], 2, [0, 1])
        short = [b"\x40", b"\xc0\0\0\0\1", b"\xff"]
        assert receivers(sockets, port, "127.0.0.1", short) == dict.fromkeys(short, 0)
        assert [first_byte(sent) for sent in (b"", *short)] == [0, 0, 0, 0]


def test_those_that_are_left_share_what_a_lost_worker_had():
    lost = [first for first in range(256) if first % 4 == 2]
    shares = [sum(owner(first, 4, [0, 1, 3]) == number for first in lost) for number in (0, 1, 3)]
    assert sum(shares) == len(lost)
    assert max(shares) - min(shares) <= 1
