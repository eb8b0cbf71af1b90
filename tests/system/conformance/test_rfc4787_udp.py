"""RFC 4787: NAT behavioural requirements for unicast UDP, one test per requirement."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from lab import EXTERNAL, GATEWAY, GATEWAY_MAC, SERVERS, external_of, port_of, refusal, udp_ports
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from waiting import wait_until

from actors.settings import LanSettings

IP_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_DO = 10, 0, 2
DNS = 53
SIP, TFTP, RAS = 5060, 69, 1719
"""Protocols that application level gateways like to rewrite."""
ICMP_ERRNOS = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPROTO}


def test_req_1_endpoint_independent_mapping(lab, guest, sockets):
    inside = sockets.udp(guest)
    servers = [sockets.udp(lab.outside, address) for address in (*SERVERS, SERVERS[0])]
    assert len({external_of(inside, server) for server in servers}) == 1


def test_req_3_no_port_overloading(lab, guests, sockets):
    server = sockets.udp(lab.outside, SERVERS[0])
    insides = [sockets.udp(guest, port=30_000 + n) for guest in guests for n in range(25)]
    externals = {external_of(inside, server) for inside in insides}
    assert len(externals) == 50
    for number, external in enumerate(externals):
        server.sendto(b"%d" % number, external)
    assert sorted(int(inside.recv(99)) for inside in insides) == list(range(50))


def test_req_3a_unprivileged_ports_stay_unprivileged(lab, guest, sockets):
    assert external_of(sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0]))[1] >= 1024


def test_req_5_mappings_live_five_minutes_by_default_and_as_long_as_set(lab, relay_with, sockets):
    assert LanSettings().udp_idle_timeout == 300
    relay, guest = relay_with("--udp-timeout", 2)
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    first = external_of(inside, server)
    wait_until(lambda: first[1] not in udp_ports(relay))
    assert external_of(inside, server) != first


def test_req_5a_only_mappings_for_well_known_ports_end_sooner():
    # Its behaviour with a clock that tests move: test_flow.py,
    # test_rfc4787_req5a_a_mapping_for_name_servers_only_ends_sooner.
    defaults = LanSettings()
    assert 30 <= defaults.dns_idle_timeout < defaults.udp_idle_timeout
    from actors.flows.udp_flow import DNS_PORT

    assert DNS_PORT == DNS


def test_req_6_what_the_guest_sends_refreshes(lab, relay_with, sockets):
    relay, guest = relay_with("--udp-timeout", 2)
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    other = sockets.udp(guest)
    first = external_of(inside, server)
    for _ in range(3):  # each time another mapping comes and goes, this one has been used meanwhile
        _, port = external_of(other, server)

        def used_until_the_other_ended(port=port):
            assert external_of(inside, server) == first
            return port not in udp_ports(relay)

        wait_until(used_until_the_other_ended)


def test_req_8_address_dependent_filtering(lab, guest, sockets):
    inside = sockets.udp(guest)
    friend, same_host = sockets.udp(lab.outside, SERVERS[0]), sockets.udp(lab.outside, SERVERS[0])
    stranger = sockets.udp(lab.outside, SERVERS[1])
    external = external_of(inside, friend)
    stranger.sendto(b"unasked", external)
    same_host.sendto(b"from another port", external)
    assert inside.recvfrom(99) == (b"from another port", same_host.getsockname())


def test_req_8_endpoint_independent_filtering_as_a_setting(lab, relay_with, sockets):
    _, guest = relay_with("--udp-filtering", "endpoint-independent")
    inside = sockets.udp(guest)
    external = external_of(inside, sockets.udp(lab.outside, SERVERS[0]))
    stranger = sockets.udp(lab.outside, SERVERS[1])
    stranger.sendto(b"unasked", external)
    assert inside.recvfrom(99) == (b"unasked", stranger.getsockname())


def test_req_9_hairpinning_with_the_external_source(lab, guests, sockets):
    server = sockets.udp(lab.outside, SERVERS[0])
    one, two = (sockets.udp(guest) for guest in guests)
    external_one, external_two = (external_of(inside, server) for inside in (one, two))
    assert external_one[0] == external_two[0] == EXTERNAL
    one.sendto(b"the first opens the filter", external_two)
    # Guests have sessions of their own: what comes behind it has an answer, so it has been there.
    assert external_of(one, server) == external_one
    two.sendto(b"and the second passes", external_one)
    assert one.recvfrom(99) == (b"and the second passes", external_two)
    one.sendto(b"both ways", external_two)
    received = two.recvfrom(99)
    if received[0] != b"both ways":
        received = two.recvfrom(99)
    assert received == (b"both ways", external_one)


@pytest.mark.parametrize("port", [SIP, TFTP, RAS], ids=["SIP", "TFTP", "H.323"])
def test_req_10_no_application_level_gateways(lab, guest, sockets, port):
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0], port)
    said = f"INVITE sip:a@{SERVERS[0]}\r\nContact: <sip:b@{guest.address}:5060>\r\n".encode()
    said += socket.inet_aton(guest.address) + (5060).to_bytes(2, "big")
    inside.sendto(said, server.getsockname())
    data, external = server.recvfrom(2048)
    assert data == said
    answer = said + socket.inet_aton(external[0]) + external[1].to_bytes(2, "big")
    server.sendto(answer, external)
    assert inside.recv(2048) == answer


def test_req_11_deterministic_also_under_load(lab, guest, sockets):
    inside = sockets.udp(guest)
    servers = [sockets.udp(lab.outside, address) for address in SERVERS]
    first = external_of(inside, servers[0])
    crowd = [sockets.udp(guest) for _ in range(200)]
    for turn in range(3):
        assert {external_of(other, servers[turn]) for other in crowd}.isdisjoint({first})
        assert external_of(inside, servers[turn]) == first
    # The filter is as it was: an address that only others wrote to may not answer.
    stranger = sockets.udp(guest)
    external = external_of(stranger, servers[0])
    servers[1].sendto(b"unasked", external)
    servers[0].sendto(b"asked", external)
    assert stranger.recv(99) == b"asked"


@pytest.mark.parametrize(("kind", "code"), [(3, 0), (3, 1), (3, 3), (3, 13), (4, 0), (11, 0), (12, 0)])
def test_req_12_icmp_never_ends_a_mapping(lab, guest, sockets, kind, code):
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    inside.connect(server.getsockname())
    inside.send(b"hello")
    _, external = server.recvfrom(99)
    quoted = (
        IP(src=EXTERNAL, dst=SERVERS[0]) / UDP(sport=external[1], dport=server.getsockname()[1]) / b"hello"
    )
    error = IP(src=SERVERS[0], dst=EXTERNAL) / ICMP(type=kind, code=code) / bytes(quoted)
    sockets.ip(lab.outside).sendto(bytes(error), (EXTERNAL, 0))
    server.sendto(b"still there?", external)
    assert _recv_past_errors(inside) == b"still there?"
    _send_past_errors(inside, b"yes")
    assert server.recvfrom(99) == (b"yes", external)


def test_req_13_dont_fragment_is_kept_and_too_big_is_told(lab, guest, sockets):
    narrow = 1300
    device = lab.relay.run("ip", "-o", "route", "get", SERVERS[0]).stdout.split()[2]
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    inside.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    errors = sockets.icmp(guest)
    lab.relay.run("ip", "link", "set", device, "mtu", narrow)
    try:
        inside.sendto(bytes(1400), server.getsockname())
        error = refusal(errors, of=port_of(inside), to=server.getsockname())
        assert (error[ICMP].type, error[ICMP].code) == (3, 4)
        assert error[ICMP].nexthopmtu <= narrow
        _send_past_errors(inside, bytes(1200), server.getsockname())
        assert len(server.recv(2048)) == 1200
    finally:
        lab.relay.run("ip", "link", "set", device, "mtu", 1500)


def test_req_13a_without_dont_fragment_it_is_fragmented(lab, guest, sockets):
    device = lab.relay.run("ip", "-o", "route", "get", SERVERS[0]).stdout.split()[2]
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    inside.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
    data = os.urandom(1400)
    lab.relay.run("ip", "link", "set", device, "mtu", 1300)
    try:
        inside.sendto(data, server.getsockname())
        assert server.recv(2048) == data
    finally:
        lab.relay.run("ip", "link", "set", device, "mtu", 1500)


def test_req_14_fragments_of_the_guest_are_put_together(lab, guest, sockets):
    inside, server = sockets.udp(guest), sockets.udp(lab.outside, SERVERS[0])
    inside.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
    data = os.urandom(5000)
    inside.sendto(data, server.getsockname())
    received, external = server.recvfrom(9000)
    assert received == data
    server.sendto(data[::-1], external)
    assert inside.recv(9000) == data[::-1]


@pytest.mark.parametrize("order", ["reversed", "first one last"])
def test_req_14_fragments_out_of_order(lab, guest, sockets, order):
    server = sockets.udp(lab.outside, SERVERS[0])
    wire = sockets.ethernet(guest, guest.device)
    data = os.urandom(4000)
    whole = IP(src=guest.address, dst=SERVERS[0], id=7, flags=0)
    whole /= UDP(sport=33_333, dport=server.getsockname()[1]) / Raw(data)
    pieces = [Ether(src=guest.mac, dst=GATEWAY_MAC) / piece for piece in fragment(whole, 1200)]
    pieces = pieces[::-1] if order == "reversed" else pieces[1:] + pieces[:1]
    for piece in pieces:
        wire.send(bytes(piece))
    assert server.recv(9000) == data


def test_req_14a_a_flood_of_fragments_hurts_nobody(lab, relay, guests, sockets):
    attacker, victim = guests
    server = sockets.udp(lab.outside, SERVERS[0])
    inside = sockets.udp(victim)
    wire = sockets.ethernet(attacker, attacker.device)
    before = relay.memory
    for number in range(3000):
        half = IP(src=attacker.address, dst=SERVERS[0], id=number, flags="MF", proto=17, frag=100) / Raw(
            bytes(800)
        )
        wire.send(bytes(Ether(src=attacker.mac, dst=GATEWAY_MAC) / half))
        if number % 300 == 0:
            external_of(inside, server)
    assert victim.ping(GATEWAY, count=3)[0] == 3
    assert relay.memory - before < 30_000_000


def _recv_past_errors(connected):
    """Linux tells ICMP errors once each on a connected socket; behind them is what came."""
    while True:
        try:
            return connected.recv(2048)
        except TimeoutError:
            raise
        except OSError as error:
            assert error.errno in ICMP_ERRNOS, error  # noqa: PT017


def _send_past_errors(inside, data, *address):
    send = inside.sendto if address else inside.send
    try:
        return send(data, *address)
    except OSError:  # an error about what was sent before
        return send(data, *address)
