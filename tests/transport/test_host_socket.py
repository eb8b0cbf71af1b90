"""Runs of datagrams on host sockets: few calls, and the wire does not tell."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from host_parts import LOOPBACK, Flow, Network, in_namespace, listening, narrow_link

from actors.ports import SendResult
from netstack.counters import Counters
from netstack.egress import EgressPolicy
from transport.host import host_socket
from transport.host.receiving import DATAGRAMS_PER_TURN
from transport.quic.udp import UDP_SEGMENT

IP_RECVTTL = 12
"""Linux; missing in the socket module of Python 3.11."""


def received(server, count):
    return [server.recvfrom(65_535)[0] for _ in range(count)]


MIXED = [b"a" * 100] * 5 + [b"b" * 40] + [b"c" * 200] * 3 + [b""] + [b"d"] * 2 + [b"e" * 300] * 70


@pytest.mark.parametrize("offload", [True, False])
def test_a_run_arrives_as_the_datagrams_that_it_was_made_of(offload):
    async def main():
        sender = Network(LOOPBACK, Counters()).open_udp(Flow())
        sender._cuts_runs = offload
        with listening() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            sent = sender.send_run(MIXED, server.getsockname(), 64, False)
            assert sent == (len(MIXED) if offload else 0)
            for datagram in MIXED[sent:]:
                assert sender.send_to(datagram, server.getsockname(), 64, False) is SendResult.SENT
            assert received(server, len(MIXED)) == MIXED

    in_namespace(main)


def test_a_run_is_few_calls(monkeypatch):
    calls = []

    def counted(opened, packets, address, send=host_socket.send_run):
        calls.append(len(packets))
        send(opened, packets, address)

    monkeypatch.setattr(host_socket, "send_run", counted)

    async def main():
        sender = Network(LOOPBACK, Counters()).open_udp(Flow())
        with listening() as server:
            assert sender.send_run([bytes(100)] * 20, server.getsockname(), 64, False) == 20
            assert received(server, 20) == [bytes(100)] * 20

    in_namespace(main)
    assert calls == [20]


def test_ttl_and_dont_fragment_hold_for_every_datagram_of_a_run():
    async def main():
        sender = Network(LOOPBACK, Counters()).open_udp(Flow())
        with listening() as server:
            server.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            assert sender.send_run([b"x"] * 3, server.getsockname(), 9, True) == 3
            ttls = [server.recvmsg(100, 100)[1][0][2][0] for _ in range(3)]
            assert ttls == [9, 9, 9]

    in_namespace(main)


def test_what_the_policy_refuses_is_left_to_be_told_one_by_one():
    async def main():
        counters = Counters()
        sender = Network(EgressPolicy(), counters).open_udp(Flow())
        assert sender.send_run([b"x"] * 3, ("127.0.0.1", 9), 64, False) == 0
        assert sender.send_run([b"x"] * 3, ("::1", 9), 64, False) == 0
        assert sender.send_to(b"x", ("127.0.0.1", 9), 64, False) is SendResult.DENIED

    in_namespace(main)


def test_datagrams_above_the_paths_mtu_still_get_there_in_fragments():
    async def main():
        narrow_link()
        sender = Network(EgressPolicy(allow=["198.18.0.0/15"]), Counters()).open_udp(Flow())
        there = ("198.18.0.2", 9)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800)) as wire:
            wire.bind(("two", 0x800))
            wire.settimeout(5)
            assert sender.send_run([bytes(1373)] * 2, there, 64, False) == 0
            assert sender.send_to(bytes(1373), there, 64, False) is SendResult.SENT
            assert len([wire.recv(2000) for _ in range(2)]) == 2
            assert sender.send_to(bytes(1373), there, 64, True) is SendResult.TOO_BIG

    in_namespace(main)


@pytest.mark.parametrize(("number", "sent"), [(errno.EINVAL, 2), (errno.EMSGSIZE, 2), (errno.EIO, 0)])
def test_one_run_that_is_too_large_ends_no_runs_but_a_device_that_cannot_cut_them_does(
    number, sent, monkeypatch
):
    def refused(*_run):
        raise OSError(number, "refused")

    async def main():
        sender = Network(LOOPBACK, Counters()).open_udp(Flow())
        with listening() as server:
            with monkeypatch.context() as system:
                system.setattr(host_socket, "send_run", refused)
                assert sender.send_run([b"x"] * 2, server.getsockname(), 64, False) == 0
            assert sender.send_run([b"x"] * 2, server.getsockname(), 64, False) == sent

    in_namespace(main)


class WithoutSegments(socket.socket):
    """As of Linux 4.17: it does not know the option, and takes no notice of it among ancillary data."""

    def setsockopt(self, *option: Any) -> None:
        if option[:2] == (socket.SOL_UDP, UDP_SEGMENT):
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(*option)

    def sendmsg(self, buffers: Any, _ancillary: Any = (), *where: Any) -> int:
        return super().sendmsg(buffers, [], *where)


def test_a_system_that_knows_no_runs_gets_one_datagram_after_the_other(monkeypatch):
    async def main():
        monkeypatch.setattr(host_socket.socket, "socket", WithoutSegments)
        host_socket.can_cut_runs.cache_clear()
        sender = Network(LOOPBACK, Counters()).open_udp(Flow())
        with listening() as server:
            run = [b"x" * 50] * 3
            sent = sender.send_run(run, server.getsockname(), 64, False)
            for datagram in run[sent:]:
                assert sender.send_to(datagram, server.getsockname(), 64, False) is SendResult.SENT
            assert received(server, 3) == run

    try:
        in_namespace(main)
    finally:
        host_socket.can_cut_runs.cache_clear()


def test_a_closed_socket_sends_no_run():
    async def main():
        sender = Network(LOOPBACK, Counters()).open_udp(Flow())
        sender.close()
        assert sender.send_run([b"x"] * 2, ("127.0.0.1", 9), 64, False) == 0

    in_namespace(main)


def test_an_error_of_an_earlier_datagram_costs_no_datagram():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK, Counters()).open_udp(flow)
        with listening() as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
                closed.bind(("127.0.0.1", 0))
                nobody = closed.getsockname()
            sender.send_to(b"x", nobody, 64, False)
            run = [b"good"] * 4
            sent = sender.send_run(run, server.getsockname(), 64, False)
            for datagram in run[sent:]:
                assert sender.send_to(datagram, server.getsockname(), 64, False) is SendResult.SENT
            assert received(server, 4) == run

    in_namespace(main)


def test_what_arrives_as_runs_is_told_as_its_datagrams_and_read_run_by_run():
    async def main():
        flow = Flow()
        network = Network(LOOPBACK, Counters())
        receiver, sender = network.open_udp(flow), network.open_udp(Flow())
        sent = [*MIXED, *[bytes((n,)) * 300 for n in range(100)]]
        assert sender.send_run(sent, ("127.0.0.1", receiver.port), 9, False) == len(sent)
        here = ("127.0.0.1", sender.port)
        assert await flow.receive(len(sent)) == [(datagram, here, 9) for datagram in sent]
        # All in one turn, although that has only so many reads.
        assert len(sent) > 2 * DATAGRAMS_PER_TURN
        assert len(flow.batches) == 1

    in_namespace(main)
