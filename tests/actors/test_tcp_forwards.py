"""TCP through port forwards: connections of clients outside, and the crowd that waits for them."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from typing import Any

import pykka
import pytest
from forward_parts import FakeConnection, FakeListener, Forwarded
from gateway_parts import assert_intact, ether, guest_ip, packet
from lan_parts import GATEWAY_MAC
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NS, IPv6
from scapy.packet import Raw
from test_ipv6_router import PREFIX

from actors.flows.forwarded_tcp import ForwardedTcpFlowActor
from actors.flows.tcp_flow import CONNECT_TIMEOUT
from actors.gateway.tcp_forwards import TAKEN_AT_ONCE
from actors.messages import PortClosed, SettingsChanged
from actors.settings import LanSettings
from netstack.family import pack_ip
from netstack.forward import FIRST_PORT
from netstack.proxy_protocol import build_proxy_header


def test_tcp_is_opened_towards_the_guest_and_reset_when_it_refuses(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    assert (syn[IP].src, syn[IP].dst, syn[TCP].dport, syn[TCP].flags) == ("10.0.2.2", "10.0.2.10", 80, "S")
    assert syn[TCP].sport >= FIRST_PORT
    assert_intact(syn)
    assert not connection.closed
    reset = TCP(sport=80, dport=syn[TCP].sport, flags="RA", seq=0, ack=syn[TCP].seq + 1)
    assert forwarded.lan.sends(1, packet(1, "10.0.2.2") / reset) == []
    assert connection.closed == "reset"
    assert pykka.ActorRegistry.get_by_class(ForwardedTcpFlowActor) == []
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 1


def test_tcp_towards_a_guest_that_answers(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    answer = TCP(sport=80, dport=syn[TCP].sport, flags="SA", seq=7, ack=syn[TCP].seq + 1, window=9999)
    (ack,) = forwarded.lan.sends(1, packet(1, "10.0.2.2") / answer)
    assert (ack[TCP].flags, ack[TCP].ack) == ("A", 8)
    assert not connection.closed


def test_forwards_leave_flows_for_guests_and_take_none_of_theirs(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_flows=4)
    connections = [forwarded.connects()[0] for _ in range(3)]
    assert [connection.refused for connection in connections] == [False, False, True]
    assert counters["forward.drop.flow_share"] == 1
    question = packet(1, "192.0.2.1") / UDP(sport=4000, dport=7000)
    assert forwarded.lan.sends(1, question) == []
    assert len(forwarded.lan.outside.udp) == 1
    loop.advance(300)
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 3
    assert not forwarded.connects()[0].refused


def test_a_client_that_is_silent_is_probed(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, _ = forwarded.connects()
    assert connection.kept_alive == 300.0


def test_rfc5382_req5_idle_and_transitory_timeouts(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    answer = TCP(sport=80, dport=syn[TCP].sport, flags="SA", seq=7, ack=syn[TCP].seq + 1, window=9999)
    forwarded.lan.sends(1, packet(1, "10.0.2.2") / answer)
    loop.advance(7439)
    assert not connection.closed
    loop.advance(2)
    assert connection.closed == "reset"
    (last,) = forwarded.lan.received()
    assert "R" in last[TCP].flags
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 1


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (("192.0.2.1", 40_000), ("198.51.100.2", 8080)),
        (("2001:db8::1", 40_000), ("2001:db8::2", 8080)),
        (("fe80::1", 40_000), ("fe80::2", 8080)),
    ],
)
def test_the_guest_is_told_who_its_client_is(loop, counters, client, local):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80,proxy")
    connection = FakeConnection()
    connection.client, connection.local = client, local
    forwarded.listeners.opened[0].connect(connection)
    frames = forwarded.guest_answers(*forwarded.lan.received())
    header = b"".join(bytes(frame[TCP].payload) for frame in frames if frame[IP].len > 40)
    assert header == build_proxy_header("tcp", (pack_ip(client[0]), client[1]), (pack_ip(local[0]), local[1]))


TRANSPARENT = pytest.mark.parametrize(
    ("ip", "client", "guest"),
    [(IP, "192.0.2.1", "10.0.2.10"), (IPv6, "2001:db8::1", "fd76:6d72:656c:6179::1:1")],
    ids=["IPv4", "IPv6"],
)


def transparent(counters, client, guest, **settings):
    forwarded = Forwarded(
        counters, "tcp::8080:10.0.2.10:80,transparent", **{"ipv6_prefix": PREFIX} | settings
    )
    if ":" in guest:
        forwarded.guest_uses(guest)
    forwarded.lan.received()
    connection = FakeConnection()
    connection.client = (client, 40_000)
    forwarded.listeners.opened[0].connect(connection)
    return forwarded, connection, forwarded.lan.received()


@TRANSPARENT
def test_the_guest_sees_its_client_at_its_own_address(loop, counters, ip, client, guest):
    forwarded, connection, (syn,) = transparent(counters, client, guest)
    assert (syn[ip].src, syn[ip].dst, syn.src) == (client, guest, GATEWAY_MAC.hex(":"))
    assert (syn[TCP].sport, syn[TCP].dport, syn[TCP].flags) == (40_000, 80, "S")
    answer = TCP(sport=80, dport=40_000, flags="SA", seq=7, ack=syn[TCP].seq + 1, window=9999)
    (ack,) = forwarded.lan.sends(1, ether(1) / ip(src=guest, dst=client) / answer)
    assert (ack[TCP].flags, ack[ip].src) == ("A", client)
    # Nothing else leads there: another port of the guest's meets no flow.
    stray = TCP(sport=81, dport=40_000, flags="A", seq=7, ack=1)
    (reset,) = forwarded.lan.sends(1, ether(1) / ip(src=guest, dst=client) / stray)
    assert reset[TCP].flags == "R"
    assert not connection.closed


@pytest.mark.parametrize("client", ["127.0.0.1", "10.0.2.99", "::1", "fe80::1"])
def test_a_client_that_a_guest_cannot_answer_comes_from_the_gateway(loop, counters, client):
    _, _, (syn,) = transparent(counters, client, "10.0.2.10")
    assert (syn[IP].src, syn[IP].dst) == ("10.0.2.2", "10.0.2.10")


def test_a_guest_without_ipv6_has_no_transparent_ipv6_clients(loop, counters):
    _, connection, frames = transparent(counters, "2001:db8::1", "10.0.2.10")
    assert (connection.refused, frames) == (True, [])
    assert counters["forward.drop.no_ipv6_guest"] == 1


def test_an_address_that_a_guest_has_only_announced_is_its_own(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80,transparent", ipv6_prefix=PREFIX)
    guest = "fd76:6d72:656c:6179::77"
    solicitation = IPv6(src="::", dst="ff02::1:ff00:77", hlim=255) / ICMPv6ND_NS(tgt=guest)
    forwarded.lan.sends(1, ether(1, bytes.fromhex("3333ff000077")) / solicitation)
    connection = FakeConnection()
    connection.client = ("2001:db8::1", 40_000)
    forwarded.listeners.opened[0].connect(connection)
    (syn,) = forwarded.lan.received()
    assert syn[IPv6].dst == guest


def test_one_client_at_the_same_port_of_a_guest_twice_is_refused(loop, counters):
    forwarded, _, _ = transparent(counters, "192.0.2.1", "10.0.2.10")
    again, _ = forwarded.connects()
    assert again.refused
    assert counters["forward.drop.client_twice"] == 1


def states(connections):
    """Tell of each client: connected to the guest, still waiting, or turned away."""
    return [
        "refused" if c.refused else "reset" if c.closed else "in" if c.attached else "waits"
        for c in connections
    ]


def test_a_crowd_of_clients_is_let_in_as_the_guest_answers(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connections, syns = forwarded.crowd(200)
    assert len(syns) == 64
    assert states(connections) == ["in"] * 64 + ["waits"] * 136
    while syns:
        syns = [f for f in forwarded.guest_answers(*syns) if f[TCP].flags == "S"]
    assert states(connections) == ["in"] * 200
    assert [key for key in counters if key.startswith("forward.drop")] == []
    assert counters["forward.connections"] == 200


def test_a_port_that_was_given_back_and_taken_anew_lets_its_clients_in(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    forwarded.connects()
    anew, connection = FakeListener(forwarded.refs[0]), FakeConnection()
    anew.connect(connection)
    assert anew.waiting == []
    assert counters["forward.connections"] == 2


def test_clients_are_let_in_as_the_guest_refuses(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_half_open_per_peer=2)
    connections, syns = forwarded.crowd(5)
    assert states(connections) == ["in"] * 2 + ["waits"] * 3
    syns = forwarded.guest_answers(syns[0], flags="RA")
    assert states(connections) == ["reset", "in", "in", "waits", "waits"]
    forwarded.guest_answers(*syns, flags="RA")
    assert states(connections) == ["reset", "in", "reset", "in", "waits"]


def refusal(syn, code, *, kind=3, port=1, length=28, **changes):
    """What a guest's firewall says about a SYN that it rejects; ``changes`` are of what it quotes."""
    quoted = syn[IP].copy()
    for name, value in changes.items():
        setattr(quoted[TCP] if name in {"sport", "dport", "seq"} else quoted, name, value)
    error = IP(src=guest_ip(port), dst=syn[IP].src) / ICMP(type=kind, code=code)
    return ether(port) / error / Raw(bytes(quoted)[:length])


@pytest.mark.parametrize("code", [code for code in range(16) if code != 4])
def test_a_guest_whose_firewall_rejects_has_its_client_reset_at_once(loop, counters, code):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_half_open_per_peer=1)
    connections, (syn,) = forwarded.crowd(2)
    (following,) = forwarded.lan.sends(1, refusal(syn, code))
    assert following[TCP].flags == "S"
    assert states(connections) == ["reset", "in"]
    assert forwarded.lan.sends(1, *[refusal(following, code, length=500)] * 2) == []
    assert states(connections) == ["reset", "reset"]
    assert pykka.ActorRegistry.get_by_class(ForwardedTcpFlowActor) == []
    assert counters["tcp.refused_by_icmp"] == 2


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5, 6])
def test_so_has_one_over_ipv6(loop, counters, code):
    client, guest = "2001:db8::1", "fd76:6d72:656c:6179::1:1"
    forwarded, connection, (syn,) = transparent(counters, client, guest)
    error = IPv6(src=guest, dst=client) / ICMPv6DestUnreach(code=code)
    assert forwarded.lan.sends(1, ether(1) / error / Raw(bytes(syn[IPv6]))) == []
    assert connection.closed == "reset"


def test_a_guest_that_sees_its_clients_where_they_are_refuses_them_there(loop, counters):
    forwarded, connection, (syn,) = transparent(counters, "192.0.2.1", "10.0.2.10")
    assert forwarded.lan.sends(1, refusal(syn, 10)) == []
    assert connection.closed == "reset"


@pytest.mark.parametrize(
    "changes",
    [
        {"code": 4},
        {"code": 1, "kind": 11},
        {"length": 27},
        {"length": 0},
        {"seq": 1},
        {"sport": 1},
        {"dport": 81},
        {"dst": "10.0.2.11"},
        {"src": "10.0.2.3"},
        {"proto": 17},
        {"port": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_transparent", [False, True])
def test_only_who_was_asked_refuses_and_only_what_it_was_asked(loop, counters, changes, is_transparent):
    text = "tcp::8080:10.0.2.10:80" + (",transparent" if is_transparent else "")
    forwarded = Forwarded(counters, text)
    forwarded.lan.assign(2)
    connection, (syn,) = forwarded.connects()
    assert forwarded.lan.sends(changes.get("port", 1), refusal(syn, **{"code": 3} | changes)) == []
    assert not connection.closed
    (ack,) = forwarded.guest_answers(syn)
    assert ack[TCP].flags == "A"


def test_what_stands_is_ended_by_no_icmp(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")
    connection, (syn,) = forwarded.connects()
    forwarded.guest_answers(syn)
    assert forwarded.lan.sends(1, refusal(syn, 3)) == []
    assert not connection.closed
    assert counters["tcp.refused_by_icmp"] == 0


def test_the_connections_of_a_forward_are_bounded_and_the_next_waits_for_the_end_of_one(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_connections_per_forward=3)
    connections, syns = forwarded.crowd(5)
    forwarded.guest_answers(*syns)
    assert states(connections) == ["in"] * 3 + ["waits"] * 2
    loop.advance(7441)  # the three are idle for too long
    assert states(connections) == ["reset"] * 3 + ["in"] * 2
    assert counters["forward.full"] >= 1


@pytest.mark.parametrize("limit", ["max_connections_per_forward", "max_half_open_per_peer"])
def test_clients_that_wait_are_let_in_by_a_reload_that_makes_room(loop, counters, limit):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", **{limit: 2})
    connections, _ = forwarded.crowd(5)
    assert states(connections) == ["in"] * 2 + ["waits"] * 3
    settings: Any = LanSettings(ipv6_prefix=None)
    forwarded.lan.tell(SettingsChanged(replace(settings, **{limit: 4})))
    assert states(connections) == ["in"] * 4 + ["waits"]


def come_from(forwarded, host, number):
    connections = [FakeConnection() for _ in range(number)]
    for connection in connections:
        connection.client = (host, 40_000)
    forwarded.listeners.opened[0].connect(*connections)
    forwarded.guest_answers(*forwarded.lan.received())
    return states(connections)


@pytest.mark.parametrize(
    ("many", "neighbour", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_no_client_address_has_all_connections_of_a_forward(loop, counters, many, neighbour, other):
    limits = {"max_connections_per_forward": 100, "max_half_open_per_peer": 100}
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", **limits)
    assert come_from(forwarded, many, 60) == ["in"] * 60
    assert come_from(forwarded, many, 60) == ["in"] * 38 + ["refused"] * 22
    assert come_from(forwarded, neighbour, 1) == ["refused"]
    assert come_from(forwarded, other, 1) == ["in"]
    assert counters["forward.drop.client_share"] == 23
    loop.advance(7441)  # all are idle for too long
    (connections,) = forwarded.connections()
    assert (connections.shares.total, connections.shares.owners) == (0, 0)
    assert come_from(forwarded, many, 1) == ["in"]


@pytest.mark.parametrize("settings", [{"client_share": 0}, {"max_connections_per_forward": 63}])
def test_unless_the_operator_wants_it_so_or_they_are_few(loop, counters, settings):
    limits = {"max_connections_per_forward": 70, "max_half_open_per_peer": 100} | settings
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", **limits)
    most = limits["max_connections_per_forward"]
    assert come_from(forwarded, "192.0.2.1", most + 1) == ["in"] * most + ["waits"]


def test_clients_that_nobody_answers_wait_no_longer_than_the_flows_before_them(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_half_open_per_peer=1)
    connections, _ = forwarded.crowd(2)
    loop.advance(CONNECT_TIMEOUT + 1)
    assert states(connections) == ["reset", "in"]
    loop.advance(CONNECT_TIMEOUT + 1)
    assert states(connections) == ["reset", "reset"]
    assert counters["gateway.flows_opened"] == counters["gateway.flows_closed"] == 2


def test_clients_of_a_guest_that_leaves_are_refused_also_those_that_wait(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_half_open_per_peer=1)
    connections, _ = forwarded.crowd(100)
    forwarded.lan.tell(PortClosed(1))
    assert states(connections) == ["reset"] + ["refused"] * 99
    forwarded.lan.assign(1)
    assert states([forwarded.connects()[0]]) == ["in"]


def test_one_forward_that_is_full_does_not_concern_another(loop, counters):
    forwarded = Forwarded(
        counters, "tcp::8080:10.0.2.10:80", "tcp::8022:10.0.2.10:22", max_half_open_per_peer=2
    )
    forwarded.crowd(3)
    connections, _ = forwarded.crowd(3, index=1)
    assert states(connections) == ["in", "in", "waits"]


def test_clients_outside_use_up_nothing_of_what_the_guest_may_open(loop, counters):
    limits = {"max_half_open_per_peer": 2, "max_flows_per_peer": 3, "new_flows_per_second": 0.1}
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", "tcp::8022:10.0.2.10:22", **limits)
    for index in range(2):
        connections, syns = forwarded.crowd(2, index)
        forwarded.guest_answers(*syns)
        more, _ = forwarded.crowd(2, index)
        assert states(connections + more) == ["in"] * 4
    udp = [packet(1, "192.0.2.1") / UDP(sport=1000 + n, dport=7) for n in range(3)]
    assert forwarded.lan.sends(1, *udp) == []
    assert len(forwarded.lan.outside.udp) == 3
    (error,) = forwarded.lan.sends(1, packet(1, "192.0.2.1") / UDP(sport=2000, dport=7))
    assert error[ICMP].code == 13  # its own flows are bounded all the same


def test_what_the_guest_opens_leaves_clients_outside_their_room(loop, counters):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", max_flows_per_peer=1)
    forwarded.lan.sends(1, packet(1, "192.0.2.1") / UDP(sport=1000, dport=7))
    assert states(forwarded.crowd(3)[0]) == ["in"] * 3


def test_a_client_whose_socket_is_lost_is_no_flow(loop, counters, monkeypatch):
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80")

    def failing(self, flow, preface):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(FakeConnection, "attach", failing)
    connection, frames = forwarded.connects()
    assert (connection.refused, frames) == (True, [])
    assert counters["forward.drop.lost"] == 1
    assert counters["gateway.flows_opened"] == 0


@pytest.mark.parametrize("seed", range(20))
def test_nobody_waits_while_there_is_room(loop, counters, seed):
    chance = random.Random(seed)
    limits = {"max_half_open_per_peer": 3, "max_connections_per_forward": 5}
    forwarded = Forwarded(counters, "tcp::8080:10.0.2.10:80", "tcp::8022:10.0.2.10:22", **limits)
    syns = []
    for _ in range(60):
        step = chance.randrange(6)
        if step <= 1:
            syns += forwarded.crowd(chance.randrange(1, 2 * TAKEN_AT_ONCE), chance.randrange(2))[1]
        elif step == 2 and syns:
            syns += forwarded.guest_answers(syns.pop(chance.randrange(len(syns))))
        elif step == 3 and syns:
            syns += forwarded.guest_answers(syns.pop(chance.randrange(len(syns))), flags="RA")
        elif step == 4:
            loop.advance(chance.choice((0.1, CONNECT_TIMEOUT + 1)))
            syns += forwarded.lan.received()
        elif step == 5 and not chance.randrange(4):
            forwarded.lan.tell(PortClosed(1))
            assert [listener.waiting for listener in forwarded.listeners.opened] == [[], []]
            forwarded.lan.assign(1)
            syns = []
        syns = [frame for frame in syns if frame[TCP].flags == "S"]
        for served in forwarded.connections():
            full = len(served.half_open) == 3 or len(served.open) == 5
            assert served.half_open <= served.open.keys()
            assert served.shares.total == len(served.open)
            assert full or not served.clients.waiting
            assert served.clients.is_watched or (full and served.is_full)
