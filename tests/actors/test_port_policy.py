"""What a token says of its port is kept by all actors of a LAN together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC, mac, register
from scapy.contrib.igmp import IGMP
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from switch_parts import BROADCAST, frame
from switch_parts import Lan as Switch
from tcp_parts import TcpOutside
from test_switch_guards import CLAIMS, wrapped

from actors.close_codes import CloseCode
from actors.lan.forwarding import FLOOD_BURST
from actors.messages import (
    ClosePeer,
    FramesFromGateway,
    GatewayAttached,
    PortLimited,
    RegistrationRefused,
    SettingsChanged,
    SourceRefused,
)
from actors.port_policy import Guard, usual_policy
from actors.settings import LanSettings
from netstack.address_pool import AddressPool
from netstack.neighbour import AddressBindings
from netstack.source_guard import SourceGuard

USUAL = usual_policy(LanSettings())
SERVER = "93.184.215.14"
OF_OTHERS = "the token of this session is for other MAC addresses"


def limited(**values):
    return replace(USUAL, own=frozenset(values), **values)


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters, outside=TcpOutside())


def enter(lan, n=1, path="/", **values):
    client = lan.connect(mac(n), path, limited(**values))
    if not client.raw:
        client.hears(register(mac(n)))
    return client


def out(client, layers):
    address = client.lan.gateway._actor_weakref()._guests.pool.address_of(client.mac)
    return client.to(GATEWAY_MAC) / IP(src=".".join(map(str, address)), dst=SERVER) / layers


# -- the switch ---------------------------------------------------------------------------------------


def test_an_isolated_port_and_the_others_hear_nothing_of_each_other(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(isolated=True))
    for number in (1, 2, 7):
        switch.register(number, mac(number))
    switch.gateway.clear()
    to_all, to_seven = frame(mac(1), BROADCAST), frame(mac(1), mac(7))
    switch.sends(1, to_all, to_seven)
    assert (switch.got(2), switch.got(7), switch.gateway_got()) == ([to_all], [], [to_all])
    to_all, to_one, to_gateway = (frame(mac(7), target) for target in (BROADCAST, mac(1), GATEWAY_MAC))
    switch.sends(7, to_all, to_one, to_gateway)
    assert (switch.got(1), switch.got(2), switch.gateway_got()) == ([], [], [to_all, to_gateway])
    assert switch.drops() == {"isolated": 2}
    switch.tell(FramesFromGateway([frame(GATEWAY_MAC, mac(7)), frame(GATEWAY_MAC, BROADCAST)]))
    assert len(switch.got(7)) == 2


def test_multicast_of_a_group_is_not_for_an_isolated_member(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(isolated=True))
    group = bytes.fromhex("01005e010203")
    joins = {
        number: bytes(
            Ether(src=mac(number).hex(":"), dst=group.hex(":"))
            / IP(src=f"10.0.2.1{number}", dst="225.1.2.3", ttl=1)
            / IGMP(type=0x16, gaddr="225.1.2.3")
        )
        for number in (2, 7)
    }
    for number, join in joins.items():
        switch.sends(number, join)
    switch.gateway.clear()
    to_group = bytes(Ether(src=mac(1).hex(":"), dst=group.hex(":")) / IP(dst="225.1.2.3") / UDP())
    switch.sends(1, to_group)
    assert (switch.got(2)[-1:], switch.got(3), switch.got(7)) == ([to_group], [], [])


@pytest.mark.parametrize("isolated", [False, True])
def test_what_dhcp_tells_all_of_one_nic_is_for_no_other_guest(lan, isolated):
    asker, other = (enter(lan, n, isolated=isolated) for n in (1, 2))
    other.frames()
    said = BOOTP(chaddr=asker.mac + bytes(10), xid=7, flags="B") / DHCP(
        options=[("message-type", "discover"), "end"]
    )
    ends = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
    lan.counters.clear()
    asker.sends(asker.to(BROADCAST) / ends / said)
    (offer,) = asker.frames()
    assert (offer.dst, offer[BOOTP].op) == ("ff:ff:ff:ff:ff:ff", 2)
    assert not [heard for heard in other.frames() if heard[BOOTP].op == 2]
    switch = {name: count for name, count in lan.counters.items() if name.startswith("switch.")}
    assert switch.pop("switch.received") == sum(switch.values()) == 2


@pytest.mark.parametrize("isolated", [1, 2])
def test_the_gateway_is_no_way_around_isolation(lan, isolated):
    guests = [enter(lan, n, isolated=n == isolated) for n in (1, 2)]
    for here, there in (guests, guests[::-1]):
        address = lan.gateway._actor_weakref()._guests.pool.address_of(there.mac)
        lan.counters.clear()
        packet = out(here, UDP(sport=1, dport=2))
        packet[IP].dst = ".".join(map(str, address))
        here.sends(packet)
        assert lan.counters["gateway.drop.isolated"] == 1


@pytest.mark.parametrize(
    ("guard", "reasons"),
    [
        (Guard.DHCP, {"rogue_dhcp"}),
        (Guard.ROUTER, {"gateway_arp", "rogue_router", "rogue_dhcpv6", "gateway_ipv6"}),
    ],
)
def test_a_guard_is_what_keeps_a_port_from_posing(counters, loop, guard, reasons):
    assert reasons <= set(CLAIMS)
    switch = Switch(counters)
    switch.open(1, policy=limited(guards=USUAL.guards & ~guard))
    for packet in CLAIMS.values():
        switch.sends(1, wrapped([], packet, mac(9)))
    assert set(switch.drops()) == set(CLAIMS) - reasons


def test_where_sources_are_not_guarded_any_address_is_sent_from(counters, loop):
    switch = Switch(counters)
    pool = AddressPool()
    pool.claim(mac(2), bytes((10, 0, 2, 10)))
    switch.tell(GatewayAttached(switch.gateway, SourceGuard(pool, AddressBindings(), bytes(8))))
    switch.open(7, policy=limited(guards=Guard.DHCP | Guard.ROUTER))
    spoofed = {
        number: bytes(
            Ether(src=mac(number).hex(":"), dst=BROADCAST.hex(":")) / IP(src="10.0.2.10", dst="10.0.2.99")
        )
        for number in (1, 7)
    }
    for number, packet in spoofed.items():
        switch.sends(number, packet)
    assert switch.got(2) == [spoofed[7]]
    assert switch.drops() == {"spoofed_address": 1}


def test_a_port_floods_as_much_as_its_policy_says(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(floods_per_second=5))
    switch.sends(7, *[frame(mac(7), BROADCAST, bytes((n,))) for n in range(30)])
    assert len(switch.got(1)) == 5 * FLOOD_BURST
    assert switch.drops() == {"flood_rate": 20}


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("before", [[], [{"packets_per_second": 7}]], ids=["at once", "after another change"])
@pytest.mark.parametrize(
    ("former", "later", "heard"),
    [
        ({}, {"isolated": True}, []),
        ({"isolated": True}, {}, [1, 7]),
        ({}, {"floods_per_second": 0}, [7]),
        ({"floods_per_second": 0}, {}, [1, 7]),
    ],
)
def test_ports_do_what_changed_settings_say(counters, before, former, later, heard):
    """And those that brought a policy what that says."""
    switch = Switch(counters, settings=LanSettings(**former))
    for number in (7, 8):
        switch.open(number, policy=limited(isolated=False, floods_per_second=USUAL.floods_per_second))
    for changed in (*(former | each for each in before), later):
        switch.tell(SettingsChanged(LanSettings(**changed)))
    for number in (1, 7):
        switch.sends(number, frame(mac(number), BROADCAST))
    assert switch.got(2) == [frame(mac(number), BROADCAST) for number in heard]
    assert switch.got(8)[-1:] == [frame(mac(7), BROADCAST)]


def test_a_port_does_what_settings_say_of_all_that_its_policy_does_not(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(max_macs=1))
    switch.tell(SettingsChanged(LanSettings(floods_per_second=0)))
    switch.sends(7, frame(mac(7), BROADCAST), frame(mac(8), BROADCAST))
    assert switch.drops() == {"flood_rate": 1, "too_many_macs": 1}


@pytest.mark.parametrize("is_guarded", [False, True])
def test_ports_are_kept_from_what_changed_settings_say(counters, loop, is_guarded):
    switch = Switch(counters, settings=LanSettings(source_guard=not is_guarded, dhcp=not is_guarded))
    pool = AddressPool()
    pool.claim(mac(2), bytes((10, 0, 2, 10)))
    switch.tell(GatewayAttached(switch.gateway, SourceGuard(pool, AddressBindings(), bytes(8))))
    switch.tell(SettingsChanged(LanSettings(source_guard=is_guarded, dhcp=is_guarded)))
    of_another = Ether(src=mac(3).hex(":"), dst=BROADCAST.hex(":")) / IP(src="10.0.2.10", dst="10.0.2.99")
    switch.sends(3, bytes(of_another), wrapped([], CLAIMS["rogue_dhcp"], mac(9)))
    assert len(switch.got(2)) == (0 if is_guarded else 2)
    assert set(switch.drops()) == ({"spoofed_address", "rogue_dhcp"} if is_guarded else set())


# -- MAC addresses -----------------------------------------------------------------------------------


def test_only_the_macs_that_a_policy_names_are_registered_and_forwarded(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(macs=frozenset({mac(1), mac(2)})))
    for number in (1, 2, 3):
        switch.register(7, mac(number))
    assert [assigned[1] for assigned in switch.assigned()] == [mac(1), mac(2)]
    assert switch.peers[7].take(RegistrationRefused) == [RegistrationRefused(OF_OTHERS, mac(3))]
    switch.sends(7, frame(mac(2), BROADCAST, b"mine"), frame(mac(3), BROADCAST, b"another's"))
    assert switch.got(1) == [frame(mac(2), BROADCAST, b"mine")]
    assert switch.drops() == {"forbidden_source": 1}
    assert switch.peers[7].take(SourceRefused) == [SourceRefused(OF_OTHERS, mac(3))]


def test_without_the_right_of_a_bridge_one_mac_is_all(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(max_macs=1))
    switch.register(7, mac(1))
    switch.register(7, mac(2))
    assert [assigned[1] for assigned in switch.assigned()] == [mac(1)]
    (refused,) = switch.peers[7].take(RegistrationRefused)
    assert "too many MAC addresses" in refused.reason
    switch.sends(7, frame(mac(1), BROADCAST), frame(mac(2), BROADCAST))
    assert len(switch.got(1)) == 1
    assert switch.drops() == {"too_many_macs": 1}


def test_who_has_a_token_for_a_mac_gets_it_from_who_has_none(counters, loop):
    switch = Switch(counters)
    switch.open(7, "192.0.2.7", limited(macs=frozenset({mac(1)})))
    switch.open(8, "192.0.2.8", limited(macs=frozenset({mac(1)})))
    switch.register(1, mac(1))
    switch.register(7, mac(1))
    (closed,) = switch.peers[1].take(ClosePeer)
    assert closed.code is CloseCode.TAKEN_OVER
    switch.register(8, mac(1))
    assert switch.peers[7].take(ClosePeer) == [], "both are for it, and the first has it"
    (refused,) = switch.peers[8].take(RegistrationRefused)
    assert "another session" in refused.reason


def test_who_has_no_token_for_a_mac_does_not_get_it_from_who_has_one_and_the_same_host(counters, loop):
    switch = Switch(counters)
    for number, names_it in ((7, True), (8, False), (9, True)):
        switch.open(number, "192.0.2.7", limited(macs=frozenset({mac(1)})) if names_it else None)
        switch.register(number, mac(1))
    assert switch.peers[8].take(RegistrationRefused)
    assert not switch.peers[9].take(RegistrationRefused), "the same client, as far as is known"
    (closed,) = switch.peers[7].take(ClosePeer)
    assert closed.code is CloseCode.TAKEN_OVER


def test_the_gateway_hears_of_ports_that_are_not_as_usual_before_any_frame(counters, loop):
    switch = Switch(counters)
    switch.open(7, policy=limited(max_flows=3))
    switch.open(8)
    assert switch.gateway == [PortLimited(7, limited(max_flows=3))]


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/?encap=raw"])
def test_a_session_has_the_flows_that_its_policy_says(lan, path):
    few, usual = enter(lan, 1, path, max_flows=2), lan.join(2)[0]
    if few.raw:
        few.sends(few.to(BROADCAST))
    for client in (few, usual):
        client.sends(*[out(client, UDP(sport=1000 + n, dport=53)) for n in range(4)])
    assert len(lan.outside.udp) == 2 + 4
    assert {(reply[ICMP].type, reply[ICMP].code) for reply in few.frames() if ICMP in reply} == {(3, 13)}


def test_new_flows_come_as_fast_as_a_policy_says(lan, loop):
    slow = enter(lan, max_flows=4, new_flows_per_second=1.0)
    for second in range(3):
        slow.sends(*[out(slow, UDP(sport=1000 + 10 * second + n, dport=53)) for n in range(5)])
        for socket in lan.outside.udp:
            socket.reply(b"answer", (SERVER, 53))
        loop.advance(2.0)
    assert len(lan.outside.udp) == 4, "of more there is none that may give way"
    assert lan.counters["gateway.drop.flow_limit"] == 11


def test_half_open_connections_are_as_many_as_a_policy_says(lan):
    client = enter(lan, max_half_open=2)
    client.sends(*[out(client, TCP(sport=1000 + n, dport=80, flags="S")) for n in range(5)])
    assert len(lan.outside.tcp) == 2


@pytest.mark.parametrize(
    "limits", [{"bits_per_second": 80_000}, {"packets_per_second": 50}], ids=["bits", "packets"]
)
def test_a_session_sends_and_is_sent_as_much_as_its_policy_says(lan, limits):
    slow, other = enter(lan, 1, **limits), lan.join(2)[0]
    there = bytes(Ether(src=mac(1).hex(":"), dst=mac(2).hex(":"), type=0x9000)) + bytes(800)
    back = there[6:12] + there[:6] + there[12:]
    for sender, receiver, frame_of_it in ((slow, other, there), (other, slow, back)):
        sender.hears(*[b"\1" + frame_of_it] * 200)
        assert 0 < len(receiver.frames()) < 100


# -- forwards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_forwarded_to", [True, False])
def test_forwards_lead_to_a_guest_if_its_policy_lets_them(lan, is_forwarded_to):
    enter(lan, is_forwarded_to=is_forwarded_to)
    gateway = lan.gateway._actor_weakref()
    for guest in (mac(1), bytes((10, 0, 2, 10))):
        assert (gateway._forwards.locate(guest) is not None) == is_forwarded_to
