from __future__ import annotations

import pytest
from given_settings import assert_named_and_refused, settings

from relay.settings import SettingsError


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dhcp-boot", "pxelinux.0", "is not FILE@SERVER"),
        ("dhcp-search", "a..b", "is not a domain"),
        ("dhcp-ntp", "ntp.example", "is not an IPv4 address"),
        ("dhcp-route", "192.168.0.0/16", "is not NETWORK=ROUTER"),
        ("dhcp-wpad", "wpad.dat", "must be a URL"),
        ("domain", "local", "resolvers ask name servers about"),
        ("network", "10.0.2.1/24", "must be an IPv4 network of /16 to /29"),
        ("dns-allow-private", "a..b", "is not a domain"),
        ("dns-allow-private", "*.corp.example", "leave the * out"),
        ("dhcp-search", "corp.example,*.example", "leave the * out"),
        ("dns", "::1", "an IPv4 address"),
    ],
)
def test_bad_values_name_their_source(name, text, message):
    assert_named_and_refused(name, text, message)


@pytest.mark.parametrize(
    "text", ["fd00::/48", "fd00::1/64", "ff02::/64", "fe80::/64", "::/64", "10.0.0.0/24", ""]
)
def test_the_ipv6_prefix_is_a_64(text):
    with pytest.raises(SettingsError, match="must be a /64 network"):
        settings("--ipv6-prefix", text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--no-dhcp", "--dhcp-boot", "a@10.0.2.15"), "--dhcp-boot needs DHCP, which --no-dhcp takes away"),
        (("--no-dhcp", "--dhcp-wpad", "http://a/"), "--dhcp-wpad needs DHCP"),
        (("--dhcp-boot", "a@10.0.2.4"), "--dhcp-boot: 10.0.2.4 is this machine, which needs --host-access"),
        (("--dhcp-ntp", "10.0.2.4"), "--dhcp-ntp: 10.0.2.4 is this machine"),
    ],
)
def test_what_dhcp_cannot_tell_is_refused_at_the_start(flags, message):
    with pytest.raises(SettingsError, match=message):
        settings(*flags)
    assert settings("--host-access", *flags[-2:])
