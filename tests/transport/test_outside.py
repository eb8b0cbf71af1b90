from __future__ import annotations

import asyncio
import errno
import json
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import pytest
from host_parts import (
    LOOPBACK,
    Box,
    Flow,
    Network,
    add_ipv6,
    closed_ports,
    forward_ipv6,
    in_namespace,
    ip,
    listening,
    narrow_link,
    sysctl,
    wired,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6ParamProblem, IPv6
from scapy.layers.l2 import Ether

from actors.messages import ConnectionFailed, ErrorFromNet
from actors.ports import SendResult
from netstack.counters import Counters
from netstack.egress import EgressPolicy
from transport.host import host_socket, outside
from transport.host.interfaces import interface_addresses
from transport.host.receiving import DATAGRAMS_PER_TURN

# -- UDP ----------------------------------------------------------------------------------------------


def test_udp_goes_out_and_comes_back_with_its_ttl():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK, Counters()).open_udp(flow)
        with listening() as server:
            server.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
            assert sender.send_to(b"question", server.getsockname(), 64, False) is SendResult.SENT
            question, remote = server.recvfrom(100)
            server.sendto(b"answer to " + question, remote)
            assert await flow.receive() == [(b"answer to question", server.getsockname(), 33)]
            server.sendto(b"", remote)
            assert (await flow.receive(2))[1].payload == b""
        sender.close()

    in_namespace(main)


def test_one_socket_serves_all_destinations_of_a_flow_and_no_other_flow():
    async def main():
        network = Network(LOOPBACK, Counters())
        one, other = network.open_udp(Flow()), network.open_udp(Flow())
        with listening() as a, listening() as b:
            ports = set()
            for server in (a, b):
                one.send_to(b"", server.getsockname(), 64, False)
                ports.add(server.recvfrom(9)[1][1])
            assert len(ports) == 1
            other.send_to(b"", a.getsockname(), 64, False)
            assert a.recvfrom(9)[1][1] not in ports

    in_namespace(main)


def test_what_waits_is_told_in_batches_with_a_fair_limit():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK, Counters()).open_udp(flow)
        with listening() as server:
            sender.send_to(b"", server.getsockname(), 64, False)
            _, remote = server.recvfrom(9)
            for number in range(100):
                server.sendto(bytes([number]), remote)
            received = await flow.receive(100)
        assert [datagram.payload[0] for datagram in received] == list(range(100))
        assert [len(batch) for batch in flow.batches] == [DATAGRAMS_PER_TURN, 100 - DATAGRAMS_PER_TURN]

    in_namespace(main)


def test_the_kernel_holds_a_bounded_amount_for_a_flow_that_does_not_read():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK, Counters()).open_udp(flow)
        with listening() as server:
            sender.send_to(b"", server.getsockname(), 64, False)
            _, remote = server.recvfrom(9)
            for _ in range(2000):
                server.sendto(bytes(1000), remote)
            server.close()
            await flow.receive(1)
            for _ in range(50):
                await asyncio.sleep(0)
        assert 100 < sum(map(len, flow.batches)) < 2 * host_socket.RECEIVE_BUFFER / 1000

    in_namespace(main)


def test_a_closed_socket_tells_nothing_and_sends_nothing():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK, Counters()).open_udp(flow)
        with listening() as server:
            sender.send_to(b"", server.getsockname(), 64, False)
            server.sendto(b"late", server.recvfrom(9)[1])
            sender.close()
            sender.close()
            for _ in range(5):
                await asyncio.sleep(0)
            assert flow.batches == []
            assert sender.send_to(b"", server.getsockname(), 64, False) is SendResult.DROPPED

    in_namespace(main)


def test_no_more_sockets_is_an_oserror(monkeypatch):
    async def main():
        network = Network(LOOPBACK, Counters())

        def refuse(*_):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("socket.socket.bind", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            network.open_udp(Flow())

    in_namespace(main)


def test_rfc4787_req9_a_flow_reaches_another_by_its_external_address():
    async def main():
        ip("address add 198.18.9.9/24 dev lo")
        counters = Counters()
        network = Network(LOOPBACK, counters)
        flow = Flow()
        one, other = network.open_udp(Flow()), network.open_udp(flow)
        assert one.send_to(b"hello", ("198.18.9.9", other.port), 64, False) is SendResult.SENT
        assert [d[:2] for d in await flow.receive()] == [(b"hello", ("198.18.9.9", one.port))]
        with listening("198.18.9.9") as service:
            assert one.send_to(b"", service.getsockname(), 64, False) is SendResult.DENIED
        for address in ("198.18.8.10", "127.0.0.2", "0.0.0.0", "::1"):
            assert network.decide_udp((address, other.port)) == network.decide(address)
        other.close()
        assert one.send_to(b"", ("198.18.9.9", other.port), 64, False) is SendResult.DENIED
        strict = Network(EgressPolicy(deny=["198.18.9.9/32"]), counters)
        other = strict.open_udp(Flow())
        assert (
            strict.open_udp(Flow()).send_to(b"", ("198.18.9.9", other.port), 64, False) is SendResult.DENIED
        )

    in_namespace(main)


def test_a_forward_opens_no_other_service_on_its_port():
    async def main():
        ip("address add 198.18.9.9/24 dev lo")
        network = Network(LOOPBACK, Counters())
        own = "198.18.9.9"
        with listening(own) as service:
            port = service.getsockname()[1]
            network.lead_to_guests("udp", "127.0.0.1", port)
            assert not network.decide_udp((own, port)).allowed
        network.lead_to_guests("udp", own, port)
        assert network.decide_udp((own, port)).allowed
        listeners = [network.listen_tcp(Flow(), host, 7001) for host in (own, "127.0.0.1")]
        network.lead_to_guests("tcp", own, 7001)
        network.lead_to_guests("tcp", "127.0.0.1", 7002)
        told = []
        for number in (7001, 7002):
            flow = Box()
            network.open_tcp(flow, (own, number), number).close()
            told.append(flow)
        assert [[type(m) for m in flow] for flow in told] == [[], [ConnectionFailed]]
        for listener in listeners:
            listener.close()

    in_namespace(main)


@pytest.mark.parametrize("host", ["198.18.9.9", "0.0.0.0"])
def test_a_port_whose_forward_has_ended_is_another_programs_for_guests(host):
    async def main():
        ip("address add 198.18.9.9/24 dev lo")
        network = Network(LOOPBACK, Counters())
        decided = {"udp": network.decide_udp, "tcp": network._decide_tcp}
        for protocol, decide in decided.items():
            for _ in range(2):  # a forward, and the one that takes its place before it has ended
                network.lead_to_guests(protocol, host, 7001)
            network.lead_no_more(protocol, host, 7001)
            assert decide(("198.18.9.9", 7001)).reason == "hairpin"
            assert network.has_forward(protocol, "198.18.9.9", 7001)
            assert not network.has_forward(protocol, "198.18.9.9", 7002)
            assert not network.has_forward("icmp", "198.18.9.9", 7001)
            assert not network.has_forward(protocol, "198.18.9.9", None)
            network.lead_no_more(protocol, host, 7001)
            assert decide(("198.18.9.9", 7001)).reason == "own_address"
            assert not network.has_forward(protocol, "198.18.9.9", 7001)

    in_namespace(main)


@pytest.mark.parametrize("allow_smtp", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.2.4"])
def test_mail_servers_are_reached_only_where_that_is_allowed(allow_smtp, address):
    async def main():
        policy = EgressPolicy(["127.0.0.0/8", "::1/128"], host_access=True, allow_smtp=allow_smtp)
        counters = Counters()
        network = Network(policy, counters)
        dialled = "127.0.0.1" if address == "10.0.2.4" else address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((dialled, 25), family=family) as smtp:
            smtp.settimeout(5 if allow_smtp else 0)
            flow = Box()
            opened = network.open_tcp(flow, (address, 25), 1)
            if allow_smtp:
                smtp.accept()[0].close()
            else:
                assert [message.result for message in flow] == [SendResult.DENIED]
                with pytest.raises(BlockingIOError):
                    smtp.accept()
            opened.close()
        with socket.create_server((dialled, 587), family=family) as submission:
            submission.settimeout(5)
            opened = network.open_tcp(Box(), (address, 587), 2)
            submission.accept()[0].close()
            opened.close()
        assert counters["outside.denied.smtp"] == (not allow_smtp)

    in_namespace(main)


def test_a_forwarded_port_25_of_this_machine_is_reached_by_guests_too():
    async def main():
        ip("address add 198.18.9.9/24 dev lo")
        network = Network(LOOPBACK, Counters())
        listener = network.listen_tcp(Flow(), "198.18.9.9", 25)
        network.lead_to_guests("tcp", "198.18.9.9", 25)
        flow = Box()
        network.open_tcp(flow, ("198.18.9.9", 25), 1).close()
        assert not list(flow)
        listener.close()

    in_namespace(main)


def test_rfc6888_req8_a_released_port_rests():
    async def main():
        sysctl("ip_local_port_range", "40000 40009")
        network = Network(LOOPBACK, Counters(), port_hold=120)
        first = [network.open_udp(Flow()) for _ in range(5)]
        for flow in first:
            flow.close()
        second = [network.open_udp(Flow()) for _ in range(5)]
        assert {flow.port for flow in first}.isdisjoint(flow.port for flow in second)
        # Resting ports are the last resort, and the end is an error.
        third = [network.open_udp(Flow()) for _ in range(5)]
        assert {flow.port for flow in first} == {flow.port for flow in third}
        with pytest.raises(OSError, match="in use"):
            network.open_udp(Flow())

    in_namespace(main)


def test_the_ports_of_the_host_are_counted(monkeypatch):
    async def main():
        sysctl("ip_local_port_range", "40000 40009")
        network = Network(LOOPBACK, Counters())
        assert network.udp_ports == 10
        assert Network(LOOPBACK, Counters(), processes=3).udp_ports == 3
        monkeypatch.setattr(outside, "PORT_RANGE", Path("/nowhere"))
        assert outside.port_range() == outside.DYNAMIC_PORTS

    in_namespace(main)


def test_where_all_ports_rest_one_is_used_all_the_same():
    async def main():
        sysctl("ip_local_port_range", "40000 40031")
        counters = Counters()
        network = Network(LOOPBACK, counters)
        for flow in [network.open_udp(Flow()) for _ in range(32)]:
            flow.close()
        assert network.open_udp(Flow()).port in range(40_000, 40_032)
        assert counters["outside.held_ports_used"] == 1

    in_namespace(main)


# -- what the network says ----------------------------------------------------------------------------


def test_a_refusal_is_told_at_once_and_disturbs_no_other_destination():
    async def main():
        flow, counters = Flow(), Counters()
        sender = Network(LOOPBACK, counters).open_udp(flow)
        (closed,) = closed_ports(1)
        with listening() as server:
            assert sender.send_to(b"question", ("127.0.0.1", closed), 64, False) is SendResult.SENT
            assert sender.send_to(b"good", server.getsockname(), 64, False) is SendResult.SENT
            assert server.recv(9) == b"good"
            refusal = ErrorFromNet(("127.0.0.1", closed), 3, 3, 0, "127.0.0.1", b"question")
            assert await flow.complaint() == refusal
            assert sender.send_to(b"good", server.getsockname(), 64, False) is SendResult.SENT
            assert server.recv(9) == b"good"
        assert sender.send_to(b"again", ("127.0.0.1", closed), 64, False) is SendResult.SENT
        assert (await flow.complaint()).quoted == b"again"
        assert counters["outside.icmp_errors"] == 2

    in_namespace(main)


def test_errors_that_wait_are_told_before_more_is_sent():
    async def main():
        flow = Flow()
        sender = Network(LOOPBACK, Counters()).open_udp(flow)
        ports = closed_ports(100)
        for port in ports:
            assert sender.send_to(b"", ("127.0.0.1", port), 64, False) is SendResult.SENT
        assert [(await flow.complaint()).address[1] for _ in ports] == ports

    in_namespace(main)


def test_whoever_sends_an_error_is_named_where_guests_may_reach_them():
    async def main():
        ip("link add one type veth peer name two")
        ip("addr add 198.18.0.1/24 dev one")
        ip("link set one up")
        ip("link set two up")
        ip("route add 198.19.0.0/16 via 198.18.0.2")
        ip("neigh add 198.18.0.2 lladdr 02:00:00:00:00:01 dev one")
        flow = Flow()
        network = Network(EgressPolicy(allow=["198.18.0.0/15"]), Counters())
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800)) as wire:
            wire.bind(("two", 0x800))
            wire.settimeout(5)
            sender = network.open_udp(flow)
            routers = {"198.18.0.2": "198.18.0.2", "10.1.2.3": ""}
            for router, shown in routers.items():
                assert sender.send_to(b"probe", ("198.19.0.9", 33434), 3, False) is SendResult.SENT
                probe = Ether(wire.recv(2000))
                assert (probe[IP].ttl, probe[IP].flags) == (3, 0)
                error = Ether(src=probe.dst, dst=probe.src) / IP(src=router, dst=probe[IP].src)
                wire.send(bytes(error / ICMP(type=11) / probe[IP]))
                told = ErrorFromNet(("198.19.0.9", 33434), 11, 0, 0, shown, b"probe")
                assert await flow.complaint() == told

    in_namespace(main)


@pytest.mark.parametrize("version", [4, 6])
def test_a_problem_with_a_header_is_told_with_where_it_is(version):
    async def main():
        flow = Flow()
        network = Network(EgressPolicy(allow=["198.18.0.0/15", "fd18::/64"]), Counters())
        with wired(version) as wire:
            sender = network.open_udp(flow, version)
            there = ("198.18.0.2" if version == 4 else "fd18::2", 9)
            assert sender.send_to(b"probe", there, 64, False) is SendResult.SENT
            while UDP not in (probe := Ether(wire.recv(2000))):
                pass
            answer = Ether(src=probe.dst, dst=probe.src)
            if version == 4:
                answer /= IP(src=there[0], dst=probe[IP].src) / ICMP(type=12, ptr=9) / probe[IP]
            else:
                answer /= IPv6(src=there[0], dst=probe[IPv6].src)
                answer /= ICMPv6ParamProblem(code=1, ptr=6) / probe[IPv6]
            wire.send(bytes(answer))
            kind, code, rest = (12, 0, 9 << 24) if version == 4 else (4, 1, 6)
            assert await flow.complaint() == ErrorFromNet(there, kind, code, rest, there[0], b"probe")

    in_namespace(main)


def test_what_must_stay_whole_and_is_too_big_says_what_the_path_takes():
    async def main():
        narrow_link()
        network = Network(EgressPolicy(allow=["198.18.0.0/15"]), Counters())
        udp, echo = network.open_udp(Flow()), network.open_echo(Flow())
        assert udp.path_mtu == echo.path_mtu == 0
        there = ("198.18.0.2", 9)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800)) as wire:
            wire.bind(("two", 0x800))
            wire.settimeout(5)
            assert udp.send_to(bytes(1372), there, 64, True) is SendResult.SENT
            assert Ether(wire.recv(2000))[IP].flags == "DF"
            assert udp.send_to(bytes(1373), there, 64, True) is SendResult.TOO_BIG
            assert udp.path_mtu == 1400
            assert echo.send_echo(1, bytes(1373), there[0], 64, True) is SendResult.TOO_BIG
            assert echo.path_mtu == 1400
            assert udp.send_to(bytes(1373), there, 64, False) is SendResult.SENT
            assert [Ether(wire.recv(2000))[IP].flags for _ in range(2)] == ["MF", 0]

    in_namespace(main)


def test_errors_of_sending_have_their_words():
    async def main():
        policy = EgressPolicy(allow=["127.0.0.0/8", "198.18.0.0/15", "255.255.255.255/32"])
        sender = Network(policy, Counters()).open_udp(Flow())
        ip("route add unreachable 198.18.0.0/24")
        ip("route add prohibit 198.18.1.0/24")
        ip("route add blackhole 198.18.2.0/24")
        expected = {
            "198.18.0.1": SendResult.UNREACHABLE,
            "198.18.1.1": SendResult.DENIED,
            "198.18.2.1": SendResult.DROPPED,
            "198.18.3.1": SendResult.NO_ROUTE,
            "2606:4700::1111": SendResult.UNREACHABLE,
        }
        assert {host: sender.send_to(b"", (host, 9), 64, False) for host in expected} == expected
        assert sender.send_to(bytes(65_508), ("127.0.0.1", 9), 64, False) is SendResult.TOO_BIG
        with listening() as server:
            assert sender.send_to(b"fine", server.getsockname(), 64, False) is SendResult.SENT
            assert server.recv(9) == b"fine"
        # An error that stayed in the socket's queue would wake the loop for ever.
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            sender._socket.recvmsg(1, 256, socket.MSG_ERRQUEUE)

    in_namespace(main)


# -- policy -------------------------------------------------------------------------------------------


class RecordingSocket(socket.socket):
    """Notes the destinations of everything that is sent."""

    destinations: ClassVar[list] = []

    def sendto(self, *args):
        self.destinations.append(args[-1][0])
        return super().sendto(*args)


@pytest.mark.parametrize("ping_sockets", [True, False])
def test_no_socket_call_is_seen_for_a_denied_address(monkeypatch, ping_sockets):
    policy = EgressPolicy(allow=["198.18.0.0/16"], deny=["198.18.7.0/24", "8.8.8.8/32"])
    texts = st.ip_addresses().map(str) | st.sampled_from(
        [
            *(
                "127.0.0.1",
                "10.0.2.4",
                "169.254.169.254",
                "198.18.7.1",
                "198.18.8.1",
                "198.18.9.9",
                "8.8.8.8",
            ),
            *("1.1.1.1", "192.0.2.1", "::1", "::ffff:127.0.0.1", "2002:7f00:1::"),
            *("localhost", "127.1", "0x7f.1", "", "2130706433", "0"),
        ]
    )

    async def main():
        ip("addr add 198.18.9.9/32 dev lo")
        monkeypatch.setattr(socket, "socket", RecordingSocket)
        counters = Counters()
        network = Network(policy, counters)
        udp, echo = network.open_udp(Flow()), network.open_echo(Flow())

        @settings(max_examples=300, deadline=None)
        @given(texts)
        def check(text):
            RecordingSocket.destinations.clear()
            before = counters.total("outside.denied.")
            results = {udp.send_to(b"x", (text, 53), 64, False), echo.send_echo(1, b"x", text, 64, False)}
            if policy.decide(text).allowed:
                assert SendResult.DENIED not in results
                assert {ip_address(sent) for sent in RecordingSocket.destinations} <= {ip_address(text)}
            else:
                assert results == {SendResult.DENIED}
                assert RecordingSocket.destinations == []
                assert counters.total("outside.denied.") == before + 2

        check()
        assert counters["outside.denied.own_address"] > 0

    in_namespace(main, ping_sockets=ping_sockets)


def test_own_addresses_are_denied_also_when_they_come_later(monkeypatch):
    async def main():
        ip("addr add 192.0.2.1/32 dev lo")
        policy = EgressPolicy(allow=["192.0.2.0/24"])
        sender = Network(policy, Counters()).open_udp(Flow())
        assert sender.send_to(b"", ("192.0.2.1", 9), 64, False) is SendResult.DENIED
        assert sender.send_to(b"", ("192.0.2.2", 9), 64, False) is SendResult.NO_ROUTE
        ip("addr add 192.0.2.2/32 dev lo")
        monkeypatch.setattr(sender._network, "_read_interfaces_at", 0.0)
        assert sender.send_to(b"", ("192.0.2.2", 9), 64, False) is SendResult.DENIED

    in_namespace(main)


def test_services_of_this_machine_are_reached_by_none_of_its_addresses():
    async def main():
        ip("link add outside0 type veth peer name outside1")
        ip("link set outside0 up")
        ip("link set outside1 up")
        forward_ipv6()
        ip("addr add 7.7.7.7/24 dev lo")
        ip("route add local 9.9.9.0/28 dev lo")
        ip("-6 route add local 2400:cb00:8::/64 dev lo")
        add_ipv6("2400:cb00:1::1", "outside0")
        everything = Network(EgressPolicy(["0.0.0.0/0", "::/0"]), Counters())
        addresses = ("7.7.7.7", "7.7.7.70", "9.9.9.3", "2400:cb00:8::5", "2400:cb00:1::1", "2400:cb00:1::")
        for address in addresses:
            sender = everything.open_udp(Flow(), 6 if ":" in address else 4)
            assert sender.send_to(b"", (address, 9), 64, False) is SendResult.DENIED
            flow = Box()
            everything.open_tcp(flow, (address, 9), 1)
            assert [message.result for message in flow] == [SendResult.DENIED]
            assert not everything.allows_echo(address)
        named = Network(EgressPolicy(["7.7.7.70/32"]), Counters())
        assert [named.allows_echo(address) for address in addresses[:2]] == [False, True]

    in_namespace(main)


def test_interfaces_that_cannot_be_read_leave_the_last_reading(monkeypatch):
    async def main():
        ip("addr add 192.0.2.1/32 dev lo")
        counters = Counters()
        network = Network(EgressPolicy(allow=["192.0.2.0/24"]), counters)

        def fail():
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(outside, "interface_addresses", fail)
        monkeypatch.setattr(network, "_read_interfaces_at", 0.0)
        assert network.open_udp(Flow()).send_to(b"", ("192.0.2.1", 9), 64, False) is SendResult.DENIED
        assert counters["outside.interfaces_unread"] == 1

    in_namespace(main)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_want_of_sockets_says_nothing_of_what_the_host_can_do(monkeypatch, number):
    async def main():
        ip("addr add 192.0.2.1/32 dev lo")
        ip("-6 route add default dev lo")

        def fail(*_):
            raise OSError(number, "no room")

        open_to_all = EgressPolicy(allow=["192.0.2.0/24"])
        older = Network(open_to_all, Counters())
        assert older.has_ipv6_route
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", fail)
            patch.setattr(outside, "interface_addresses", fail)
            assert older.has_ipv6_route
            younger = Network(EgressPolicy(allow=["192.0.2.0/24"]), Counters())
            assert younger.has_ipv6
            assert younger.can_ping
            # It may be one of the machine's own, and so may any other.
            assert not younger.allows_udp(("192.0.2.1", 9))
            assert not younger.allows_tcp(("1.1.1.1", 9))
        assert younger.can_ping
        assert younger.has_ipv6_route
        younger.open_echo(Flow())
        assert not younger.allows_udp(("192.0.2.1", 9))
        assert younger.allows_tcp(("1.1.1.1", 9))
        assert older._counters["outside.routes_unseen"] == 1

    in_namespace(main)


def test_interface_addresses_are_those_that_the_system_lists():
    async def main():
        ip("link add outside0 type veth peer name outside1")
        ip("addr add 192.0.2.1/24 dev outside0")
        ip("addr add 2001:db8::1/64 dev outside1 nodad")
        listed = json.loads(ip("-j addr"))
        expected = {info["local"] for link in listed for info in link["addr_info"]}
        assert {"127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"} <= expected
        assert interface_addresses() == expected

    in_namespace(main)


def test_host_access_reaches_loopback_under_another_address():
    async def main():
        flow = Flow()
        network = Network(EgressPolicy(host_access=True), Counters())
        sender = network.open_udp(flow)
        with listening() as server:
            port = server.getsockname()[1]
            assert sender.send_to(b"hello", ("127.0.0.1", port), 64, False) is SendResult.DENIED
            assert sender.send_to(b"hello", ("10.0.2.4", port), 64, False) is SendResult.SENT
            server.sendto(b"host", server.recvfrom(9)[1])
            (answer,) = await flow.receive()
            assert answer.address == ("10.0.2.4", port)
        pinging = Flow()
        assert network.open_echo(pinging).send_echo(1, b"", "10.0.2.4", 64, False) is SendResult.SENT
        assert (await pinging.receive())[0].address == ("10.0.2.4", 0)

    in_namespace(main)
