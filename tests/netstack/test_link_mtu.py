from __future__ import annotations

import pytest

from netstack import encapsulation
from netstack.counters import Counters
from netstack.encapsulation import Kind
from netstack.ethernet import HEADER_LENGTH
from netstack.link_mtu import link_mtu, packet_limit


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("limit", [1300, 1410, 1514, 1515, 9000])
def test_a_full_packet_travels_in_one_datagram(kind, limit):
    frame = bytes(HEADER_LENGTH + link_mtu(kind, limit))
    assert len(encapsulation.create(kind, Counters()).wrap([frame], limit)) == 1


def test_no_more_than_ethernet_takes():
    assert link_mtu(Kind.FRAMED, 65_535) == 1500


def test_a_raw_client_may_send_as_much_as_its_guest_is_told():
    """What a client sends in one packet of 1200 bytes: aioquic leaves 1155 bytes of datagram."""
    assert link_mtu(Kind.RAW, 65_535) == 1155 - HEADER_LENGTH


def test_on_a_narrow_path_framed_guests_keep_ipv6_at_the_price_of_chunks():
    assert link_mtu(Kind.FRAMED, 1155) == 1280


def test_on_a_narrow_path_raw_guests_keep_what_gets_through():
    assert link_mtu(Kind.RAW, 1155) == 1141
    assert link_mtu(Kind.RAW, 100) == 576


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("limit", [600, 1155, 1294, 1296, 1300, 9000])
def test_what_may_be_smaller_than_the_mtu_travels_in_one_datagram(kind, limit):
    frame = bytes(HEADER_LENGTH + packet_limit(kind, limit))
    assert len(encapsulation.create(kind, Counters()).wrap([frame], limit)) == 1
    assert packet_limit(kind, limit) <= link_mtu(kind, limit)
    assert len(frame) == HEADER_LENGTH + link_mtu(kind, limit) or len(frame) == limit - 1


def test_on_the_narrowest_paths_what_every_host_takes_travels_in_chunks():
    assert packet_limit(Kind.FRAMED, 100) == 576
