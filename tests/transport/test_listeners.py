from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest
from host_parts import add_ipv6, in_namespace, ip, sysctl

from actors.messages import ClientsWaiting, ConnectionMade, DatagramsFromNet, SocketReadable
from actors.ports import SendResult
from actors.runtime import current_scheduler
from netstack.counters import Counters
from netstack.egress import EgressPolicy
from transport import packet_info
from transport.host import listeners
from transport.host.listeners import TcpListener, UdpListener
from transport.host.outside import HostNetwork
from transport.host.readiness import Readiness
from transport.host.receiving import DATAGRAMS_PER_TURN

HOST = "127.0.0.1"
BOTH_VERSIONS = pytest.mark.parametrize("host", [HOST, "::1"])


class Owner:
    def __init__(self):
        self.told = asyncio.Queue()

    def tell(self, message):
        self.told.put_nowait(message)

    async def next(self, kind):
        message = await asyncio.wait_for(self.told.get(), 8)
        assert type(message) is kind
        return message


async def taken(owner):
    """Take the client of whom the owner is told."""
    return (await owner.next(ClientsWaiting)).clients.take()


def ready():
    return Readiness(current_scheduler())


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def free_port(kind, host=HOST):
    with socket.socket(family(host), kind) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


@BOTH_VERSIONS
def test_udp_datagrams_come_in_batches_and_answers_go_to_their_clients(host):
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_DGRAM, host)
        listener = UdpListener(owner, host, port, ready())
        with socket.socket(family(host), socket.SOCK_DGRAM) as client:
            client.settimeout(8)
            client.connect((host, port))
            named = client.getsockname()[:2]
            for number in range(DATAGRAMS_PER_TURN + 1):
                client.send(bytes([number]))
            first = await owner.next(DatagramsFromNet)
            second = await owner.next(DatagramsFromNet)
            datagrams = first.datagrams + second.datagrams
            assert [d.payload[0] for d in datagrams] == list(range(DATAGRAMS_PER_TURN + 1))
            assert {d.address for d in datagrams} == {named}
            assert listener.answer(b"welcome", named) is SendResult.SENT
            assert client.recv(99) == b"welcome"
            assert listener.answer(bytes(70_000), named) is SendResult.DROPPED
        with pytest.raises(OSError, match="in use"):
            UdpListener(owner, host, port, ready())
        listener.close()
        listener.close()
        UdpListener(owner, host, port, ready()).close()

    asyncio.run(main())


@BOTH_VERSIONS
def test_tcp_connections_wait_for_a_flow(host):
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM, host)
        listener = TcpListener(owner, host, port, ready(), Counters())
        with socket.create_connection((host, port), 8) as client:
            client.sendall(b"early")
            flow = Owner()
            attached = (await taken(owner)).attach(flow)
            await flow.next(ConnectionMade)
            assert attached.read(99) == b"early"
            attached.close()
            assert client.recv(99) == b""
        with pytest.raises(OSError, match="in use"):
            TcpListener(owner, host, port, ready(), Counters())
        listener.close()
        listener.close()

    asyncio.run(main())


@BOTH_VERSIONS
def test_a_clients_urgent_bytes_are_read_where_they_stand_though_they_came_early(host):
    async def main():
        owner, flow, port = Owner(), Owner(), free_port(socket.SOCK_STREAM, host)
        listener = TcpListener(owner, host, port, ready(), Counters())
        with socket.create_connection((host, port), 8) as client:
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"between")
            client.send(b"?", socket.MSG_OOB)
            client.sendall(b"after")
            client.shutdown(socket.SHUT_WR)
            attached = (await taken(owner)).attach(flow)
            await flow.next(ConnectionMade)
            received = b""
            while (data := attached.read(99)) != b"":
                if data is None:
                    await flow.next(SocketReadable)
                received += data or b""
            assert received == b"!between?after"
            attached.close()
        listener.close()

    asyncio.run(main())


async def exchange(client, to, listener, owner):
    """Let a client write and be answered; return how it is named to the owner, and who answered."""
    client.settimeout(8)
    client.sendto(b"hello", to)
    ((payload, address, _),) = (await owner.next(DatagramsFromNet)).datagrams
    assert payload == b"hello"
    assert listener.answer(b"welcome", address) is SendResult.SENT
    received, answerer = client.recvfrom(99)
    assert received == b"welcome"
    return address, answerer[:2]


def bound_client(host):
    client = socket.socket(family(host), socket.SOCK_DGRAM)
    client.bind((host, 0))
    return client


@pytest.mark.parametrize(
    ("anywhere", "host", "others"),
    [("0.0.0.0", HOST, ("127.0.0.2", "127.0.0.3")), ("::", "fd98::9", ("fd98::2", "fd98::3", "::1"))],
)
def test_a_connected_client_is_answered_from_the_address_it_wrote_to(anywhere, host, others):
    async def main():
        for number in (2, 3, 9):
            add_ipv6(f"fd98::{number}", "lo")
        owner = Owner()
        listener = UdpListener(owner, anywhere, 7000, ready())
        for other in others:
            with bound_client(host) as client:
                client.connect((other, 7000))  # it hears nobody else
                own = client.getsockname()[:2]
                named, answerer = await exchange(client, (other, 7000), listener, owner)
                assert named == (f"{own[0]}>{other}", own[1])
                assert answerer == (other, 7000)
        listener.close()

    in_namespace(main)


def test_one_client_that_writes_to_two_addresses_is_two():
    async def main():
        owner = Owner()
        listener = UdpListener(owner, "0.0.0.0", 7000, ready())
        with bound_client(HOST) as client:
            (first, _), (second, _) = [
                await exchange(client, (other, 7000), listener, owner) for other in ("127.0.0.2", "127.0.0.3")
            ]
            assert first != second
            for address, other in ((first, "127.0.0.2"), (second, "127.0.0.3")):
                assert listener.answer(b"again", address) is SendResult.SENT
                assert client.recvfrom(99) == (b"again", (other, 7000))
        listener.close()

    in_namespace(main)


def test_what_came_to_a_broadcast_or_multicast_address_is_answered_from_one_of_this_machine():
    async def main():
        ip("link add d0 type veth peer d1")
        sysctl("../ipv6/conf/d1/disable_ipv6", "1")  # else what goes out of d0 comes here as well
        ip("address add 10.98.0.1/24 broadcast 10.98.0.255 dev d0")
        ip("link set d0 up")
        ip("link set d1 up")
        add_ipv6("fe80::1", "d0")
        scope = socket.if_nametoindex("d0")
        for anywhere, to, source in (
            ("0.0.0.0", ("10.98.0.255", 7000), "10.98.0.1"),
            ("::", ("ff02::1", 7000, 0, scope), "fe80::1"),
        ):
            owner = Owner()
            listener = UdpListener(owner, anywhere, 7000, ready())
            with socket.socket(family(source), socket.SOCK_DGRAM) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                _, answerer = await exchange(client, to, listener, owner)
                assert answerer[0].partition("%")[0] == source
            listener.close()

    in_namespace(main)


def test_an_address_that_is_gone_leaves_no_answer_from_another():
    async def main():
        ip("address add 10.98.0.1/32 dev lo")
        owner = Owner()
        listener = UdpListener(owner, "0.0.0.0", 7000, ready())
        with bound_client(HOST) as client:
            named, _ = await exchange(client, ("10.98.0.1", 7000), listener, owner)
            ip("address del 10.98.0.1/32 dev lo")
            assert listener.answer(b"welcome", named) is SendResult.DROPPED
        listener.close()

    in_namespace(main)


@BOTH_VERSIONS
def test_a_system_that_does_not_tell_local_addresses(host, monkeypatch):
    async def main():
        monkeypatch.setattr(packet_info, "LINUX", False)
        owner = Owner()
        listener = UdpListener(owner, "::" if ":" in host else "0.0.0.0", 7000, ready())
        with bound_client(host) as client:
            named, answerer = await exchange(client, (host, 7000), listener, owner)
            assert named == client.getsockname()[:2]
            assert answerer == (host, 7000)
        listener.close()

    in_namespace(main)


@pytest.mark.parametrize("order", [("::", "0.0.0.0"), ("0.0.0.0", "::")])
def test_any_address_of_both_versions_side_by_side(order):
    async def main():
        owners = {host: Owner() for host in order}
        listeners: list[Any] = [UdpListener(owners[host], host, 7000, ready()) for host in order]
        listeners += [TcpListener(owners[host], host, 7000, ready(), Counters()) for host in order]
        for host, own in (("0.0.0.0", HOST), ("::", "::1")):
            with socket.socket(family(own), socket.SOCK_DGRAM) as client:
                client.sendto(b"hello", (own, 7000))
                ((_, (address, _), _),) = (await owners[host].next(DatagramsFromNet)).datagrams
                assert address == f"{own}>{own}"
            with socket.create_connection((own, 7000), 8):
                (await taken(owners[host])).refuse()
        for listener in listeners:
            listener.close()

    in_namespace(main)


def test_a_client_with_a_link_local_address_is_answered_on_its_link():
    async def main():
        add_ipv6("fe80::1", "lo")
        owner, scope = Owner(), socket.if_nametoindex("lo")
        listener = UdpListener(owner, "::", 7000, ready())
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(8)
            client.connect(("fe80::1", 7000, 0, scope))
            client.send(b"hello")
            ((payload, address, _),) = (await owner.next(DatagramsFromNet)).datagrams
            assert (payload, address[0]) == (b"hello", f"fe80::1%{scope}>fe80::1%{scope}")
            assert listener.answer(b"welcome", address) is SendResult.SENT
            assert client.recv(99) == b"welcome"
        listener.close()

    in_namespace(main)


@pytest.mark.parametrize("host", ["fd98::1", "::"])
def test_guests_reach_an_ipv6_forward_at_this_machines_own_address(host):
    async def main():
        add_ipv6("fd98::1", "lo")
        network = HostNetwork(EgressPolicy(), Counters(), current_scheduler())
        owner, flow = Owner(), Owner()
        listeners: list[Any] = [network.listen_udp(owner, host, 7000), network.listen_tcp(owner, host, 7001)]
        network.lead_to_guests("udp", host, 7000)
        network.lead_to_guests("tcp", host, 7001)
        assert network.decide_udp(("fd98::1", 7000)).allowed
        assert not network.decide_udp(("fd98::1", 7001)).allowed
        opened = network.open_tcp(flow, ("fd98::1", 7001), 1)
        await flow.next(ConnectionMade)
        (await taken(owner)).refuse()
        opened.close()
        for listener in listeners:
            listener.close()

    in_namespace(main)


def test_a_refused_connection_is_reset():
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM)
        listener = TcpListener(owner, HOST, port, ready(), Counters())
        with socket.create_connection((HOST, port), 8) as client:
            (await taken(owner)).refuse()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        listener.close()

    asyncio.run(main())


@BOTH_VERSIONS
def test_clients_wait_in_the_kernel_until_they_are_taken(host):
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM, host)
        listener = TcpListener(owner, host, port, ready(), Counters())
        clients = [socket.create_connection((host, port), 8) for _ in range(200)]
        assert (await owner.next(ClientsWaiting)).clients is listener
        for _ in range(20):  # the loop turns: nobody is told again before the owner watches again
            await asyncio.sleep(0)
        assert owner.told.empty()
        for client in clients[:150]:
            client.sendall(b"hello")
            flow = Owner()
            attached = listener.take().attach(flow)
            await flow.next(ConnectionMade)
            assert attached.read(99) == b"hello"
            attached.close()
        listener.watch()
        assert (await owner.next(ClientsWaiting)).clients is listener
        for _ in clients[150:]:
            listener.take().refuse()
        assert listener.take() is None
        for client in clients:
            client.close()
        listener.watch()
        with socket.create_connection((host, port), 8):
            (await taken(owner)).refuse()
        listener.close()
        listener.watch()
        assert listener.take() is None

    asyncio.run(main())


@BOTH_VERSIONS
def test_a_preface_is_read_before_what_the_client_sends(host):
    async def main():
        owner, flow, port = Owner(), Owner(), free_port(socket.SOCK_STREAM, host)
        listener = TcpListener(owner, host, port, ready(), Counters())
        with socket.create_connection((host, port), 8) as client:
            client.sendall(b"hello")
            accepted = await taken(owner)
            assert (accepted.client, accepted.local) == (client.getsockname()[:2], (host, port))
            attached = accepted.attach(flow, b"preface")
            assert [attached.read(3), attached.read(99), attached.read(99)] == [b"pre", b"face", b"hello"]
            attached.close()
        listener.close()

    asyncio.run(main())


def test_without_sockets_it_pauses_and_goes_on(monkeypatch):
    async def main():
        monkeypatch.setattr(listeners, "ACCEPT_PAUSE", 0.01)
        owner, counters, port = Owner(), Counters(), free_port(socket.SOCK_STREAM)
        listener = TcpListener(owner, HOST, port, ready(), counters)
        accept, failures = socket.socket.accept, iter([OSError(24, "Too many open files")])

        def failing_at_first(self):
            for failure in failures:
                raise failure
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", failing_at_first)
        with socket.create_connection((HOST, port), 8):
            assert await taken(owner) is None
            assert listener.take() is None
            listener.watch()
            (await taken(owner)).refuse()
        assert counters["forward.accept_failures"] == 1
        listener.close()

    asyncio.run(main())


def test_a_client_that_is_gone_does_not_keep_others_waiting(monkeypatch):
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM)
        listener = TcpListener(owner, HOST, port, ready(), Counters())
        accept, failures = socket.socket.accept, iter([ConnectionAbortedError(), ConnectionResetError()])

        def failing_at_first(self):
            for failure in failures:
                raise failure
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", failing_at_first)
        with socket.create_connection((HOST, port), 8):
            (await taken(owner)).refuse()
        listener.close()

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lets workers share a port")
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
@BOTH_VERSIONS
def test_a_shared_port_is_taken_over_without_a_moment_in_which_it_is_nobodys(host, kind):
    port = free_port(kind, host)

    def opened(owner, **more) -> Any:
        if kind == socket.SOCK_DGRAM:
            return UdpListener(owner, host, port, ready(), **more)
        return TcpListener(owner, host, port, ready(), Counters(), **more)

    async def comes_to(owner):
        with socket.socket(family(host), kind) as client:
            client.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                client.send(b"hello")
                await owner.next(DatagramsFromNet)
            else:
                listener = (await owner.next(ClientsWaiting)).clients
                listener.take().refuse()
                listener.watch()

    async def main():
        former, later = Owner(), Owner()
        first = opened(former, shared=True)
        await comes_to(former)
        with pytest.raises(OSError, match="in use"):
            opened(later)
        second = opened(later, shared=True)
        for _ in range(20):
            await comes_to(later)
        first.close()
        await comes_to(later)
        assert former.told.empty()
        second.close()

    asyncio.run(main())
