"""Host TCP connections on real sockets of the loopback."""

from __future__ import annotations

import asyncio
import select
import socket

import pytest
from host_parts import in_namespace, ip, wired
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from waiting import until

from actors.messages import ConnectionFailed, ConnectionMade, SocketReadable, SocketWritable
from actors.ports import SendResult
from actors.runtime import current_scheduler
from netstack.counters import Counters
from netstack.egress import EgressPolicy
from netstack.icmpv6 import seal
from netstack.ipv6 import pack_ipv6
from transport.host.outside import HostNetwork
from transport.host.tcp_socket import KEEP_ALIVE_PROBES, DeniedTcpSocket

ALLOWED = EgressPolicy(allow=["127.0.0.0/8"])


class Flow:
    def __init__(self):
        self.told = asyncio.Queue()

    def tell(self, message):
        self.told.put_nowait(message)

    async def next(self):
        return await asyncio.wait_for(self.told.get(), 20)


class Outside:
    """A network, its flows and a listening host, all closed at the end."""

    def __init__(self, policy=ALLOWED):
        self.network = HostNetwork(policy, Counters(), current_scheduler())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.opened = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in [self.listener, *self.opened]:
            each.close()

    def open(self, flow, address=None, owner="guest"):
        self.opened.append(self.network.open_tcp(flow, address or self.address, owner))
        return self.opened[-1]

    async def connect(self, owner="guest"):
        flow = Flow()
        ours = self.open(flow, owner=owner)
        theirs, peer = await asyncio.get_running_loop().sock_accept(self.listener)
        theirs.setblocking(False)
        self.opened.append(theirs)
        assert await flow.next() == ConnectionMade()
        return flow, ours, theirs, peer


def run(main, policy=ALLOWED):
    async def play():
        with Outside(policy) as outside:
            await asyncio.wait_for(main(outside), 30)

    asyncio.run(play())


def test_data_both_ways():
    async def main(outside):
        loop = asyncio.get_running_loop()
        flow, ours, theirs, _ = await outside.connect()
        assert ours.write([b"hello ", b"world"]) == 11
        assert await loop.sock_recv(theirs, 100) == b"hello world"
        assert ours.read(100) is None
        assert ours.read(100) is None
        await loop.sock_sendall(theirs, b"answer")
        assert await flow.next() == SocketReadable()
        assert ours.read(3) == b"ans"
        assert ours.read(100) == b"wer"
        theirs.shutdown(socket.SHUT_WR)
        assert ours.read(100) in {None, b""}
        if flow.told.empty():
            await asyncio.sleep(0)
        assert ours.write([b"still"]) == 5
        ours.shut_down()
        assert await loop.sock_recv(theirs, 100) == b"still"
        assert await loop.sock_recv(theirs, 100) == b""

    run(main)


def test_a_full_socket_takes_no_more_and_tells_when_it_does():
    async def main(outside):
        loop = asyncio.get_running_loop()
        flow, ours, theirs, _ = await outside.connect()
        room = ours.room
        assert room > 0
        sent = 0
        while taken := ours.write([bytes(100_000)] * 4):
            sent += taken
        assert ours.room < room
        ours.wait_for_room()
        assert ours.write([b"x"]) == 0
        got = 0
        while got < sent:
            got += len(await loop.sock_recv(theirs, 1_000_000))
        assert await flow.next() == SocketWritable()
        assert ours.write([b"x"]) == 1

    run(main)


def option(ours, level, name):
    return ours._socket.getsockopt(level, name)


def test_an_urgent_byte_is_read_where_it_stands_in_the_stream():
    async def main(outside):
        loop = asyncio.get_running_loop()
        flow, ours, theirs, _ = await outside.connect()
        assert ours.read(100) is None
        await loop.sock_sendall(theirs, b"before")
        theirs.send(b"!", socket.MSG_OOB)
        await loop.sock_sendall(theirs, b"after")
        theirs.shutdown(socket.SHUT_WR)
        received = []
        while (data := ours.read(100)) != b"":
            if data is None:
                assert await flow.next() == SocketReadable()
            else:
                received.append(data)
        assert b"".join(received) == b"before!after"

    run(main)


def test_the_other_end_is_probed_when_it_is_silent():
    async def main(outside):
        _, ours, _, _ = await outside.connect()
        assert option(ours, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        ours.keep_alive(0)
        assert option(ours, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        for seconds, idle, interval in ((300, 300, 60), (40, 40, 10), (0.5, 1, 1), (32_767, 32_767, 60)):
            ours.keep_alive(seconds)
            assert option(ours, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert option(ours, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
            assert option(ours, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == interval
            assert option(ours, socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == KEEP_ALIVE_PROBES

    run(main)


def test_a_host_that_is_gone_is_noticed():
    async def main():
        with Outside() as outside:
            flow, ours, _, _ = await outside.connect()
            ours.keep_alive(1)
            assert ours.read(1) is None
            ip("link set lo down")
            assert await flow.next() == SocketReadable()
            with pytest.raises(OSError, match=r"timed out|[Nn]o route|unreachable"):
                ours.read(1)

    in_namespace(main)


def test_what_the_other_end_may_yet_acknowledge():
    async def main(outside):
        flow, ours, theirs, _ = await outside.connect()
        assert ours.unsent == 0
        sent = 0
        while taken := ours.write([bytes(100_000)] * 4):
            sent += taken
        left = ours.unsent
        assert 0 < left <= sent
        got = 0
        while got < sent:
            got += len(await asyncio.get_running_loop().sock_recv(theirs, 1_000_000))
        await until(lambda: ours.unsent == 0)
        while ours.write([bytes(100_000)] * 4):
            pass
        assert ours.unsent > 0
        assert ours.read(1) is None
        theirs.close()  # with unread data: a RST
        assert await flow.next() == SocketReadable()
        assert ours.unsent == 0

    run(main)


def test_many_small_pieces_are_taken_bit_by_bit():
    async def main(outside):
        _, ours, theirs, _ = await outside.connect()
        pieces = [b"ab"] * 3000
        taken = ours.write(pieces)
        assert 0 < taken < 6000
        assert len(await asyncio.get_running_loop().sock_recv(theirs, 100_000)) == taken

    run(main)


def test_a_refused_port():
    async def main(outside):
        flow = Flow()
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        outside.open(flow, address)
        assert await flow.next() == ConnectionFailed(SendResult.REFUSED)

    run(main)


UNREACHABLE4 = [(3, code) for code in range(16) if code != 4] + [(11, 0), (12, 0)]
UNREACHABLE6 = [(1, code) for code in range(9)] + [(3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]
"""ICMP types and codes; 3/4, and 2 of ICMPv6, only say that packets have to be smaller."""


@pytest.mark.parametrize(("version", "errors"), [(4, UNREACHABLE4), (6, UNREACHABLE6)], ids=["IPv4", "IPv6"])
def test_whatever_icmp_says_about_a_syn_is_told(version, errors):
    """The kernel gives up at each of them: where the guest is told nothing it waits, and asks again."""

    async def main():
        network = HostNetwork(
            EgressPolicy(allow=["198.18.0.0/15", "fd18::/64"]), Counters(), current_scheduler()
        )
        address = "198.18.0.2" if version == 4 else "fd18::2"
        silent = []
        with wired(version) as wire:
            for number, (kind, code) in enumerate(errors):
                flow = Flow()
                opened = network.open_tcp(flow, (address, 80), number)
                while TCP not in (syn := Ether(wire.recv(2000))):
                    pass
                error = Ether(src=syn.dst, dst=syn.src)
                if version == 4:
                    error /= IP(src=address, dst=syn[IP].src) / ICMP(type=kind, code=code) / syn[IP]
                else:
                    message = bytes((kind, code)) + bytes(6) + bytes(syn[IPv6])
                    sealed = seal(pack_ipv6(address), pack_ipv6(syn[IPv6].src), message)
                    error /= IPv6(src=address, dst=syn[IPv6].src, nh=58) / Raw(sealed)
                wire.send(bytes(error))
                told = await flow.next()
                opened.close()
                if told.result is SendResult.DROPPED:
                    silent.append((kind, code))
        assert silent == []

    in_namespace(main)


def test_a_forbidden_address_opens_no_socket(monkeypatch):
    async def main(outside):
        flow = Flow()
        monkeypatch.setattr(socket.socket, "connect_ex", None)
        opened = outside.open(flow, ("10.1.2.3", 80))
        assert isinstance(opened, DeniedTcpSocket)
        assert await flow.next() == ConnectionFailed(SendResult.DENIED)
        opened.keep_alive(300)
        assert (opened.read(1), opened.write([b"x"])) == (None, 0)
        assert len(outside.network._tcp_ports) == 0

    run(main)


def test_a_reset_is_an_error_of_reading_and_writing():
    async def main(outside):
        flow, ours, theirs, _ = await outside.connect()
        assert ours.read(1) is None
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        assert await flow.next() == SocketReadable()
        with pytest.raises(ConnectionResetError):
            ours.read(1)
        with pytest.raises(OSError, match="pipe"):
            ours.write([b"x"])

    run(main)


@pytest.mark.parametrize("answer", [b"", b"421 too many connections"], ids=["nothing", "an answer"])
@pytest.mark.parametrize("ends", [False, True], ids=["at once", "behind its end"])
def test_a_host_that_accepts_and_resets_at_once_is_no_silent_one(answer, ends):
    """All of that may have come before it is looked at the socket that connects."""

    async def main(outside):
        flow = Flow()
        ours = outside.open(flow)
        outside.listener.settimeout(20)
        theirs, _ = outside.listener.accept()  # and all the rest in the same turn of the loop
        theirs.send(answer)
        if ends:
            theirs.shutdown(socket.SHUT_WR)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        arrived = select.poll()
        arrived.register(ours._socket, 0)
        assert arrived.poll(20_000)[0][1] & select.POLLHUP
        assert await flow.next() == ConnectionMade()
        if answer:
            assert ours.read(100) == answer
        with pytest.raises(OSError, match=r"reset|pipe"):
            ours.read(100)
        with pytest.raises(OSError, match="pipe"):
            ours.write([b"x"])

    run(main)


@pytest.mark.parametrize("abort", [True, False])
def test_closing(abort):
    async def main(outside):
        _, ours, theirs, _ = await outside.connect()
        ours.close(abort=abort)
        ours.close(abort=abort)
        received = asyncio.get_running_loop().sock_recv(theirs, 1)
        if abort:
            with pytest.raises(ConnectionResetError):
                await received
        else:
            assert await received == b""

    run(main)


def test_one_guest_port_has_one_host_port_whatever_it_connects_to():
    async def main(outside):
        with socket.create_server(("127.0.0.1", 0)) as second:
            _, ours, _, peer = await outside.connect()
            flow = Flow()
            other = outside.open(flow, second.getsockname())
            assert await flow.next() == ConnectionMade()
            accepted, peer_of_other = second.accept()
            accepted.close()
            assert peer == peer_of_other
            ours.close()
            other.close()
            assert len(outside.network._tcp_ports) == 0

    run(main)


def test_no_two_guest_ports_share_a_host_port():
    async def main(outside):
        peers = {(await outside.connect(owner=number))[3] for number in range(50)}
        assert len(peers) == 50

    run(main)
