"""What actors say of themselves: a LAN with guests and flows, asked as an operator's tools ask."""

from __future__ import annotations

import pytest
from forward_parts import Forwarded
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC, control, mac
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from tcp_parts import Lan as TcpLan

from actors.descriptions import Describe, FlowDescription, PathState
from actors.messages import DatagramFromNet, DatagramsFromNet
from actors.ports import SendResult
from actors.runtime import run_ready
from actors.settings import LanSettings


def describe(actor):
    reply = actor.ask(Describe(), block=False)
    run_ready()
    return reply.get()


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


def test_a_session_tells_who_it_is_and_what_it_moved(loop, lan):
    client = lan.connect(mac(1))
    loop.advance(1.5)
    client.hears(control(type="Register", mac=list(mac(1)), name="Web"))
    loop.advance(2.0)
    ping = client.to(GATEWAY_MAC) / IP(src="10.0.2.10", dst="10.0.2.2") / ICMP() / (b"x" * 58)
    client.sends(ping, ping)
    client.hears(b"\7?")
    told = describe(client.ref)
    assert (told.port, told.room, told.remote) == (1, "default", client.session.remote)
    assert (told.name, told.mac, told.address) == ("Web", mac(1).hex(":"), "10.0.2.10")
    assert (told.carrier, told.encapsulation, told.mtu > 500) == ("webtransport", "framed", True)
    assert (told.age, told.silent) == (3.5, 0.0)
    assert (told.frames_in, told.bytes_in) == (2, 2 * len(ping))
    sent = client.session.frames()
    assert (told.frames_out, told.bytes_out) == (len(sent), sum(map(len, sent)))
    assert (told.round_trip, told.packets_sent, told.packets_lost) == (0.02, 100, 1)


TRAFFIC = ("peer.bytes_from_client", "peer.bytes_to_client", "peer.packets_sent", "peer.packets_lost")


def test_what_a_session_moved_is_the_lans_too_once_however_often_it_is_asked(lan, counters):
    client, address = lan.join(1)
    ping = client.to(GATEWAY_MAC) / IP(src=address, dst="10.0.2.2") / ICMP()
    client.sends(ping)
    first = describe(client.ref)
    assert describe(client.ref) == first
    assert [counters[name] for name in TRAFFIC] == [first.bytes_in, first.bytes_out, 100, 1]
    client.session.frames()
    client.session.path_state = lambda: PathState("webtransport", 0.02, 130, 4)
    client.sends(ping, ping)
    answers = client.session.frames()
    client.leaves()
    moved = [first.bytes_in + 2 * len(ping), first.bytes_out + sum(map(len, answers))]
    assert [counters[name] for name in TRAFFIC] == [*moved, 130, 4]


def test_a_session_that_has_said_nothing_is_told_apart(lan):
    told = describe(lan.connect(mac(1)).ref)
    assert (told.encapsulation, told.name, told.mac, told.address) == (None, None, None, None)


def test_frames_that_went_nowhere_are_told_by_reason(loop, counters):
    lan = Lan(loop, counters, packets_per_second=1)
    client, _ = lan.join(1)
    client.sends(*[client.to(GATEWAY_MAC) / IP(src="10.0.2.10", dst="10.0.2.2") / ICMP()] * 500)
    told = describe(client.ref)
    assert told.drops == {"peer.drop.rate_from_client": counters["peer.drop.rate_from_client"]}
    assert told.frames_in == 500


def test_the_switch_tells_macs_and_how_they_came_to_be_known(loop, lan):
    client, _ = lan.join(1)
    lan.join(2)
    client.sends((client.to(GATEWAY_MAC) / IP(src="10.0.2.50", dst="10.0.2.2") / ICMP()).copy())
    learned = client.to(GATEWAY_MAC) / IP(src="10.0.2.51", dst="10.0.2.2") / ICMP()
    learned.src = mac(9).hex(":")
    client.sends(learned)
    loop.advance(7.0)
    told = describe(lan.switch)
    assert told.ports == 2
    assert {(entry.mac, entry.port, entry.registered, entry.silent) for entry in told.macs} == {
        (mac(1).hex(":"), 1, True, None),
        (mac(2).hex(":"), 2, True, None),
        (mac(9).hex(":"), 1, False, 7.0),
    }


def test_the_gateway_tells_who_holds_which_address(loop, counters):
    lan = Lan(loop, counters)
    client = lan.connect(mac(1))
    client.hears(control(type="Register", mac=list(mac(1)), name="web"))
    told = describe(lan.gateway)
    assert (told.network, told.gateway) == ("10.0.2.0/24", "10.0.2.2")
    (lease,) = told.leases
    assert (lease.address, lease.mac, lease.port, lease.name, lease.fixed) == (
        *("10.0.2.10", mac(1).hex(":"), 1, "web"),
        False,
    )
    client.leaves()
    assert describe(lan.gateway).leases == ()


def test_a_mapping_tells_its_ends_and_its_time(loop, lan):
    client, address = lan.join(1)
    client.sends(
        client.to(GATEWAY_MAC) / IP(src=address, dst="192.0.2.1") / UDP(sport=4000, dport=9) / b"12345"
    )
    client.sends(client.to(GATEWAY_MAC) / IP(src=address, dst="192.0.2.7") / ICMP(id=77) / b"123")
    loop.advance(2.0)
    udp, icmp = map(describe, describe(lan.gateway).flows[1])
    assert udp == FlowDescription(
        "udp", 1, "10.0.2.10:4000", "192.0.2.1", "unanswered", 2.0, udp.ends_in, 5, 0
    )
    assert udp.ends_in == pytest.approx(lan.settings.udp_idle_timeout - 2.0)
    assert (icmp.protocol, icmp.guest, icmp.remote, icmp.bytes_out) == (
        "icmp",
        "10.0.2.10:77",
        "192.0.2.7",
        3,
    )
    lan.outside.udp[0].reply(b"1234567", ("192.0.2.1", 9))
    answered = describe(describe(lan.gateway).flows[1][0])
    assert (answered.state, answered.bytes_in) == ("open", 7)


@pytest.mark.parametrize("version", [4, 6])
def test_a_mapping_counts_what_has_passed_and_no_headers(loop, counters, version):
    lan = Lan(loop, counters, ipv6_prefix=LanSettings().ipv6_prefix)
    client, address = lan.join(1)
    source, remote, ip, echo, reply = (
        (address, "192.0.2.1", IP, ICMP(id=77), ICMP(type=0))
        if version == 4
        else ("fd76:6d72:656c:6179::99", "2606:4700::1", IPv6, ICMPv6EchoRequest(id=77), ICMPv6EchoReply())
    )
    to_remote = client.to(GATEWAY_MAC) / ip(src=source, dst=remote)
    udp = to_remote / UDP(sport=4000, dport=9)
    client.sends(udp / b"12345", udp / b"67", to_remote / echo / b"123")
    socket = lan.outside.udp[0]
    send, socket.send_run = socket.send_to, lambda *_: 0
    socket.send_to = lambda data, *to: SendResult.UNREACHABLE if data == b"is not sent" else send(data, *to)
    client.sends(udp / b"89", udp / b"is not sent")
    flows = {told.protocol: told for told in map(describe, describe(lan.gateway).flows[1])}
    assert (flows["udp"].bytes_out, flows["icmp"].bytes_out) == (9, 3)
    answers = [(b"1234567", remote), (b"", remote), (b"from a stranger", "203.0.113.1")]
    datagrams = [DatagramFromNet(payload, (host, 9), 64) for payload, host in answers]
    socket.flow.tell(DatagramsFromNet(datagrams))
    lan.outside.echo[0].reply(bytes(reply), (remote, 0))
    flows = {told.protocol: told for told in map(describe, describe(lan.gateway).flows[1])}
    assert (flows["udp"].state, flows["udp"].bytes_in) == ("open", 7)
    assert (flows["icmp"].state, flows["icmp"].bytes_in) == ("open", 0), "an answer without data is one"


def test_a_connection_tells_its_state_and_what_both_ends_took(loop, counters):
    lan = TcpLan(loop, counters)
    lan.connect()
    (flow,) = describe(lan.gateway).flows[1]
    told = describe(flow)
    assert (told.protocol, told.guest, told.remote) == ("tcp", "10.0.2.10:40000", "192.0.2.80:80")
    assert (told.state, told.bytes_out, told.bytes_in) == ("established", 0, 0)


def test_a_forward_tells_where_it_leads(counters, loop):
    lan = Forwarded(counters, "udp:127.0.0.1:5000:web:53")
    told = describe(lan.refs[0])
    assert (told.forward, told.guest, told.clients) == ("udp:127.0.0.1:5000:web:53", None, 0)
