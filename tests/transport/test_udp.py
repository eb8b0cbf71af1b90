import select
import socket

import pytest

from netstack.counters import Counters
from transport import udp
from transport.udp import UdpSocket


@pytest.fixture
def pair():
    counters = Counters()
    left, right = UdpSocket("127.0.0.1", 0, counters), UdpSocket("127.0.0.1", 0, counters)
    yield left, right, counters
    left.close()
    right.close()


def receive(sock, count):
    packets = []
    while len(packets) < count:
        assert select.select([sock], [], [], 5)[0], f"{len(packets)} of {count} packets arrived"
        for run, address in sock.drain():
            packets += [(packet, address) for packet in run]
    return packets


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [[100], [1200] * 150, [1200] * 3 + [40], [40, 1200, 1200, 7, 1200], [1, 2, 3, 4], [1452] * 61],
)
def test_batches_arrive_whole_and_in_order(pair, offload, sizes):
    left, right, _ = pair
    left.send_offload = left.send_offload and offload
    sent = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    left.send(sent, ("127.0.0.1", right.port))
    got = receive(right, len(sent))
    assert [packet for packet, _ in got] == sent
    assert {address for _, address in got} == {("127.0.0.1", left.port)}


def test_linux_offers_both_offloads(pair):
    left, _, _ = pair
    assert left.receive_offload
    assert left.send_offload


def test_drain_of_an_empty_socket_is_empty(pair):
    assert pair[0].drain() == []


def test_empty_datagrams_are_packets_too(pair):
    left, right, _ = pair
    left.send([b""], ("127.0.0.1", right.port))
    assert receive(right, 1) == [(b"", ("127.0.0.1", left.port))]


def test_one_turn_reads_a_bounded_number_of_packets(pair):
    left, right, _ = pair
    for _ in range(udp.READS_PER_TURN + 5):
        left.send([b"x"], ("127.0.0.1", right.port))
    assert select.select([right], [], [], 5)[0]
    assert sum(len(run) for run, _ in right.drain()) <= udp.READS_PER_TURN
    assert right.drain()


def test_what_cannot_be_sent_is_counted(pair):
    left, _, counters = pair
    left.send([bytes(70_000)], ("127.0.0.1", 9))
    left.send([b"x", b"x"], ("255.255.255.255", 9))
    assert counters["udp.drop.send_error"] == 3


def test_a_device_without_segmentation_is_used_without(pair, monkeypatch):
    left, right, _ = pair

    class NoOffload:
        def __init__(self, inner):
            self.inner = inner

        def sendmsg(self, *args):
            raise OSError(5, "Input/output error")

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr(left, "_socket", NoOffload(left._socket))
    left.send([b"abc", b"def"], ("127.0.0.1", right.port))
    assert [packet for packet, _ in receive(right, 2)] == [b"abc", b"def"]
    assert not left.send_offload


def test_wildcard_ipv6_takes_ipv4_clients():
    sock = UdpSocket("::", 0, Counters())
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        client.sendto(b"hello", ("127.0.0.1", sock.port))
        [(packet, address)] = receive(sock, 1)
        assert packet == b"hello"
        assert address[0] == "::ffff:127.0.0.1"
    finally:
        client.close()
        sock.close()


def test_a_taken_port_is_an_oserror(pair):
    with pytest.raises(OSError, match="in use"):
        UdpSocket("127.0.0.1", pair[0].port, Counters())
