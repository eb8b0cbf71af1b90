"""Guests that look whether an address is free before they take it, and others who say that it is not."""

from __future__ import annotations

import pytest
from lan_of_guests import Lan
from lan_parts import GATEWAY_MAC
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP

from netstack.address_probes import PROBED_FOR
from netstack.contests import PROBE_INTERVAL, PROBES
from netstack.ipv6 import pack_ipv6

PREFIX = "fd76:6d72:656c:6179"
EVERYONE, ALL_NODES = b"\xff" * 6, bytes.fromhex("333300000001")
CONTESTED = PROBES * PROBE_INTERVAL


class Version4:
    def probe(self, client, address):
        return client.to(EVERYONE) / ARP(hwsrc=client.mac.hex(":"), psrc="0.0.0.0", pdst=address)

    def has_it(self, client, address):
        return client.to(EVERYONE) / ARP(op=2, hwsrc=client.mac.hex(":"), psrc=address, pdst=address)

    def uses(self, client, other, address):
        return client.to(other.mac) / IP(src=address, dst="10.0.2.99") / ICMP()

    free = "10.0.2.77"

    def is_probe(self, frame):
        return ARP in frame and frame[ARP].psrc == "0.0.0.0"

    def says_that(self, frame, client, address):
        return ARP in frame and (frame[ARP].op, frame[ARP].psrc, frame.src) == (
            2,
            address,
            client.mac.hex(":"),
        )


class Version6:
    def probe(self, client, address):
        packet = IPv6(src="::", dst="ff02::1:ff00:77", hlim=255) / ICMPv6ND_NS(tgt=address)
        return client.to(bytes.fromhex("3333ff000077")) / packet

    def has_it(self, client, address):
        return (
            client.to(ALL_NODES) / IPv6(src=address, dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt=address, O=1)
        )

    def uses(self, client, other, address):
        return client.to(other.mac) / IPv6(src=address, dst=f"{PREFIX}::99") / ICMPv6EchoRequest()

    free = f"{PREFIX}::77"

    def is_probe(self, frame):
        return ICMPv6ND_NS in frame and frame[IPv6].src == "::"

    def says_that(self, frame, client, address):
        return ICMPv6ND_NA in frame and (frame[ICMPv6ND_NA].tgt, frame.src) == (address, client.mac.hex(":"))


def heard(client):
    """Frames of guests that a client got since last time."""
    return [frame for frame in client.frames() if frame.src != GATEWAY_MAC.hex(":")]


@pytest.fixture(params=[Version4, Version6], ids=["4", "6"])
def version(request):
    return request.param()


@pytest.fixture
def guests(loop, counters):
    """Who takes an address, and who says that it is not free."""
    lan = Lan(loop, counters, ipv6_prefix=pack_ipv6(f"{PREFIX}::")[:8])
    (taker, leased), (other, _) = lan.join(1), lan.join(2)
    return lan, taker, other, leased


def test_whoever_else_has_or_wants_it_is_not_heard_and_does_not_get_it(guests, version):
    lan, taker, other, leased = guests
    for address in {version.free, leased if isinstance(version, Version4) else version.free}:
        taker.sends(version.probe(taker, address))
        assert any(map(version.is_probe, heard(other)))
        other.sends(version.has_it(other, address), version.probe(other, address))
        assert heard(taker) == []
        (answer,) = heard(other)
        assert version.says_that(answer, taker, address)
        lan.loop.advance(CONTESTED)
        heard(taker)
        taker.sends(version.uses(taker, other, address))
        assert len(heard(other)) == 1
        other.sends(version.uses(other, taker, address))
        assert heard(taker) == []


def test_who_has_it_is_asked_and_heard_later(guests, version):
    lan, taker, other, _ = guests
    taker.sends(version.probe(taker, version.free), version.uses(taker, other, version.free))
    heard(other)
    lan.loop.advance(PROBED_FOR)
    heard(taker)
    other.sends(version.probe(other, version.free))
    (asked,) = heard(taker)
    assert version.is_probe(asked)
    taker.sends(version.has_it(taker, version.free))
    assert len(heard(other)) == 1


def test_who_only_asked_holds_nobody_up_for_long(guests, version):
    lan, taker, other, _ = guests
    taker.sends(version.probe(taker, version.free))
    heard(other)
    lan.loop.advance(PROBED_FOR)
    other.sends(version.uses(other, taker, version.free))
    lan.loop.advance(CONTESTED)
    heard(taker)
    other.sends(version.uses(other, taker, version.free))
    assert len(heard(taker)) == 1


def test_a_probe_for_an_address_of_another_gets_nobody_anything(guests, version):
    lan, taker, other, _ = guests
    taker.sends(version.uses(taker, other, version.free))
    heard(other)
    other.sends(version.probe(other, version.free), version.uses(other, taker, version.free))
    (asked,) = heard(taker)
    assert version.is_probe(asked)
    taker.sends(version.has_it(taker, version.free))
    lan.loop.advance(CONTESTED)
    (answer,) = heard(other)
    assert version.says_that(answer, taker, version.free)
    taker.sends(version.uses(taker, other, version.free))
    assert len(heard(other)) == 1
