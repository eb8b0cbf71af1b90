import re
import select
import socket
from contextlib import closing
from pathlib import Path

import pytest
from host_parts import add_ipv6, in_namespace, ip

from netstack.counters import Counters
from transport import packet_info
from transport.quic import udp
from transport.quic.udp import ServerUdpSocket


@pytest.fixture
def pair():
    counters = Counters()
    left, right = ServerUdpSocket("127.0.0.1", 0, counters), ServerUdpSocket("127.0.0.1", 0, counters)
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


def may_exceed_limits():
    """Whether this process has CAP_NET_ADMIN (bit 12, capabilities(7))."""
    status = Path("/proc/self/status")
    found = re.search(r"CapEff:\s*(\w+)", status.read_text()) if status.exists() else None
    return found is not None and bool(int(found[1], 16) >> 12 & 1)


@pytest.mark.skipif(not may_exceed_limits(), reason="the kernel grants what its settings allow")
def test_the_socket_holds_what_comes_while_a_turn_runs(pair):
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        # The kernel doubles it, for what it needs itself (socket(7)).
        assert pair[0]._socket.getsockopt(socket.SOL_SOCKET, option) == 2 * udp.SOCKET_BUFFER


def test_a_process_without_privileges_asks_for_as_much_as_its_limits_allow():
    granted = []

    class Unprivileged(socket.socket):
        def setsockopt(self, _level, option, *_value):
            if option not in {socket.SO_RCVBUF, socket.SO_SNDBUF}:
                raise PermissionError
            granted.append(option)

    with Unprivileged(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        udp.enlarge_buffers(opened)
    assert granted == [socket.SO_RCVBUF, socket.SO_SNDBUF]


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


# -- every address of the machine ---------------------------------------------------------------------

ADDRESSES = {
    "0.0.0.0": ("127.0.0.1", "127.0.0.2", "10.98.0.1", "10.98.0.2", "10.99.0.1"),
    "::": ("127.0.0.2", "10.98.0.2", "10.99.0.1", "::1", "fd98::1", "fd98::2", "fd99::1", "fe80::1%one"),
}


def add_addresses():
    """Two devices with several addresses of each IP version, the first of which answers would leave from."""
    for name, number in (("one", 98), ("two", 99)):
        ip(f"link add {name} type veth peer {name}-far")
        for device in (name, f"{name}-far"):
            ip(f"link set {device} up")
        for last in (9, 1, 2):
            ip(f"address add 10.{number}.0.{last}/24 dev {name}")
            add_ipv6(f"fd{number}::{last}", name)
    add_ipv6("fe80::9", "one")
    add_ipv6("fe80::1", "one")


def connected_client(host, port):
    """A client that hears nobody but whom it writes to."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect(address)
    return client


def each_address(check):
    """Run ``check(opened, counters, client, host)`` for each address of a machine that has several."""

    async def main():
        add_addresses()
        for anywhere, hosts in ADDRESSES.items():
            counters = Counters()
            with closing(ServerUdpSocket(anywhere, 0, counters)) as opened:
                for host in hosts:
                    with connected_client(host, opened.port) as client:
                        check(opened, counters, client, host)

    in_namespace(main)


@pytest.mark.parametrize("offload", [True, False])
def test_answers_leave_from_the_address_that_was_written_to(offload):
    def check(opened, counters, client, host):
        opened.send_offload = offload
        client.send(b"hello")
        [(packet, address)] = receive(opened, 1)
        assert packet == b"hello"
        own = client.getsockname()
        assert address[:2] == own[:2]
        for batch in ([b"alone"], [bytes([number]) * 1200 for number in range(40)], [b"one", b"other one"]):
            opened.send(batch, address)
            assert [client.recv(2000) for _ in batch] == batch
        assert counters.total("udp.drop.") == 0
        assert opened.send_offload == offload

    each_address(check)


def test_batches_of_a_client_come_with_the_address_that_they_were_sent_to():
    def check(opened, counters, client, host):
        batch = [bytes([number]) * 1000 for number in range(40)]
        udp.send_run(client, batch, client.getpeername())
        runs = []
        packets = []
        while len(packets) < len(batch):
            assert select.select([opened], [], [], 5)[0]
            runs += opened.drain()
            packets = [packet for packets, _ in runs for packet in packets]
        assert packets == batch
        assert len(runs) < 10, "they were read in batches"
        assert len({address for _, address in runs}) == 1
        opened.send([b"answer"], runs[0][1])
        assert client.recv(100) == b"answer"

    each_address(check)


@pytest.mark.parametrize("anywhere", ["0.0.0.0", "::"])
def test_a_client_that_writes_to_two_addresses_is_at_two(anywhere):
    with (
        closing(ServerUdpSocket(anywhere, 0, Counters())) as opened,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
            client.sendto(b"x", (host, opened.port))
        first, second, third = [address for _, address in receive(opened, 3)]
        assert first == third != second
        assert first[:2] == second[:2] == ("127.0.0.1", client.getsockname()[1])
        opened.send([b"y"], second)
        assert client.recvfrom(10) == (b"y", ("127.0.0.3", opened.port))


def test_a_packet_to_a_multicast_address_is_answered_from_an_address_of_this_machine():
    async def main():
        add_addresses()
        with (
            closing(ServerUdpSocket("::", 0, Counters())) as opened,
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(5)
            client.sendto(b"x", ("ff02::1", opened.port, 0, socket.if_nametoindex("one")))
            _, address = receive(opened, 1)[0]  # the other end of the cable may bring another
            opened.send([b"y"], address)
            answer, answerer = client.recvfrom(10)
            assert answer == b"y"
            assert answerer[0].startswith("fe80::")

    in_namespace(main)


def test_an_address_that_is_gone_costs_its_clients_packets_only():
    async def main():
        counters = Counters()
        ip("address add 10.98.0.1/32 dev lo")
        with (
            closing(ServerUdpSocket("0.0.0.0", 0, counters)) as opened,
            connected_client("10.98.0.1", opened.port) as client,
        ):
            client.send(b"x")
            [(_, address)] = receive(opened, 1)
            ip("address del 10.98.0.1/32 dev lo")
            opened.send([b"abc", b"def"], address)
            assert counters["udp.drop.send_error"] == 2
            assert opened.send_offload

    in_namespace(main)


def test_packets_that_are_too_large_do_not_end_segmentation(pair):
    left, right, counters = pair

    class NoRoom:
        """A kernel that calls a run of too large packets invalid, as those before 6.0 do."""

        def __init__(self, inner):
            self.inner = inner

        def sendmsg(self, *args):
            raise OSError(22, "Invalid argument")

        def sendto(self, packet, address):
            if len(packet) > 5:
                raise OSError(90, "Message too long")
            return self.inner.sendto(packet, address)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    left._socket = NoRoom(left._socket)
    left.send([b"too long", b"short"], ("127.0.0.1", right.port))
    assert [packet for packet, _ in receive(right, 1)] == [b"short"]
    assert left.send_offload
    assert counters["udp.drop.send_error"] == 1


def test_a_system_that_does_not_tell_local_addresses(monkeypatch):
    monkeypatch.setattr(packet_info, "LINUX", False)
    for anywhere, host in (("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")):
        with (
            closing(ServerUdpSocket(anywhere, 0, Counters())) as opened,
            connected_client(host, opened.port) as client,
        ):
            client.send(b"x")
            [(_, address)] = receive(opened, 1)
            assert address[:2] == client.getsockname()[:2]
            opened.send([b"y", b"z"], address)
            assert [client.recv(9), client.recv(9)] == [b"y", b"z"]


def test_a_taken_port_is_an_oserror(pair):
    with pytest.raises(OSError, match="in use"):
        ServerUdpSocket("127.0.0.1", pair[0].port, Counters())
