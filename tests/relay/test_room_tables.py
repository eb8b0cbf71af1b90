from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

import pytest
from lan_parts import mac
from test_lans import come, framed, in_a_house, lookup

from actors.settings import FixedLease
from netstack.forward import parse_forwards
from netstack.name_servers import NameServer
from relay.lan_options import parse_boot_files, parse_routes
from relay.lan_plan import bounds_of_rooms, lan_plan
from relay.room_tables import OF_ROOMS
from relay.settings import OPTIONS, Settings, SettingsError, resolve

TABLES = """
max-flows = 5
static-lease = ["52:54:00:00:00:01=10.0.2.50=db"]
forward = ["tcp::8080:db:80"]

[rooms]
max-flows = 6
peer-list = false

[room.lab]
max-flows = 7
lease-time = 60
forward = ["udp::5353:web:53"]

[room.quiet]
internet = false
"""


OTHER_VALUES = {
    "network": IPv4Network("172.20.0.0/16"),
    "domain": "lab.example",
    "dns": IPv4Address("192.0.2.1"),
    "upstream_dns": (NameServer("192.0.2.1"),),
    "dns_allow_private": ("corp.example",),
    "static_lease": (FixedLease(mac(1), bytes((10, 0, 2, 50))),),
    "dhcp_boot": parse_boot_files("a@10.0.2.15"),
    "dhcp_search": ("corp.example",),
    "dhcp_ntp": (bytes((192, 0, 2, 1)),),
    "dhcp_route": parse_routes("192.168.0.0/16=10.0.2.15"),
    "dhcp_wpad": "http://a.example/",
    "ipv6_prefix": IPv6Network("fd00::/64"),
    "forward": parse_forwards("tcp::8080:web:80"),
    "udp_filtering": "endpoint-independent",
}


@pytest.fixture
def read(tmp_path):
    def read(text, **environment):
        path = tmp_path / "relay.toml"
        path.write_text(text)
        return resolve({"config": str(path)}, environment)

    return read


def test_a_room_has_its_own_settings_over_those_of_rooms_over_the_relays(read):
    found = read(TABLES)
    assert found.rooms == {"lab", "quiet"}
    assert [found.of_room(room).max_flows for room in ("default", "lab", "quiet", "other")] == [5, 7, 6, 6]
    assert [found.of_room(room).peer_list for room in ("default", "lab", "other")] == [True, False, False]
    assert [found.of_room(room).lease_time for room in ("default", "lab", "other")] == [3600, 60, 3600]
    assert [found.of_room(room).internet for room in ("default", "quiet", "lab")] == [True, False, True]


def test_forwards_and_fixed_leases_are_of_the_room_that_names_them(read):
    found = read(TABLES)
    forwards = {room: [f.protocol for f in found.of_room(room).forward] for room in ("default", "lab", "x")}
    assert forwards == {"default": ["tcp"], "lab": ["udp"], "x": []}
    assert [len(found.of_room(room).static_lease) for room in ("default", "lab", "x")] == [1, 0, 0]


def test_flags_and_variables_are_the_whole_relays(read):
    found = read(TABLES, VMRELAY_MAX_FLOWS="9")
    assert [found.of_room(room).max_flows for room in ("default", "lab", "other")] == [9, 7, 6]


def test_without_tables_settings_are_plain(read):
    assert type(read("max-flows = 5")) is Settings
    assert Settings(max_flows=5).of_room("x").max_flows == 5
    assert Settings().rooms == frozenset()


def test_listed_rooms_are_those_of_the_file(read):
    assert bounds_of_rooms(read("create-rooms = 'listed'\n" + TABLES)).listed == {"lab", "quiet"}
    assert bounds_of_rooms(read(TABLES)).listed is None


@pytest.mark.parametrize("name", sorted(OF_ROOMS - {"allow_cidr", "deny_cidr", "allow_origin", "auth"}))
def test_what_a_room_may_set_is_a_setting_and_changes_its_plan(name):
    assert name in OPTIONS
    default = getattr(Settings(), name)
    changed: Any
    if isinstance(default, bool):
        changed = not default
    elif isinstance(default, (int, float)):
        changed = default + 1
    else:
        changed = OTHER_VALUES[name]
    one, other = (lan_plan(settings) for settings in (Settings(), replace(Settings(), **{name: changed})))
    policies = [plan.policy() for plan in (one, other)]
    rules = [(policy._host_address, policy._allow_smtp) for policy in policies]
    assert one._replace(policy=None) != other._replace(policy=None) or rules[0] != rules[1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[room.Lab]", "room.Lab: a room's name is 1 to 63 of a-z, 0-9 and -"),
        ("[room.default]", "room.default: the settings of this room stand outside of tables"),
        ("rooms = 7", "rooms: must be a table"),
        ("room = []", "room: must be a table"),
        ("[room]\nlab = 7", "room.lab: must be a table"),
        ("[room.lab]\nport = 1", "room.lab: 'port' is no setting of rooms"),
        ("[room.lab]\nmax-flow = 1", "room.lab: 'max-flow' is no setting of rooms, perhaps 'max-flows'"),
        (
            "[room.lab]\nno-internet = true",
            "'no-internet' is no setting of rooms, perhaps 'internet = false'",
        ),
        ("[rooms.lab]\nisolated = true", "rooms: 'lab' is no setting of rooms: those of one room stand in"),
        ("[room.lab]\nmax-flows = 0", "room.lab: max-flows: must be a whole number from 1 to 65535, not '0'"),
        ("[room.lab]\nmax-flows = true", "room.lab: max-flows: must be a whole number"),
        (
            "[rooms]\nforward = ['tcp::1:a:1']",
            "rooms: forward: only one room can have a port; see [room.NAME]",
        ),
        ("[rooms]\nmax-rooms = 7", "rooms: 'max-rooms' is no setting of rooms"),
        ("[room.lab]\ndhcp = false\ndhcp-wpad = 'http://a/'", "room.lab: --dhcp-wpad needs DHCP"),
        ("[rooms]\nhost-access = true\ninternet = false", "rooms: --host-access needs a way out"),
        ("[room.a]\ninternet = false\nallow-cidr = ['192.168.1.0/24']", "room.a: --allow-cidr needs a way"),
        ("[rooms]\ninternet = false\nallow-smtp = true", "rooms: --allow-smtp needs a way out"),
        ("[rooms]\ninternet = false\n[room.a]\nallow-cidr = ['192.168.1.9']", "room.a: --allow-cidr needs"),
        ("[room.a]\ninternet = false\nupstream-dns = ['192.0.2.53']", "room.a: --upstream-dns needs a way"),
        ("[rooms]\ninternet = false\ndns-allow-private = ['a.b']", "rooms: --dns-allow-private needs a way"),
        ("allow-smtp = true\ninternet = false\n[rooms]\nisolated = true", ": --allow-smtp needs a way out"),
        (
            "[room.a]\nnetwork = '10.8.0.0/16'\nstatic-lease = ['52:54:00:00:00:01=10.9.0.6']",
            "room.a: --static-lease: 10.9.0.6 is not an address for a guest of 10.8.0.0/16",
        ),
        (
            "dhcp-route = ['10.7.0.0/16=10.0.2.9']\n[rooms]\nnetwork='10.9.0.0/29'\n[room.a]\ndhcp-route=[]",
            "rooms: --dhcp-route: 10.0.2.9 is no router for guests of 10.9.0.0/29",
        ),
        (
            "forward = ['tcp::8080:web:80']\n[room.a]\nforward = ['tcp:127.0.0.1:8080:web:80']",
            "room.a: --forward: tcp:127.0.0.1:8080 is room default's already",
        ),
        ("max-rooms = 2\n[room.a]\n[room.b]", "more rooms than --max-rooms 2 with the default one"),
    ],
)
def test_what_cannot_be_is_one_clear_line(read, text, complaint):
    with pytest.raises(SettingsError) as refused:
        read(text)
    assert complaint in str(refused.value)
    assert "relay.toml: " in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        # The whole relay's, for all rooms but this one.
        "allow-cidr = ['192.168.1.0/24']\nallow-smtp = true\n[room.a]\ninternet = false",
        "allow-cidr = ['192.168.1.0/24']\n[rooms]\ninternet = false",
        "upstream-dns = ['192.0.2.53']\ndns-allow-private = ['a.b']\n[room.a]\ninternet = false",
        # And for this one alone.
        "internet = false\nallow-cidr = ['192.168.1.0/24']\n[room.a]\ninternet = true",
        "[rooms]\ninternet = false\nallow-smtp = true\n[room.a]\ninternet = true",
        # A way in is no way out.
        "[room.a]\ninternet = false\nforward = ['tcp::8080:web:80']",
    ],
)
def test_what_opens_ways_out_may_stand_where_some_room_has_one(read, text):
    assert read(text).rooms <= {"a"}


def test_guests_of_an_offline_room_reach_each_other_and_nothing_else(read):
    def scenario(house):
        quiet, other = house.get("quiet"), house.get("other")
        for address in ("1.1.1.1", "2606:4700:4700::1111", "127.0.0.1", "10.0.2.4"):
            assert not quiet.network.allows_echo(address)
            assert not quiet.network.allows_udp((address, 53))
        assert other.network.allows_udp(("1.1.1.1", 53))
        guest = framed(quiet, 2, mac(2), "bob")
        assert lookup(*guest, mac(2), "bob.vm.internal.") == ["10.0.2.10"]
        assert lookup(*guest, mac(2), "www.example.") == []
        assert quiet.counters["dns.failed"] == 1
        assert come(quiet, 1, mac(1))[0].take() != [], "the gateway answers"

    in_a_house(scenario, read(TABLES.replace("forward", "#forward")))
