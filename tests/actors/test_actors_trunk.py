"""Other workers as ports of a switch: their guests' MACs, and how these sessions count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from lan_parts import Box, mac
from test_elsewhere import Link
from test_switch_multicast import data, membership

from actors.lan.forwarding import FIRST_TRUNK, GATEWAY, Forwarding, Port
from actors.lan.trunk import Elsewhere
from actors.messages import FramesToPeer, PortOpened, RegisterMac
from actors.port_policy import Role, usual_policy
from actors.settings import LanSettings
from netstack.multicast import MEMBERSHIP_TIME
from netstack.resume import secret_of
from netstack.room_wire import Binding, Flag
from netstack.shares import Shares


@pytest.fixture
def absent():
    return Shares(4, 50)


@pytest.fixture
def parts(counters, absent):
    settings = LanSettings(isolated=True)
    link, forwarding, shares = Link(), Forwarding(counters, settings), Shares(10, 50)
    policy = usual_policy(settings)
    return link, forwarding, shares, Elsewhere(cast("Any", link), forwarding, policy, shares, absent)


def test_a_worker_is_a_port_that_sends_into_the_trunk(parts):
    link, forwarding, _, elsewhere = parts
    assert elsewhere.set_workers({3: 1}, 0.0)
    assert not elsewhere.set_workers({3: 2}, 0.0)
    port = forwarding.ports[FIRST_TRUNK - 3]
    assert not port.isolated
    port.peer.tell(FramesToPeer([b"frame"]))
    assert link.sent == [(3, [b"frame"])]


def test_sessions_elsewhere_count_by_client_once_each(parts):
    _, _, shares, elsewhere = parts
    for n, port in ((1, 5), (2, 5), (3, 6)):
        elsewhere.bind(1, Binding(mac(n), port=port, client="192.0.2.9"), 0.0)
    assert (shares.total, shares.held_by("192.0.2.9")) == (2, 2)
    elsewhere.unbind(mac(1))
    assert shares.total == 2
    elsewhere.unbind(mac(2))
    elsewhere.taken(mac(3))
    assert shares.total == 0


def test_sessions_elsewhere_whose_clients_are_away_count_among_those(parts, absent):
    _, _, present, elsewhere = parts

    def bind(n, *flags):
        elsewhere.bind(1, Binding(mac(n), port=5, client="192.0.2.9", flags=sum(flags)), 0.0)
        return present.held_by("192.0.2.9"), absent.held_by("192.0.2.9")

    assert bind(1) == bind(2) == (1, 0)
    away = Flag.AWAY
    assert bind(1, away) == bind(2, away) == bind(2, away) == (0, 1)
    assert bind(2) == (1, 0), "it is back, with one of its MACs first"
    assert bind(1, away) == bind(2, away) == (0, 1)
    elsewhere.taken(mac(1))
    elsewhere.unbind(mac(2))
    assert (present.total, absent.total) == (0, 0)


def test_a_mac_goes_with_who_announced_it_last(parts):
    _, forwarding, shares, elsewhere = parts
    elsewhere.bind(1, Binding(mac(1), port=5), 0.0)
    elsewhere.bind(2, Binding(mac(1), port=6), 0.0)
    assert forwarding.table.lookup(mac(1), 0.0) == FIRST_TRUNK - 2
    assert shares.total == 1
    elsewhere.unbind(mac(1))
    assert forwarding.table.lookup(mac(1), 0.0) is None


def test_a_worker_whose_guests_come_before_its_ports_is_one_port_all_the_same(parts):
    _, forwarding, _, elsewhere = parts
    trunk = FIRST_TRUNK - 1
    elsewhere.bind(1, Binding(mac(1), port=5), 0.0)
    elsewhere.bind(1, Binding(mac(2), port=5), 0.0)
    assert elsewhere.set_workers({1: 1}, 0.0), "our guests have yet to say there what groups they want"
    assert not elsewhere.set_workers({1: 2}, 0.0)
    assert (list(forwarding.ports), forwarding.trunks) == ([GATEWAY, trunk], [trunk])


@pytest.mark.parametrize("version", [4, 6])
def test_of_a_worker_without_ports_nothing_is_left(parts, version):
    _, forwarding, _, elsewhere = parts
    elsewhere.set_workers({1: 1}, 0.0)
    forwarding.groups.hear(membership(1, version), FIRST_TRUNK - 1, 0.0)
    assert forwarding.groups.members(data(3, version), 0.0) == [FIRST_TRUNK - 1]
    elsewhere.set_workers({}, 0.0)
    assert (list(forwarding.ports), forwarding.trunks, len(forwarding.groups)) == ([GATEWAY], [], 0)


@pytest.mark.parametrize("version", [4, 6])
def test_of_two_guests_of_a_worker_one_may_leave_a_group_that_the_other_stays_in(counters, version):
    """It is asked by nobody, for the other is behind a port of its own there."""
    forwarding, trunk = Forwarding(counters, LanSettings()), FIRST_TRUNK - 1
    for number, role in ((2, Role.GUEST), (trunk, Role.TRUNK)):
        opened = PortOpened(number, Box(), float)
        forwarding.ports[number] = Port(opened, "", replace(USUAL, role=role), 0.0)
    forwarding.trunks.append(trunk)
    forwarding.from_peer(2, [membership(2, version)], 0.0)
    forwarding.from_trunk(trunk, [membership(n, version) for n in (8, 9)], 0.0)
    forwarding.from_trunk(trunk, [membership(8, version, leave=True)], 1.0)
    assert forwarding.groups.members(data(1, version), MEMBERSHIP_TIME - 1) == [2, trunk]
    assert not forwarding.groups.members(data(1, version), MEMBERSHIP_TIME)


GUEST, KEY = mac(1), b"key"
USUAL = usual_policy(LanSettings())
NAMES_IT = {"policy": replace(USUAL, macs=frozenset({GUEST}))}
THE_SAME = {"client": lambda: "192.0.2.1"}


@pytest.mark.parametrize(
    ("known", "port", "said", "may"),
    [
        ({}, THE_SAME, {}, False),
        ({"client": "192.0.2.1"}, THE_SAME, {}, True),
        ({"client": "192.0.2.1"}, THE_SAME, {"explicit": False}, False),
        ({}, {}, {}, False),  # neither side knows of a client: that is nobody they share
        ({"flags": Flag.SILENT}, {}, {"explicit": False}, True),
        ({"flags": Flag.ISOLATED}, {}, {}, False),
        ({}, NAMES_IT, {}, True),
        ({}, NAMES_IT, {"explicit": False}, False),
        ({"flags": Flag.NAMED_BY_TOKEN}, NAMES_IT, {}, False),
        ({"flags": Flag.NAMED_BY_TOKEN, "client": "192.0.2.1"}, NAMES_IT | THE_SAME, {}, True),
        ({"flags": Flag.NAMED_BY_TOKEN, "client": "192.0.2.1"}, THE_SAME, {}, False),
        ({}, {}, {"resume": secret_of(KEY, GUEST, 5)}, True),
        ({}, {}, {"resume": secret_of(KEY, GUEST, 6)}, False),
        ({}, {}, {"resume": secret_of(b"another", GUEST, 5)}, False),
    ],
)
def test_who_may_have_the_mac_of_a_guest_elsewhere(parts, known, port, said, may):
    link, _, _, elsewhere = parts
    opened = PortOpened(7, Box(), float, **port)
    message = RegisterMac(7, GUEST, **{"explicit": True} | said)
    assert elsewhere.may_be_taken(message, Port(opened, "", USUAL, 0.0)), "nobody has it elsewhere"
    link.known[GUEST] = (1, Binding(GUEST, port=5, **known))
    assert elsewhere.may_be_taken(message, Port(opened, "", USUAL, 0.0)) == may
    link.known[GUEST] = (2, Binding(GUEST, port=5, **known))  # whose key is not known
    assert elsewhere.may_be_taken(message, Port(opened, "", USUAL, 0.0)) == (may and not said.get("resume"))
