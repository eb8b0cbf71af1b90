from __future__ import annotations

import pytest

from netstack import encapsulation
from netstack.counters import Counters
from netstack.encapsulation import Kind
from netstack.ethernet import HEADER_LENGTH
from netstack.link_mtu import link_mtu


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("limit", [1300, 1410, 1514, 1515, 9000])
def test_a_full_packet_travels_in_one_datagram(kind, limit):
    frame = bytes(HEADER_LENGTH + link_mtu(kind, limit))
    assert len(encapsulation.create(kind, Counters()).wrap([frame], limit)) == 1


@pytest.mark.parametrize("kind", Kind)
def test_no_more_than_ethernet_takes(kind):
    assert link_mtu(kind, 65_535) == 1500


def test_on_a_narrow_path_framed_guests_keep_ipv6_at_the_price_of_chunks():
    assert link_mtu(Kind.FRAMED, 1155) == 1280


def test_on_a_narrow_path_raw_guests_keep_what_gets_through():
    assert link_mtu(Kind.RAW, 1155) == 1141
    assert link_mtu(Kind.RAW, 100) == 576
