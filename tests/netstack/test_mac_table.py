from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from netstack.ethernet import BROADCAST, ZERO_MAC
from netstack.mac_table import AGEING_TIME, MAX_MACS_PER_PORT, MacTable, Registration, Verdict

GATEWAY = bytes.fromhex("525400123456")


def mac(number):
    return b"\x52\x54" + number.to_bytes(4, "big")


def test_a_source_address_is_learned_then_known():
    table = MacTable()
    assert table.lookup(mac(1), 0) is None
    assert table.learn(mac(1), 5, 0) is Verdict.LEARNED
    assert table.learn(mac(1), 5, 1) is Verdict.KNOWN
    assert table.lookup(mac(1), 1) == 5


def test_a_learned_mac_ages_unless_frames_keep_coming():
    table = MacTable()
    table.learn(mac(1), 5, 0)
    table.learn(mac(1), 5, 200)
    assert table.lookup(mac(1), 200 + AGEING_TIME - 0.1) == 5
    assert table.lookup(mac(1), 200 + AGEING_TIME) is None
    assert table.expire(200 + AGEING_TIME) == 1
    assert len(table) == 0
    assert table.macs_of(5) == frozenset()


def test_a_live_learned_mac_is_not_moved_by_another_ports_frames():
    table = MacTable()
    table.learn(mac(1), 5, 0)
    assert table.learn(mac(1), 6, 10) is Verdict.OWNED_ELSEWHERE
    assert table.lookup(mac(1), 10) == 5
    assert table.learn(mac(1), 6, AGEING_TIME) is Verdict.LEARNED
    assert table.lookup(mac(1), AGEING_TIME) == 6


@pytest.mark.parametrize("virtual", ["00005e000107", "00005e000207"])
def test_the_mac_of_a_virtual_router_moves_with_its_frames(virtual):
    virtual = bytes.fromhex(virtual)
    table = MacTable()
    table.learn(virtual, 5, 0)
    assert table.learn(virtual, 6, 1) is Verdict.LEARNED
    assert table.lookup(virtual, 1) == 6
    assert table.learn(virtual, 5, 2) is Verdict.LEARNED
    assert virtual not in table.macs_of(6)


def test_the_mac_of_a_virtual_router_that_a_session_registered_stays_there():
    virtual = bytes.fromhex("00005e000107")
    table = MacTable()
    table.register(virtual, 5, 0, explicit=True)
    assert table.learn(virtual, 6, 1) is Verdict.OWNED_ELSEWHERE


def test_a_registration_that_does_not_bind_is_as_good_as_a_frame():
    table = MacTable()
    assert table.register(mac(1), 5, 0, explicit=True, binds=False) == Registration(Verdict.REGISTERED)
    assert table.entries(1) == [(mac(1), 5, 1)]
    assert table.register(mac(1), 6, 1, explicit=False, binds=False) == Registration(Verdict.REGISTERED)
    assert table.lookup(mac(1), 1) == 6
    # What is bound stays so, and where it is.
    table.register(mac(1), 6, 2, explicit=True)
    table.register(mac(1), 6, 3, explicit=False, binds=False)
    assert table.entries(9) == [(mac(1), 6, None)]
    assert table.register(mac(1), 5, 3, explicit=False, binds=False).verdict is Verdict.OWNED_ELSEWHERE


def test_macs_that_made_room_are_told_once():
    table = MacTable()
    for n in range(MAX_MACS_PER_PORT):
        table.learn(mac(n), 5, 0)
    assert table.learn(mac(99), 5, 1) is Verdict.PORT_FULL
    assert table.take_aged_out() == []
    assert table.learn(mac(99), 5, AGEING_TIME) is Verdict.LEARNED
    assert sorted(table.take_aged_out()) == [(5, mac(n)) for n in range(MAX_MACS_PER_PORT)]
    assert table.take_aged_out() == []


def test_a_bound_mac_never_ages_and_never_moves_by_frames():
    table = MacTable()
    assert table.register(mac(1), 5, 0, explicit=True) == Registration(Verdict.REGISTERED)
    assert table.learn(mac(1), 6, 10 * AGEING_TIME) is Verdict.OWNED_ELSEWHERE
    assert table.register(mac(1), 6, 10 * AGEING_TIME, explicit=False).verdict is Verdict.OWNED_ELSEWHERE
    assert table.lookup(mac(1), 10 * AGEING_TIME) == 5


def test_an_explicit_registration_takes_a_mac_over_and_names_whom_from():
    table = MacTable()
    table.register(mac(1), 5, 0, explicit=True)
    assert table.register(mac(1), 6, 1, explicit=True) == Registration(Verdict.REGISTERED, displaced=5)
    assert table.lookup(mac(1), 1) == 6
    assert table.macs_of(5) == frozenset()
    table.learn(mac(2), 5, 1)
    assert table.register(mac(2), 6, 2, explicit=True) == Registration(Verdict.REGISTERED)


def test_registering_again_changes_nothing():
    table = MacTable()
    table.learn(mac(1), 5, 0)
    for _ in range(3):
        assert table.register(mac(1), 5, 0, explicit=True) == Registration(Verdict.REGISTERED)
    assert len(table) == 1
    assert table.lookup(mac(1), 5 * AGEING_TIME) == 5


@pytest.mark.parametrize("address", [BROADCAST, ZERO_MAC, bytes.fromhex("01005e000001")])
def test_addresses_that_no_guest_may_have(address):
    table = MacTable()
    assert table.learn(address, 5, 0) is Verdict.INVALID
    assert table.register(address, 5, 0, explicit=True).verdict is Verdict.INVALID
    assert not Verdict.INVALID.accepted


def test_a_full_table_is_looked_through_once_a_second():
    table = MacTable(max_macs=1)
    table.learn(mac(1), 5, 0)
    for now, verdict in ((-0.5, Verdict.TABLE_FULL), (0.25, Verdict.TABLE_FULL), (0.5, Verdict.LEARNED)):
        assert table.learn(mac(2), 6, AGEING_TIME + now) is verdict


def test_a_mac_is_forgotten_behind_the_port_that_had_it_only():
    table = MacTable()
    table.learn(mac(1), 5, 0)
    table.forget(mac(1), 6)
    assert table.lookup(mac(1), 0) == 5
    table.forget(mac(1), 5)
    assert table.lookup(mac(1), 0) is None


def test_a_reserved_address_stays_with_its_port():
    table = MacTable(reserved={GATEWAY: -1}, max_macs=1)
    assert table.learn(GATEWAY, 5, 0) is Verdict.OWNED_ELSEWHERE
    assert table.register(GATEWAY, 5, 0, explicit=True) == (Verdict.INVALID, None)
    assert table.register(GATEWAY, 5, 0, explicit=False).verdict is Verdict.OWNED_ELSEWHERE
    assert table.block(frozenset({GATEWAY})) == []
    table.expire(10 * AGEING_TIME)
    assert table.lookup(GATEWAY, 10 * AGEING_TIME) == table.last_port_of(GATEWAY) == -1
    assert len(table) == 0, "it takes nobody's place"
    assert table.learn(mac(1), 5, 0) is Verdict.LEARNED
    assert table.learn(mac(2), 6, 0) is Verdict.TABLE_FULL


def test_a_port_has_a_cap_and_old_macs_make_room():
    table = MacTable()
    for number in range(MAX_MACS_PER_PORT):
        assert table.learn(mac(number), 5, 0).accepted
    assert table.learn(mac(99), 5, 1) is Verdict.PORT_FULL
    assert table.register(mac(99), 5, 1, explicit=True).verdict is Verdict.PORT_FULL
    assert table.learn(mac(99), 6, 1) is Verdict.LEARNED
    assert table.learn(mac(0), 5, 2) is Verdict.KNOWN
    assert table.learn(mac(98), 5, AGEING_TIME) is Verdict.LEARNED
    assert table.macs_of(5) == {mac(0), mac(98)}


def test_the_table_has_a_cap_and_old_macs_make_room():
    table = MacTable(max_macs=20)
    for number in range(100):
        table.learn(mac(number), number, 0)
    assert len(table) == 20
    assert table.learn(mac(50), 50, 1) is Verdict.TABLE_FULL
    assert table.register(mac(50), 50, 1, explicit=True).verdict is Verdict.TABLE_FULL
    assert table.register(mac(3), 70, 1, explicit=True).verdict is Verdict.REGISTERED
    assert table.learn(mac(50), 50, AGEING_TIME + 1) is Verdict.LEARNED
    assert len(table) == 2


def test_a_port_that_is_gone_leaves_nothing():
    table = MacTable()
    table.register(mac(1), 5, 0, explicit=True)
    table.learn(mac(2), 5, 0)
    table.learn(mac(3), 6, 0)
    assert table.forget_port(5) == {mac(1), mac(2)}
    assert table.forget_port(5) == frozenset()
    assert table.lookup(mac(1), 0) is None
    assert table.learn(mac(2), 6, 0) is Verdict.LEARNED
    assert len(table) == 2


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: caps hold, and a MAC never leaves a port without cause."""

    def __init__(self):
        super().__init__()
        self.table = MacTable(max_macs=12)
        self.now = 0.0

    macs = st.integers(0, 20).map(mac)
    ports = st.integers(0, 3)

    @rule(address=macs, port=ports)
    def learn(self, address, port):
        before = self.table.lookup(address, self.now)
        verdict = self.table.learn(address, port, self.now)
        assert verdict.accepted == (self.table.lookup(address, self.now) == port)
        if before is not None and before != port:
            assert verdict is Verdict.OWNED_ELSEWHERE

    @rule(address=macs, port=ports, explicit=st.booleans())
    def register(self, address, port, explicit):
        registration = self.table.register(address, port, self.now, explicit=explicit)
        if registration.verdict.accepted:
            assert self.table.lookup(address, self.now + 1e9) == port

    @rule(port=ports)
    def forget(self, port):
        self.table.forget_port(port)
        assert not self.table.macs_of(port)

    @rule(seconds=st.sampled_from([0.1, 1, 100, 301]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def expire(self):
        self.table.expire(self.now)

    @invariant()
    def caps_hold(self):
        assert len(self.table) <= 12
        assert len(self.table) == sum(len(self.table.macs_of(port)) for port in range(4))
        assert all(len(self.table.macs_of(port)) <= MAX_MACS_PER_PORT for port in range(4))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40)
