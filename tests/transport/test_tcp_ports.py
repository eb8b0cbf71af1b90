"""Ports of TCP connections on a host that has few of them."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from host_parts import in_namespace, sysctl

from actors.messages import ConnectionMade
from actors.runtime import current_scheduler
from transport.host import tcp_ports
from transport.host.readiness import Readiness
from transport.host.tcp_ports import RELEASED_PORTS, SharedPorts, open_tcp

BOTH_VERSIONS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


class Flow:
    def __init__(self):
        self.told = asyncio.Queue()

    def tell(self, message):
        self.told.put_nowait(message)


class FewPorts:
    """A host that has ``count`` ports, and servers to connect to."""

    def __init__(self, host, count):
        sysctl("ip_local_port_range", f"50000 {50000 + count - 1}")
        sysctl("tcp_tw_reuse", "0")
        self.host = host
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.ports = SharedPorts()
        self.ready = Readiness(current_scheduler())
        self.opened = []

    def server(self, port):
        self.opened.append(socket.create_server((self.host, port), family=self.family, backlog=200))
        self.opened[-1].setblocking(False)
        return self.opened[-1]

    def open(self, server, owner):
        flow = Flow()
        self.opened.append(open_tcp(flow, server.getsockname()[:2], owner, self.ports, self.ready))
        return flow, self.opened[-1]

    async def connect(self, server, owner):
        """Connect as a guest; return both ends of the connection, and the port that the server sees."""
        flow, ours = self.open(server, owner)
        theirs, peer = await asyncio.get_running_loop().sock_accept(server)
        theirs.setblocking(False)
        self.opened.append(theirs)
        assert await asyncio.wait_for(flow.told.get(), 8) == ConnectionMade()
        return ours, theirs, peer[1]

    def close(self):
        for each in self.opened:
            each.close()
        self.ready.close()


def play(main, host, count):
    async def with_few_ports():
        few = FewPorts(host, count)
        try:
            await main(few, asyncio.get_running_loop())
        finally:
            few.close()

    in_namespace(with_few_ports)


@BOTH_VERSIONS
@pytest.mark.parametrize("others", [1, 2])
def test_connections_that_ended_do_not_use_up_the_ports(host, others):
    async def main(few, loop):
        servers = [few.server(7000 + number) for number in range(others)]
        ports = set()
        for number in range(60):
            ours, theirs, port = await few.connect(servers[number % others], number)
            ports.add(port)
            ours.shut_down()  # the guest ends first: its side goes to TIME-WAIT
            assert await loop.sock_recv(theirs, 1) == b""
            theirs.close()
            ours.close()
        assert len(ports) == 20
        assert len(few.ports) == 0

    play(main, host, 20)


@BOTH_VERSIONS
def test_more_connections_than_ports_share_them_by_their_destinations(host):
    async def main(few, loop):
        servers = [few.server(7000 + number) for number in range(3)]
        ends = [await few.connect(servers[number % 3], number) for number in range(30)]
        for server in range(3):
            assert len({port for _, _, port in ends[server::3]}) == 10
        for number, (ours, theirs, _) in enumerate(ends):
            await loop.sock_sendall(theirs, b"for guest %d" % number)
            assert ours.write([b"from guest %d" % number])
        for number, (ours, theirs, _) in enumerate(ends):
            assert ours.read(99) == b"for guest %d" % number
            assert await loop.sock_recv(theirs, 99) == b"from guest %d" % number

    play(main, host, 10)


@BOTH_VERSIONS
def test_when_no_port_is_left_for_a_destination_that_is_an_error_until_one_is(host):
    async def main(few, _):
        server, other = few.server(7000), few.server(7001)
        ends = [await few.connect(server, number) for number in range(6)]
        with pytest.raises(OSError, match=r"assign|in use"):
            few.open(server, "one more")
        await few.connect(other, "elsewhere")
        for end in ends[0][:2]:
            end.close()
        await few.connect(server, "one more")
        assert len(few.ports) == 7

    play(main, host, 6)


@BOTH_VERSIONS
def test_an_owner_keeps_its_port_also_where_others_share_it(host):
    async def main(few, _):
        servers = [few.server(7000 + number) for number in range(3)]
        port = (await few.connect(servers[0], "guest"))[2]
        assert (await few.connect(servers[1], "neighbour"))[2] == port
        assert (await few.connect(servers[2], "guest"))[2] == port

    play(main, host, 1)


def test_a_host_with_ports_to_spare_shares_none():
    async def main(few, _):
        server, other = few.server(7000), few.server(7001)
        ports = [(await few.connect((server, other)[number % 2], number))[2] for number in range(40)]
        assert len(set(ports)) == 40

    play(main, "127.0.0.1", 200)


def test_other_errors_are_not_retried(monkeypatch):
    async def main(few, _):
        def failing(opened, port):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(tcp_ports, "_bind", failing)
        with pytest.raises(OSError, match="Too many"):
            few.open(few.server(7000), "guest")
        assert len(few.ports) == 0

    play(main, "127.0.0.1", 20)


def test_ports_that_are_remembered_are_bounded():
    ports = SharedPorts()
    for number in range(2 * RELEASED_PORTS):
        ports.take(number, (socket.AF_INET, number))
        ports.release(number)
    assert len(ports._released) == RELEASED_PORTS
    assert len(ports) == 0
    assert ports._in_use == {}
