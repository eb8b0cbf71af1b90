from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from lan_parts import ip

from actors.flows.batch import Batch, Dropped
from actors.flows.flow_table import FORWARDED, FlowTable
from actors.flows.udp_flow import UdpFlowActor
from actors.handler_errors import LOG_WINDOW
from actors.messages import ConnectionForbidden, FlowKey
from actors.port_policy import usual_policy
from actors.runtime import Observe
from actors.settings import LanSettings
from actors.token_bucket import TokenBucket
from netstack.checksum import PROTOCOL_UDP
from netstack.counters import Counters
from netstack.icmp import IcmpError
from netstack.shares import Shares
from netstack.tcp_segment import PROTOCOL_TCP
from netstack.tcp_time_wait import TimeWait

ADDRESS, ADDRESS6 = ip("10.0.2.15"), bytes(15) + b"\1"
REMOTE = (ip("192.0.2.1"), 53)


class Flow:
    """An actor that keeps what it is told."""

    stopped = False

    def __init__(self):
        self.told = []

    def tell(self, message):
        self.told.append(message)

    def stop(self, *, block):
        assert not block
        self.stopped = True


class Forward:
    """Has opened flows, and hears of their ends."""

    def __init__(self):
        self.answers = []
        self.ends = []

    def answered(self, key):
        self.answers.append(key)

    def ended(self, key):
        self.ends.append(key)


@pytest.fixture
def table():
    settings = LanSettings(max_flows_per_peer=3, new_flows_per_second=1)
    outside = SimpleNamespace(udp_ports=8, allows_udp=lambda _: True)
    context: Any = SimpleNamespace(settings=settings, outside=outside, counters=Counters())
    return FlowTable(context, Shares(8, 50), Shares(8, 50))


def batch(table, number=7):
    return Batch(table.port(number, 0.0), 0.0)


def key_of(number, protocol=PROTOCOL_TCP, port=7, address=ADDRESS):
    return FlowKey(port, protocol, address, number)


def refusal(start):
    with pytest.raises(Dropped) as dropped:
        start()
    assert dropped.value.report == IcmpError.PROHIBITED
    return dropped.value.counter.removeprefix("gateway.drop.")


def test_a_session_has_so_many_flows_and_no_more(table):
    ours = batch(table)
    for number in range(3):
        table.start(key_of(number), Flow, ours)
    assert refusal(lambda: table.start(key_of(3), Flow, ours)) == "flow_limit"


def test_a_tcp_flow_takes_the_place_of_one_that_nobody_answers(table):
    ours = batch(table)
    keys = [key_of(number, PROTOCOL_UDP) for number in range(3)]
    for key in keys:
        table.start(key, Flow, ours)
        ours.port.unanswered[key] = 0.0
    ours.now = 1.0
    evicted = ours.port.flows[keys[0]]
    table.start(key_of(9), Flow, ours)
    assert (evicted.stopped, list(ours.port.flows)) == (True, [*keys[1:], key_of(9)])
    assert table.total.held_by(7) == 3


def test_of_the_flows_of_all_lans_a_session_has_its_share(table):
    for _ in range(4):
        table.total.add(8)
    table.total.add(9)
    assert refusal(lambda: table.start(key_of(1, port=8), Flow, batch(table, 8))) == "flow_share"
    table.start(key_of(1), Flow, batch(table))
    assert list(table.ports[7].flows) == [key_of(1)]


def test_without_a_socket_there_is_no_flow(table):
    def fail():
        raise OSError(24, "Too many open files")

    assert refusal(lambda: table.start(key_of(1), fail, batch(table))) == "no_socket"
    assert (table.total.total, table.ports[7].flows) == (0, {})


def test_that_the_host_has_no_socket_is_said_once_in_a_while(table, lines):
    def fail():
        raise OSError(24, "Too many open files")

    for now in (0.0, LOG_WINDOW - 1, LOG_WINDOW):
        table.port(7, 0.0).new_flows = TokenBucket(1, 1, now)
        later = Batch(table.port(7, 0.0), now)
        assert refusal(partial(table.start, key_of(1), fail, later)) == "no_socket"
    assert lines == ["WARNING no socket for a new flow: [Errno 24] Too many open files"] * 2


def test_all_that_a_port_had_is_given_back(table):
    ours, forward = batch(table), Forward()
    table.start(key_of(0, PROTOCOL_UDP), Flow, ours)
    table.start(key_of(1), Flow, ours)
    table.start_forwarded(key_of(2), Flow, forward)
    assert (table.total.held_by(7), table.total.held_by(FORWARDED)) == (2, 1)
    flows = list(ours.port.flows.values())
    assert table.close(7) is ours.port
    assert all(flow.stopped for flow in flows)
    assert (table.total.total, table.ports, forward.ends) == (0, {}, [key_of(2)])


def test_a_flow_ends_once(table):
    ours, forward, key = batch(table), Forward(), key_of(1)
    table.start_forwarded(key, Flow, forward)
    flow = ours.port.flows[key]
    for _ in range(2):
        table.end(key)
        assert (flow.stopped, forward.ends, table.total.total) == (True, [key], 0)


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6], ids=["IPv4", "IPv6"])
def test_flows_of_an_address_end_with_it_and_no_others(table, address):
    ours = batch(table)
    other = bytes(len(address))
    kept = FlowKey(7, PROTOCOL_TCP, other, 1, address, 2)
    for key in (key_of(1, PROTOCOL_UDP, address=address), kept):
        table.start(key, Flow, ours)
    table.end_those_of(address, 7)
    assert list(ours.port.flows) == [kept]


def test_a_mapping_is_one_for_port_and_number(table, monkeypatch):
    monkeypatch.setattr(UdpFlowActor, "start", lambda *_: Flow())
    ours = batch(table)
    for frame in (b"one", b"two"):
        table.pass_on(UdpFlowActor, key_of(53, PROTOCOL_UDP), REMOTE, frame, ours)
    table.pass_on(UdpFlowActor, key_of(54, PROTOCOL_UDP), REMOTE, b"three", ours)
    assert list(ours.to_flows.values()) == [[b"one", b"two"], [b"three"]]
    assert len(ours.port.flows) == 2


def test_flows_that_begin_while_somebody_looks_on_are_told_as_those_that_were_there(table):
    flows = [Flow() for _ in range(3)]
    looks_on, looks_away = Observe(print), Observe(None)
    ours = batch(table)
    table.start(key_of(0), lambda: flows[0], ours)
    table.observe(looks_on)
    table.start(key_of(1), lambda: flows[1], ours)
    table.observe(looks_away)
    table.start(key_of(2), lambda: flows[2], ours)
    assert [flow.told for flow in flows] == [[looks_on, looks_away]] * 2 + [[]]


def test_other_settings_are_for_ports_that_have_none_of_their_own(table):
    usual = usual_policy(table._context.settings)
    table.limit(8, replace(usual, max_flows=1, own=frozenset({"max_flows"})), 0.0)
    table.limit(9, replace(usual, max_half_open=1, own=frozenset({"max_half_open"})), 0.0)
    ports = [batch(table, 8), batch(table, 9), batch(table)]
    table.follow(replace(table._context.settings, max_flows_per_peer=2), 0.0)
    assert table.ports[9].policy.max_half_open == 1
    for limited, most in zip(ports, (1, 2, 2), strict=True):
        port = limited.port.number
        for number in range(most):
            table.start(key_of(number, port=port), Flow, limited)
        assert refusal(lambda: table.start(key_of(9, port=port), Flow, limited)) == "flow_limit"  # noqa: B023


def test_another_policy_ends_the_connections_that_it_forbids_and_no_others(table):
    """Of datagrams the socket asks for each; what clients outside opened is no way out, nor are services."""
    table.total.limit = 100
    settings = replace(table._context.settings, max_flows_per_peer=9)
    table.limit(7, usual_policy(settings), 0.0)
    allowed, denied, service = ip("192.0.2.1"), ip("192.0.2.2"), settings.gateway_ip
    table._context.outside.allows_tcp = lambda address: address == ("192.0.2.1", 80)
    ours, forward = batch(table), Forward()
    ours.port.new_flows = TokenBucket(9, 9, 0.0)
    ends = {
        "stays": FlowKey(7, PROTOCOL_TCP, ADDRESS, 1, allowed, 80),
        "other port": FlowKey(7, PROTOCOL_TCP, ADDRESS, 1, allowed, 81),
        "other host": FlowKey(7, PROTOCOL_TCP, ADDRESS, 1, denied, 80),
        "IPv6": FlowKey(7, PROTOCOL_TCP, ADDRESS6, 1, bytes(15) + b"\2", 80),
        "service": FlowKey(7, PROTOCOL_TCP, ADDRESS, 1, service, 53),
        "service on the link": FlowKey(7, PROTOCOL_TCP, ADDRESS6, 1, settings.gateway_link_local, 53),
        "datagrams": FlowKey(7, PROTOCOL_UDP, ADDRESS, 1),
    }
    for key in ends.values():
        table.start(key, Flow, ours)
    ends["forwarded"] = FlowKey(7, PROTOCOL_TCP, ADDRESS, 80, denied, 9)
    table.start_forwarded(ends["forwarded"], Flow, forward)
    table.follow(settings, 0.0)
    ended = [name for name, key in ends.items() if ConnectionForbidden() in ours.port.flows[key].told]
    assert ended == ["other port", "other host", "IPv6"]
    assert table._context.counters["tcp.forbidden"] == 3


def test_time_wait_is_kept_of_connections_that_are_there_only(table):
    """What a flow says of itself may come after its end, or its port's."""
    ours = batch(table)
    table.start(key_of(1), Flow, ours)
    for key in (key_of(1), key_of(2), key_of(1, port=9)):
        table.rests(key, TimeWait(0, 0, b""), 0.0)
    assert (len(ours.port.time_waits), table._context.counters["tcp.time_waits"]) == (1, 1)


def test_a_forward_hears_once_both_sides_have_taken_its_connection(table):
    forward, ours = Forward(), batch(table)
    table.start_forwarded(key_of(1), Flow, forward)
    table.start(key_of(2), Flow, ours)
    table.established(key_of(2))
    assert forward.answers == []
    table.established(key_of(1))
    assert forward.answers == [key_of(1)]
