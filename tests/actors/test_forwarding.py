"""Who hears whom: guests, isolated ones, the gateway and other workers are ports of one table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lan_parts import GATEWAY_MAC, Box, mac
from scapy.layers.l2 import ARP, Ether
from switch_parts import BROADCAST, frame
from test_switch_multicast import data, membership

from actors.lan.forwarding import FIRST_TRUNK, GATEWAY, Forwarding, Port
from actors.messages import FramesToGateway, FramesToPeer, PortOpened
from actors.port_policy import Role, usual_policy
from actors.settings import LanSettings
from netstack.address_pool import AddressPool
from netstack.mac_table import Verdict
from netstack.neighbour import AddressBindings
from netstack.neighbour_proxy import NeighbourProxy
from netstack.source_guard import SourceGuard

USUAL = usual_policy(LanSettings())
GUEST, OTHER, ISOLATED, TRUNK, OTHER_TRUNK = 1, 2, 7, FIRST_TRUNK - 1, FIRST_TRUNK - 2
POLICIES = {
    GUEST: USUAL,
    OTHER: USUAL,
    ISOLATED: replace(USUAL, isolated=True),
    TRUNK: replace(USUAL, role=Role.TRUNK, isolated=True),
    OTHER_TRUNK: replace(USUAL, role=Role.TRUNK),
}
MACS = {GUEST: mac(1), OTHER: mac(2), ISOLATED: mac(7), TRUNK: mac(21), OTHER_TRUNK: mac(22)} | {
    GATEWAY: GATEWAY_MAC
}
HEARERS = {
    GUEST: {OTHER, GATEWAY, TRUNK, OTHER_TRUNK},
    ISOLATED: {GATEWAY},
    GATEWAY: {GUEST, OTHER, ISOLATED},
    TRUNK: {GUEST, OTHER},
}
REACHED = HEARERS | {GATEWAY: {GUEST, OTHER, ISOLATED, TRUNK, OTHER_TRUNK}}


@pytest.fixture
def lan(counters):
    """The rules of a LAN with two guests, an isolated one, a gateway and two other workers."""
    forwarding = Forwarding(counters, LanSettings())
    forwarding.gateway.peer = Box()
    for number, policy in POLICIES.items():
        opened = PortOpened(number, Box(), float, policy=policy)
        forwarding.ports[number] = Port(opened, "", USUAL, 0.0)
        forwarding.table.register(MACS[number], number, 0.0, explicit=True)
    forwarding.trunks += [TRUNK, OTHER_TRUNK]
    return forwarding


def sends(forwarding, sender, *frames):
    """Send frames from a port; tell what each port got."""
    if sender == GATEWAY:
        forwarding.from_gateway(list(frames))
    elif sender <= FIRST_TRUNK:
        forwarding.from_trunk(sender, list(frames), 0.0)
    else:
        forwarding.from_peer(sender, list(frames), 0.0)
    kinds = {number: FramesToGateway if number == GATEWAY else FramesToPeer for number in forwarding.ports}
    got = {
        number: [frame for message in port.peer.take(kinds[number]) for frame in message.frames]
        for number, port in forwarding.ports.items()
    }
    return {number: frames for number, frames in got.items() if frames}


@pytest.mark.parametrize("sender", HEARERS)
def test_what_is_for_all_is_heard_by_those_that_may(lan, counters, sender):
    to_all = frame(MACS[sender], BROADCAST)
    assert sends(lan, sender, to_all) == {number: [to_all] for number in HEARERS[sender]}
    assert counters["switch.flooded"] + counters["switch.multicast"] == counters["switch.received"] == 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("sender", [GUEST, ISOLATED, TRUNK])
def test_a_group_is_heard_by_those_of_its_members_that_may(lan, sender, version):
    for number in POLICIES:
        lan.groups.hear(membership(number % 10, version), number, 0.0)
    to_group = MACS[sender].join([data(3, version)[:6], data(3, version)[12:]])
    assert sends(lan, sender, to_group) == {number: [to_group] for number in HEARERS[sender]}


@pytest.mark.parametrize(
    ("sender", "target"), [(sender, target) for sender in HEARERS for target in MACS if target != sender]
)
def test_what_is_for_one_reaches_those_that_may_be_reached(lan, counters, sender, target):
    to_one = frame(MACS[sender], MACS[target])
    reached = {target} & REACHED[sender]
    assert sends(lan, sender, to_one) == {number: [to_one] for number in reached}
    assert counters["switch.unicast"] == len(reached)
    horizon = not reached and ISOLATED not in (sender, target)
    assert counters["switch.drop.split_horizon"] == horizon
    assert counters["switch.drop.isolated"] == (not reached and not horizon)


@pytest.mark.parametrize("sender", HEARERS)
def test_who_hears_only_a_part_of_a_batch_gets_it_in_order(lan, sender):
    """The frame for one comes before, between and after those for all."""
    to_all = [frame(MACS[sender], BROADCAST, b"%d" % n) for n in range(2)]
    for target in MACS.keys() - {sender}:
        one = [frame(MACS[sender], MACS[target], b"%d" % n) for n in range(3)]
        got = sends(lan, sender, one[0], to_all[0], one[1], to_all[1], one[2])
        heard = to_all if target in HEARERS[sender] else []
        mine = one if target in REACHED[sender] else []
        order = [*mine[:1], *heard[:1], *mine[1:2], *heard[1:], *mine[2:]]
        assert got.get(target, []) == order
        got = sends(lan, sender, to_all[0], one[0], to_all[1])
        assert got.get(target, []) == [*heard[:1], *mine[:1], *heard[1:]]


@pytest.mark.parametrize("sender", [GUEST, ISOLATED, TRUNK])
def test_the_gateways_mac_stays_where_it_is(lan, counters, sender):
    poses = frame(GATEWAY_MAC, BROADCAST)
    if sender != TRUNK:
        assert sends(lan, sender, poses) == {}
        assert counters["switch.drop.gateway_source"] == 1
    assert lan.table.register(GATEWAY_MAC, sender, 0.0, explicit=True).verdict is Verdict.INVALID
    assert lan.table.lookup(GATEWAY_MAC, 1e6) == GATEWAY
    assert lan.table.block(frozenset({GATEWAY_MAC})) == []


def test_the_gateway_sends_nothing_to_itself(lan, counters):
    assert sends(lan, GATEWAY, frame(GATEWAY_MAC, GATEWAY_MAC)) == {}
    assert counters["switch.drop.unknown_destination"] == 1


@pytest.mark.parametrize(("target", "counter"), [(BROADCAST, "flooded"), (GATEWAY_MAC, "unicast")])
def test_what_a_gateway_misses_that_is_not_there_yet_is_counted(counters, target, counter):
    forwarding = Forwarding(counters, LanSettings())
    forwarding.ports[GUEST] = Port(PortOpened(GUEST, Box(), float), "", USUAL, 0.0)
    forwarding.from_peer(GUEST, [frame(mac(1), target)] * 3, 0.0)
    assert counters[f"switch.{counter}"] == counters["gateway.drop.absent"] == 3
    assert counters["peer.drop.closed"] == 0


@pytest.mark.parametrize("sender", [GUEST, TRUNK])
def test_a_frame_that_causes_an_error_is_lost_alone(lan, counters, monkeypatch, sender):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(lan.groups, "members", broken)
    good = frame(MACS[sender], MACS[OTHER])
    assert sends(lan, sender, good, frame(MACS[sender], BROADCAST), good) == {OTHER: [good, good]}
    assert (counters["switch.received"], counters["switch.unicast"]) == (3, 2)
    assert counters["switch.drop.internal_error"] == 1


@pytest.mark.parametrize("address", ["00005e000107", "00005e000207"])
def test_the_mac_of_a_virtual_router_moves_between_workers(lan, address):
    router = bytes.fromhex(address)
    to_router = frame(mac(1), router)
    for holder in (TRUNK, OTHER, OTHER_TRUNK):
        sends(lan, holder, frame(router, BROADCAST))
        assert sends(lan, GUEST, to_router) == {holder: [to_router]}


def test_other_macs_are_not_learned_from_frames_of_another_worker(lan):
    sends(lan, TRUNK, frame(mac(55), BROADCAST))
    unknown = frame(mac(1), mac(55))
    assert sends(lan, GUEST, unknown) == {number: [unknown] for number in HEARERS[GUEST]}


@pytest.mark.parametrize("version", [4, 6])
def test_what_guests_of_another_worker_listen_to_goes_there(lan, version):
    assert sends(lan, TRUNK, membership(3, version)) == {}, "no guest here routes multicast"
    to_group = data(1, version)
    assert sends(lan, GUEST, to_group) == {GATEWAY: [to_group], TRUNK: [to_group]}


@pytest.mark.parametrize(("holder", "heard"), [(TRUNK, set()), (OTHER, {OTHER}), (ISOLATED, set())])
def test_who_asks_for_a_guest_is_answered_here_or_heard_by_it_alone(lan, holder, heard):
    pool = AddressPool()
    address = pool.assign(MACS[holder])
    pool.claim(MACS[holder], address)
    lan.neighbours = NeighbourProxy(pool, AddressBindings())
    ether = Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff")
    asks = bytes(ether / ARP(hwsrc=mac(1).hex(":"), psrc="10.0.2.99", pdst=".".join(map(str, address))))
    got = sends(lan, GUEST, asks)
    answers = got.pop(GUEST, [])
    assert got == {number: [asks] for number in heard | {GATEWAY}}
    assert [Ether(answer)[ARP].hwsrc for answer in answers] == [mac(21).hex(":")] * (holder == TRUNK)


def test_arp_that_names_another_sender_than_its_frame_goes_nowhere(lan, counters):
    lan.sources = SourceGuard(AddressPool(), AddressBindings(), bytes(8))
    ether = Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff")
    assert sends(lan, GUEST, bytes(ether / ARP(hwsrc=mac(2).hex(":"), psrc="10.0.2.99"))) == {}
    assert counters["switch.drop.arp_sender"] == 1


def test_each_mac_is_announced_once_when_it_was_learned(lan):
    announced = []
    lan.learned = lambda *what: announced.append(what)
    sends(lan, GUEST, *[frame(mac(n), BROADCAST) for n in (50, 51, 50, 1)])
    assert announced == [(mac(50), GUEST), (mac(51), GUEST)]


def test_only_sessions_are_counted(lan):
    assert lan.sessions == 3
