"""How many flows a guest may have, what gives way, and what its end takes along."""

from __future__ import annotations

import pykka
import pytest
from flow_parts import SERVER, lan_of_both, lan_of_three, ping, udp, udp6
from gateway_parts import Lan
from lan_parts import mac
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from test_ipv6_router import packet as packet6

from actors.flows.icmp_flow import IcmpFlowActor
from actors.flows.udp_flow import UdpFlowActor
from actors.messages import PortClosed
from actors.runtime import run_ready


@pytest.fixture
def lan(loop, counters):
    return lan_of_three(counters)


@pytest.fixture
def both(loop, counters):
    return lan_of_both(counters)


def test_a_burst_of_flows_up_to_the_limit_works_and_one_more_is_refused(loop, lan):
    assert lan.sends(1, *[udp(1, 1000 + n) for n in range(512)]) == []
    for socket in lan.outside.udp:
        socket.reply(b"answer", SERVER)
    lan.received()
    loop.advance(60)
    (error,) = lan.sends(1, udp(1, 9999))
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)
    assert lan.drops() == {"flow_limit": 1}
    assert lan.sends(1, udp(1, 1000)) == []  # the others go on
    assert lan.sends(2, udp(2)) == []
    loop.advance(300)
    assert lan.sends(1, udp(1, 9999)) == []


UNANSWERED = {
    "DNS": lambda n: udp(1, 1000 + n, dport=53),
    "UDP": lambda n: udp(1, 1000 + n),
    "ping": lambda n: ping(1, 1000 + n),
    "DNS by IPv6": lambda n: udp6(1, 1000 + n, dport=53),
    "UDP by IPv6": lambda n: udp6(1, 1000 + n),
    "ping by IPv6": lambda n: packet6(1, "2606:4700::1111") / ICMPv6EchoRequest(id=1000 + n),
}


@pytest.mark.parametrize("kind", UNANSWERED)
def test_hosts_that_do_not_answer_do_not_keep_a_guest_from_others(loop, both, kind):
    """Twenty new flows per second, and one more to somebody else each second."""
    lan, number = both, 0
    for second in range(30):
        for _ in range(20):
            assert lan.sends(1, UNANSWERED[kind](number)) == []
            number += 1
            loop.advance(0.05)
        assert lan.sends(1, udp(1, 10_000 + second, dst="192.0.2.9")) == []
        lan.outside.udp[-1].reply(b"answer", ("192.0.2.9", 7000))
        assert [frame[UDP].dport for frame in lan.received() if UDP in frame] == [10_000 + second]
    assert lan.drops() == {}
    opened, gave_way = lan.counters["gateway.flows_opened"], lan.counters["gateway.flows_gave_way"]
    sockets = lan.outside.open_sockets()
    assert (opened, len(sockets)) == (30 * 21, opened - lan.counters["gateway.flows_closed"])
    assert len(sockets) <= 512
    assert gave_way > 0


def test_of_flows_that_nobody_answers_the_one_used_longest_ago_gives_way(loop, counters):
    lan = Lan(counters, max_flows_per_peer=3)
    lan.assign(1)
    for sport in (1000, 1001, 1002):
        lan.sends(1, udp(1, sport))
    lan.sends(1, udp(1, 1000))
    lan.outside.udp[1].reply(b"answer", SERVER)
    for sport, (one, other) in ((2000, (2, 0)), (2001, (0, 3))):
        assert [lan.outside.udp[n].open for n in (one, other)] == [True, True]
        loop.advance(1)
        lan.sends(1, udp(1, sport))
        assert [lan.outside.udp[n].open for n in (one, other)] == [False, True]
    assert lan.outside.udp[1].open
    lan.outside.udp[3].reply(b"answer", SERVER)
    lan.outside.udp[4].reply(b"answer", SERVER)
    lan.received()
    loop.advance(1)
    (error,) = lan.sends(1, udp(1, 2002))
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)
    assert counters["gateway.flows_gave_way"] == 2


def test_a_flow_that_may_be_answered_yet_does_not_give_way(counters, loop):
    lan = Lan(counters, max_flows_per_peer=3, new_flows_per_second=1000)
    lan.assign(1)
    lan.sends(1, *[udp(1, 1000 + n) for n in range(3)])
    loop.advance(0.75)
    lan.sends(1, udp(1, 1000))
    loop.advance(0.125)
    assert len(lan.sends(1, udp(1, 2000))) == 1
    assert lan.drops() == {"flow_limit": 1}
    loop.advance(0.125)
    assert lan.sends(1, udp(1, 2000), udp(1, 2001)) == []
    assert len(lan.sends(1, udp(1, 2002))) == 1
    assert [socket.open for socket in lan.outside.udp] == [True, False, False, True, True]


def test_a_session_over_its_share_gives_up_what_nobody_answers(loop, counters):
    lan = Lan(counters, max_flows=10)
    lan.assign(1)
    for n in range(8):
        loop.advance(1)
        assert lan.sends(1, udp(1, 1000 + n), ping(1, n)) == []
    assert counters["gateway.flows_gave_way"] == 16 - len(lan.outside.open_sockets()) == 11
    assert lan.drops() == {}


def test_a_flow_over_the_share_of_ports_needs_the_port_of_another(loop, counters):
    lan = Lan(counters)
    lan.assign(1)
    lan.outside.udp_ports = 4
    lan.sends(1, ping(1))
    for n in range(5):
        loop.advance(1)
        assert lan.sends(1, udp(1, 1000 + n)) == []
    assert [socket.open for socket in lan.outside.udp] == [False] * 3 + [True] * 2
    assert lan.outside.echo[0].open


def test_what_is_over_the_rate_costs_no_other_flow(loop, counters):
    lan = Lan(counters, max_flows_per_peer=3, new_flows_per_second=0.5)
    lan.assign(1)
    lan.sends(1, *[udp(1, 1000 + n) for n in range(3)])
    loop.advance(1.5)
    lan.sends(1, *[udp(1, 2000 + n) for n in range(3)])
    assert lan.drops() == {"flow_rate": 3}
    assert counters["gateway.flows_gave_way"] == 0


def test_a_session_leaves_flows_for_others(loop, counters):
    lan = Lan(counters, max_flows=10)
    lan.assign(1)
    lan.assign(2)
    errors = lan.sends(1, *[udp(1, 1000 + n) for n in range(5)], *[ping(1, n) for n in range(5)])
    assert [(e[ICMP].type, e[ICMP].code) for e in errors] == [(3, 13)] * 5
    assert lan.drops() == {"flow_share": 5}
    assert lan.sends(2, udp(2), ping(2)) == []
    loop.advance(300)  # all have ended
    assert lan.sends(1, *[udp(1, 2000 + n) for n in range(5)]) == []
    lan.tell(PortClosed(1))
    assert lan.sends(2, *[udp(2, 2000 + n) for n in range(5)]) == []


@pytest.mark.parametrize(("one", "other"), [(udp, udp6), (udp6, udp)])
def test_a_session_leaves_ports_of_the_host_for_others(loop, both, one, other):
    lan = both
    lan.outside.udp_ports = 8
    lan.assign(2)
    assert len(lan.sends(1, *[one(1, 1000 + n) for n in range(4)], *[other(1, n) for n in range(4)])) == 4
    assert lan.drops() == {"port_share": 4}
    assert lan.sends(2, other(2)) == []
    loop.advance(300)
    lan.sends(1, *[other(1, 2000 + n) for n in range(4)])
    assert lan.drops() == {"port_share": 4}


@pytest.mark.parametrize(
    ("frame", "denied"),
    [(udp(1), "192.0.2.1"), (ping(1), "192.0.2.1"), (udp6(1), "2606:4700::1111")],
    ids=["udp", "ping", "udp6"],
)
def test_no_socket_is_opened_for_a_denied_destination(both, frame, denied):
    both.outside.denied = {denied}
    (error,) = both.sends(1, frame)
    assert ICMP not in error or (error[ICMP].type, error[ICMP].code) == (3, 13)
    assert both.outside.udp + both.outside.echo == []
    assert both.drops() == {"denied": 1}


def test_new_flows_are_limited_in_rate(loop, counters):
    lan = Lan(counters, max_flows_per_peer=10, new_flows_per_second=5, udp_idle_timeout=0.1)
    lan.assign(1)
    lan.sends(1, *[udp(1, 1000 + n) for n in range(10)])
    loop.advance(0.2)
    assert lan.outside.open_sockets() == []
    assert len(lan.sends(1, *[udp(1, 2000 + n) for n in range(5)])) == 4
    assert lan.drops() == {"flow_rate": 4}


def test_a_host_without_sockets_is_said_to_be(lan):
    lan.outside.error = OSError(24, "Too many open files")
    (error,) = lan.sends(1, udp(1))
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)
    lan.outside.error = None
    assert lan.sends(1, udp(1)) == []
    assert len(lan.outside.udp) == 1
    assert lan.drops() == {"no_socket": 1}


def test_a_guest_that_leaves_takes_its_flows_along(loop, lan):
    lan.sends(1, udp(1), udp(1, 4001), ping(1))
    lan.sends(2, udp(2))
    lan.tell(PortClosed(1))
    assert lan.outside.open_sockets() == [lan.outside.udp[2]]
    assert len(pykka.ActorRegistry.get_by_class(UdpFlowActor)) == 1
    assert pykka.ActorRegistry.get_by_class(IcmpFlowActor) == []
    gateway = lan.ref._actor_weakref()
    assert set(gateway._flows.ports) == {2, 3}
    assert mac(1) not in gateway._guests.port_of


def test_a_flow_that_fails_is_replaced_and_its_neighbours_go_on(loop, lan, caplog):
    lan.sends(1, udp(1), udp(1, 4001))
    first, second = lan.outside.udp
    first.send_to = None
    lan.sends(1, udp(1), udp(1, 4001))
    assert not first.open
    assert len(second.sent) == 2
    assert lan.counters["actors.failed"] == 1
    lan.sends(1, udp(1))
    assert len(lan.outside.udp) == 3
    assert lan.outside.udp[2].sent == [(b"question", SERVER)]


def test_a_gateway_that_stops_closes_every_socket(loop, lan):
    lan.sends(1, udp(1), ping(1))
    lan.ref.stop(block=False)
    run_ready()
    assert lan.outside.open_sockets() == []
