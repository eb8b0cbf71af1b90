from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from guest.nic_changes import Assigned, parse_assigned
from netstack import control

ASSIGNED = control.encode_assigned(
    bytes([10, 0, 2, 77]), bytes([10, 0, 2, 2]), bytes([255, 255, 255, 0]), bytes([8, 8, 8, 8])
)


def test_an_assignment_is_read_in_any_order():
    fields = {
        "dns": [8, 8, 8, 8],
        "gateway": [10, 0, 2, 2],
        "ip": [10, 0, 2, 10],
        "netmask": [255, 255, 255, 0],
        "mtu": 9000,
    }
    ip, gateway, netmask, dns = map(IPv4Address, ("10.0.2.10", "10.0.2.2", "255.255.255.0", "8.8.8.8"))
    assert parse_assigned(fields) == Assigned(ip, gateway, netmask, dns, None)


@pytest.mark.parametrize(
    ("said", "room"),
    [("lab", "lab"), (None, "default"), (7, "default"), ("\x1b[2J", "default"), ("", "default")],
)
def test_the_room_is_taken_from_assigned_if_it_can_be_one(said, room):
    fields = json.loads(ASSIGNED[1:]) | ({} if said is None else {"room": said})
    assert parse_assigned(fields).room == room


@pytest.mark.parametrize(
    ("said", "domain"),
    [
        ("lab.example", "lab.example"),
        *((bad, "vm.internal") for bad in (None, 7, "", "a\nnameserver 1.2.3.4", "A b")),
    ],
)
def test_the_domain_is_taken_from_assigned_if_it_can_stand_in_a_file(said, domain):
    fields = json.loads(ASSIGNED[1:]) | ({} if said is None else {"domain": said})
    assert parse_assigned(fields).domain == domain
