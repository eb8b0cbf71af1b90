from __future__ import annotations

import asyncio
import socket

import pytest
from test_outside import in_namespace, ip

from actors.messages import ConnectionAccepted, ConnectionMade, DatagramsFromNet, SendResult
from actors.runtime import current_scheduler
from netstack.counters import Counters
from netstack.egress import EgressPolicy
from transport import listeners
from transport.host_socket import DATAGRAMS_PER_TURN
from transport.listeners import TcpListener, UdpListener
from transport.outside import HostNetwork
from transport.readiness import Readiness

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
            accepted = await owner.next(ConnectionAccepted)
            flow = Owner()
            attached = accepted.connection.attach(flow)
            await flow.next(ConnectionMade)
            assert attached.read(99) == b"early"
            attached.close()
            assert client.recv(99) == b""
        with pytest.raises(OSError, match="in use"):
            TcpListener(owner, host, port, ready(), Counters())
        listener.close()
        listener.close()

    asyncio.run(main())


@pytest.mark.parametrize("order", [("::", "0.0.0.0"), ("0.0.0.0", "::")])
def test_any_address_of_both_versions_side_by_side(order):
    async def main():
        owners = {host: Owner() for host in order}
        listeners = [UdpListener(owners[host], host, 7000, ready()) for host in order]
        listeners += [TcpListener(owners[host], host, 7000, ready(), Counters()) for host in order]
        for host, own in (("0.0.0.0", HOST), ("::", "::1")):
            with socket.socket(family(own), socket.SOCK_DGRAM) as client:
                client.sendto(b"hello", (own, 7000))
                ((_, (address, _), _),) = (await owners[host].next(DatagramsFromNet)).datagrams
                assert address == own
            with socket.create_connection((own, 7000), 8):
                (await owners[host].next(ConnectionAccepted)).connection.refuse()
        for listener in listeners:
            listener.close()

    in_namespace(main)


def test_a_client_with_a_link_local_address_is_answered_on_its_link():
    async def main():
        ip("address add fe80::1/64 dev lo")
        owner, scope = Owner(), socket.if_nametoindex("lo")
        listener = UdpListener(owner, "::", 7000, ready())
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(8)
            client.connect(("fe80::1", 7000, 0, scope))
            client.send(b"hello")
            ((payload, address, _),) = (await owner.next(DatagramsFromNet)).datagrams
            assert (payload, address[0]) == (b"hello", f"fe80::1%{scope}")
            assert listener.answer(b"welcome", address) is SendResult.SENT
            assert client.recv(99) == b"welcome"
        listener.close()

    in_namespace(main)


@pytest.mark.parametrize("host", ["fd98::1", "::"])
def test_guests_reach_an_ipv6_forward_at_this_machines_own_address(host):
    async def main():
        ip("address add fd98::1/64 dev lo")
        network = HostNetwork(EgressPolicy(), Counters(), current_scheduler())
        owner, flow = Owner(), Owner()
        listeners = [network.listen_udp(owner, host, 7000), network.listen_tcp(owner, host, 7001)]
        assert network.decide_udp(("fd98::1", 7000)).allowed
        assert not network.decide_udp(("fd98::1", 7001)).allowed
        opened = network.open_tcp(flow, ("fd98::1", 7001), 1)
        await flow.next(ConnectionMade)
        (await owner.next(ConnectionAccepted)).connection.refuse()
        opened.close()
        for listener in listeners:
            listener.close()

    in_namespace(main)


def test_a_refused_connection_is_reset():
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM)
        listener = TcpListener(owner, HOST, port, ready(), Counters())
        with socket.create_connection((HOST, port), 8) as client:
            (await owner.next(ConnectionAccepted)).connection.refuse()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
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
            (await owner.next(ConnectionAccepted)).connection.refuse()
        assert counters["forward.accept_failures"] == 1
        listener.close()

    asyncio.run(main())
