"""Pings to the network, and IPv6, by real sockets."""

from __future__ import annotations

import socket
import struct

import pytest
from host_parts import (
    LOOPBACK,
    Flow,
    Network,
    in_namespace,
    ip,
)

from actors.ports import SendResult
from netstack.counters import Counters
from netstack.egress import EgressPolicy
from netstack.icmp import ECHO_REPLY, ECHO_REQUEST, build_echo, parse_icmp
from netstack.icmpv6 import read_icmpv6
from transport.host.echo_sockets import EchoIdentifiers, PingEchoSocket, RawEchoSocket

# -- ICMP ---------------------------------------------------------------------------------------------

BOTH_WAYS = pytest.mark.parametrize(
    ("ping_sockets", "kind"), [(True, PingEchoSocket), (False, RawEchoSocket)], ids=["ping socket", "raw"]
)


@BOTH_WAYS
def test_an_echo_comes_back_with_sequence_payload_and_ttl(ping_sockets, kind):
    async def main():
        network = Network(LOOPBACK, Counters())
        assert network.can_ping
        flow = Flow()
        sender = network.open_echo(flow)
        assert isinstance(sender, kind)
        payloads = [b"", b"odd", bytes(range(256)) * 5]
        for sequence, payload in enumerate(payloads):
            assert sender.send_echo(sequence + 65_533, payload, "127.0.0.1", 64, False) is SendResult.SENT
        received = await flow.receive(3)
        replies = [parse_icmp(datagram.payload) for datagram in received]
        assert [(r.type, r.sequence, r.data) for r in replies] == [
            (ECHO_REPLY, sequence + 65_533, payload) for sequence, payload in enumerate(payloads)
        ]
        assert {(datagram.address, datagram.ttl) for datagram in received} == {(("127.0.0.1", 0), 77)}
        sender.close()
        sender.close()

    in_namespace(main, ping_sockets=ping_sockets)


@BOTH_WAYS
def test_the_guests_ttl_goes_out(ping_sockets, kind):
    async def main():
        sender = Network(LOOPBACK, Counters()).open_echo(Flow())
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sniffer:
            sniffer.settimeout(5)
            for ttl in (1, 7, 255):
                sender.send_echo(ttl, b"", "127.0.0.1", ttl, False)
            seen = []
            while len(seen) < 3:
                packet = sniffer.recv(2000)
                if packet[20] == ECHO_REQUEST:
                    seen.append((packet[8], struct.unpack("!H", packet[26:28])[0]))
            assert seen == [(1, 1), (7, 7), (255, 255)]

    in_namespace(main, ping_sockets=ping_sockets)


@BOTH_WAYS
def test_flows_get_only_their_own_replies(ping_sockets, kind):
    async def main():
        network = Network(LOOPBACK, Counters())
        flows = [Flow() for _ in range(20)]
        senders = [network.open_echo(flow) for flow in flows]
        for number, sender in enumerate(senders):
            sender.send_echo(7, b"%d" % number, f"127.0.0.{number + 1}", 64, False)
        for number, flow in enumerate(flows):
            (reply,) = await flow.receive()
            assert reply.address == (f"127.0.0.{number + 1}", 0)
            assert parse_icmp(reply.payload).data == b"%d" % number
        senders[0].close()
        assert senders[0].send_echo(8, b"", "127.0.0.1", 64, False) is SendResult.DROPPED
        senders[1].send_echo(8, b"", "127.0.0.1", 64, False)
        await flows[1].receive(2)
        for sender in senders[1:]:
            sender.close()
        again = Flow()
        network.open_echo(again).send_echo(9, b"", "127.0.0.1", 64, False)
        await again.receive()

    in_namespace(main, ping_sockets=ping_sockets)


@BOTH_WAYS
def test_only_echo_replies_are_told(ping_sockets, kind):
    async def main():
        network = Network(LOOPBACK, Counters())
        flow = Flow()
        sender = network.open_echo(flow)
        sender.send_echo(1, b"", "127.0.0.1", 64, False)
        (first,) = await flow.receive()
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as forger:
            identifier = parse_icmp(first.payload).identifier
            for kind_ in (13, 17, 42):
                forger.sendto(build_echo(kind_, identifier, 2, b"forged"), ("127.0.0.1", 0))
            forger.sendto(b"\0\0\0", ("127.0.0.1", 0))
            forger.sendto(build_echo(ECHO_REPLY, identifier ^ 1, 2, b"another program's"), ("127.0.0.1", 0))
        sender.send_echo(3, b"", "127.0.0.1", 64, False)
        assert [parse_icmp(d.payload).sequence for d in await flow.receive(2)][:2] == [1, 3]

    in_namespace(main, ping_sockets=ping_sockets)


@BOTH_WAYS
def test_errors_of_pings_reach_only_the_flow_that_sent_them(ping_sockets, kind):
    async def main():
        counters = Counters()
        network = Network(EgressPolicy(allow=["198.18.0.0/15", "127.0.0.0/8"]), counters)
        flows = Flow(), Flow()
        one, other = map(network.open_echo, flows)
        assert one.send_echo(1, b"", "198.18.0.1", 64, False) is SendResult.NO_ROUTE
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as router:
            assert one.send_echo(2, b"quoted", "127.0.0.9", 64, False) is SendResult.SENT
            assert other.send_echo(2, b"quoted", "127.0.0.9", 64, False) is SendResult.SENT
            router.settimeout(5)
            packet = b""
            while packet[20:21] != bytes([ECHO_REQUEST]) or packet[16:20] != bytes((127, 0, 0, 9)):
                packet = router.recv(2000)
            for error in (11, 3):
                message = bytearray(struct.pack("!BBHI", error, 1 if error == 3 else 0, 0, 0) + packet)
                message[2:4] = icmp_checksum(message)
                router.sendto(message, ("127.0.0.1", 0))
        assert (await flows[0].complaint())[:3] == (("127.0.0.9", 0), 11, 0)
        error = await flows[0].complaint()
        assert error[:3] == (("127.0.0.9", 0), 3, 1)
        assert error.quoted[6:8] == b"\0\2"
        assert flows[1].errors == []
        assert one.send_echo(3, b"", "127.0.0.9", 64, False) is SendResult.SENT

    in_namespace(main, ping_sockets=ping_sockets)


def icmp_checksum(message):
    from scapy.utils import checksum

    return checksum(bytes(message)).to_bytes(2, "big")


def test_identifiers_of_the_raw_socket_are_bounded_and_given_back():
    async def main():
        network = Network(LOOPBACK, Counters())
        flow = Flow()
        senders = [network.open_echo(flow) for _ in range(0x1_0000)]
        with pytest.raises(OSError, match="identifiers are taken"):
            network.open_echo(flow)
        senders[1234].close()
        sender = network.open_echo(flow)
        sender.send_echo(5, b"", "127.0.0.1", 64, False)
        await flow.receive()

    in_namespace(main, ping_sockets=False)


def test_networks_that_share_identifiers_never_hear_the_answers_to_each_other():
    async def main():
        shared = EchoIdentifiers()
        networks = [Network(LOOPBACK, Counters(), identifiers=shared) for _ in range(2)]
        flows = [Flow(), Flow()]
        first, second = (network.open_echo(flow) for network, flow in zip(networks, flows, strict=True))
        for sequence, sender in enumerate((first, second), 1):
            sender.send_echo(sequence, b"", "127.0.0.1", 64, False)
        for sequence, flow in enumerate(flows, 1):
            received = await flow.receive()
            assert [parse_icmp(datagram.payload).sequence for datagram in received] == [sequence]
        assert len(shared) == 2
        first.close()
        second.close()
        assert len(shared) == 0

    in_namespace(main, ping_sockets=False)


def test_processes_that_share_a_machine_never_use_one_identifier():
    taken = []
    for process in range(3):
        own = EchoIdentifiers(process, 3)
        taken += [own.take(1) for _ in range(0x1_0000 // 3)]
        assert own.take(58) in range(process, 0x1_0000, 3)
    assert len(set(taken)) == len(taken)


def test_without_any_icmp_socket_there_is_no_ping(monkeypatch):
    async def main():
        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")

        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            network = Network(LOOPBACK, Counters())
            assert not network.can_ping
            with pytest.raises(OSError, match="not permitted"):
                network.open_echo(Flow())

    in_namespace(main)


# -- IPv6 ---------------------------------------------------------------------------------------------

LOOPBACK6 = EgressPolicy(allow=["::1/128", "127.0.0.0/8"])


def test_udp_over_ipv6_goes_out_and_comes_back_with_its_hop_limit():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK6, Counters()).open_udp(flow, 6)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.bind(("::1", 0))
            server.settimeout(5)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 33)
            port = server.getsockname()[1]
            assert sender.send_to(b"question", ("::1", port), 64, True) is SendResult.SENT
            question, remote = server.recvfrom(100)
            server.sendto(b"answer to " + question, remote)
            assert await flow.receive() == [(b"answer to question", ("::1", port), 33)]
        assert sender.send_to(b"again", ("::1", port), 64, True) is SendResult.SENT
        assert await flow.complaint() == (("::1", port), 1, 4, 0, "::1", b"again")
        assert sender.send_to(b"", ("127.0.0.1", port), 64, True) is SendResult.UNREACHABLE
        assert sender.send_to(b"", ("2001:db8::1", port), 64, True) is SendResult.DENIED

    in_namespace(main)


@BOTH_WAYS
def test_an_echo_over_ipv6_comes_back(ping_sockets, kind):
    async def main():
        network = Network(LOOPBACK6, Counters())
        flows = Flow(), Flow()
        senders = [network.open_echo(flow, 6) for flow in flows]
        for number, sender in enumerate(senders):
            assert isinstance(sender, kind)
            assert sender.send_echo(7, b"%d" % number, "::1", 64, True) is SendResult.SENT
        for number, flow in enumerate(flows):
            (reply,) = await flow.receive()
            assert reply.address == ("::1", 0)
            assert read_icmpv6(reply.payload)[0::4] == (129, b"%d" % number)

    in_namespace(main, ping_sockets=ping_sockets)


def test_a_host_knows_whether_it_reaches_the_ipv6_internet():
    async def main():
        network = Network(LOOPBACK6, Counters())
        assert network.has_ipv6
        allowed = Network(EgressPolicy(allow=["2001:db8:7::/48", "2001:db8:8::1/128", "::/0"]), Counters())
        assert not network.has_ipv6_route
        assert not allowed.has_ipv6_route
        ip("-6 route add 2001:db8:7::/64 dev lo")
        assert not network.has_ipv6_route
        assert allowed.has_ipv6_route
        ip("-6 route add default dev lo")
        assert network.has_ipv6_route

    in_namespace(main)


@pytest.mark.parametrize(
    ("deny", "allow", "has_way"),
    [
        (["::/0"], [], False),
        (["0.0.0.0/0", "2000::/3"], [], False),
        (["::/0"], ["fd00:7::/64"], False),
        (["2000::/3"], ["fd00:7::/64"], True),
        (["2000::/3", "fd00:7::/48"], ["fd00:7::/64"], False),
        (["2606::/16", "0.0.0.0/0"], [], True),
    ],
)
def test_what_the_policy_closes_is_no_way_to_the_ipv6_internet(deny, allow, has_way):
    async def main():
        ip("-6 route add default dev lo")
        network = Network(EgressPolicy(allow=allow, deny=deny), Counters())
        assert network.has_ipv6_route is has_way
        # The clients of forwards may be answered nevertheless, at their own addresses.
        network.lead_to_guests("tcp", "::", 8080)
        assert network.has_ipv6_route
        network.lead_no_more("tcp", "::", 8080)
        assert network.has_ipv6_route is has_way

    in_namespace(main)
