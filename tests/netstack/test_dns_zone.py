from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.dns_zone import Zone, clean_label, is_lan_domain

GATEWAY = bytes((10, 0, 2, 2))
GATEWAY6 = bytes.fromhex("fd000000000000000000000000000002")
PRINTER = bytes((10, 0, 2, 50))
ONE6, TWO6, THREE6 = (GATEWAY6[:-1] + bytes((n,)) for n in (17, 18, 19))
WEB, OTHER = b"\x52\x54\0\0\0\1", b"\x52\x54\0\0\0\2"
TEN, ELEVEN = bytes((10, 0, 2, 10)), bytes((10, 0, 2, 11))


@pytest.fixture
def zone():
    own = {"gateway": (GATEWAY, GATEWAY6), "dns": (bytes((10, 0, 2, 3)), GATEWAY6), "printer": (PRINTER,)}
    return Zone(own, {"printer": OTHER})


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
    assert (zone.owner_of(TEN), zone.owner_of(GATEWAY), zone.owner_of(ELEVEN)) == (WEB, None, None)
    assert zone.address_of("other") is zone.name_of(ELEVEN) is None


def test_own_names(zone):
    assert zone.address_of("gateway") == GATEWAY
    assert zone.name_of(GATEWAY) == "gateway"
    assert zone.addresses_of("gateway") == (GATEWAY, GATEWAY6)
    assert zone.name_of(GATEWAY6) == "gateway"
    assert zone.name_of(PRINTER) == "printer"


def test_a_guest_is_found_by_its_ipv6_addresses_before_and_after_it_has_a_name(zone):
    zone.set_ipv6(WEB, (ONE6,))
    assert zone.name_of(ONE6) is None
    zone.bind(WEB, TEN, "web")
    assert (zone.addresses_of("web"), zone.name_of(ONE6)) == ((TEN, ONE6), "web")
    zone.set_ipv6(WEB, (TWO6, ONE6))
    zone.bind(WEB, ELEVEN, "www")
    assert (zone.addresses_of("www"), zone.name_of(TWO6)) == ((ELEVEN, TWO6, ONE6), "www")
    zone.set_ipv6(WEB, (TWO6,))
    assert (zone.addresses_of("www"), zone.name_of(ONE6)) == ((ELEVEN, TWO6), None)
    zone.forget(WEB)
    assert zone.name_of(TWO6) is None
    zone.bind(WEB, TEN, "web")
    assert zone.addresses_of("web") == (TEN,)


def test_an_ipv6_address_is_whose_it_was_said_to_be_last(zone):
    zone.bind(WEB, TEN, "web")
    zone.bind(OTHER, ELEVEN, "other")
    zone.set_ipv6(WEB, (ONE6, TWO6))
    zone.set_ipv6(OTHER, (TWO6, THREE6))
    assert zone.addresses_of("web") == (TEN, ONE6)
    assert zone.name_of(TWO6) == "printer"
    zone.set_ipv6(WEB, (ONE6,))
    assert zone.name_of(TWO6) == "printer"


def test_a_guest_with_a_fixed_name_has_ipv6_addresses_too(zone):
    zone.set_ipv6(OTHER, (ONE6,))
    assert (zone.addresses_of("printer"), zone.name_of(ONE6)) == ((PRINTER, ONE6), "printer")
    zone.forget(OTHER)
    assert (zone.addresses_of("printer"), zone.name_of(ONE6)) == ((PRINTER,), None)


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


def test_a_name_of_a_token_is_taken_from_who_calls_itself_so(zone):
    zone.bind(WEB, TEN, "web")
    zone.set_ipv6(WEB, (ONE6,))
    assert zone.bind(OTHER, ELEVEN, "web", granted=True) == "web"
    assert (zone.addresses_of("web"), zone.holder_of("web")) == ((ELEVEN,), OTHER)
    assert zone.name_of(TEN) is zone.name_of(ONE6) is None
    assert zone.bind(WEB, TEN, "web") == ""
    assert zone.bind(WEB, TEN, "www") == "www"


def test_a_name_of_a_token_stays_with_the_first_who_has_it_by_a_token(zone):
    zone.bind(WEB, TEN, "web", granted=True)
    assert zone.bind(WEB, ELEVEN, "") == "web"
    assert zone.bind(OTHER, TEN, "web", granted=True) == ""
    assert zone.address_of("web") == ELEVEN
    zone.forget(WEB)
    zone.bind(WEB, TEN, "web")
    assert zone.bind(OTHER, ELEVEN, "web", granted=True) == "web", "a name is granted for one life only"


@pytest.mark.parametrize("name", ["gateway", "printer", "wpad"])
def test_no_token_gives_an_own_or_reserved_name(zone, name):
    assert zone.bind(WEB, TEN, name, granted=True) == ""


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
        | st.tuples(
            st.sampled_from([WEB, OTHER, b"\2" * 6]),
            st.lists(st.sampled_from([ONE6, TWO6, THREE6]), unique=True).map(tuple),
        )
    )
)
def test_names_and_addresses_stay_in_step(steps):
    zone = Zone({"gateway": (GATEWAY,)})
    names, holders = {}, {}
    for mac, *more in steps:
        if len(more) == 1:
            zone.set_ipv6(mac, *more)
            holders = {address: who for address, who in holders.items() if who != mac}
            holders |= dict.fromkeys(more[0], mac)
        elif more[1] is None:
            zone.forget(mac)
            names.pop(mac, None)
            holders = {address: who for address, who in holders.items() if who != mac}
        else:
            names[mac] = zone.bind(mac, *more)
    taken = [name for name in names.values() if name]
    assert len(set(taken)) == len(taken)
    assert {name for name in ("a", "b") if zone.address_of(name)} == set(taken)
    assert zone.address_of("gateway") == GATEWAY
    for mac, name in names.items():
        if name:
            expected = {address for address, who in holders.items() if who == mac}
            assert set(zone.addresses_of(name)[1:]) == expected
    for address in (ONE6, TWO6, THREE6):
        assert zone.name_of(address) == (names.get(holders.get(address)) or None)


@pytest.mark.parametrize(
    ("text", "can_be"),
    [
        *((domain, True) for domain in ("vm.internal", "lab", "a-b.c_d.example", "x" * 180)),
        *(
            (domain, False)
            for domain in ("", ".", "lab.", "-a", "a..b", "A", "a b", "a\nb", "é", "x" * 181, None, 7)
        ),
    ],
)
def test_what_can_be_the_domain_of_a_lan(text, can_be):
    assert is_lan_domain(text) == can_be


def test_an_address_that_is_another_guests_by_now_keeps_its_name_when_the_former_ones_goes(zone):
    zone.bind(OTHER, TEN, "old")
    zone.bind(WEB, TEN, "web")
    zone.bind(OTHER, ELEVEN, "old")
    assert (zone.name_of(TEN), zone.owner_of(TEN), zone.name_of(ELEVEN)) == ("web", WEB, "old")
    zone.bind(OTHER, TEN, "old")
    zone.forget(WEB)
    assert (zone.name_of(TEN), zone.name_of(ELEVEN)) == ("old", None)
