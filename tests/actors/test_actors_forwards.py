from __future__ import annotations

import pytest
from lan_parts import Box, ip, mac
from test_gateway import Lan

from actors.messages import AssignAddress, GuestFound, GuestWanted, PortClosed


@pytest.fixture
def lan(loop, counters):
    """A LAN with one guest, which calls itself ``web``."""
    lan = Lan(counters)
    lan.tell(AssignAddress(1, mac(1), Box(), "web"))
    return lan


def found(lan, vm):
    forward = Box()
    lan.tell(GuestWanted(vm, forward))
    return forward


@pytest.mark.parametrize("vm", [mac(1), ip("10.0.2.10"), "web"], ids=["mac", "address", "name"])
def test_a_forward_finds_its_guest_by_whatever_the_operator_wrote(lan, vm):
    assert found(lan, vm) == [GuestFound(mac(1), ip("10.0.2.10"))]


@pytest.mark.parametrize("vm", [mac(2), ip("10.0.2.11"), "mail"], ids=["mac", "address", "name"])
def test_a_guest_that_is_not_there_is_not_found(lan, vm):
    assert found(lan, vm) == [GuestFound(None, None)]


def test_a_guest_that_has_left_is_not_found(lan):
    lan.tell(PortClosed(1))
    assert found(lan, mac(1)) == [GuestFound(None, None)]
