"""What a client is told of its address, and when it is told again."""

from __future__ import annotations

import json

import pytest
from lan_parts import ip, mac
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether

from actors.lan.assigned import ASSIGNED_REPEATS, Assigned
from actors.messages import AddressAssigned
from actors.runtime import NEVER
from actors.settings import LanSettings

SETTINGS = LanSettings(domain="lab.example")
ASSIGNMENT = AddressAssigned(
    mac(1), ip("10.0.2.15"), ip("10.0.2.2"), ip("255.255.255.0"), ip("10.0.2.3"), mtu=1400, resume="secret"
)
URLS = ["https://east.example"]


@pytest.fixture
def assigned():
    return Assigned(lambda: URLS)


def made(assigned):
    return assigned.make(ASSIGNMENT, 1400, SETTINGS, 1160)


def test_it_says_all_that_a_client_needs(assigned):
    told = json.loads(made(assigned)[1:])
    assert told["ip"] == [10, 0, 2, 15]
    assert (told["mtu"], told["domain"], told["resume"]) == (1400, "lab.example", "secret")
    assert told["urls"] == URLS


def test_it_is_sent_again_until_the_last_repeat(assigned):
    datagram = made(assigned)
    assert assigned.due_at == NEVER
    assigned.was_sent(10.0)
    sent = []
    while assigned.due_at < NEVER:
        at = assigned.due_at
        assert assigned.take_due(at - 0.01) == []
        assert assigned.take_due(at) == [datagram]
        sent.append(at - 10.0)
    assert sent == pytest.approx(ASSIGNED_REPEATS)


SHOWS = [
    (IP(src="10.0.2.15", dst="10.0.2.2") / UDP(), True),
    (ARP(psrc="10.0.2.15", pdst="10.0.2.2"), True),
    (IP(src="0.0.0.0", dst="255.255.255.255") / UDP(), False),
    (ARP(psrc="0.0.0.0", pdst="10.0.2.15"), False),
    (IPv6(src="fe80::1", dst="ff02::2") / ICMPv6ND_RS(), False),
]


@pytest.mark.parametrize(("packet", "shows"), SHOWS)
def test_a_frame_from_an_ipv4_address_ends_it(assigned, packet, shows):
    datagram = made(assigned)
    assigned.was_sent(10.0)
    assigned.look([b"", bytes(13), bytes(Ether(src=mac(1).hex(":"), dst="ff:ff:ff:ff:ff:ff") / packet)])
    assert assigned.is_shown is shows
    assert (assigned.due_at == NEVER) is shows
    assert assigned.again(1400, SETTINGS, 1160) == ([] if shows else [datagram])


def test_beside_a_heartbeat_it_is_told_again_when_it_is_no_longer_true(assigned):
    assert assigned.again(1400, SETTINGS, 1160) == []
    made(assigned)
    assigned.is_shown = True
    assert assigned.again(1400, SETTINGS, 1160) == []
    (narrower,) = assigned.again(1280, SETTINGS, 1160)
    assert json.loads(narrower[1:])["mtu"] == 1280
    assert assigned.again(1280, SETTINGS, 1160) == []
    URLS.append("https://west.example")
    (elsewhere,) = assigned.again(1280, SETTINGS, 1160)
    URLS.pop()
    assert json.loads(elsewhere[1:])["urls"][1:] == ["https://west.example"]
