from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from netstack.address_pool import AddressPool
from netstack.dhcp_options import Route
from netstack.lan_network import addresses_of, is_reached_inside


def told(network):
    return [str(IPv4Address(address)) for address in addresses_of(IPv4Network(network))]


@pytest.mark.parametrize(
    ("network", "netmask", "prefix", "addresses", "guests"),
    [
        ("10.0.2.0/24", "255.255.255.0", "10.0.2", (2, 3, 4, "10.0.2.10", "10.0.2.254"), 245),
        ("172.20.0.0/16", "255.255.0.0", "172.20.0", (2, 3, 4, "172.20.0.10", "172.20.255.254"), 65_525),
        ("192.0.2.128/25", "255.255.255.128", "192.0.2", (130, 131, 132, "192.0.2.138", "192.0.2.254"), 117),
        ("10.1.1.32/27", "255.255.255.224", "10.1.1", (34, 35, 36, "10.1.1.42", "10.1.1.62"), 21),
        ("10.1.1.16/28", "255.255.255.240", "10.1.1", (18, 19, 20, "10.1.1.17", "10.1.1.30"), 11),
        ("192.168.7.8/29", "255.255.255.248", "192.168.7", (10, 11, 12, "192.168.7.9", "192.168.7.14"), 3),
    ],
)
def test_whose_the_addresses_are_follows_from_the_network(network, netmask, prefix, addresses, guests):
    *services, first, last = addresses
    assert told(network) == [netmask, *(f"{prefix}.{number}" for number in services), first, last]
    assert AddressPool(network, first, last, addresses_of(IPv4Network(network)).services).size == guests


@pytest.mark.parametrize("network", ["10.0.0.0/15", "10.0.0.0/30", "10.0.0.0/8", "10.0.0.0/32"])
def test_other_sizes_are_refused(network):
    with pytest.raises(ValueError, match=f"^{network} is not a network of /16 to /29$"):
        addresses_of(IPv4Network(network))


@pytest.mark.parametrize(
    "network", ["127.0.0.0/24", "169.254.0.0/16", "0.1.0.0/16", "224.0.0.0/24", "240.0.0.0/16"]
)
def test_networks_without_hosts_are_refused(network):
    with pytest.raises(ValueError, match=f"^{network} has no addresses for hosts$"):
        addresses_of(IPv4Network(network))


def test_what_is_reached_inside_is_on_the_lan_or_behind_a_guest():
    network, routes = IPv4Network("10.0.2.0/24"), [Route(bytes((192, 168, 0, 0)), 16, bytes((10, 0, 2, 15)))]
    assert is_reached_inside(IPv4Address("10.0.2.53"), network)
    assert not is_reached_inside(IPv4Address("192.168.1.1"), network)
    assert is_reached_inside(IPv4Address("192.168.1.1"), network, routes)
    assert not is_reached_inside(IPv4Address("192.169.1.1"), network, routes)
