from __future__ import annotations

import pytest
from lan_parts import mac

from actors.gateway.ipv6_addresses import Ipv6Addresses
from netstack.ipv6 import link_local_of
from netstack.neighbour import AddressBindings

PREFIX = bytes.fromhex("fd766d72656c6179")
LASTING = PREFIX + link_local_of(mac(1))[8:]
"""What the guest makes of its MAC."""
TEMPORARY, LATER = (PREFIX + bytes(7) + bytes((number,)) for number in (1, 2))


@pytest.fixture
def told():
    return {}


@pytest.fixture
def bindings():
    return AddressBindings()


@pytest.fixture
def addresses(bindings, told):
    return Ipv6Addresses(bindings, PREFIX, told.__setitem__)


def take(addresses, bindings, *those):
    for address in those:
        bindings.claim(mac(1), address)
        addresses.taken(mac(1), address)
    addresses.publish()


def test_the_lasting_address_comes_first_then_the_one_used_last(addresses, bindings, told):
    take(addresses, bindings, TEMPORARY, LASTING, LATER)
    assert told == {mac(1): (LASTING, LATER, TEMPORARY)}
    assert addresses.address_of(mac(1)) == LASTING


def test_link_local_addresses_are_nobodys_business(addresses, bindings, told):
    take(addresses, bindings, link_local_of(mac(1)))
    assert (told, addresses.address_of(mac(1))) == ({}, None)


def test_a_guest_is_reached_at_the_address_that_it_announced_until_it_uses_one(addresses, bindings, told):
    addresses.announced(mac(1), TEMPORARY)
    addresses.publish()
    assert told == {mac(1): (TEMPORARY,)}
    take(addresses, bindings, LATER)
    assert told == {mac(1): (LATER,)}


def test_an_announced_address_that_is_anothers_is_not_the_guests(addresses, bindings, told):
    bindings.claim(mac(2), TEMPORARY)
    addresses.announced(mac(1), TEMPORARY)
    addresses.publish()
    assert told == {mac(1): ()}


def test_a_guest_that_left_has_no_address(addresses, bindings, told):
    take(addresses, bindings, LASTING)
    addresses.announced(mac(1), TEMPORARY)
    addresses.forget(mac(1))
    assert (addresses.addresses_of(mac(1)), bindings.holder_of(LASTING)) == ((), None)


def test_on_a_lan_without_ipv6_nobody_is_told_anything(bindings, told):
    addresses = Ipv6Addresses(bindings, None, told.__setitem__)
    take(addresses, bindings, TEMPORARY)
    addresses.publish(mac(1))
    assert told == {}
