from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lan_parts import ip, mac

from actors.flows.batch import Batch, Dropped, PortState
from actors.flows.buffer_budget import BufferBudget
from actors.flows.flow import Guest
from actors.flows.flow_table import FORWARDED, FlowTable, is_key_of
from actors.flows.udp_flow import UdpFlowActor
from actors.settings import LanSettings
from netstack.checksum import PROTOCOL_UDP
from netstack.counters import Counters
from netstack.icmp import IcmpError
from netstack.shares import Shares

KEY = (7).to_bytes(8, "big")
ADDRESS, ADDRESS6 = ip("10.0.2.15"), bytes(15) + b"\1"


class Flow:
    """An actor that is only ever stopped."""

    stopped = False

    def stop(self, *, block):
        assert not block
        self.stopped = True


@pytest.fixture
def table():
    settings = LanSettings(max_flows_per_peer=3, new_flows_per_second=1)
    outside = SimpleNamespace(udp_ports=8)
    context: Any = SimpleNamespace(settings=settings, outside=outside, counters=Counters())
    return FlowTable(context, Shares(8, 50), Shares(8, 50))


def batch(number=7, settings=LanSettings(max_flows_per_peer=3, new_flows_per_second=1)):  # noqa: B008
    return Batch(number, PortState(settings, BufferBudget(0), 0.0), 0.0)


def refusal(start):
    with pytest.raises(Dropped) as dropped:
        start()
    assert dropped.value.report == IcmpError.PROHIBITED
    return dropped.value.counter.removeprefix("gateway.drop.")


def test_a_session_has_so_many_flows_and_no_more(table):
    ours = batch()
    for number in range(3):
        ours.port.flows[bytes((number,))] = table.start(Flow, ours)
    assert refusal(lambda: table.start(Flow, ours)) == "flow_limit"


def test_a_tcp_flow_takes_the_place_of_one_that_nobody_answers(table):
    ours = batch()
    keys = [KEY + bytes((PROTOCOL_UDP, number)) for number in range(3)]
    for key in keys:
        ours.port.flows[key] = table.start(Flow, ours, is_udp=True)
        ours.port.unanswered[key] = 0.0
    ours.now = 1.0
    evicted = ours.port.flows[keys[0]]
    assert isinstance(table.start(Flow, ours), Flow)
    assert (evicted.stopped, list(ours.port.flows)) == (True, keys[1:])
    assert table.total.held_by(7) == 3


def test_of_the_flows_of_all_lans_a_session_has_its_share(table):
    other = batch(8)
    for _ in range(4):
        table.total.add(8)
    table.total.add(9)
    assert refusal(lambda: table.start(Flow, other)) == "flow_share"
    assert isinstance(table.start(Flow, batch()), Flow)


def test_without_a_socket_there_is_no_flow(table):
    def fail():
        raise OSError(24, "Too many open files")

    assert refusal(lambda: table.start(fail, batch())) == "no_socket"
    assert table.total.total == 0


def test_all_that_a_port_had_is_given_back(table):
    ours = batch()
    port = ours.port
    for number, protocol in enumerate((PROTOCOL_UDP, 6)):
        key = KEY + bytes((protocol, number))
        port.flows[key] = table.start(Flow, ours)
    table.total.add(FORWARDED)
    port.forwarded[b"key"] = object()
    flows = list(port.flows.values())
    table.end_all(7, port)
    assert all(flow.stopped for flow in flows)
    assert table.total.total == 0


def test_a_flow_ends_once(table):
    ours = batch()
    key = KEY + bytes((PROTOCOL_UDP, 1))
    flow = ours.port.flows[key] = table.start(Flow, ours)
    owner = ours.port.forwarded[key] = object()
    table.total.add(FORWARDED)
    assert table.end(ours.port, key) is owner
    assert flow.stopped
    assert table.end(ours.port, key) is None


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6], ids=["IPv4", "IPv6"])
def test_flows_of_an_address_are_known_by_their_keys(address):
    guest = KEY + bytes((PROTOCOL_UDP,)) + address + bytes(2)
    assert is_key_of(guest, address)
    assert is_key_of(guest + bytes(len(address) + 2), address)
    assert not is_key_of(guest, bytes(len(address)))
    assert not is_key_of(guest + b"\0", address)


def test_a_mapping_is_one_for_port_and_number(table, monkeypatch):
    monkeypatch.setattr(table, "_check_destination", lambda *_: None)
    monkeypatch.setattr(UdpFlowActor, "start", lambda *_: Flow())
    ours = batch()
    for frame in (b"one", b"two"):
        table.pass_on(UdpFlowActor, PROTOCOL_UDP, Guest(mac(1), ADDRESS, 53), frame, ours)
    table.pass_on(UdpFlowActor, PROTOCOL_UDP, Guest(mac(1), ADDRESS, 54), b"three", ours)
    assert list(ours.to_flows.values()) == [[b"one", b"two"], [b"three"]]
    assert len(ours.port.flows) == 2
