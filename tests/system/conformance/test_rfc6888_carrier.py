"""RFC 6888: common requirements for carrier-grade NATs, as far as sockets can fulfil them."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import struct
import time

import pytest
from lab import PATIENCE, SERVERS, external_of, refusal, udp_ports
from scapy.layers.inet import ICMP
from waiting import wait_until

from actors.flows.flow import MAX_REMOTES
from relay.settings import Settings

RST_AT_CLOSE = struct.pack("ii", 1, 0)


def test_req_2_one_guest_has_one_external_address(lab, guest, sockets):
    server = sockets.udp(lab.outside, SERVERS[0])
    assert len({external_of(sockets.udp(guest), server)[0] for _ in range(20)}) == 1


def test_req_4_ports_of_a_guest_are_limited_and_its_neighbours_are_not_concerned(lab, relay_with, sockets):
    _, guest = relay_with("--max-flows", 20)
    server = sockets.udp(lab.outside, SERVERS[0])
    ears = sockets.icmp(guest)
    insides = [sockets.udp(guest) for _ in range(40)]
    for inside in insides:
        inside.sendto(b"hello", server.getsockname())
    error = refusal(ears, to=server.getsockname())
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)
    server.settimeout(1)
    externals = set()
    while len(externals) < 20:
        try:
            externals.add(server.recvfrom(99)[1])
        except TimeoutError:
            break  # some of the places are taken by what the guest's system sends by itself
    assert 10 <= len(externals) <= 20


@pytest.mark.parametrize("port", [53, 0], ids=["DNS", "any port"])
def test_req_4_a_limit_that_dead_hosts_have_filled_leaves_room_for_others(lab, relay_with, sockets, port):
    """Twenty questions per second, four seconds long, that nobody answers: UDP, TCP and ping go elsewhere."""
    relay, guest = relay_with("--max-flows", 32)
    server, listener = sockets.udp(lab.outside, SERVERS[0]), sockets.tcp(lab.outside, SERVERS[0])
    listener.listen()
    silent = sockets.udp(lab.outside, SERVERS[1])
    for number in range(80):
        sockets.udp(guest).sendto(b"question", (SERVERS[1], port or silent.getsockname()[1]))
        time.sleep(0.05)
        if number % 20 == 19:
            external_of(sockets.udp(guest), server)
            with contextlib.closing(guest.namespace.socket(socket.SOCK_STREAM)) as inside:
                inside.settimeout(PATIENCE)
                inside.connect(listener.getsockname())
            assert guest.ping(SERVERS[0], count=1)[0] == 1
    counted = relay.counters()
    assert counted["gateway.flows_gave_way"] > 0
    assert counted["gateway.drop.flow_limit"] == 0


def test_req_5_memory_of_a_guest_is_limited():
    # A mapping remembers a bounded number of addresses: test_flow.py,
    # test_the_number_of_remembered_addresses_is_bounded. Mappings are bounded by REQ-4.
    assert Settings().max_flows * MAX_REMOTES < 200_000


def test_req_6_destinations_can_be_excluded(lab, relay_with, sockets):
    _, guest = relay_with("--deny-cidr", f"{SERVERS[1]}/32")
    allowed, denied = (sockets.udp(lab.outside, address) for address in SERVERS[:2])
    inside = sockets.udp(guest)
    inside.sendto(b"denied", denied.getsockname())
    assert external_of(inside, allowed)
    denied.setblocking(False)
    with pytest.raises(BlockingIOError):
        denied.recvfrom(99)


def test_req_8_a_released_port_rests(lab, relay_with, sockets):
    assert Settings().port_hold >= 120
    lab.relay.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50019")
    try:
        relay, guest = relay_with("--udp-timeout", 1)
        server = sockets.udp(lab.outside, SERVERS[0])
        used = {external_of(sockets.udp(guest), server)[1] for _ in range(5)}
        wait_until(lambda: not used & udp_ports(relay))
        again = {external_of(sockets.udp(guest), server)[1] for _ in range(5)}
        assert used.isdisjoint(again)
    finally:
        lab.relay.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")


def test_req_8_tcp_ports_are_used_again_at_once(lab, relay_with, sockets):
    lab.relay.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50099")
    try:
        relay, guest = relay_with()
        listener = sockets.tcp(lab.outside, SERVERS[0])
        listener.listen(64)
        for number in range(250):
            with contextlib.closing(guest.namespace.socket(socket.SOCK_STREAM)) as inside:
                inside.settimeout(PATIENCE)
                inside.connect(listener.getsockname())
                inside.sendall(b"%d" % number)
                inside.shutdown(socket.SHUT_WR)  # so that the host's end goes to TIME-WAIT
                served, _ = listener.accept()
                with served:
                    assert served.recv(99) == b"%d" % number
                    assert served.recv(99) == b""
                assert inside.recv(99) == b""
        assert relay.counters()["gateway.drop.no_socket"] == 0
    finally:
        lab.relay.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")


def test_req_11_without_room_nothing_is_taken_from_others(lab, relay_with, sockets):
    _, guest = relay_with("--max-flows", 8)
    server = sockets.udp(lab.outside, SERVERS[0])
    insides = [sockets.udp(guest) for _ in range(3)]
    externals = [external_of(inside, server) for inside in insides]
    for _ in range(20):
        sockets.udp(guest).sendto(b"crowd", server.getsockname())
    assert [external_of(inside, server) for inside in insides] == externals


def test_req_12_destinations_are_not_logged(lab, relay, guest, sockets):
    server = sockets.udp(lab.outside, SERVERS[2])
    external_of(sockets.udp(guest), server)
    assert guest.ping(SERVERS[2], count=1)[0] == 1
    assert SERVERS[2] not in relay.output
    assert not re.search(rf"(?<!\d){server.getsockname()[1]}(?!\d)", relay.output)


def test_req_15_ports_are_hard_to_guess(lab, guest, sockets):
    server = sockets.udp(lab.outside, SERVERS[0])
    ports = [external_of(sockets.udp(guest), server)[1] for _ in range(30)]
    steps = [second - first for first, second in itertools.pairwise(ports)]
    assert len(set(steps)) > 20
    assert max(ports) - min(ports) > 1000


def test_req_8_when_traffic_ends_nothing_is_left(lab, relay_with, sockets):
    relay, guest = relay_with("--udp-timeout", 1, "--icmp-timeout", 1)
    at_rest = udp_ports(relay)
    server = sockets.udp(lab.outside, SERVERS[0])
    for _ in range(50):
        external_of(sockets.udp(guest), server)
    assert guest.ping(SERVERS[0], count=3)[0] == 3
    listener = sockets.tcp(lab.outside, SERVERS[0])
    listener.listen(64)
    for _ in range(20):
        inside = sockets.tcp(guest)
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_AT_CLOSE)
        inside.connect(listener.getsockname())
        listener.accept()[0].close()
        inside.close()

    def all_is_over():
        counters = relay.counters()
        return counters["gateway.flows_opened"] == counters["gateway.flows_closed"]

    wait_until(all_is_over, every=1.0)
    assert relay.counters()["gateway.flows_opened"] >= 71
    assert udp_ports(relay) <= at_rest
