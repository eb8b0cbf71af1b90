"""Addresses that Linux kernels take by hand, give up and take over from each other."""

from __future__ import annotations

import pytest
from kernel_guest import KernelGuest
from processes import Relay

GATEWAY4, GATEWAY6 = "10.0.2.2", "fd76:6d72:656c:6179::2"


@pytest.fixture(scope="module")
def relay(relay_namespace):
    relay = Relay(before=relay_namespace.prefix)
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture
def guests(relay, relay_namespace):
    pair = [KernelGuest(role, relay, relay_namespace) for role in ("one", "two")]
    yield pair
    for guest in pair:
        guest.leave()


def take(guest, address, length):
    guest.run("ip", "address", "add", f"{address}/{length}", "dev", guest.device, *NO_CHECK[length])


NO_CHECK = {24: (), 64: ("nodad",)}
"""Without duplicate address detection, which would find the holder at once."""


def answered(guest, address, gateway, seconds):
    """Whether the gateway answers a ping from this address within a time; returns with the first answer."""
    done = guest.run(
        *("ping", "-n", "-c", 1, "-i", "0.2", "-w", seconds, "-I", address, gateway), check=False
    )
    return done.returncode == 0


MOVES = [("10.0.2.77", 24, GATEWAY4), ("fd76:6d72:656c:6179::77", 64, GATEWAY6)]


@pytest.mark.parametrize(("address", "length", "gateway"), MOVES)
def test_an_address_that_one_guest_gave_up_is_the_next_ones(guests, address, length, gateway):
    one, two = guests
    take(one, address, length)
    assert answered(one, address, gateway, 10)
    one.run("ip", "address", "del", f"{address}/{length}", "dev", one.device)
    take(two, address, length)
    assert answered(two, address, gateway, 20)


@pytest.mark.parametrize(("address", "length", "gateway"), MOVES)
def test_an_address_that_its_holder_has_still_is_not_anothers(relay, guests, address, length, gateway):
    one, two = guests
    take(one, address, length)
    assert answered(one, address, gateway, 10)
    before = relay.counters()["gateway.addresses_defended"]
    take(two, address, length)
    assert not answered(two, address, gateway, 4)
    assert relay.counters()["gateway.addresses_defended"] > before
    assert answered(one, address, gateway, 10)


def test_a_guest_may_change_its_address_as_often_as_it_likes(guests):
    one, two = guests
    others = {one.address, two.address}
    for address in [place for place in (f"10.0.2.{last}" for last in range(100, 110)) if place not in others][
        :8
    ]:
        take(one, address, 24)
        assert answered(one, address, GATEWAY4, 10)
        one.run("ip", "address", "del", f"{address}/24", "dev", one.device)
    assert one.ping(GATEWAY4, count=1)[0] == 1
