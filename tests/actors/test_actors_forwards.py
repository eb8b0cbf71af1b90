from __future__ import annotations

import pytest
from gateway_parts import Lan, packet, who_asks
from lan_parts import Box, ip, mac
from scapy.layers.inet import UDP

from actors.messages import AssignAddress, ForwardOpened, GuestFound, GuestWanted, PortClosed
from actors.runtime import EventLoopActor
from netstack.forward import FIRST_PORT


class Forward(Box):
    """A forward that only takes note; the gateway tells forwards apart."""

    def __hash__(self):  # type: ignore[override] # lists have none
        return id(self)


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


def test_what_one_batch_brings_for_a_forwards_clients_is_one_message(lan):
    forward = Forward()
    lan.tell(ForwardOpened(0, forward))
    answers = [packet(1, "10.0.2.2") / UDP(sport=80, dport=FIRST_PORT + n % 2) / b"x" for n in range(10)]
    assert lan.sends(1, *answers) == []
    assert [len(message.frames) for message in forward] == [10]
    assert lan.counters["gateway.to_flows"] == 10


def test_frames_for_a_forward_that_is_no_more_are_counted(lan):
    forward = EventLoopActor.start()
    lan.tell(ForwardOpened(0, forward))
    forward.stop(block=False)
    assert lan.sends(1, packet(1, "10.0.2.2") / UDP(sport=80, dport=FIRST_PORT) / b"x") == []
    assert lan.counters["gateway.lost_to_ended_flows"] == 1


def test_a_guest_that_has_left_is_not_found(lan):
    lan.tell(PortClosed(1))
    assert found(lan, mac(1)) == [GuestFound(None, None)]


class Memory(list):
    """Leases of guests that were here: MAC, address and name of each."""

    def recall(self):
        return self

    def name_of(self, hardware):
        return next((name for known, _, name in self if known == hardware), "")

    def keep(self, hardware, address, name=""):
        pass


MEMORY = Memory(
    [
        (mac(2), ip("10.0.2.70"), "Mail.example"),
        (mac(3), bytes(4), "lost"),
        (mac(4), ip("10.0.2.90"), "web"),
        (mac(5), ip("10.0.2.50"), "Web"),
    ]
)


def asked(lan):
    return [(frame.dst, who_asks(frame)) for frame in lan.received()]


@pytest.mark.parametrize(
    ("vm", "address"),
    [
        (mac(2), "10.0.2.70"),
        ("mail", "10.0.2.70"),
        ("web", "10.0.2.50"),
        (ip("10.0.2.70"), "10.0.2.70"),
        (ip("10.0.2.33"), None),
        (bytes(4), None),
        (ip("10.0.2.10"), None),
        (mac(1), None),
        (mac(3), None),
        ("lost", None),
        (mac(9), None),
        ("elsewhere", None),
    ],
)
def test_a_guest_that_has_not_spoken_yet_is_asked_for_where_it_was(loop, counters, vm, address):
    lan = Lan(counters, memory=MEMORY)
    lan.tell(AssignAddress(1, mac(1), Box(), wanted=ip("10.0.2.10")))
    found(lan, vm)
    assert asked(lan) == ([] if address is None else [("ff:ff:ff:ff:ff:ff", address)])


def test_it_is_asked_for_less_and_less_often_until_it_was_there(loop, counters):
    lan = Lan(counters, memory=MEMORY)
    times = []
    for second in range(40):
        found(lan, "mail")
        found(lan, "mail")
        times += [second for _ in asked(lan)]
        loop.advance(1)
    assert times == [0, 1, 3, 7, 15, 23, 31, 39]
    lan.tell(AssignAddress(1, mac(2), Box()))
    assert found(lan, "mail") == [GuestFound(mac(2), ip("10.0.2.70"))]
    lan.tell(PortClosed(1))
    found(lan, "mail")
    assert [address for _, address in asked(lan)] == ["10.0.2.70"]
