"""The actors together: clients on fake sessions, a fake network outside, everything between them real."""

from __future__ import annotations

import pytest
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC, control, mac, register
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

from actors.close_codes import CloseCode
from actors.messages import ClosePeer
from actors.runtime import run_ready
from netstack.dhcp_options import Route

SERVER = ("192.0.2.1", 53)


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


def question(client, address, sport=4000, data=b"?"):
    return client.to(GATEWAY_MAC) / IP(src=address, dst=SERVER[0]) / UDP(sport=sport, dport=SERVER[1]) / data


def test_two_guests_meet_and_talk(lan):
    (a, a_ip), (b, b_ip) = lan.join(1), lan.join(2)
    assert (a_ip, b_ip) == ("10.0.2.10", "10.0.2.11")
    a.sends(a.to(b"\xff" * 6) / ARP(hwsrc=a.mac.hex(":"), psrc=a_ip, pdst=b_ip))
    (who_has,) = b.frames()
    assert who_has[ARP].pdst == b_ip
    b.sends(b.to(a.mac) / IP(src=b_ip, dst=a_ip) / UDP() / b"hello")
    assert [bytes(f[UDP].payload) for f in a.frames()] == [b"hello"]


def test_a_guest_pings_the_gateway(lan):
    a, a_ip = lan.join(1)
    a.sends(a.to(b"\xff" * 6) / ARP(hwsrc=a.mac.hex(":"), psrc=a_ip, pdst="10.0.2.2"))
    (is_at,) = a.frames()
    assert is_at[ARP].hwsrc == GATEWAY_MAC.hex(":")
    a.sends(a.to(GATEWAY_MAC) / IP(src=a_ip, dst="10.0.2.2") / ICMP(seq=5) / b"data")
    (reply,) = a.frames()
    assert (reply[ICMP].type, reply[ICMP].seq, bytes(reply[ICMP].payload)) == (0, 5, b"data")


def test_a_raw_guest_with_a_hand_taken_address_reaches_everything(lan):
    raw, (framed, framed_ip) = lan.connect(mac(9), "/?encap=raw"), lan.join(1)
    raw.sends(raw.to(GATEWAY_MAC) / IP(src="10.0.2.230", dst="10.0.2.2") / ICMP() / b"raw")
    assert [bytes(f[ICMP].payload) for f in raw.frames()] == [b"raw"]
    raw.sends(raw.to(framed.mac) / IP(src="10.0.2.230", dst=framed_ip) / UDP() / b"to framed")
    assert [bytes(f[UDP].payload) for f in framed.frames()] == [b"to framed"]
    raw.sends(question(raw, "10.0.2.230"))
    lan.outside.udp[0].reply(b"answer", SERVER)
    assert [bytes(f[UDP].payload) for f in raw.frames()] == [b"answer"]


def test_a_network_behind_a_guest_is_reached_and_answers(loop, counters):
    lan = Lan(loop, counters, dhcp_routes=(Route(bytes((192, 168, 7, 0)), 24, bytes((10, 0, 2, 50))),))
    (guest, address), router, host = lan.join(1), lan.connect(mac(9), "/raw?encap=raw"), "192.168.7.9"
    router.sends(router.to(b"\xff" * 6) / ARP(hwsrc=router.mac.hex(":"), psrc="10.0.2.50", pdst="10.0.2.50"))
    guest.frames()
    guest.sends(guest.to(router.mac) / IP(src=address, dst=host) / UDP() / b"there")
    router.sends(router.to(guest.mac) / IP(src=host, dst=address) / UDP() / b"back")
    assert [bytes(f[UDP].payload) for f in router.frames() if UDP in f] == [b"there"]
    assert [bytes(f[UDP].payload) for f in guest.frames()] == [b"back"]
    guest.sends(guest.to(router.mac) / IP(src=host, dst="10.0.2.50") / UDP() / b"spoofed")
    assert not any(UDP in frame for frame in router.frames())


def test_flows_of_two_guests_with_the_same_ports_stay_apart(lan):
    guests = [lan.join(n) for n in (1, 2)]
    for sport in range(7000, 7050):
        for n, (client, address) in enumerate(guests):
            client.sends(question(client, address, sport, b"%d:%d" % (n, sport)))
    for socket in lan.outside.udp[::-1]:
        socket.reply(socket.sent[0][0], SERVER)
    for n, (client, address) in enumerate(guests):
        frames = client.frames()
        assert len(frames) == 50
        for frame in frames:
            assert frame[IP].dst == address
            assert bytes(frame[UDP].payload) == b"%d:%d" % (n, frame[UDP].dport)


@pytest.mark.parametrize("how", ["leaves", "disconnects", "silent", "closed", "fails"])
def test_a_guest_that_is_gone_leaves_nothing_behind(loop, lan, how, caplog):
    stays, stays_ip = lan.join(1)
    before = lan.state()
    goes, goes_ip = lan.join(2)
    goes.sends(question(goes, goes_ip), goes.to(GATEWAY_MAC) / IP(src=goes_ip, dst="192.0.2.7") / ICMP())
    goes.sends(
        Ether(src=mac(77).hex(":"), dst=GATEWAY_MAC.hex(":")) / IP(src="10.0.2.77", dst="10.0.2.2") / ICMP()
    )
    assert len(lan.outside.open_sockets()) == 2
    if how == "leaves":
        goes.leaves()
    elif how == "disconnects":
        goes.hears(control(type="Disconnect"))
    elif how == "silent":
        for _ in range(20):
            loop.advance(10)
            stays.hears(control(type="Heartbeat"))
    elif how == "closed":
        goes.ref.tell(ClosePeer(CloseCode.SHUTDOWN, "bye"))
        run_ready()
    else:
        goes.session.send = None
        goes.hears(control(type="Heartbeat"))
    assert not goes.alive
    assert lan.state() == before
    stays.frames()  # it was asked for its multicast groups meanwhile
    stays.sends(question(stays, stays_ip))
    lan.outside.udp[-1].reply(b"still here", SERVER)
    assert [bytes(f[UDP].payload) for f in stays.frames()] == [b"still here"]
    assert lan.join(2)[1] == goes_ip


def test_a_reloaded_tab_takes_its_address_along(loop, lan):
    old, address = lan.join(1)
    new = lan.connect(mac(1))
    new.session.remote = old.session.remote
    new.hears(register(mac(1)))
    assert old.session.closed[0] == CloseCode.TAKEN_OVER
    assert ".".join(map(str, new.session.controls()[0]["ip"])) == address
    new.sends(new.to(GATEWAY_MAC) / IP(src=address, dst="10.0.2.2") / ICMP())
    assert len(new.frames()) == 1
    assert old.frames() == []


def test_a_client_that_changed_its_network_shows_what_it_was_told(lan):
    old = lan.connect(mac(1))
    old.hears(register(mac(1)))
    (assigned,) = old.session.controls()
    thief, new = lan.connect(mac(1)), lan.connect(mac(1))
    thief.hears(register(mac(1)))
    assert thief.session.controls() == [{"type": "Error", "message": "another session uses this MAC address"}]
    new.hears(control(type="Register", mac=list(mac(1)), resume=assigned["resume"]))
    assert old.session.closed[0] == CloseCode.TAKEN_OVER
    assert new.session.controls()[0]["ip"] == assigned["ip"]


def test_a_raw_tab_that_was_reloaded_gets_through_once_the_old_one_is_silent(loop, lan):
    old, new = (lan.connect(mac(1), "/?encap=raw") for _ in range(2))
    ping = old.to(GATEWAY_MAC) / IP(src="10.0.2.50", dst="10.0.2.2") / ICMP()
    old.sends(ping)
    new.sends(ping)
    assert (len(old.frames()), len(new.frames())) == (1, 0)
    loop.advance(46)
    new.sends(ping)
    assert len(new.frames()) == 1
    assert old.session.closed[0] == CloseCode.TAKEN_OVER


def test_a_spoofing_guest_never_gets_a_neighbours_frames(lan):
    (victim, victim_ip), (thief, _) = lan.join(1), lan.join(2)
    thief.sends(
        Ether(src=victim.mac.hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=victim_ip, pdst=victim_ip),
        Ether(src=GATEWAY_MAC.hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.2.2", pdst="10.0.2.2"),
        thief.to(b"\xff" * 6) / ARP(hwsrc=thief.mac.hex(":"), psrc="10.0.2.2", pdst="10.0.2.2"),
    )
    assert victim.frames() == []
    victim.sends(question(victim, victim_ip))
    lan.outside.udp[0].reply(b"for the victim", SERVER)
    assert [bytes(f[UDP].payload) for f in victim.frames()] == [b"for the victim"]
    assert thief.frames() == []


@pytest.mark.parametrize("source", ["192.168.122.9", "10.0.2.11"])
@pytest.mark.parametrize("to", [(b"\xff" * 6, "255.255.255.255"), (GATEWAY_MAC, "10.0.2.2")])
@pytest.mark.parametrize("guarded", [True, False])
def test_who_renews_a_lease_of_elsewhere_or_of_a_neighbour_is_told_so(loop, counters, source, to, guarded):
    lan = Lan(loop, counters, source_guard=guarded)
    (guest, own), (neighbour, theirs) = lan.join(1), lan.join(2)
    assert theirs == "10.0.2.11"
    neighbour.sends(neighbour.to(GATEWAY_MAC) / IP(src=theirs, dst="10.0.2.2") / ICMP())
    neighbour.frames()

    def asks(address):
        message = BOOTP(chaddr=guest.mac, ciaddr=address) / DHCP(options=[("message-type", "request"), "end"])
        guest.sends(guest.to(to[0]) / IP(src=address, dst=to[1]) / UDP(sport=68, dport=67) / message)
        return [(dict(f[DHCP].options[:1])["message-type"], f[IP].dst) for f in guest.frames() if DHCP in f]

    assert asks(source) == [(6, "255.255.255.255")]
    if guarded:
        assert not any(UDP in frame for frame in neighbour.frames()), "in whose name it came"
    assert asks(own) == [(5, own)]


def test_nothing_else_from_anothers_address_reaches_the_gateway(lan, counters):
    (guest, _), (neighbour, theirs) = lan.join(1), lan.join(2)
    neighbour.sends(neighbour.to(GATEWAY_MAC) / IP(src=theirs, dst="10.0.2.2") / ICMP())
    before = counters["gateway.received"]
    for port in (53, 68, 69):
        guest.sends(guest.to(GATEWAY_MAC) / IP(src=theirs, dst="10.0.2.2") / UDP(dport=port))
    assert counters["gateway.received"] == before


def test_addresses_that_are_taken_in_one_batch_count_one_by_one(lan, counters):
    (taker, _), (other, _) = lan.join(1), lan.join(2)
    frames = [
        Ether(src=f"52:54:00:99:00:{last % 7:02x}", dst="ff:ff:ff:ff:ff:ff")
        / ARP(hwsrc=f"52:54:00:99:00:{last % 7:02x}", psrc=f"10.0.2.{last}", pdst=f"10.0.2.{last}")
        for last in range(20, 60)
    ]
    taker.sends(*frames)
    taken = len(other.frames())
    assert counters["switch.drop.address_share"] > 0
    assert taken + counters["switch.drop.address_share"] == len(frames)
    assert taken < 245 // 8


def test_a_full_pool_is_an_error_for_the_client(loop, counters):
    lan = Lan(loop, counters, pool_last=bytes((10, 0, 2, 10)))
    lan.join(1)
    late = lan.connect(mac(2))
    late.hears(register(mac(2)))
    assert late.session.controls() == [{"type": "Error", "message": "address pool is full"}]


def test_a_frame_longer_than_a_datagram_reaches_everyone(lan):
    (a, a_ip), (b, _), (c, _) = (lan.join(n) for n in (1, 2, 3))
    a.sends(a.to(b"\xff" * 6) / IP(src=a_ip, dst="10.0.2.255") / UDP() / bytes(1400))
    for client in (b, c):
        chunks = client.session.take()
        assert len(chunks) == 2
        assert sum(len(chunk) - 5 for chunk in chunks) == 1442


def test_the_lan_outlives_its_gateway(lan, caplog):
    (a, a_ip), (b, b_ip) = lan.join(1), lan.join(2)
    a.sends(question(a, a_ip))
    lan.gateway._actor_weakref()._leases = None
    b.hears(register(mac(33)))  # the gateway cannot assign any more, and fails
    assert not lan.gateway.is_alive()
    assert lan.outside.open_sockets() == []
    a.sends(a.to(b.mac) / IP(src=a_ip, dst=b_ip) / UDP() / b"still a LAN", question(a, a_ip))
    assert [bytes(f[UDP].payload) for f in b.frames()] == [b"still a LAN"]
    assert lan.counters["gateway.drop.absent"] == 1
