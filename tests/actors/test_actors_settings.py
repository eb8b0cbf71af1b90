from __future__ import annotations

import pytest
from lan_parts import ip

from actors.settings import FixedLease, LanSettings


def test_the_network_is_that_of_address_and_mask():
    assert LanSettings().network == "10.0.2.0/24"
    assert LanSettings(gateway_ip=ip("172.20.5.1"), netmask=ip("255.255.0.0")).network == "172.20.0.0/16"


def test_a_mask_with_holes_is_refused():
    with pytest.raises(ValueError, match=r"255\.0\.255\.0"):
        assert LanSettings(netmask=ip("255.0.255.0")).network


def test_the_host_address_is_the_gateways_only_with_host_access():
    assert LanSettings().gateway_ips == {ip("10.0.2.2"), ip("10.0.2.3")}
    assert LanSettings(host_access=True).gateway_ips == {ip("10.0.2.2"), ip("10.0.2.3"), ip("10.0.2.4")}


def test_names_that_are_the_lans_own():
    lease = FixedLease(b"\x52\x54\0\0\0\1", ip("10.0.2.50"), "db")
    nameless = FixedLease(b"\x52\x54\0\0\0\2", ip("10.0.2.51"))
    settings = LanSettings(host_access=True, fixed_leases=(lease, nameless))
    assert settings.own_names == {
        "gateway": (ip("10.0.2.2"), settings.gateway_ip6),
        "dns": (ip("10.0.2.3"), settings.gateway_ip6),
        "host": (ip("10.0.2.4"),),
        "db": (ip("10.0.2.50"),),
    }
    assert settings.fixed_names == {"db": lease.mac}
    assert LanSettings(ipv6_prefix=None).own_names["gateway"] == (ip("10.0.2.2"),)
    assert "host" not in LanSettings().own_names
