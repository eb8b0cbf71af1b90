"""Kernels in rooms whose networks are not the usual one: a /16, with its far end in use, and a /29.

guests ── relay ── cable ── outside (10.99.0.2)
"""

from __future__ import annotations

import sys
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace, connect
from processes import ROOT, Relay
from test_dhcp_and_dns import DhcpGuest, dig
from transfers import download, tell
from waiting import wait_until

OUTSIDE, CLOSED = "10.99.0.2", "10.99.0.3"
WIDE, NARROW = IPv4Network("172.20.0.0/16"), IPv4Network("192.168.7.8/29")
FAR = ("52:54:00:f1:00:01", "172.20.255.254", "far")

PREFIXES = {"wide": "fd12:3456:789a:1", "narrow": "fd12:3456:789a:2"}

TABLES = f"""
allow-cidr = ["10.99.0.0/24"]

[rooms]
host-access = true
domain = "rooms.example"

[room.wide]
network = "{WIDE}"
ipv6-prefix = "{PREFIXES["wide"]}::/64"
static-lease = ["{"=".join(FAR)}"]

[room.narrow]
network = "{NARROW}"
ipv6-prefix = "{PREFIXES["narrow"]}::/64"
deny-cidr = ["{CLOSED}/32"]
"""
NETWORKS = {"wide": WIDE, "narrow": NARROW}


@pytest.fixture(scope="module")
def outside(relay_namespace):
    relay_namespace.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    namespace = Namespace("outside")
    connect(relay_namespace, "10.99.0.1/24", namespace, f"{OUTSIDE}/24")
    namespace.run("ip", "address", "add", f"{CLOSED}/24", "dev", namespace.device_of(OUTSIDE))
    yield namespace
    namespace.delete()


@pytest.fixture(scope="module")
def relay(relay_namespace, outside, tmp_path_factory):
    tables = tmp_path_factory.mktemp("rooms") / "relay.toml"
    tables.write_text(TABLES)
    relay = Relay("--config", tables, before=relay_namespace.prefix)
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture(scope="module", params=NETWORKS)
def room(request):
    return request.param


@pytest.fixture(scope="module")
def guests(room, relay, relay_namespace):
    """Two kernels in the room; in the wide one the second is at its far end."""
    options = ("--mac", FAR[0]) if room == "wide" else ()
    pair = [
        KernelGuest("one", relay.room(room), relay_namespace, "--mtu", "1500"),
        KernelGuest("two", relay.room(room), relay_namespace, "--mtu", "1500", *options),
    ]
    yield pair
    for guest in pair:
        guest.leave()


@pytest.fixture
def plug_in(relay, relay_namespace, tmp_path):
    plugged = []

    def plug(role, room, *options):
        plugged.append(DhcpGuest(role, relay.room(room), relay_namespace, tmp_path, *options))
        return plugged[-1]

    yield plug
    for guest in plugged:
        guest.leave()


def source_at(namespace, address):
    server = namespace.start(sys.executable, ROOT / "tests/system/tcp_server.py", address)
    return server, int(server.wait_for(r"source on port (\d+)")[1])


def test_kernels_have_addresses_of_their_network_and_reach_each_other_and_the_gateway(guests, room):
    network = NETWORKS[room]
    one, two = guests
    assert room != "wide" or two.address == FAR[1]
    for guest, other in ((one, two), (two, one)):
        assert f"{guest.address}/{network.prefixlen}" in guest.namespace.addresses(guest.device)
        assert guest.gateway == str(network[2])
        resolver = Path(f"/etc/netns/{guest.namespace.name}/resolv.conf").read_text()
        assert f"nameserver {network[2]}\nsearch rooms.example\n" in resolver
        for address in (guest.gateway, str(network[3]), other.address):
            assert guest.ping(address)[0] == 5, address
        assert f"{other.address} dev {guest.device} lladdr {other.mac}" in guest.run("ip", "neigh").stdout


def test_a_broadcast_reaches_the_others(guests, room):
    one, two = guests
    two.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0")
    assert two.address in one.ping(NETWORKS[room].broadcast_address, "-b", count=2)[1]


def has_settled_at(guest, prefix):
    settled = guest.run("ip", "-6", "-o", "address", "show", "dev", guest.device, "-tentative").stdout
    return f"inet6 {prefix}:" in settled


def test_each_room_has_its_ipv6_prefix(guests, room):
    for guest in guests:
        wait_until(partial(has_settled_at, guest, PREFIXES[room]))
        assert guest.ping(f"{PREFIXES[room]}::2")[0] == 5


def test_one_room_may_not_reach_what_another_may(guests, room):
    assert ("Packet filtered" in guests[0].ping(CLOSED, count=1)[1]) == (room == "narrow")


def test_tcp_and_ping_out(guests, room, outside):
    server, port = source_at(outside, OUTSIDE)
    assert download(guests[1], (OUTSIDE, port), 1_000_000) == tell(1_000_000)
    assert guests[1].ping(OUTSIDE)[0] == 5
    server.stop()


def test_the_relays_machine_is_at_address_4(guests, room, relay_namespace):
    server, port = source_at(relay_namespace, "127.0.0.1")
    host = str(NETWORKS[room][4])
    assert download(guests[0], (host, port), 100_000) == tell(100_000)
    server.stop()
    assert dig(guests[0], "host.rooms.example", server=guests[0].gateway) == ("NOERROR", [host])


def test_the_gateway_answers_dns_at_both_addresses(guests, room):
    network = NETWORKS[room]
    for server in (network[2], network[3]):
        assert dig(guests[0], "gateway.rooms.example", server=server) == ("NOERROR", [str(network[2])])
        assert dig(guests[0], "dns.rooms.example", server=server) == ("NOERROR", [str(network[3])])
        assert dig(guests[0], "-x", network[2], server=server)[1] == ["gateway.rooms.example."]
        assert dig(guests[0], "gateway.vm.internal", server=server)[0] != "NOERROR"


def test_a_dhcp_client_is_told_of_its_network(plug_in, room):
    network = NETWORKS[room]
    guest = plug_in("dhcp", room)
    told = guest.dhcp()
    assert told["ip"] == guest.assigned
    assert (told["subnet"], told["mask"]) == (str(network.netmask), str(network.prefixlen))
    assert told["router"] == told["serverid"] == told["dns"] == str(network[2])
    assert told["domain"] == "rooms.example"
    assert guest.ping(network[2])[0] == 5


@pytest.mark.parametrize("room", ["narrow"], indirect=True)
def test_the_fourth_guest_of_a_29_is_told_that_there_is_no_address(
    guests, room, relay, relay_namespace, plug_in
):
    told = {guest.address for guest in guests} | {plug_in("third", room).dhcp()["ip"]}
    assert told == {"192.168.7.9", "192.168.7.13", "192.168.7.14"}
    fourth, door = Namespace("fourth"), relay.room(room)
    attached = relay_namespace.start(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", "tap0", "--netns", fourth.name),
        *("--cert-hash", door.hash, door.url),
    )
    attached.wait_for("address pool is full")
    attached.stop()
    fourth.delete()
