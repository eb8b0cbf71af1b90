"""Linux kernels in rooms of one relay."""

from __future__ import annotations

import pytest
from kernel_guest import KernelGuest
from processes import Relay

TABLES = """
[room.apart]
isolated = true
"""


@pytest.fixture(scope="module")
def relay(relay_namespace, tmp_path_factory):
    tables = tmp_path_factory.mktemp("rooms") / "relay.toml"
    tables.write_text(TABLES)
    relay = Relay("--config", tables, before=relay_namespace.prefix)
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture
def enter(relay, relay_namespace):
    """Bring up kernels in rooms."""
    guests = []

    def enter(*rooms):
        for number, room in enumerate(rooms):
            guests.append(KernelGuest(f"guest{number}", relay.room(room), relay_namespace))
        return guests

    yield enter
    for guest in guests:
        guest.leave()


def known_macs(guest):
    return guest.run("ip", "neigh", "show").stdout


def test_kernels_of_one_room_reach_each_other_and_none_of_another(enter):
    one, two, stranger = enter("lab", "lab", "other")
    assert stranger.address == one.address, "each room has addresses of its own"
    assert one.ping(two.address)[0] == two.ping(one.address)[0] == 5
    assert stranger.ping(stranger.gateway)[0] == 5
    assert stranger.ping(two.address, "-w", "1", count=1)[0] == 0
    one.ping("10.0.2.255", "-b", count=2)
    for mac in (one.mac, two.mac):
        assert mac not in known_macs(stranger)
    assert two.mac in known_macs(one)
    one.wait_for_news(r"room lab")


def test_isolated_kernels_reach_the_gateway_and_not_each_other(enter):
    one, two = enter("apart", "apart")
    assert one.address != two.address
    for guest, other in ((one, two), (two, one)):
        assert guest.ping(guest.gateway)[0] == 5
        assert guest.ping(other.address, "-w", "1", count=1)[0] == 0
        assert other.mac not in known_macs(guest)
    # Not by way of the router either.
    one.run("ip", "route", "add", two.address, "via", one.gateway)
    replies, output = one.ping(two.address, "-w", "2", count=1)
    assert (replies, "Packet filtered" in output) == (0, True)
