from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network

import pytest

from actors.settings import FixedLease, LanSettings
from netstack.forward import parse_forwards
from relay.lan_plan import bounds_of_rooms, lan_plan, lan_settings, max_flows
from relay.lans import Bounds
from relay.settings import Settings, resolve
from transport.host.descriptors import own_budget

BY_THE_MACHINE = {"max_flows", "max_questions"}
"""What the number of files decides, too."""


def test_without_settings_a_lan_is_what_its_actors_expect():
    planned, expected = (dataclasses.asdict(found) for found in (lan_settings(Settings()), LanSettings()))
    for name in BY_THE_MACHINE:
        planned.pop(name), expected.pop(name)
    assert planned == expected


def test_flows_are_bounded_by_the_files_that_there_are():
    assert max_flows(Settings(max_flows_total=7)) == 7
    assert max_flows(Settings(max_flows_total=1_000_000)) == own_budget().flows


def test_each_lan_has_a_policy_of_its_own():
    plan = lan_plan(Settings(host_access=True))
    one, other = plan.policy(), plan.policy()
    assert one is not other
    assert one.decide("10.0.2.4").allowed
    assert not lan_plan(Settings()).policy().decide("10.0.2.4").allowed


def test_the_addresses_of_a_lan_follow_its_network():
    plan = lan_plan(Settings(network=IPv4Network("172.20.0.0/16"), domain="lab.example", host_access=True))
    lan = plan.settings
    assert (lan.network, lan.domain) == ("172.20.0.0/16", "lab.example")
    assert lan.gateway_ips == {bytes((172, 20, 0, last)) for last in (2, 3, 4)}
    assert (lan.dns, lan.pool_last) == (lan.gateway_ip, bytes((172, 20, 255, 254)))
    policy = plan.policy()
    assert policy.decide("172.20.0.4").dial == "127.0.0.1"
    assert policy.shown("127.0.0.1") == "172.20.0.4"
    assert not policy.decide("10.0.2.4").allowed


def test_the_address_of_the_host_may_be_that_of_a_network_from_before():
    policy = lan_plan(Settings(network=IPv4Network("172.20.0.0/16"), host_access=True)).policy("10.0.2.4")
    assert policy.decide("10.0.2.4").dial == "127.0.0.1"
    assert not policy.decide("172.20.0.4").allowed


def test_a_name_server_of_the_operators_stands_for_the_gateway():
    assert lan_settings(Settings(dns=IPv4Address("9.9.9.9"))).dns == bytes((9, 9, 9, 9))


def test_a_room_has_its_name_and_nothing_that_only_one_can_have():
    [forward] = parse_forwards("tcp::8080:web:80")
    lease = FixedLease(bytes(6), bytes((10, 0, 2, 50)), "db")
    settings = Settings(forward=(forward,), static_lease=(lease,), max_peers=7)
    home, lab = lan_plan(settings), lan_plan(settings, "lab")
    assert (home.settings.room, lab.settings.room) == ("default", "lab")
    assert (home.forwards, lab.forwards) == ((forward,), ())
    assert (home.settings.fixed_leases, lab.settings.fixed_leases) == ((lease,), ())
    assert home.settings.max_peers == lab.settings.max_peers == 7


@pytest.mark.parametrize(
    ("room", "told"),
    [("default", "9.9.9.9"), ("quiet", "10.0.2.2"), ("inside", "10.0.2.53"), ("routed", "192.168.1.1")],
)
def test_rooms_without_a_way_out_are_not_told_of_the_relays_name_server_outside(tmp_path, room, told):
    file = tmp_path / "relay.toml"
    file.write_text(
        """
        dns = "9.9.9.9"
        [rooms]
        internet = false
        [room.inside]
        dns = "10.0.2.53"
        [room.routed]
        dns = "192.168.1.1"
        dhcp-route = ["192.168.0.0/16=10.0.2.15"]
        """
    )
    assert lan_plan(resolve({"config": str(file)}, {}), room).settings.dns == IPv4Address(told).packed


def test_rooms_are_bounded_as_the_operator_says():
    assert bounds_of_rooms(Settings()) == Bounds(256, 16, 60.0)
    found = bounds_of_rooms(
        Settings(max_rooms=3, rooms_per_client=0, room_idle_time=5.0, create_rooms="listed")
    )
    assert found == Bounds(3, 0, 5.0, frozenset())
