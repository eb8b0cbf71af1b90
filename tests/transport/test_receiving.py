from __future__ import annotations

import contextlib
import socket

import pytest

from transport.host.receiving import DATAGRAMS_PER_TURN, receive
from transport.quic.udp import UDP_GRO, send_run

IP_RECVTTL = 12
"""Linux; missing in the socket module of Python 3.11."""
TTL_MESSAGES = frozenset({socket.IP_TTL, IP_RECVTTL})
TTL = 17


@pytest.fixture
def pair():
    """A socket to read from, and one that is connected to it."""
    with contextlib.ExitStack() as stack:
        reader, writer = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        )
        reader.setblocking(False)
        reader.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        reader.bind(("127.0.0.1", 0))
        writer.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, TTL)
        writer.connect(reader.getsockname())
        yield reader, writer


def read(opened):
    received = []
    return receive(opened, socket.IPPROTO_IP, TTL_MESSAGES, received), received


def test_what_waits_is_read_with_its_sender_and_its_ttl(pair):
    reader, writer = pair
    for payload in (b"one", b"", b"three"):
        writer.send(payload)
    error, received = read(reader)
    assert isinstance(error, BlockingIOError)
    assert received == [(payload, writer.getsockname(), TTL) for payload in (b"one", b"", b"three")]


def test_datagrams_of_one_sender_share_its_address(pair):
    reader, writer = pair
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for sender in (writer, writer, other, writer):
            sender.sendto(b"x", reader.getsockname())
        _, received = read(reader)
        addresses = [datagram.address for datagram in received]
        assert addresses[0] is addresses[1]
        assert addresses == [
            *[writer.getsockname()] * 2,
            ("127.0.0.1", other.getsockname()[1]),
            writer.getsockname(),
        ]


def test_what_the_kernel_has_put_together_is_taken_apart(pair):
    reader, writer = pair
    reader.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    sent = [b"a" * 100] * 7 + [b"b" * 30]
    send_run(writer, sent, None)
    error, received = read(reader)
    assert isinstance(error, BlockingIOError)
    assert [datagram.payload for datagram in received] == sent
    assert {datagram.ttl for datagram in received} == {TTL}


def test_one_turn_reads_so_many_and_leaves_the_rest(pair):
    reader, writer = pair
    for number in range(DATAGRAMS_PER_TURN + 3):
        writer.send(bytes((number,)))
    error, received = read(reader)
    assert (error, len(received)) == (None, DATAGRAMS_PER_TURN)
    error, received = read(reader)
    assert isinstance(error, BlockingIOError)
    assert [datagram.payload[0] for datagram in received] == [64, 65, 66]
