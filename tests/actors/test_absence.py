"""Clients that lose their session and come back: what is kept of theirs, for whom, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
import switch_parts
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC, FakeSession, control, mac, register
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from tcp_parts import TcpOutside

from actors.close_codes import CloseCode
from actors.lan.absence import HELD_BYTES, AbsentSession, HeldFrames
from actors.lan.peer import PeerActor
from actors.lan.switch import FIRST_QUERY_AFTER
from actors.messages import (
    AddressWanted,
    AssignAddress,
    ClosePeer,
    ConnectionMade,
    DatagramsFromClient,
    PortAbsent,
    PortClosed,
    SessionClosed,
    SettingsChanged,
    SocketReadable,
)
from actors.port_policy import usual_policy
from actors.runtime import run_ready

SERVER = ("192.0.2.1", 5000)
GRACE = 60.0
LOST = SessionClosed(0, "connection lost", lost=True)


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


class Guest:
    """A guest whose client may change its sessions."""

    def __init__(self, lan, number):
        self.lan, self.mac = lan, mac(number)
        self.client = lan.connect(self.mac)
        self.client.hears(register(self.mac))
        (self.assigned,) = self.client.session.controls()
        self.ip = ".".join(map(str, self.assigned["ip"]))

    def asks(self, data=b"?", sport=4000):
        """Send a datagram to the server; a mapping is made for it if there is none."""
        ends = IP(src=self.ip, dst=SERVER[0]) / UDP(sport=sport, dport=SERVER[1])
        self.client.sends(self.client.to(GATEWAY_MAC) / ends / data)

    def hears(self):
        return [bytes(frame[UDP].payload) for frame in self.client.frames() if UDP in frame]

    def is_lost(self):
        self.client.ref.tell(LOST)
        run_ready()

    def comes_back(self, path="/", resume=None, **more):
        self.former, self.client = self.client, self.lan.connect(self.mac, path)
        secret = self.assigned["resume"] if resume is None else resume
        self.client.hears(control(type="Register", mac=list(self.mac), resume=secret, **more))
        return self.client.session.controls()


@pytest.fixture
def guest(lan):
    guest = Guest(lan, 1)
    guest.asks(b"before")
    return guest


@pytest.mark.parametrize("noticed", [True, False], ids=["lost", "not known to be lost"])
def test_who_comes_back_has_its_address_and_its_mappings(loop, lan, guest, noticed):
    (socket,) = lan.outside.udp
    if noticed:
        guest.is_lost()
        loop.advance(GRACE - 1)
    guest.client.session.remote = "198.51.100.9:1234"
    (assigned,) = guest.comes_back()
    assert assigned == guest.assigned
    assert not guest.former.alive
    assert guest.former.session.closed == (
        None if noticed else (CloseCode.TAKEN_OVER, "its client is back in another session")
    )
    socket.reply(b"answer", SERVER)
    assert guest.hears() == [b"answer"]
    guest.asks(b"after")
    assert lan.outside.udp == [socket]
    assert [payload for payload, _ in socket.sent] == [b"before", b"after"]
    loop.advance(60)
    socket.reply(b"later", SERVER)
    assert guest.hears() == [b"later"]


def test_it_may_come_back_again_and_again(loop, lan, guest):
    (socket,) = lan.outside.udp
    for turn in range(5):
        guest.is_lost()
        assert guest.comes_back() == [guest.assigned]
        socket.reply(b"%d" % turn, SERVER)
        assert guest.hears() == [b"%d" % turn]
    assert lan.counters["switch.resumed"] == 5
    switch = lan.switch._actor_weakref()
    assert len(switch._former) == 1
    guest.client.leaves()
    assert (len(switch._former), switch._forwarding.sessions, len(switch._absent)) == (0, 0, 0)


def test_who_is_lost_before_it_was_asked_for_multicast_groups_is_asked_when_it_is_back(loop, lan, guest):
    guest.is_lost()
    loop.advance(2 * FIRST_QUERY_AFTER)
    guest.comes_back()
    assert guest.client.frames() == []
    loop.advance(FIRST_QUERY_AFTER)
    assert [frame.dst for frame in guest.client.frames()] == ["01:00:5e:00:00:01"]


def test_after_the_grace_time_nothing_is_left(loop, lan):
    Guest(lan, 2)
    before = lan.state()
    guest = Guest(lan, 1)
    guest.asks()
    guest.is_lost()
    assert guest.client.alive
    loop.advance(GRACE + 0.1)
    assert not guest.client.alive
    assert lan.state() == before
    assert lan.outside.open_sockets() == []
    assert lan.counters["peer.absences_over"] == 1
    (assigned,) = guest.comes_back()
    assert assigned["ip"] == guest.assigned["ip"]
    assert lan.counters["switch.resumed"] == 0


def test_who_is_silent_for_longer_than_the_grace_allows_sessions_is_waited_for_too(loop, counters):
    grace, timeout = 600.0, 150.0
    lan = Lan(loop, counters, resume_grace=grace, peer_timeout=timeout, udp_idle_timeout=grace)
    guest = Guest(lan, 1)
    guest.asks()
    (socket,) = lan.outside.udp
    loop.advance(timeout + lan.settings.heartbeat_interval + 1)
    assert guest.client.session.closed == (CloseCode.SILENT, "silent for 150 s")
    loop.advance(grace - timeout - lan.settings.heartbeat_interval - 2)
    assert guest.comes_back() == [guest.assigned]
    socket.reply(b"answer", SERVER)
    assert guest.hears() == [b"answer"]
    loop.advance(grace + timeout)
    assert not guest.client.alive
    assert lan.outside.open_sockets() == []


def test_segments_fit_the_datagrams_of_whichever_session_there_is(loop, counters):
    """Also where that is less than IPv6's MTU, of which the guest is told."""
    lan = Lan(loop, counters, outside=TcpOutside())
    guest = Guest(lan, 1)
    assert guest.assigned["mtu"] == 1280
    first, acknowledged = guest.client.session.datagram_limit, 0

    def says(**fields):
        ends = IP(src=guest.ip, dst=SERVER[0]) / TCP(sport=4000, dport=80, **fields)
        guest.client.sends(guest.client.to(GATEWAY_MAC) / ends)

    says(flags="S", seq=100, options=[("MSS", 1460)])
    (socket,) = lan.outside.tcp
    socket.tell(ConnectionMade())
    (answer,) = guest.client.frames()
    assert dict(answer[TCP].options)["MSS"] == first - 1 - 14 - 40
    says(flags="A", seq=101, ack=answer.seq + 1)
    for limit in (first, 1100, 900):
        if limit == 900:
            guest.is_lost()
            guest.comes_back()
        guest.client.session.datagram_limit = limit
        socket.to_read.append(bytes(3000))
        socket.tell(SocketReadable())
        sent = guest.client.session.take()
        assert {datagram[:1] for datagram in sent} == {b"\1"}, "no chunks"
        assert max(map(len, sent)) == limit
        payloads = [bytes(Ether(datagram[1:])[TCP].payload) for datagram in sent]
        acknowledged += sum(map(len, payloads))
        says(flags="A", seq=101, ack=answer.seq + 1 + acknowledged)


@pytest.mark.parametrize("how", ["left", "disconnected", "kicked", "kicked while away", "raw", "no grace"])
def test_who_leaves_or_is_shown_out_is_not_waited_for(loop, counters, how):
    lan = Lan(loop, counters, **({"resume_grace": 0.0} if how == "no grace" else {}))
    if how == "raw":
        raw = lan.connect(mac(1), "/?encap=raw")
        raw.sends(raw.to(GATEWAY_MAC) / IP(src="10.0.2.50", dst="10.0.2.2") / ICMP())
        raw.ref.tell(LOST)
        run_ready()
        assert not raw.alive
        return
    guest = Guest(lan, 1)
    guest.asks()
    if how == "left":
        guest.client.leaves()
    elif how == "disconnected":
        guest.client.hears(control(type="Disconnect"))
    elif how == "no grace":
        guest.is_lost()
    else:
        if how == "kicked while away":
            guest.is_lost()
            assert guest.client.alive
        guest.client.ref.tell(ClosePeer(CloseCode.EXPIRED, "revoked"))
        run_ready()
    assert not guest.client.alive
    assert lan.outside.open_sockets() == []
    guest.comes_back()
    assert counters["switch.resumed"] == 0


def test_a_token_that_expires_ends_the_waiting_too(loop, counters):
    lan = Lan(loop, counters)
    guest = Guest(lan, 1)
    guest.client.ref._actor_weakref()._expires = loop.time() + 5
    guest.is_lost()
    loop.advance(6)
    assert not guest.client.alive


def test_what_comes_meanwhile_is_kept_up_to_a_bound_and_the_rest_counted(loop, lan, guest):
    (socket,) = lan.outside.udp
    guest.is_lost()
    payloads = [b"%04d" % number + bytes(1000) for number in range(200)]
    for payload in payloads:
        socket.reply(payload, SERVER)
    guest.comes_back()
    heard = guest.hears()
    assert heard == payloads[-len(heard) :]
    assert HELD_BYTES - 1100 < sum(len(payload) + 42 for payload in heard) <= HELD_BYTES
    assert lan.counters["peer.drop.absent"] == len(payloads) - len(heard)


def test_what_nobody_came_back_for_is_counted(loop, lan, guest):
    (socket,) = lan.outside.udp
    loop.advance(2)  # it is asked for its multicast groups
    guest.is_lost()
    for _ in range(7):
        socket.reply(b"?", SERVER)
    loop.advance(GRACE + 0.1)
    assert lan.counters["peer.drop.absent"] == 7


@pytest.mark.parametrize("resume", ["", "0" * 32, "of another"])
def test_who_has_not_its_secret_gets_the_address_but_not_the_mappings(lan, guest, resume):
    if resume == "of another":
        resume = Guest(lan, 2).assigned["resume"]
    (socket,) = lan.outside.udp
    guest.is_lost()
    (assigned,) = guest.comes_back(resume=resume)
    assert assigned["ip"] == guest.assigned["ip"]
    assert not guest.former.alive
    assert not socket.open
    assert lan.counters["switch.resumed"] == 0


def test_an_earlier_holder_of_a_mac_has_nothing_of_the_present_one(lan, guest):
    stale = guest.assigned["resume"]
    guest.client.leaves()
    present = Guest(lan, 1)
    present.asks()
    assert present.assigned["resume"] != stale
    former = lan.connect(mac(1))
    former.hears(control(type="Register", mac=list(mac(1)), resume=stale))
    assert former.session.controls()[0]["type"] == "Error"
    assert present.client.session.closed is None


def test_another_that_uses_the_mac_of_one_who_is_away_has_it_at_once(lan, guest):
    other = Guest(lan, 2)
    guest.is_lost()
    ping = IP(src=guest.ip, dst="10.0.2.2") / ICMP()
    other.client.sends(Ether(src=guest.mac.hex(":"), dst=GATEWAY_MAC.hex(":")) / ping)
    assert not guest.client.alive
    assert ICMP in other.client.frames()[-1]
    assert lan.outside.open_sockets() == []


def test_all_guests_behind_a_session_are_kept(lan, guest):
    behind, address = mac(77).hex(":"), "10.0.2.77"
    ping = Ether(src=behind, dst=GATEWAY_MAC.hex(":")) / IP(src=address, dst="10.0.2.2") / ICMP()
    guest.client.sends(ping)
    guest.client.frames()
    neighbour = Guest(lan, 2)
    guest.is_lost()
    guest.comes_back()
    neighbour.client.sends(
        neighbour.client.to(mac(77)) / IP(src=neighbour.ip, dst=address) / UDP() / b"hello"
    )
    assert guest.hears() == [b"hello"]


def test_frames_right_behind_the_register_go_their_way(lan, guest):
    (socket,) = lan.outside.udp
    guest.is_lost()
    former, guest.client = guest.client, lan.connect(guest.mac)
    ends = IP(src=guest.ip, dst=SERVER[0]) / UDP(sport=4000, dport=SERVER[1])
    frame = guest.client.to(GATEWAY_MAC) / ends / b"at once"
    said = control(type="Register", mac=list(guest.mac), resume=guest.assigned["resume"])
    guest.client.hears(said, b"\1" + bytes(frame))
    assert [payload for payload, _ in socket.sent] == [b"before", b"at once"]
    assert not former.alive


def test_what_the_session_had_of_its_own_before_it_came_back_goes(lan, guest):
    guest.is_lost()
    client = lan.connect(guest.mac)
    client.hears(register(mac(5)))
    client.session.controls()
    client.hears(control(type="Register", mac=list(guest.mac), resume=guest.assigned["resume"]))
    assert client.session.controls() == [guest.assigned]
    neighbour = Guest(lan, 2)
    neighbour.client.sends(
        neighbour.client.to(b"\xff" * 6) / ARP(hwsrc=mac(2).hex(":"), psrc=neighbour.ip, pdst=guest.ip)
    )
    assert ARP in client.frames()[-1]


def test_a_former_session_cannot_end_what_its_successor_has(lan, guest):
    former = guest.client.ref
    number = guest.client.session.id
    guest.comes_back()
    for message in (PortClosed(number, former), PortAbsent(number, former)):
        lan.switch.tell(message)
        run_ready()
    (socket,) = lan.outside.udp
    socket.reply(b"still here", SERVER)
    assert guest.hears() == [b"still here"]


def test_a_session_that_ends_as_it_comes_back_takes_all_along(lan, guest):
    guest.is_lost()
    client = lan.connect(guest.mac)
    said = control(type="Register", mac=list(guest.mac), resume=guest.assigned["resume"])
    client.ref.tell(SessionClosed(0, ""))
    client.hears(said)
    assert not client.alive
    assert lan.state()[0] > 0
    assert guest.comes_back() == [guest.assigned]


def test_a_port_that_is_waiting_is_no_room_less_for_others_and_they_are_few(loop, counters):
    lan = Lan(loop, counters, max_peers=8)
    guests = [Guest(lan, number) for number in range(1, 9)]
    for guest in guests[:3]:
        guest.is_lost()
    # A quarter as many as there may be sessions.
    assert [guest.client.alive for guest in guests[:3]] == [True, True, False]
    assert counters["switch.absences_refused"] == 1
    late = [Guest(lan, number) for number in range(20, 23)]
    full = lan.connect(mac(30))
    assert full.session.closed[0] == CloseCode.FULL
    late[0].client.leaves()
    assert guests[0].comes_back() == [guests[0].assigned]
    assert counters["switch.resumed"] == 1


def test_limits_go_with_the_port_and_one_of_other_rights_is_not_taken(loop, counters):
    lan = Lan(loop, counters, bits_per_second=8_000_000)
    guest = Guest(lan, 1)
    before = guest.client.ref._actor_weakref()
    guest.is_lost()
    guest.comes_back()
    after = guest.client.ref._actor_weakref()
    # Coming back is no new allowance.
    assert after._from_limit is before._from_limit is not None
    assert after._to_limit is before._to_limit is not None
    assert counters["switch.resumed"] == 1

    guest.asks()
    (socket,) = lan.outside.udp
    guest.is_lost()
    other = replace(usual_policy(lan.settings), max_flows=1)
    session = FakeSession(99)
    peer = PeerActor.start(session, lan.switch, counters, lan.settings, policy=other)
    said = control(type="Register", mac=list(guest.mac), resume=guest.assigned["resume"])
    peer.tell(DatagramsFromClient([said]))
    run_ready()
    assert session.controls()[0]["ip"] == guest.assigned["ip"]
    assert not socket.open
    assert counters["switch.resumed"] == 1


def test_a_session_whose_token_names_a_right_comes_back_after_other_settings_came_into_force(loop, counters):
    lan = Lan(loop, counters)

    def enter(**more):
        policy = replace(usual_policy(lan.settings), max_macs=1, own=frozenset({"max_macs"}))
        client = lan.connect(mac(1), policy=policy)
        client.hears(control(type="Register", mac=list(mac(1)), **more))
        return client

    client = enter()
    (assigned,) = client.session.controls()
    lan.settings = replace(lan.settings, packets_per_second=7)
    for actor in (lan.switch, lan.gateway, client.ref):
        actor.tell(SettingsChanged(lan.settings))
    client.ref.tell(LOST)
    run_ready()
    assert enter(resume=assigned["resume"]).session.controls() == [assigned]
    assert counters["switch.resumed"] == 1


def test_addresses_of_those_who_are_away_go_to_those_who_are_here(loop, counters):
    lan = Lan(loop, counters, pool_last=bytes((10, 0, 2, 12)), client_share=0)
    first, second, third = (Guest(lan, number) for number in (1, 2, 3))
    second.is_lost()
    third.is_lost()
    late = lan.connect(mac(9))
    late.hears(register(mac(9)))
    # At once: it is not told that there is none, nor has to ask again.
    (assigned,) = late.session.controls()
    assert assigned["ip"] == second.assigned["ip"]
    assert [guest.client.alive for guest in (first, second, third)] == [True, False, True]
    assert third.comes_back() == [third.assigned]
    assert counters["switch.absences_cut_short"] == 1
    # Nobody is away now.
    full = lan.connect(mac(10))
    full.hears(register(mac(10)))
    assert full.session.controls()[0]["message"] == "address pool is full"
    assert counters["switch.absences_cut_short"] == 1
    assert first.client.alive


@pytest.mark.parametrize(
    ("client", "share", "ended"),
    [
        ("192.0.2.9", True, None),  # it has its share, and nobody of its own is away
        ("192.0.2.9", False, 1),  # there is no address: of whoever is away for longest
        ("192.0.2.3", True, 3),  # its own go first
        ("192.0.2.3", False, 3),
    ],
)
def test_who_has_its_share_of_addresses_gets_none_of_others_who_are_away(
    loop, counters, client, share, ended
):
    switch = switch_parts.Lan(counters, ports=0)
    for number in range(1, 5):
        switch.open(number, host=f"192.0.2.{number}")
        switch.register(number, mac(number))
        switch.tell(PortAbsent(number, switch.peers[number]))
    switch.tell(AddressWanted(AssignAddress(4, mac(9), switch.peers[4], client=client), share))
    closed = [number for number, peer in switch.peers.items() if peer.take(ClosePeer)]
    assert closed == ([] if ended is None else [ended])


def test_an_absent_session_takes_nothing_and_held_frames_come_out_once(loop):
    lost = FakeSession(5)
    session = AbsentSession(lost)
    session.send([b"x"])
    session.close(4, "")
    session.call_when_writable(lambda: pytest.fail("nothing is writable"))
    assert (session.id, session.room, session.writable, session.queued_bytes) == (5, 0, False, 0)
    assert session.path_state().carrier == "none"
    held = HeldFrames()
    assert held.hold([b"a" * 1000] * 3) == 0
    assert held.hold([b"b" * HELD_BYTES]) == 3
    assert held.hold([b"c" * (HELD_BYTES + 1)]) == 2
    assert held.take() == []
    assert held.hold([b"d"]) == 0
    assert (held.take(), held.take()) == ([b"d"], [])
    held.take()
    assert held.hold([b"d" * HELD_BYTES]) == 0, "what was taken takes no room"
    assert held.take() == [b"d" * HELD_BYTES]
