from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.ethernet import BROADCAST, ZERO_MAC, format_mac, is_station, parse_mac


@given(st.binary(min_size=6, max_size=6))
def test_a_mac_survives_its_text(mac):
    assert parse_mac(format_mac(mac)) == mac
    assert parse_mac(format_mac(mac).upper().replace(":", "-")) == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:5",
        "52:54:00:12:34:567",
        "52:54:00:12:34:gg",
        "525400123456",
        "52 :4",
    ],
)
def test_what_is_no_mac_is_refused(text):
    with pytest.raises(ValueError, match="is not a MAC address"):
        parse_mac(text)


def test_which_addresses_a_nic_can_have():
    assert is_station(parse_mac("52:54:00:00:00:01"))
    assert not is_station(parse_mac("01:00:5e:00:00:01"))
    assert not is_station(BROADCAST)
    assert not is_station(ZERO_MAC)
    assert not is_station(b"\x52\x54\x00")
