from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.dns_zone import Zone, clean_label

GATEWAY = bytes((10, 0, 2, 2))
WEB, OTHER = b"\x52\x54\0\0\0\1", b"\x52\x54\0\0\0\2"
TEN, ELEVEN = bytes((10, 0, 2, 10)), bytes((10, 0, 2, 11))


@pytest.fixture
def zone():
    return Zone({"gateway": GATEWAY, "dns": bytes((10, 0, 2, 3)), "printer": bytes((10, 0, 2, 50))})


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("web", "web"),
        ("WEB-1", "web-1"),
        ("web.example.com", "web"),
        ("my laptop", "my-laptop"),
        ("my_vm", "my-vm"),
        ("x" * 63, "x" * 63),
        ("x" * 64, ""),
        ("-web", ""),
        ("web-", ""),
        ("", ""),
        (".web", ""),
        ("wéb", ""),
        ("web\n", "web"),
        ("a\0b", ""),
        ("*", ""),
    ],
)
def test_what_a_client_calls_itself_becomes_a_label(name, label):
    assert clean_label(name) == label


def test_a_guest_is_found_by_name_and_address(zone):
    assert zone.bind(WEB, TEN, "Web.lan") == "web"
    assert zone.address_of("web") == TEN
    assert zone.name_of(TEN) == "web"
    assert zone.address_of("other") is zone.name_of(ELEVEN) is None


def test_own_names(zone):
    assert zone.address_of("gateway") == GATEWAY
    assert zone.name_of(GATEWAY) == "gateway"
    assert zone.name_of(bytes((10, 0, 2, 50))) == "printer"


@pytest.mark.parametrize("name", ["gateway", "GATEWAY", "printer", "host", "localhost", "wpad"])
def test_own_and_reserved_names_are_not_given_away(zone, name):
    before = zone.address_of(name.lower())
    assert zone.bind(WEB, TEN, name) == ""
    assert zone.address_of(name.lower()) == before
    assert zone.name_of(TEN) is None


def test_the_first_keeps_its_name(zone):
    zone.bind(WEB, TEN, "web")
    assert zone.bind(OTHER, ELEVEN, "web") == ""
    assert zone.address_of("web") == TEN
    zone.forget(WEB)
    assert zone.address_of("web") is zone.name_of(TEN) is None
    assert zone.bind(OTHER, ELEVEN, "web") == "web"


def test_a_guest_is_renamed_and_moves(zone):
    zone.bind(WEB, TEN, "web")
    assert zone.bind(WEB, ELEVEN, "") == "web"
    assert (zone.address_of("web"), zone.name_of(TEN), zone.name_of(ELEVEN)) == (ELEVEN, None, "web")
    assert zone.bind(WEB, ELEVEN, "www") == "www"
    assert (zone.address_of("web"), zone.address_of("www")) == (None, ELEVEN)
    zone.forget(OTHER)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([WEB, OTHER, b"\2" * 6]),
            st.sampled_from([TEN, ELEVEN]),
            st.sampled_from(["a", "b", "", "gateway"]) | st.none(),
        )
    )
)
def test_names_and_addresses_stay_in_step(steps):
    zone = Zone({"gateway": GATEWAY})
    names = {}
    for mac, address, name in steps:
        if name is None:
            zone.forget(mac)
            names.pop(mac, None)
        else:
            names[mac] = zone.bind(mac, address, name)
    taken = [name for name in names.values() if name]
    assert len(set(taken)) == len(taken)
    assert {name for name in ("a", "b") if zone.address_of(name)} == set(taken)
    assert zone.address_of("gateway") == GATEWAY
