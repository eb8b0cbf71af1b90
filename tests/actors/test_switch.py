from __future__ import annotations

import pytest
from fake_loop import FakeLoop
from hypothesis import given
from hypothesis import strategies as st
from lan_parts import GATEWAY_MAC, Box, mac
from scapy.layers.inet import IP, UDP, IPOption
from scapy.layers.l2 import ARP, Ether
from switch_parts import BROADCAST, MULTICAST, Lan, frame

from actors.close_codes import CloseCode
from actors.lan.switch import SILENT_AFTER, SwitchActor
from actors.messages import (
    AssignAddress,
    ClosePeer,
    FramesFromGateway,
    FramesFromPeer,
    FramesToGateway,
    FramesToPeer,
    FramesToPort,
    MacAgedOut,
    PeerList,
    PeerListRequest,
    PortClosed,
    PortOpened,
    PortResumed,
    PortTaken,
    RegisterMac,
    RegistrationRefused,
    SourceRefused,
)
from actors.runtime import Scheduler, run_ready
from actors.settings import LanSettings
from netstack import ra_guard
from netstack.counters import Counters
from netstack.ethernet import ETHERTYPE_IPV6
from netstack.mac_table import AGEING_TIME, MAX_MACS_PER_PORT

# -- forwarding -------------------------------------------------------------------------------------


def test_the_gateways_frames_for_a_port_that_is_gone_are_counted(trio):
    trio.tell(FramesToPort(9, [frame(GATEWAY_MAC, BROADCAST)] * 2))
    assert [trio.got(number) for number in (1, 2, 3)] == [[], [], []]
    assert trio.counters["switch.received"] == trio.counters["switch.drop.unknown_destination"] == 2
    assert trio.counters["switch.unicast"] == 0


def test_the_gateway_hears_of_macs_that_made_room_for_others(loop, lan):
    for n in range(MAX_MACS_PER_PORT):
        lan.sends(1, frame(mac(10 + n), BROADCAST))
    loop.advance(AGEING_TIME)
    lan.gateway.clear()
    lan.sends(1, frame(mac(99), BROADCAST))
    told = lan.gateway.take(MacAgedOut)
    assert {(m.port, m.mac) for m in told} == {(1, mac(10 + n)) for n in range(MAX_MACS_PER_PORT)}
    assert len(lan.got(2)) == MAX_MACS_PER_PORT + 1


@pytest.mark.parametrize("last", [0x00, 0x01, 0x02, 0x03, 0x0E, 0x0F])
def test_link_control_frames_are_not_forwarded(trio, last):
    group = bytes.fromhex("0180c20000") + bytes((last,))
    trio.sends(1, *[frame(mac(1), group, ethertype=b"\x88\x08")] * 2, frame(mac(1), mac(2)))
    assert (len(trio.got(2)), trio.got(3), trio.gateway_got()) == (1, [], [])
    assert trio.drops() == {"link_control": 2}


def test_other_groups_of_the_same_prefix_are_forwarded(trio):
    trio.sends(1, frame(mac(1), bytes.fromhex("0180c2000010")), frame(mac(1), bytes.fromhex("0180c2000021")))
    assert len(trio.got(2)) == 2


def test_a_known_address_gets_the_frame_alone(trio):
    f = frame(mac(1), mac(2), b"hello")
    trio.sends(1, f)
    assert (trio.got(1), trio.got(2), trio.got(3), trio.gateway_got()) == ([], [f], [], [])


@pytest.mark.parametrize(
    "destination", [BROADCAST, MULTICAST, mac(99)], ids=["broadcast", "multicast", "unknown"]
)
def test_the_rest_goes_to_all_but_the_sender(trio, destination):
    f = frame(mac(1), destination, bytes(1486))
    trio.sends(1, f)
    assert (trio.got(1), trio.got(2), trio.got(3), trio.gateway_got()) == ([], [f], [f], [f])
    assert trio.counters["switch.flooded"] == 1


def test_the_gateway_is_a_port(trio):
    f = frame(mac(1), GATEWAY_MAC, b"to the gateway")
    trio.sends(1, f)
    assert trio.gateway == [FramesToGateway(1, [f])]
    answer = frame(GATEWAY_MAC, mac(1), b"answer")
    trio.tell(FramesFromGateway([answer, answer]))
    assert trio.peers[1].take(FramesToPeer) == [FramesToPeer([answer, answer])]
    announcement = frame(GATEWAY_MAC, BROADCAST)
    trio.tell(FramesFromGateway([announcement]))
    assert [trio.got(n) for n in (1, 2, 3)] == [[announcement]] * 3


def test_a_batch_leaves_as_one_message_per_port_in_order(trio):
    a, b, to_all, to_gateway = (
        [frame(mac(1), d, b"%d" % n) for n in range(3)] for d in (mac(2), mac(3), BROADCAST, GATEWAY_MAC)
    )
    trio.sends(1, a[0], to_all[0], a[1], to_gateway[0], b[0], to_all[1], a[2], to_gateway[1], to_all[2])
    assert trio.peers[2].take(FramesToPeer) == [
        FramesToPeer([a[0], to_all[0], a[1], to_all[1], a[2], to_all[2]])
    ]
    assert trio.peers[3].take(FramesToPeer) == [FramesToPeer([to_all[0], b[0], to_all[1], to_all[2]])]
    assert trio.gateway == [
        FramesToGateway(1, [to_all[0], to_gateway[0], to_all[1], to_gateway[1], to_all[2]])
    ]


def test_several_addresses_behind_one_port_are_learned(trio):
    trio.sends(1, frame(mac(11), mac(2)), frame(mac(12), mac(2)))
    trio.sends(2, frame(mac(2), mac(11)), frame(mac(2), mac(12)))
    assert trio.got(1) == [frame(mac(2), mac(11)), frame(mac(2), mac(12))]
    assert trio.got(3) == []


def test_frames_between_two_addresses_of_one_port_stay_there(trio):
    trio.sends(1, frame(mac(11), BROADCAST))
    trio.got(2)
    trio.sends(1, frame(mac(1), mac(11)))
    assert trio.drops() == {"same_port": 1}
    assert trio.got(1) == trio.got(2) == []


# -- who may say what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (mac(2), "spoofed_source"),
        (GATEWAY_MAC, "gateway_source"),
        (bytes(6), "invalid_source"),
        (BROADCAST, "invalid_source"),
        (MULTICAST, "invalid_source"),
    ],
)
def test_a_frame_with_a_foreign_or_impossible_source_is_dropped(trio, source, reason):
    trio.sends(1, frame(source, mac(3)), frame(source, mac(3)), frame(mac(1), mac(3)))
    assert trio.drops() == {reason: 2}
    assert trio.got(3) == [frame(mac(1), mac(3))]
    trio.sends(3, frame(mac(3), mac(2)))
    assert trio.got(2) == [frame(mac(3), mac(2))]


def test_a_learned_address_is_not_stolen_by_frames_either(trio):
    trio.sends(1, frame(mac(11), BROADCAST))
    trio.sends(2, frame(mac(11), BROADCAST))
    assert trio.drops() == {"spoofed_source": 1}


@pytest.mark.parametrize("op", [1, 2])
def test_arp_that_claims_the_gateways_address_is_dropped(trio, op):
    claim = bytes(
        Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=op, psrc="10.0.2.2", hwsrc=mac(1).hex(":"))
    )
    honest = bytes(Ether(src=mac(1).hex(":"), dst=mac(2).hex(":")) / ARP(op=op, psrc="10.0.2.10"))
    lie = bytes(Ether(src=mac(1).hex(":"), dst=mac(2).hex(":")) / ARP(op=op, psrc="10.0.2.2"))
    trio.sends(1, claim, honest, lie, honest)
    assert trio.drops() == {"gateway_arp": 2}
    assert trio.got(2) == [honest, honest]


def test_arp_for_the_host_address_is_guarded_where_it_is_the_gateways(loop, counters):
    claim = bytes(Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.2.4"))
    lan = Lan(counters, settings=LanSettings(host_access=True))
    lan.sends(1, claim)
    assert lan.drops() == {"gateway_arp": 1}


def test_where_the_gateway_answers_no_dhcp_a_guest_may(loop, counters):
    lan = Lan(counters, settings=LanSettings(dhcp=False))
    lan.sends(2, frame(mac(2), mac(1)))
    offer = bytes(
        Ether(src=mac(1).hex(":"), dst=mac(2).hex(":"))
        / IP(dst="10.0.2.11")
        / UDP(sport=67, dport=68)
        / b"offer"
    )
    lan.sends(1, offer)
    assert lan.got(2) == [offer]
    assert lan.drops() == {}


def test_a_guest_is_no_dhcp_server(trio):
    """Neither to all nor to one, with IPv4 options or without, also between other frames to the same one."""
    to_one = Ether(src=mac(1).hex(":"), dst=mac(2).hex(":"))
    offers = [
        bytes(ether / IP(dst="10.0.2.11", options=options) / UDP(sport=67, dport=68) / b"offer")
        for ether in (to_one, Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff"))
        for options in ([], [IPOption(b"\x94\x04\0\0")])
    ]
    request = bytes(to_one / IP(dst="10.0.2.11") / UDP(sport=68, dport=67) / b"request")
    trio.sends(1, request, *offers, request)
    assert trio.drops() == {"rogue_dhcp": 4}
    assert trio.got(2) == [request, request]


def test_a_port_has_a_limited_number_of_addresses(trio):
    trio.sends(1, *[frame(mac(100 + n), mac(2)) for n in range(20)])
    assert trio.drops() == {"too_many_macs": 13}
    assert len(trio.got(2)) == 7


def test_a_flood_is_limited_per_port_and_unicast_is_not(loop, trio):
    trio.sends(1, *[frame(mac(1), BROADCAST)] * 1000, *[frame(mac(1), mac(2))] * 1000)
    assert trio.drops() == {"flood_rate": 600}
    assert trio.got(2).count(frame(mac(1), mac(2))) == 1000
    trio.sends(2, frame(mac(2), BROADCAST))
    assert len(trio.got(3)) == 401
    for _ in range(100):  # 200 a second go on for ever
        loop.advance(0.051)
        trio.sends(1, *[frame(mac(1), BROADCAST)] * 10)
    assert trio.drops() == {"flood_rate": 600}


def test_frames_of_a_port_that_is_not_open_are_counted(trio):
    trio.sends(77, frame(mac(77), BROADCAST))
    assert trio.drops() == {"unknown_port": 1}


# -- registration -----------------------------------------------------------------------------------


def test_a_registration_is_passed_to_the_gateway(lan):
    lan.register(1, mac(1))
    assert lan.assigned() == [(1, mac(1), lan.peers[1])]


def test_a_registration_of_the_same_client_takes_the_address_over_and_ends_the_older_session(trio):
    trio.register(2, mac(1))
    (close,) = trio.peers[1].take(ClosePeer)
    assert close.code == CloseCode.TAKEN_OVER
    assert mac(1).hex(":") in close.reason
    trio.sends(3, frame(mac(3), mac(1)))
    assert trio.got(2) == [frame(mac(3), mac(1))]
    assert trio.assigned() == [(2, mac(1), trio.peers[2])]
    trio.sends(1, frame(mac(1), mac(3)))
    assert trio.drops() == {"spoofed_source": 1}


@pytest.mark.parametrize("host", ["192.0.2.2", ""])
def test_another_client_takes_nothing_from_a_live_session(loop, trio, host):
    trio.hosts[2] = host
    trio.heard[1] = loop.time()
    trio.register(2, mac(1))
    assert len(trio.peers[2].take(RegistrationRefused)) == 1
    assert trio.peers[1].take(ClosePeer) == []
    loop.advance(SILENT_AFTER)
    trio.register(2, mac(1))
    assert len(trio.peers[1].take(ClosePeer)) == 1


def test_clients_of_which_nothing_is_known_are_not_the_same(trio):
    trio.hosts[1] = trio.hosts[2] = ""
    trio.register(2, mac(1))
    assert len(trio.peers[2].take(RegistrationRefused)) == 1


def test_a_client_that_comes_from_elsewhere_shows_that_the_address_is_its_own(trio):
    trio.register(1, mac(1))
    trio.register(3, mac(3))
    secrets = {m.mac: m.resume for m in trio.gateway.take(AssignAddress)}
    trio.hosts[2] = "198.51.100.7"
    for wrong in ("", secrets[mac(3)], secrets[mac(1)][:-1]):
        trio.register(2, mac(1), resume=wrong)
        assert len(trio.peers[2].take(RegistrationRefused)) == 1
    trio.register(2, mac(1), resume=secrets[mac(1)])
    assert trio.peers[1].take(PortTaken) == [PortTaken(trio.peers[2])]
    assert trio.peers[2].take(PortResumed) == [PortResumed(1, None)]
    assert trio.assigned() == [(1, mac(1), trio.peers[2])]
    trio.sends(2, frame(mac(1), mac(3)))
    assert trio.got(3) == [frame(mac(1), mac(3))], "it may not have heard of its port yet"


def test_a_learned_address_is_not_another_clients_to_register(trio):
    trio.sends(1, frame(mac(50), BROADCAST))
    trio.hosts[2] = "198.51.100.7"
    trio.register(2, mac(50))
    assert len(trio.peers[2].take(RegistrationRefused)) == 1
    trio.sends(3, frame(mac(3), mac(50)))
    assert frame(mac(3), mac(50)) in trio.got(1)


def test_an_implicit_registration_takes_nothing_from_a_live_session(loop, trio):
    loop.advance(44)
    trio.register(2, mac(1), explicit=False)
    assert trio.peers[2].take(RegistrationRefused) != []
    assert trio.peers[1].take(ClosePeer) == []


@pytest.mark.parametrize("address", ["00005e000107", "00005e000207"])
def test_the_mac_of_a_virtual_router_moves_though_it_is_all_that_a_raw_session_has_shown(lan, address):
    virtual = bytes.fromhex(address)
    for number, other in ((1, 2), (2, 1), (1, 2)):
        lan.register(number, virtual, explicit=False)
        assert lan.assigned() == [(number, virtual, lan.peers[number])]
        lan.sends(number, frame(virtual, BROADCAST))
        lan.sends(3, frame(mac(3), virtual))
        assert [len(lan.got(each)) for each in (number, other)] == [1, 1]
    assert lan.drops() == {}
    for number in (1, 2):
        assert [lan.peers[number].take(kind) for kind in (RegistrationRefused, ClosePeer)] == [[], []]


def test_an_implicit_registration_replaces_a_session_that_fell_silent(loop, trio):
    loop.advance(45)
    trio.heard[2] = loop.time()
    trio.register(2, mac(1), explicit=False)
    assert len(trio.peers[1].take(ClosePeer)) == 1
    assert trio.assigned() == [(2, mac(1), trio.peers[2])]


@pytest.mark.parametrize("address", [GATEWAY_MAC, BROADCAST, bytes(6), b"short"])
def test_an_address_that_no_guest_may_have_is_refused(lan, address):
    lan.register(1, address)
    assert len(lan.peers[1].take(RegistrationRefused)) == 1
    assert lan.gateway == []


def test_the_gateways_mac_is_named_to_those_who_use_it(lan):
    lan.register(1, GATEWAY_MAC)
    (refused,) = lan.peers[1].take(RegistrationRefused)
    for _ in range(3):
        lan.sends(1, frame(GATEWAY_MAC, BROADCAST))
    assert lan.peers[1].take(SourceRefused) == [SourceRefused(refused.reason, GATEWAY_MAC)], "once"
    assert "52:54:00:12:34:56 is the gateway's MAC" in refused.reason
    assert len(refused.reason) <= 123, "what a WebSocket's close frame has room for"


def test_without_a_gateway_there_is_no_registration(loop, counters):
    switch = SwitchActor.start(counters, LanSettings())
    peer = Box()
    switch.tell(PortOpened(1, peer, lambda: 0.0))
    switch.tell(RegisterMac(1, mac(1), True))
    switch.tell(PeerListRequest(peer))
    switch.tell(FramesFromPeer(1, [frame(mac(1), GATEWAY_MAC)]))
    run_ready()
    assert peer == [RegistrationRefused("this LAN has no gateway", mac(1)), PeerList(())]
    assert counters["gateway.drop.absent"] == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (mac(1), "another session uses this MAC address"),
        (GATEWAY_MAC, LanSettings().gateway_mac_refusal),
        (BROADCAST, "this MAC address is not one that a guest may have"),
    ],
)
def test_a_source_that_is_refused_is_told_now_and_then_and_not_per_frame(loop, trio, source, reason):
    for _ in range(3):
        trio.sends(2, *[frame(source, GATEWAY_MAC)] * 100)
    assert trio.peers[2].take(SourceRefused) == [SourceRefused(reason, source)]
    loop.advance(10)
    trio.sends(2, frame(source, GATEWAY_MAC))
    assert len(trio.peers[2].take(SourceRefused)) == 1
    assert trio.peers[1].take(SourceRefused) == []


# -- ports ------------------------------------------------------------------------------------------


def test_a_closed_port_leaves_nothing_behind(trio):
    trio.tell(PortClosed(1))
    assert trio.gateway.take() == [PortClosed(1)]
    trio.sends(2, frame(mac(2), mac(1)))
    assert trio.got(1) == []
    assert trio.got(3) == [frame(mac(2), mac(1))]
    trio.register(2, mac(1), explicit=False)
    assert trio.peers[2].take(RegistrationRefused) == []
    trio.tell(PortClosed(1))
    assert trio.gateway.take(PortClosed) == []


def test_a_full_switch_says_so(loop, counters):
    lan = Lan(counters, ports=3, settings=LanSettings(max_peers=2))
    (close,) = lan.peers[3].take(ClosePeer)
    assert close.code == CloseCode.FULL
    assert "2" in close.reason
    lan.sends(3, frame(mac(3), BROADCAST))
    assert lan.drops() == {"unknown_port": 1}
    lan.tell(PortClosed(3))
    lan.tell(PortClosed(1))
    lan.open(4)
    assert lan.peers[4] == []


def test_silent_sessions_of_an_address_that_has_most_ports_give_way_to_others(counters, loop):
    lan = Lan(counters, ports=64, settings=LanSettings(max_peers=64))
    assert lan.peers[64].take(ClosePeer)[0].code == CloseCode.FULL
    lan.register(1, mac(1))
    for number, given_way in ((101, 2), (102, 3)):
        lan.open(number, host="192.0.2.2")
        assert lan.peers[number] == []
        assert lan.peers[given_way].take(ClosePeer)[0].code == CloseCode.SILENT
        lan.tell(PortClosed(given_way))
    assert counters["switch.silent_ports_closed"] == 2
    assert not lan.peers[1].take(ClosePeer), "registered"


def test_registered_sessions_give_way_to_nobody(counters, loop):
    lan = Lan(counters, ports=63, settings=LanSettings(max_peers=64))
    for number in range(1, 64):
        lan.register(number, mac(number))
    lan.open(101, host="192.0.2.2")
    assert not any(peer.take(ClosePeer) for peer in lan.peers.values())
    lan.open(102, host="192.0.2.2")
    assert lan.peers[102].take(ClosePeer)


@pytest.mark.parametrize(("share", "ports"), [(98, 63), (75, 48), (0, 64)])
def test_registered_sessions_of_one_address_have_their_share(counters, loop, share, ports):
    lan = Lan(counters, ports=0, settings=LanSettings(max_peers=64, client_share=share))
    for number in range(1, 70):
        lan.open(number)
        lan.register(number, mac(number))
    assert sum(not peer.take(ClosePeer) for peer in lan.peers.values()) == ports
    lan.open(100, host="2001:db8::1")
    assert bool(lan.peers[100].take(ClosePeer)) is (ports == 64)


def test_sessions_of_one_ipv6_network_share(counters, loop):
    lan = Lan(counters, ports=0, settings=LanSettings(max_peers=64))
    for number in range(1, 65):
        lan.open(number, host=f"[2001:db8::{number:x}]")
    assert counters["switch.ports_refused_to_one_address"] == 1
    lan.open(50, host="[2001:db8:0:1::1]")
    assert lan.peers[50] == []


def test_a_dead_peer_does_not_hurt_the_others(trio):
    import pykka

    class Dead:
        def tell(self, message):
            raise pykka.ActorDeadError

    trio.tell(PortOpened(1, Dead(), lambda: 0.0))
    trio.sends(2, frame(mac(2), mac(1)), frame(mac(2), BROADCAST), frame(mac(2), mac(3)))
    assert len(trio.got(3)) == 2
    assert trio.counters["peer.drop.closed"] == 2


def test_what_the_gateway_sends_to_a_silent_guest_is_not_flooded(loop, lan):
    lan.sends(1, frame(mac(9), BROADCAST))
    loop.advance(2 * AGEING_TIME)
    for number in (1, 2, 3):
        lan.got(number)
    to_guest = frame(GATEWAY_MAC, mac(9))
    unknown = frame(GATEWAY_MAC, mac(77))
    lan.tell(FramesFromGateway([to_guest, unknown, to_guest]))
    assert (lan.got(1), lan.got(2), lan.got(3)) == ([to_guest, to_guest], [], [])
    assert lan.drops() == {"unknown_destination": 1}


def test_an_error_in_the_switch_costs_one_frame(trio, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(ra_guard, "refusal", broken)
    good = frame(mac(1), mac(2))
    trio.sends(1, good, frame(mac(1), mac(2), ethertype=ETHERTYPE_IPV6), good)
    assert trio.got(2) == [good, good]
    assert trio.drops() == {"internal_error": 1}
    assert trio.counters["switch.received"] == 3


addresses = st.sampled_from([mac(1), mac(2), mac(3), mac(9), GATEWAY_MAC, BROADCAST, MULTICAST, bytes(6)])
frames = st.one_of(
    st.binary(max_size=20),
    st.builds(
        frame, addresses, addresses, st.binary(max_size=4), st.sampled_from([b"\x08\x00", b"\x08\x06"])
    ),
    st.builds(
        lambda s, p: bytes(Ether(src=s.hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=p)),
        st.sampled_from([mac(1), mac(2)]),
        st.sampled_from(["10.0.2.2", "10.0.2.10"]),
    ),
)


@given(
    registered=st.sets(st.integers(1, 3)),
    batches=st.lists(st.tuples(st.integers(0, 4), st.lists(frames, max_size=8)), max_size=8),
)
def test_every_frame_is_accounted_for(registered, batches):
    loop, counters = FakeLoop(), Counters()
    with Scheduler(loop, counters).activate():
        lan = Lan(counters, settings=LanSettings(floods_per_second=2))
        for number in registered:
            lan.register(number, mac(number))
        sent = sum(len(batch) for _, batch in batches)
        delivered = copies = 0
        for sender, batch in batches:
            flooded = counters["switch.flooded"]
            if sender == 0:  # the gateway, which builds whole frames and from its own address
                whole = [f[:6].ljust(6, b"\0") + GATEWAY_MAC + f[12:].ljust(2, b"\0") for f in batch]
                lan.tell(FramesFromGateway(whole))
            else:
                lan.tell(FramesFromPeer(sender, batch))
            flooded = counters["switch.flooded"] - flooded
            copies += flooded * 3  # to two peers and the gateway, or from the gateway to three peers
            delivered += len(lan.gateway_got()) + sum(len(lan.got(n)) for n in lan.peers)
        drops = counters.total("switch.drop.")
        assert counters["switch.received"] == sent
        assert counters["switch.received"] == counters["switch.unicast"] + counters["switch.flooded"] + drops
        assert delivered == counters["switch.unicast"] + copies
        assert "actors.failed" not in counters
        lan.ref.stop(block=False)
        loop.run()


# -- isolated guests ------------------------------------------------------------------------------------


def test_isolated_guests_reach_the_gateway_and_nobody_else(loop, counters):
    lan = Lan(counters, settings=LanSettings(isolated=True))
    for number in (1, 2, 3):
        lan.register(number, mac(number))
    lan.gateway.clear()
    groups = [bytes.fromhex(text) for text in ("ffffffffffff", "01005e0000fb", "333300000001")]
    to_all = [frame(mac(1), group) for group in groups]
    to_gateway = frame(mac(1), GATEWAY_MAC)
    lan.sends(1, *to_all, frame(mac(1), mac(2)), to_gateway, frame(mac(1), mac(9)))
    assert lan.gateway_got() == [*to_all, to_gateway]
    assert lan.got(2) == lan.got(3) == []
    assert lan.drops() == {"isolated": 2}
    assert counters["switch.received"] == 6
    assert counters["switch.unicast"] + counters["switch.multicast"] + counters["switch.flooded"] == 4
    lan.tell(FramesFromGateway([frame(GATEWAY_MAC, mac(2))]))
    assert len(lan.got(2)) == 1
