from __future__ import annotations

from dataclasses import replace

from actors.flows.batch import ERRORS_PER_SECOND, Dropped, PortState
from actors.settings import LanSettings
from netstack.buffer_budget import TOTAL, BufferBudget
from netstack.icmp import IcmpError


def test_a_port_starts_with_nothing_and_full_buckets():
    port = PortState(7, LanSettings(max_flows_per_peer=3), BufferBudget(TOTAL), 0)
    assert (port.macs, port.flows) == (set(), {})
    assert [port.new_flows.take(0) for _ in range(4)] == [True] * 3 + [False]
    assert sum(port.errors.take(0) for _ in range(1000)) == ERRORS_PER_SECOND


def test_a_drop_names_its_counter():
    dropped = Dropped("flow_limit", IcmpError.PROHIBITED)
    assert dropped.counter == "gateway.drop.flow_limit"
    assert dropped.report is IcmpError.PROHIBITED


def test_another_policy_is_for_new_flows_at_once_and_the_same_one_changes_nothing():
    port = PortState(7, LanSettings(max_flows_per_peer=3), BufferBudget(TOTAL), 0)
    while port.new_flows.take(0):
        pass
    port.change_policy(replace(port.policy), 0)
    assert not port.new_flows.take(0)
    port.change_policy(replace(port.policy, max_flows=5, new_flows_per_second=2), 0)
    assert [port.new_flows.take(0) for _ in range(6)] == [True] * 5 + [False]
    assert [port.new_flows.take(1) for _ in range(3)] == [True] * 2 + [False]
