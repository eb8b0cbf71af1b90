from __future__ import annotations

import asyncio
import socket

import pytest

from actors.messages import ConnectionAccepted, ConnectionMade, DatagramsFromNet, SendResult
from netstack.counters import Counters
from transport import listeners
from transport.host_socket import DATAGRAMS_PER_TURN
from transport.listeners import TcpListener, UdpListener

HOST = "127.0.0.1"


class Owner:
    def __init__(self):
        self.told = asyncio.Queue()

    def tell(self, message):
        self.told.put_nowait(message)

    async def next(self, kind):
        message = await asyncio.wait_for(self.told.get(), 8)
        assert type(message) is kind
        return message


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def test_udp_datagrams_come_in_batches_and_answers_go_to_their_clients():
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_DGRAM)
        listener = UdpListener(owner, HOST, port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(8)
            client.connect((HOST, port))
            for number in range(DATAGRAMS_PER_TURN + 1):
                client.send(bytes([number]))
            first = await owner.next(DatagramsFromNet)
            second = await owner.next(DatagramsFromNet)
            datagrams = first.datagrams + second.datagrams
            assert [d.payload[0] for d in datagrams] == list(range(DATAGRAMS_PER_TURN + 1))
            assert {d.address for d in datagrams} == {client.getsockname()}
            assert listener.answer(b"welcome", client.getsockname()) is SendResult.SENT
            assert client.recv(99) == b"welcome"
            assert listener.answer(bytes(70_000), client.getsockname()) is SendResult.DROPPED
        with pytest.raises(OSError, match="in use"):
            UdpListener(owner, HOST, port)
        listener.close()
        listener.close()
        UdpListener(owner, HOST, port).close()

    asyncio.run(main())


def test_tcp_connections_wait_for_a_flow():
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM)
        listener = TcpListener(owner, HOST, port, Counters())
        with socket.create_connection((HOST, port), 8) as client:
            client.sendall(b"early")
            accepted = await owner.next(ConnectionAccepted)
            flow = Owner()
            attached = accepted.connection.attach(flow)
            await flow.next(ConnectionMade)
            assert attached.read(99) == b"early"
            attached.close()
            assert client.recv(99) == b""
        with pytest.raises(OSError, match="in use"):
            TcpListener(owner, HOST, port, Counters())
        listener.close()
        listener.close()

    asyncio.run(main())


def test_a_refused_connection_is_reset():
    async def main():
        owner, port = Owner(), free_port(socket.SOCK_STREAM)
        listener = TcpListener(owner, HOST, port, Counters())
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
        listener = TcpListener(owner, HOST, port, counters)
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
