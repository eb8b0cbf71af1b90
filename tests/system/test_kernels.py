"""Linux kernels as guests: namespaces whose only NIC is a TAP device that ``vmrelay attach`` bridges.

    guest one ─┐
               ├─ relay ── cable ── outside (10.99.0.2)
    guest two ─┘

Each box is a network namespace. Guests reach the outside through the relay's NAT only.
"""

from __future__ import annotations

import json
import re
import sys

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import ROOT, Relay, run

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"
OUTSIDE = "10.99.0.2"
HOST = "10.0.2.4"
"""The relay's own loopback, with --host-access."""

PROGRAMS = ROOT / "tests/system"


@pytest.fixture(scope="module")
def relay_namespace():
    namespace = Namespace("relay")
    # Unprivileged ICMP sockets, as on a host that allows them; one test below uses raw ones.
    namespace.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    yield namespace
    namespace.delete()


@pytest.fixture(scope="module")
def outside(relay_namespace):
    namespace = Namespace("outside")
    connect(relay_namespace, "10.99.0.1/24", namespace, f"{OUTSIDE}/24")
    yield namespace
    namespace.delete()


@pytest.fixture(scope="module")
def relay(relay_namespace, outside):
    relay = Relay("--allow-cidr", "10.99.0.0/24", "--host-access", before=relay_namespace.prefix)
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture(scope="module")
def guests(relay, relay_namespace):
    # A kernel's usual MTU, so that full frames have to travel in chunks.
    pair = [KernelGuest(role, relay, relay_namespace, "--mtu", "1500") for role in ("one", "two")]
    yield pair
    for guest in pair:
        guest.leave()


@pytest.fixture
def name_server():
    """Start a name server in a namespace; gives its port."""
    servers = []

    def start(namespace, address):
        servers.append(namespace.start(sys.executable, PROGRAMS / "name_server.py", address))
        return servers[-1].wait_for(r"answering on port (\d+)")[1]

    yield start
    for server in servers:
        server.stop()


def test_the_kernel_has_the_address_that_the_relay_assigned(guests):
    one, other = guests
    assert one.address != other.address
    for guest in guests:
        assert guest.gateway == GATEWAY
        assert f"{guest.address}/24" in guest.namespace.addresses(guest.device)


@pytest.mark.parametrize("size", [56, 1472], ids=lambda size: f"{size} bytes")
def test_ping_the_gateway(guests, size):
    replies, _ = guests[0].ping(GATEWAY, "-s", size, "-M", "do")
    assert replies == 5


@pytest.mark.parametrize("size", [56, 1472], ids=lambda size: f"{size} bytes")
def test_ping_each_other(guests, size):
    one, other = guests
    assert one.ping(other.address, "-s", size, "-M", "do")[0] == 5
    assert other.ping(one.address, "-s", size, "-M", "do")[0] == 5


@pytest.mark.parametrize("size", [16, 56, 1472], ids=lambda size: f"{size} bytes")
def test_ping_a_host_outside(guests, size):
    replies, output = guests[0].ping(OUTSIDE, "-s", size, "-M", "do")
    assert replies == 5
    # ping compares the payload that comes back with its own.
    assert "wrong data" not in output


def test_ping_a_host_outside_by_raw_sockets(relay_namespace, outside):
    relay_namespace.run("sysctl", "-qw", "net.ipv4.ping_group_range=1 0")
    relay = Relay("--allow-cidr", "10.99.0.0/24", before=relay_namespace.prefix)
    relay_namespace.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    guest = KernelGuest("raw", relay, relay_namespace)
    replies, output = guest.ping(OUTSIDE)
    guest.leave()
    relay.stop()
    assert replies == 5
    assert "wrong data" not in output


def test_the_ttl_of_a_ping_is_the_guests(guests):
    replies, output = guests[0].ping(OUTSIDE, "-t", 1, count=1)
    assert replies == 0
    assert re.search(rf"From {GATEWAY} .*Time to live exceeded", output)


def test_a_refused_address_is_answered(guests):
    replies, output = guests[0].ping("192.168.77.1", count=1)
    assert replies == 0
    assert re.search(rf"From {GATEWAY} .*Packet filtered", output)


def test_arping(guests):
    one, other = guests
    for address, mac in ((GATEWAY, GATEWAY_MAC), (other.address, other.mac)):
        said = one.run("arping", "-c", 3, "-w", 10, "-I", one.device, address).stdout
        assert said.lower().count(f"[{mac}]") == 3


def test_dig_through_the_nat(guests, outside, name_server):
    port = name_server(outside, OUTSIDE)
    dig = ("dig", f"@{OUTSIDE}", "-p", port, "+short", "+tries=1", "vm.example")
    assert guests[0].run(*dig).stdout.split() == ["192.0.2.53"]


def test_dig_at_a_name_server_of_the_relays_loopback(guests, relay_namespace, name_server):
    port = name_server(relay_namespace, "127.0.0.1")
    dig = ("dig", f"@{HOST}", "-p", port, "+short", "+tries=1", "vm.example")
    assert guests[0].run(*dig).stdout.split() == ["192.0.2.53"]


def test_ipv6_neighbours_find_each_other(guests):
    one, other = guests
    (link_local,) = [a for a in other.namespace.addresses(other.device) if a.startswith("fe80:")]
    address = link_local.partition("/")[0]
    # The kernel answers for an address once it has made sure that nobody else has it (RFC 4862, 5.4).
    other.run("sh", "-c", f"while ip -6 address show dev {other.device} tentative | grep -q .; do :; done")
    assert one.ping(f"{address}%{one.device}", "-6")[0] == 5
    neighbours = one.run("ip", "-6", "neighbour", "show", "dev", one.device).stdout
    assert f"{address} lladdr {other.mac}" in neighbours


def test_50_flows_of_two_guests_at_once(guests, outside, relaybench):
    server = outside.start(relaybench, "servers", "--bind", f"{OUTSIDE}:7000")
    server.wait_for("udp_echo")
    runs = [
        guest.start(sys.executable, PROGRAMS / "udp_flows.py", name, OUTSIDE, 7000, 50, 40)
        for name, guest in zip(("one", "two"), guests, strict=True)
    ]
    results = [json.loads(program.wait_for(r"^\{.*\}$")[0]) for program in runs]
    for program in (*runs, server):
        program.stop()
    assert results == [{"sent": 2000, "right": 2000, "wrong": 0}] * 2


def test_guests_come_back_when_the_relay_does(relay_namespace, outside, tmp_path):
    certificates = tmp_path / "certs"
    run(sys.executable, "-m", "relay.main", "certs", "generate", certificates, cwd=ROOT)
    pair = ("--cert-pem", certificates / "relay-cert.pem", "--key-pem", certificates / "relay-key.pem")
    first = Relay(*pair, before=relay_namespace.prefix)
    guest = KernelGuest("loyal", first, relay_namespace)
    first.stop()
    guest.wait_for_news(r"not attached: .*shutting down")
    second = Relay(*pair, "--port", first.port, before=relay_namespace.prefix)
    guest.wait_for_news(rf"attached to .*address {guest.address}/24", count=2)
    replies, _ = guest.ping(GATEWAY)
    guest.leave()
    second.stop()
    assert replies == 5
