from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import dns.message
import gateway_parts
import pytest
from lan_parts import GATEWAY_IP, GATEWAY_MAC, Box, FakeOutside, ip, mac
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from actors.gateway.gateway import GatewayActor
from actors.gateway.guests import MAX_MACS_PER_PORT
from actors.gateway.services import DHCP_BURST
from actors.messages import (
    AddressAssigned,
    AddressUsed,
    AssignAddress,
    ConnectionMade,
    DnsQuestions,
    DnsStreamOpened,
    FramesFromGateway,
    FramesToGateway,
    GatewayAttached,
    Ipv6AddressesKnown,
    NameBound,
    NameForgotten,
    PortClosed,
)
from actors.runtime import run_ready
from actors.settings import FixedLease, LanSettings
from netstack.address_pool import Claim
from netstack.contests import PROBE_INTERVAL, PROBES
from netstack.dhcp_boot import BootFile


class Lan(gateway_parts.Lan):
    """One with IPv6; the test plays the name server too."""

    def __init__(self, counters, **settings):
        self.dns = Box()
        prefix = {"ipv6_prefix": LanSettings().ipv6_prefix}
        super().__init__(counters, dns=self.dns, **prefix | settings)

    def dhcp(self, port, kind, *options, source="0.0.0.0", hardware=None, **fields):
        """Send a DHCP message by broadcast; give what comes back."""
        chaddr = hardware or mac(port)
        return self.sends(
            port,
            Ether(src=mac(port).hex(":"), dst="ff:ff:ff:ff:ff:ff")
            / IP(src=source, dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(chaddr=chaddr + bytes(10), xid=7, **fields)
            / DHCP(options=[("message-type", kind), *options, "end"]),
        )


def options_of(frame):
    return {option[0]: option[1] for option in frame[DHCP].options if isinstance(option, tuple)}


@pytest.fixture
def lan(loop, counters):
    return Lan(counters)


def from_guest(port, address, dst="10.0.2.2"):
    return Ether(src=mac(port).hex(":"), dst=GATEWAY_MAC.hex(":")) / IP(src=address, dst=dst)


# -- DHCP -------------------------------------------------------------------------------------------


def test_who_declines_its_address_is_told_another_by_every_way(lan):
    peer = Box()
    lan.tell(AssignAddress(1, mac(1), peer, "web"))
    (told,) = peer.take(AddressAssigned)
    lan.dhcp(1, "decline", ("requested_addr", str(ip_address(told.ip))))
    (new,) = peer.take(AddressAssigned)
    assert new.ip != told.ip
    (offer,) = lan.dhcp(1, "discover")
    assert offer[BOOTP].yiaddr == str(ip_address(new.ip))
    names = lan.ref._actor_weakref()._services.names
    assert [names.name_of(address) for address in (told.ip, new.ip)] == [None, "web"]


def test_the_address_is_the_one_that_was_assigned(lan):
    lan.assign(1)
    assigned = lan.assign(2, link_mtu=lambda: 1395)
    (offer,) = lan.dhcp(2, "discover")
    assert (offer.dst, offer.src) == (mac(2).hex(":"), GATEWAY_MAC.hex(":"))
    assert (offer[IP].src, offer[IP].dst) == ("10.0.2.2", "10.0.2.11")
    assert (offer[UDP].sport, offer[UDP].dport) == (67, 68)
    assert offer[BOOTP].yiaddr == "10.0.2.11" == ".".join(map(str, assigned.ip))
    assert options_of(offer)["interface-mtu"] == assigned.mtu == 1395
    (ack,) = lan.dhcp(2, "request", ("server_id", "10.0.2.2"), ("requested_addr", "10.0.2.11"))
    assert options_of(ack)["message-type"] == 5
    again = ack.copy()
    del again[IP].chksum, again[UDP].chksum
    assert bytes(again) == bytes(ack)
    assert (lan.counters["dhcp.offer"], lan.counters["dhcp.ack"]) == (1, 1)
    assert lan.counters["gateway.received"] == lan.counters["gateway.answered"] == 2


def test_a_guest_behind_a_bridge_gets_an_address_too_and_may_use_it(lan):
    lan.assign(1)
    (offer,) = lan.dhcp(1, "discover")
    assert offer[BOOTP].yiaddr == "10.0.2.10"
    bridged = Ether(src=mac(77).hex(":"), dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    bridged /= UDP(sport=68, dport=67) / BOOTP(chaddr=mac(77)) / DHCP(options=[("message-type", 1), "end"])
    (offer,) = lan.sends(1, bridged)
    assert offer[BOOTP].yiaddr == "10.0.2.86"
    echo = (
        Ether(src=mac(77).hex(":"), dst=GATEWAY_MAC.hex(":")) / IP(src="10.0.2.86", dst="10.0.2.2") / ICMP()
    )
    assert len(lan.sends(1, echo)) == 1


def test_renewing_by_unicast(lan):
    lan.assign(1)
    renew = from_guest(1, "10.0.2.10") / UDP(sport=68, dport=67)
    renew /= BOOTP(chaddr=mac(1), ciaddr="10.0.2.10") / DHCP(options=[("message-type", 3), "end"])
    (ack,) = lan.sends(1, renew)
    assert (options_of(ack)["message-type"], ack[IP].dst) == (5, "10.0.2.10")


def test_two_clients_behind_one_mac_use_their_addresses_and_names(lan):
    lan.assign(1)
    for number, name in enumerate((b"one", b"two")):
        address = f"10.0.2.{10 + number}"
        options = (("client_id", b"\0" + name), ("hostname", name))
        (offer,) = lan.dhcp(1, "discover", *options)
        assert offer[BOOTP].yiaddr == address
        (ack,) = lan.dhcp(1, "request", *options, ("requested_addr", address))
        assert (options_of(ack)["message-type"], options_of(ack)["client_id"]) == (5, b"\0" + name)
        bound = [m for m in lan.dns.take(NameBound) if m.name]
        assert [(m.address, m.name) for m in bound] == [(ip(address), name.decode())]
    for address in ("10.0.2.10", "10.0.2.11"):
        (answer,) = lan.sends(1, from_guest(1, address) / ICMP())
        assert answer[IP].dst == address
    lan.dns.take(NameForgotten)
    lan.tell(PortClosed(1))
    forgotten = {m.mac for m in lan.dns.take(NameForgotten)}
    assert forgotten == {mac(1), mac(1) + ip("10.0.2.11")}
    assert lan.assign(2).ip != lan.assign(3).ip


def test_addresses_of_clients_that_are_gone_are_for_new_guests(loop, counters):
    lan = Lan(counters, pool_last=ip("10.0.2.11"), dhcp_lease_time=60.0)
    lan.assign(1)
    for identifier in (b"\0one", b"\0two"):
        assert len(lan.dhcp(1, "discover", ("client_id", identifier))) == 1
    assert not hasattr(lan.assign(2), "ip"), "all are held"
    loop.advance(60)
    assert lan.assign(2).ip == ip("10.0.2.11")


@pytest.mark.parametrize("way", ["released", "expired"])
def test_the_name_of_a_client_behind_a_mac_ends_with_its_lease(loop, counters, way):
    """Else it leads to whoever has the address next."""
    lan = Lan(counters, dhcp_lease_time=60.0)
    lan.assign(1)
    for name, address in ((b"one", "10.0.2.10"), (b"two", "10.0.2.11")):
        client = ("client_id", b"\0" + name), ("hostname", name)
        lan.dhcp(1, "discover", *client)
        lan.dhcp(1, "request", *client, ("requested_addr", address))
    lan.dns.take(NameForgotten)
    if way == "released":
        lan.dhcp(1, "release", ("client_id", b"\0two"), ciaddr="10.0.2.11")
    else:
        loop.advance(60)
        lan.assign(2)
    assert [m.mac for m in lan.dns.take(NameForgotten)] == [mac(1) + ip("10.0.2.11")]


def test_bootp_through_the_gateway(lan):
    lan.assign(1)
    request = Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    request /= UDP(sport=68, dport=67) / BOOTP(chaddr=mac(1), xid=9) / Raw(bytes(64))
    (reply,) = lan.sends(1, request)
    assert (reply[BOOTP].yiaddr, reply[BOOTP].xid, reply[BOOTP].op) == ("10.0.2.10", 9, 2)
    assert "message-type" not in options_of(reply)
    assert lan.counters["dhcp.bootp"] == 1


def test_without_dhcp_nothing_answers_and_addresses_stay(loop, counters):
    lan = Lan(counters, dhcp=False)
    assert lan.assign(1).ip == ip("10.0.2.10")
    assert lan.dhcp(1, "discover") == []
    (error,) = lan.sends(1, from_guest(1, "10.0.2.10") / UDP(sport=68, dport=67) / BOOTP(chaddr=mac(1)))
    assert (error[ICMP].type, error[ICMP].code) == (3, 3)
    assert len(lan.sends(1, from_guest(1, "10.0.2.10") / ICMP())) == 1
    assert not any(name.startswith("dhcp.") for name in lan.counters)


def test_what_the_operator_adds_is_told(loop, counters):
    boot = BootFile((0,), "bios.0", ip("10.0.2.15"))
    lan = Lan(counters, dhcp_boot=(boot,), dhcp_search=("a.example",), dhcp_ntp=(ip("192.0.2.1"),))
    lan.assign(1)
    (offer,) = lan.dhcp(1, "discover", (93, b"\0\0"))
    assert (offer[BOOTP].siaddr, offer[BOOTP].file.rstrip(b"\0")) == ("10.0.2.15", b"bios.0")
    assert options_of(offer)["NTP_server"] == "192.0.2.1"


def test_a_wrong_address_is_refused(lan):
    lan.assign(1)
    (nak,) = lan.dhcp(1, "request", ("requested_addr", "192.168.1.5"))
    assert (options_of(nak)["message-type"], nak[IP].dst, nak.dst) == (6, "255.255.255.255", mac(1).hex(":"))


def test_a_fixed_lease(loop, counters):
    lan = Lan(counters, fixed_leases=(FixedLease(mac(3), ip("10.0.2.50"), "db"),))
    assert lan.assign(3).ip == ip("10.0.2.50")
    (offer,) = lan.dhcp(3, "discover")
    assert offer[BOOTP].yiaddr == "10.0.2.50"


def test_nobody_takes_addresses_in_the_name_of_others(lan):
    assert lan.dhcp(1, "discover", hardware=mac(2)) == []
    assert lan.counters["gateway.drop.dhcp_spoofed"] == 1
    for n in range(MAX_MACS_PER_PORT + 1):
        nobody = Ether(src=mac(100 + n).hex(":"), dst="ff:ff:ff:ff:ff:ff")
        lan.sends(1, nobody / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(dport=67) / Raw(b"?"))
    assert lan.counters["gateway.drop.too_many_macs"] > 0


def test_a_guest_that_asks_too_often_is_not_heard(lan, loop):
    for _ in range(int(DHCP_BURST)):
        assert len(lan.dhcp(1, "discover")) == 1
    assert lan.dhcp(1, "discover") == []
    assert lan.counters["gateway.drop.dhcp_rate"] == 1
    # A session that comes to the number of one that left is another one.
    lan.tell(PortClosed(1))
    assert lan.dhcp(1, "discover")
    assert lan.counters["gateway.drop.dhcp_rate"] == 1
    assert len(lan.dhcp(2, "discover")) == 1
    loop.advance(1.0)
    assert len(lan.dhcp(1, "discover")) == 1


def test_what_is_not_answered_is_counted(lan):
    assert lan.dhcp(1, "release") == lan.dhcp(1, "request", ("server_id", "10.0.2.9")) == []
    assert (lan.counters["dhcp.released"], lan.counters["dhcp.other_server"]) == (1, 1)
    rubbish = from_guest(1, "10.0.2.10") / UDP(sport=68, dport=67) / Raw(b"rubbish")
    lan.assign(1)
    assert lan.sends(1, rubbish) == []
    assert lan.counters["gateway.drop.bad_dhcp"] == 1


def test_other_broadcasts_are_the_guests_own_affair(lan):
    everyone = Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff")
    limited = everyone / IP(src="10.0.2.10", dst="255.255.255.255") / UDP(dport=137) / Raw(b"?")
    directed = everyone / IP(src="10.0.2.10", dst="10.0.2.255") / UDP(dport=67)
    assert lan.sends(1, limited, directed, everyone / IP(dst="255.255.255.255") / ICMP()) == []
    assert lan.counters["gateway.ignored"] == 3


# -- DNS --------------------------------------------------------------------------------------------


def test_an_answer_may_be_as_large_as_one_packet_of_the_session(lan):
    lan.assign(1, link_mtu=lambda: 1141)
    lan.sends(1, from_guest(1, "10.0.2.10") / UDP(sport=5353, dport=53) / Raw(b"?"))
    ((question,),) = (message.questions for message in lan.dns.take(DnsQuestions))
    assert question.limit == 1141 - 28


def test_the_questions_of_one_batch_are_one_message(lan):
    lan.assign(1)
    packets = [from_guest(1, "10.0.2.10") / UDP(sport=5353 + n, dport=53) / Raw(b"?") for n in range(10)]
    lan.sends(1, *packets)
    assert [len(message.questions) for message in lan.dns.take(DnsQuestions)] == [10]


@pytest.mark.parametrize("server", ["10.0.2.2", "10.0.2.3"])
def test_a_question_reaches_the_name_server_and_its_answer_the_guest(lan, server):
    lan.assign(1)
    (is_at,) = lan.sends(
        1, Ether(src=mac(1).hex(":")) / ARP(hwsrc=mac(1).hex(":"), psrc="10.0.2.10", pdst=server)
    )
    assert is_at[ARP].hwsrc == GATEWAY_MAC.hex(":")
    query = dns.message.make_query("www.example.", "A", id=7).to_wire()
    assert lan.sends(1, from_guest(1, "10.0.2.10", server) / UDP(sport=5353, dport=53) / Raw(query)) == []
    (questions,) = lan.dns.take(DnsQuestions)
    assert questions.port == 1
    (question,) = questions.questions
    assert (question.query, question.over_stream) == (query, False)
    question.reply(dns.message.make_response(dns.message.from_wire(query)).to_wire())
    ((frame,),) = (m.frames for m in lan.switch.take(FramesFromGateway))
    answer = Ether(frame)
    assert (answer.src, answer.dst) == (GATEWAY_MAC.hex(":"), mac(1).hex(":"))
    assert (answer[IP].src, answer[IP].dst) == (server, "10.0.2.10")
    assert (answer[UDP].sport, answer[UDP].dport, answer[DNS].id) == (53, 5353, 7)


def test_both_addresses_answer_pings_and_refuse_other_ports(lan):
    lan.assign(1)
    for server in ("10.0.2.2", "10.0.2.3"):
        (echo,) = lan.sends(1, from_guest(1, "10.0.2.10", server) / ICMP(seq=3) / Raw(b"x"))
        assert (echo[IP].src, echo[ICMP].type, echo[ICMP].seq) == (server, 0, 3)
        (error,) = lan.sends(1, from_guest(1, "10.0.2.10", server) / UDP(dport=99))
        assert (error[ICMP].type, error[ICMP].code) == (3, 3)


def test_no_guest_may_have_the_name_servers_address(lan):
    lan.sends(1, from_guest(1, "10.0.2.3") / ICMP())
    assert lan.counters["gateway.drop.reserved_address"] == 1


def test_without_a_name_server_its_port_is_closed(loop, counters):
    switch = Box()
    ref = GatewayActor.start(switch, FakeOutside(), counters, LanSettings())
    ref.tell(FramesToGateway(1, [bytes(from_guest(1, "10.0.2.10") / UDP(dport=53) / Raw(b"?"))]))
    ref.tell(PortClosed(1))
    run_ready()
    assert counters["gateway.drop.no_service"] == 1


# -- names ------------------------------------------------------------------------------------------


def test_names_come_from_registration_and_dhcp_and_go_with_the_session(lan):
    assert lan.assign(1, name="web").dns == GATEWAY_IP
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"www"))
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.99"), ("hostname", b"wrong"))
    lan.tell(PortClosed(1))
    assert lan.dns.take() == [
        NameBound(mac(1), ip("10.0.2.10"), "web"),
        NameBound(mac(1), ip("10.0.2.10"), "www"),
        NameForgotten(mac(1)),
        PortClosed(1),
    ]


@pytest.mark.parametrize("name", ["web", "no name!"])
def test_a_name_that_is_not_for_the_guest_to_choose_stays_whatever_dhcp_says(lan, name):
    lan.assign(1, name=name, name_is_fixed=True)
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"db"))
    bridged = Ether(src=mac(77).hex(":"), dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    bridged /= UDP(sport=68, dport=67) / BOOTP(chaddr=mac(77), xid=8)
    bridged /= DHCP(
        options=[("message-type", "request"), ("requested_addr", "10.0.2.11"), ("hostname", b"db")]
    )
    lan.sends(1, bridged)
    bound = lan.dns.take(NameBound)
    assert bound
    assert {message.name for message in bound} == {name}


def test_a_guest_loses_the_name_that_a_token_gives_to_another(lan, counters):
    lan.assign(1, name="web")
    lan.assign(2, name="web", name_is_fixed=True)
    lan.assign(3, name="web")
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"web"))
    assert counters["gateway.names_displaced"] == 1
    assert [message.granted for message in lan.dns.take(NameBound)] == [False, True, False, False]
    lan.tell(PortClosed(2))
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"web"))
    lan.dhcp(2, "request", ("requested_addr", "10.0.2.11"))
    lan.assign(4, name="web", name_is_fixed=True)
    assert counters["gateway.names_displaced"] == 2


def test_dhcp_confirms_a_name_that_a_token_gives(lan, counters):
    lan.assign(2)
    lan.dhcp(2, "request", ("requested_addr", "10.0.2.11"), ("hostname", b"web"))
    lan.assign(1, name="web", name_is_fixed=True)
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"web"))
    assert [message.granted for message in lan.dns.take(NameBound)] == [False, True, True]
    assert counters["gateway.names_displaced"] == 1


def test_a_session_that_may_not_register_gives_its_guests_no_names(lan):
    """What they are to be called comes with the registration."""
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"db"))
    assert [message.name for message in lan.dns.take(NameBound)] == [""]
    lan.assign(1)
    lan.dhcp(1, "request", ("requested_addr", "10.0.2.10"), ("hostname", b"db"))
    assert [message.name for message in lan.dns.take(NameBound)] == ["db"]


# -- names of IPv6 addresses ------------------------------------------------------------------------


def address6(n):
    return LanSettings().ipv6_prefix + n.to_bytes(8, "big")


def lasting6(port):
    """The address that a guest makes of its MAC (RFC 4862)."""
    hardware = mac(port)
    return LanSettings().ipv6_prefix + bytes((hardware[0] ^ 2,)) + hardware[1:3] + b"\xff\xfe" + hardware[3:]


def uses6(lan, port, address):
    """Ping the gateway from an address."""
    frame = Ether(src=mac(port).hex(":"), dst=GATEWAY_MAC.hex(":"))
    frame /= IPv6(src=IPv6Address(address), dst=IPv6Address(address6(2))) / ICMPv6EchoRequest()
    lan.sends(port, frame)


def looks_for_duplicates(lan, port, address):
    frame = Ether(src=mac(port).hex(":"), dst="33:33:ff:00:00:01")
    frame /= IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=IPv6Address(address))
    lan.sends(port, frame)


def known6(lan):
    return [(message.mac, message.addresses) for message in lan.dns.take(Ipv6AddressesKnown)]


def test_the_name_server_is_told_of_each_ipv6_address_that_a_guest_uses(lan):
    lan.assign(1)
    uses6(lan, 1, address6(0x11))
    assert known6(lan) == [(mac(1), (address6(0x11),))]
    uses6(lan, 1, address6(0x11))
    assert known6(lan) == []
    uses6(lan, 1, lasting6(1))
    assert known6(lan) == [(mac(1), (lasting6(1), address6(0x11)))]
    uses6(lan, 1, address6(0x12))
    assert known6(lan) == [(mac(1), (lasting6(1), address6(0x12), address6(0x11)))]
    uses6(lan, 1, ip_address("fe80::1").packed)
    assert known6(lan) == []
    lan.tell(PortClosed(1))
    assert lan.dns.take() == [NameForgotten(mac(1)), PortClosed(1)]


def test_an_address_that_a_guest_is_about_to_take_leads_to_it_unless_it_is_anothers(lan):
    lan.assign(1)
    lan.assign(2)
    looks_for_duplicates(lan, 1, address6(0x11))
    assert known6(lan) == [(mac(1), (address6(0x11),))]
    looks_for_duplicates(lan, 2, address6(2))
    uses6(lan, 1, address6(0x11))
    looks_for_duplicates(lan, 2, address6(0x11))
    assert known6(lan)[-1] == (mac(2), ())


def test_what_the_switch_saw_is_told_too(lan):
    """With the source guard it is the switch that takes addresses for guests, in the gateway's tables."""
    (attached,) = lan.switch.take(GatewayAttached)
    lan.assign(1)
    assert attached.sources.claim(mac(1), address6(0x11)) is Claim.GRANTED
    lan.tell(AddressUsed(1, mac(1), address6(0x11), contested=False))
    assert known6(lan) == [(mac(1), (address6(0x11),))]
    attached.sources.claim(mac(1), ip("10.0.2.77"))
    lan.tell(AddressUsed(1, mac(1), ip("10.0.2.77"), contested=False))
    assert known6(lan) == []


def test_an_address_that_moved_leads_to_its_new_holder(loop, lan):
    lan.assign(1)
    lan.assign(2)
    uses6(lan, 1, address6(0x11))
    uses6(lan, 2, address6(0x11))
    known6(lan)
    loop.advance(PROBES * PROBE_INTERVAL)
    run_ready()
    assert sorted(known6(lan)) == [(mac(1), ()), (mac(2), (address6(0x11),))]


def test_the_ipv6_addresses_of_a_guest_stay_its_names_when_it_has_another_ipv4_one(lan):
    lan.assign(1, name="web")
    lan.assign(2)
    uses6(lan, 1, address6(0x11))
    lan.dns.take()
    lan.sends(2, from_guest(2, "10.0.2.10") / ICMP())
    told = [message for message in lan.dns.take() if message.mac == mac(1)]
    assert (told[0], told[-1]) == (NameForgotten(mac(1)), Ipv6AddressesKnown(mac(1), (address6(0x11),)))


@pytest.mark.parametrize("answers", [False, True])
def test_the_name_of_an_address_that_moved_does_not_lead_to_its_new_holder(loop, lan, answers):
    lan.settle(1, name="web")
    lan.settle(2)
    uses6(lan, 1, address6(0x11))
    (question,) = (
        frame
        for frame in lan.sends(2, from_guest(2, "10.0.2.10") / ICMP())
        if ARP in frame and frame[ARP].op == 1
    )
    lan.dns.take()
    if answers:
        answer = ARP(
            op=2, hwsrc=mac(1).hex(":"), psrc="10.0.2.10", hwdst=question.src, pdst=question[ARP].psrc
        )
        lan.sends(1, Ether(src=mac(1).hex(":"), dst=GATEWAY_MAC.hex(":")) / answer)
    loop.advance(PROBES * PROBE_INTERVAL)
    lan.received()
    gone = [NameForgotten(mac(1)), Ipv6AddressesKnown(mac(1), (address6(0x11),))]
    assert lan.dns.take() == ([] if answers else gone)
    (offer,) = lan.dhcp(1, "discover")
    lan.dhcp(1, "request", ("requested_addr", offer[BOOTP].yiaddr), ("hostname", b"web"))
    assert (offer[BOOTP].yiaddr == "10.0.2.10") == answers
    assert lan.dns.take(NameBound) == [NameBound(mac(1), ip(offer[BOOTP].yiaddr), "web")]


# -- DNS over TCP -----------------------------------------------------------------------------------


def test_a_connection_to_port_53_is_a_stream_of_questions(lan):
    lan.assign(1)
    guest = from_guest(1, "10.0.2.10", "10.0.2.3")
    assert lan.sends(1, guest / TCP(sport=4000, dport=53, flags="S", seq=100, window=60000)) == []
    (opened,) = lan.dns.take(DnsStreamOpened)
    opened.flow.tell(ConnectionMade())
    (synack,) = lan.received()
    assert (synack[IP].src, synack[TCP].flags, synack[TCP].ack) == ("10.0.2.3", "SA", 101)
    query = dns.message.make_query("www.example.", "A").to_wire()
    segment = {"sport": 4000, "dport": 53, "ack": synack[TCP].seq + 1, "window": 60000}
    data = len(query).to_bytes(2, "big") + query
    lan.sends(1, guest / TCP(flags="PA", seq=101, **segment) / Raw(data))
    ((question,),) = (message.questions for message in lan.dns.take(DnsQuestions))
    assert (question.query, question.over_stream) == (query, True)
    question.reply(b"the answer")
    assert [bytes(frame[TCP].payload) for frame in lan.received() if frame[TCP].payload] == [
        b"\0\x0athe answer"
    ]


def test_other_ports_are_refused(lan):
    lan.assign(1)
    (reset,) = lan.sends(1, from_guest(1, "10.0.2.10") / TCP(sport=4000, dport=80, flags="S"))
    assert reset[TCP].flags == "RA"
