"""Linux kernels in rooms of one relay."""

from __future__ import annotations

import json
import sys
import time

import pytest
from kernel_guest import KernelGuest
from namespaces import Namespace
from processes import ROOT, Relay
from transfers import download, tell

from relay.tokens import make_key, public_half, sign

KEY = make_key("EdDSA")
TABLES = """
auth-keys = "{keys}"

[room.apart]
isolated = true

[room.paid]
auth = "required"
host-access = true
"""


def token(**claims):
    return "?token=" + sign(KEY, {"exp": time.time() + 600, **claims})


@pytest.fixture(scope="module")
def relay(relay_namespace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    tables, keys = folder / "relay.toml", folder / "keys.json"
    keys.write_text(json.dumps({"keys": [public_half(KEY)]}))
    tables.write_text(TABLES.format(keys=keys))
    relay = Relay("--config", tables, before=relay_namespace.prefix)
    yield relay
    assert "Traceback" not in relay.output
    assert "eyJ" not in relay.output, "a token stands in the log"
    relay.stop()


@pytest.fixture
def enter(relay, relay_namespace):
    """Bring up kernels in rooms."""
    guests = []

    def enter(*rooms, options=()):
        for room in rooms:
            guests.append(KernelGuest(f"guest{len(guests)}", relay.room(room), relay_namespace, *options))
        return guests[-len(rooms) :]

    yield enter
    for guest in guests:
        guest.leave()


def known_macs(guest):
    return guest.run("ip", "neigh", "show").stdout


def test_kernels_of_one_room_reach_each_other_and_none_of_another(enter):
    one, two = enter("lab", "lab")
    (stranger,) = enter("other", options=("--mac", one.mac))
    assert stranger.address == one.address, "each room has addresses of its own"
    assert one.ping(two.address)[0] == two.ping(one.address)[0] == 5
    assert stranger.ping(stranger.gateway)[0] == 5
    assert stranger.ping(two.address, "-w", "1", count=1)[0] == 0
    one.ping("10.0.2.255", "-b", count=2)
    assert two.mac not in known_macs(stranger)
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


def source_at_home(namespace):
    server = namespace.start(sys.executable, ROOT / "tests/system/tcp_server.py", "127.0.0.1")
    return server, ("10.0.2.4", int(server.wait_for(r"source on port (\d+)")[1]))


def test_a_kernel_has_the_rate_and_the_name_of_its_token(relay, relay_namespace):
    limited = KernelGuest(
        "slow", relay.room("paid", token(name="paying", limits={"bit-rate": "2M"})), relay_namespace
    )
    usual = KernelGuest("quick", relay.room("paid", token(room="paid")), relay_namespace)
    server, source = source_at_home(relay_namespace)
    times = []
    for guest in (usual, limited):
        begun = time.monotonic()
        assert download(guest, source, 1_000_000) == tell(1_000_000)
        times.append(time.monotonic() - begun)
    assert times[1] > max(3, times[0])
    assert limited.address in usual.run("dig", "@10.0.2.2", "+short", "paying.vm.internal").stdout
    server.stop()
    limited.leave()
    usual.leave()


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (None, "status 401: A token is needed"),
        ({"room": "other"}, "status 403: The token is for another room."),
        ({"limits": {"max-guests": 7}}, "status 401: The token's limits are not such as the relay keeps"),
        ({"mac": "52:54:00:00:00:77"}, "the token of this session is for other MAC addresses"),
    ],
)
def test_attach_says_why_a_kernel_is_not_let_in(relay, relay_namespace, claims, said):
    namespace, door = Namespace("outcast"), relay.room("paid", "" if claims is None else token(**claims))
    attached = relay_namespace.start(
        *(sys.executable, "-m", "relay.main", "attach", "--tap", "tap0", "--netns", namespace.name),
        *("--mac", "52:54:00:00:00:78", "--cert-hash", door.hash, door.url),
    )
    attached.wait_for(said)
    assert "eyJ" not in attached.output
    attached.stop()
    namespace.delete()
