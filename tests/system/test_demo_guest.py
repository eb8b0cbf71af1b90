"""examples/v86/address, with which guests of the demo apply what DHCP told them, in a namespace."""

from __future__ import annotations

import pytest
from namespaces import Namespace
from processes import ROOT

DEVICE = "eth0"


@pytest.fixture
def guest():
    namespace = Namespace("guest")
    # A device with carrier has a link-local address at once.
    namespace.run("ip", "link", "add", DEVICE, "type", "veth", "peer", "cable")
    for end in (DEVICE, "cable"):
        namespace.run("ip", "link", "set", end, "up")
    yield namespace
    namespace.delete()


def apply(guest, event, address):
    lease = {"interface": DEVICE, "ip": address, "mask": "24", "router": "10.0.2.2", "mtu": "1392", "dns": ""}
    words = [f"{name}={value}" for name, value in lease.items()]
    # With a /etc of its own, for the name servers.
    alone = "mount -t tmpfs none /etc && exec busybox sh examples/v86/address " + event
    guest.run("env", *words, "unshare", "--mount", "sh", "-c", alone, cwd=ROOT)


@pytest.mark.parametrize("event", ["bound", "renew"])
def test_addresses_of_ipv6_stay_when_a_lease_is_applied(guest, event):
    (before,) = guest.addresses(DEVICE)
    assert before.startswith("fe80:")
    guest.run("ip", "address", "add", "10.0.2.9/24", "dev", DEVICE)
    apply(guest, event, "10.0.2.15")
    assert set(guest.addresses(DEVICE)) == {before, "10.0.2.15/24"}
    assert "default via 10.0.2.2" in guest.run("ip", "route", "show").stdout


def test_a_renewal_leaves_the_address_and_routes_through_it_as_they_are(guest):
    apply(guest, "bound", "10.0.2.15")
    guest.run("ip", "route", "add", "192.0.2.0/24", "via", "10.0.2.7")
    before = guest.addresses(DEVICE)
    apply(guest, "renew", "10.0.2.15")
    assert guest.addresses(DEVICE) == before
    assert "192.0.2.0/24 via 10.0.2.7" in guest.run("ip", "route", "show").stdout
