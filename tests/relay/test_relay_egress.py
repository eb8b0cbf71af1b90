from __future__ import annotations

import pytest
from given_settings import assert_named_and_refused, settings

from relay.settings import SettingsError


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("allow-cidr", "10.0.0.1/8", "has host bits set"),
        ("deny-cidr", "10.0.0.0/33", "is not an address or a network"),
        ("deny-cidr", "1.2.3.4,nowhere", "'nowhere' is not an address"),
        ("deny-cidr", ",".join(["10.0.0.0/8"] * 1025), "at most 1024"),
        ("host-access", "maybe", "true or false"),
        ("max-flows", "many", "whole number from 1"),
        ("forward", "tcp:[::1:80:web:80", "closing bracket"),
        ("forward", "tcp:[::1]:80:web:80,tcp:[::1]:80:mail:80", "tcp:[::1]:80 is forwarded twice"),
    ],
)
def test_bad_values_name_their_source(name, text, message):
    assert_named_and_refused(name, text, message)


def test_transparent_ipv6_forwards_need_ipv6_on_the_lan():
    forward = ("--forward", "tcp:[::]:8080:web:80,transparent")
    assert settings(*forward).forward[0].clients == "transparent"
    assert settings("--no-ipv6", "--forward", "tcp::8080:web:80,transparent").ipv6 is False
    with pytest.raises(SettingsError, match="needs IPv6"):
        settings("--no-ipv6", *forward)
