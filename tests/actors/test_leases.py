"""What guests are told of their addresses, and what is kept of that."""

from __future__ import annotations

import pytest
from gateway_parts import Lan, echoes, ether, packet
from lan_parts import Box, ip, mac
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP

from actors.messages import (
    AddressAssigned,
    AddressUsed,
    AssignAddress,
    GatewayAttached,
    MacAgedOut,
    PortClosed,
)


class Memory:
    """What a LAN knows, in the order in which it was learned."""

    def __init__(self, *known):
        self.known = list(known)
        self.kept = []

    def recall(self):
        return self.known

    def name_of(self, hardware):
        said = [known[2] for known in (*self.known, *self.kept) if known[0] == hardware and known[2]]
        return said[-1] if said else ""

    def keep(self, hardware, address, name=""):
        self.kept.append((hardware, address, name))


class Guests(Lan):
    """A LAN whose guests' peers keep what they are told."""

    def __init__(self, counters, memory=None, **settings):
        super().__init__(counters, memory=memory, **settings)
        self.peers = {}

    def register(self, number, **fields):
        self.peers[number] = Box()
        self.tell(AssignAddress(number, mac(number), self.peers[number], **fields))

    def told(self, number):
        return [message.ip[3] for message in self.peers[number].take(AddressAssigned)]

    def pings(self, number, source):
        return echoes(self.sends(number, packet(number, "10.0.2.2", src=source) / ICMP()))


@pytest.fixture
def lan(loop, counters):
    return Guests(counters)


def test_two_guests_go_on_with_what_they_had_whatever_they_are_told(lan):
    """Each has been given the other's; whoever shows one has it, and who was given it hears of another."""
    lan.register(1)
    lan.register(2)
    assert (lan.told(1), lan.told(2)) == ([10], [11])
    assert lan.pings(1, "10.0.2.11")
    assert lan.told(1) == []
    (new,) = lan.told(2)
    assert new not in (10, 11)
    assert lan.pings(2, "10.0.2.10")
    assert (lan.told(1), lan.told(2)) == ([11], [])
    assert lan.pings(1, "10.0.2.11")
    assert lan.pings(2, "10.0.2.10")
    assert lan.counters["gateway.addresses_moved"] == 0


def test_guests_that_say_what_they_had_get_it_whoever_comes_first(lan):
    lan.register(1, wanted=ip("10.0.2.11"))
    lan.register(2, wanted=ip("10.0.2.10"))
    lan.register(3, wanted=ip("10.0.2.10"))
    assert (lan.told(1), lan.told(2)) == ([11], [10])
    assert lan.told(3) == [12], "and not what another has"


def test_arp_shows_an_address_too_and_so_does_what_goes_past_the_gateway(lan):
    for number in (1, 2, 3):
        lan.register(number)
    lan.sends(1, ether(1, b"\xff" * 6) / ARP(hwsrc=mac(1).hex(":"), psrc="10.0.2.11", pdst="10.0.2.77"))
    assert lan.told(2)[-1] not in (10, 11)
    (attached,) = lan.switch.take(GatewayAttached)
    frame = bytes(ether(2, mac(1)) / IP(src="10.0.2.12", dst="10.0.2.77"))
    assert attached.sources.look(frame).address == ip("10.0.2.12")
    assert attached.sources.claim(mac(2), ip("10.0.2.12"), 2).accepted
    lan.tell(AddressUsed(2, mac(2), ip("10.0.2.12"), contested=False))
    assert lan.told(3)[-1] not in (10, 11, 12)


def test_a_guest_that_uses_another_address_beside_its_own_keeps_both(lan):
    lan.register(1)
    assert lan.pings(1, "10.0.2.77")
    assert lan.told(1) == [10]
    assert lan.pings(1, "10.0.2.10")
    assert lan.pings(1, "10.0.2.77")


def test_who_uses_its_address_is_not_displaced(lan):
    lan.register(1)
    lan.register(2)
    assert lan.pings(1, "10.0.2.10")
    assert not lan.pings(2, "10.0.2.10")
    assert (lan.told(1), lan.told(2)) == ([10], [11])


def test_the_name_goes_with_the_guest(lan):
    lan.register(1, name="web")
    lan.register(2, name="db")
    assert lan.pings(2, "10.0.2.10")
    names = lan.ref._actor_weakref()._services.names
    assert names.name_of(ip("10.0.2.10")) == "db"
    assert names.name_of(ip(f"10.0.2.{lan.told(1)[-1]}")) == "web"


def test_the_name_stays_with_the_address_that_its_guest_uses_when_its_client_is_back(loop, counters):
    memory = Memory()
    lan = Guests(counters, memory)
    names = lan.ref._actor_weakref()._services.names
    lan.register(1)
    assert lan.pings(1, "10.0.2.77")
    memory.kept.clear()
    lan.register(1, name="web")
    assert (lan.told(1), names.address_of("web")) == ([10], ip("10.0.2.77"))
    assert memory.kept == [(mac(1), ip("10.0.2.77"), ""), (mac(1), ip("10.0.2.77"), "web")]


def test_who_waits_for_another_address_takes_no_name_from_who_has_its_own_now(lan):
    waiting = []

    def waits(hardware, then, _wanted):
        if hardware != mac(1) or waiting:
            return False
        waiting.append(then)
        return True

    lan.register(1, name="web")
    lan.register(2, name="db")
    gateway = lan.ref._actor_weakref()
    gateway._leases.waits = waits
    assert lan.pings(2, "10.0.2.10")
    (then,) = waiting
    then()
    lan.received()
    names = gateway._services.names
    assert names.address_of("db") == ip("10.0.2.10")
    assert names.address_of("web")[3] == lan.told(1)[-1]


def test_a_name_that_a_guest_said_by_dhcp_does_not_lead_to_who_has_its_address_now(lan):
    lan.register(1)
    lan.register(2)
    services = lan.ref._actor_weakref()._services
    services.name(mac(1), ip("10.0.2.10"), "web", granted=False)
    assert services.names.name_of(ip("10.0.2.10")) == "web"
    assert lan.pings(2, "10.0.2.10")
    assert services.names.name_of(ip("10.0.2.10")) is None


def test_a_guest_that_left_meanwhile_is_told_nothing(lan):
    lan.register(1)
    lan.ref.tell(PortClosed(1))
    lan.ref._actor_weakref()._leases._note_change(mac(1), None)
    lan.received()
    assert lan.told(1) == [10]


def test_an_address_that_several_had_is_kept_for_the_last_of_them(loop, counters):
    memory = Memory((mac(1), ip("10.0.2.99"), "web"), (mac(2), ip("10.0.2.99"), "db"))
    lan = Guests(counters, memory)
    for number in (1, 2):
        lan.register(number)
    assert [lan.told(number) for number in (1, 2)] == [[10], [99]]


def test_what_is_remembered_is_given_again_with_the_name(loop, counters):
    memory = Memory((mac(1), ip("10.0.2.99"), "web"), (mac(2), ip("10.0.2.10"), ""))
    lan = Guests(counters, memory)
    for number in (3, 2, 1):
        lan.register(number)
    assert [lan.told(number) for number in (1, 2, 3)] == [[99], [10], [12]]
    names = lan.ref._actor_weakref()._services.names
    assert names.name_of(ip("10.0.2.99")) == "web"


def test_a_guest_that_was_away_is_called_as_before_though_its_client_says_no_name(loop, counters):
    """As one of a raw session, which said its name by DHCP and does not ask again before half its lease."""
    lan = Guests(counters, Memory())
    services = lan.ref._actor_weakref()._services
    lan.register(1)
    services.name(mac(1), ip("10.0.2.10"), "web", granted=False)
    lan.tell(PortClosed(1))
    assert services.names.name_of(ip("10.0.2.10")) is None
    lan.register(1)
    assert services.names.name_of(ip("10.0.2.10")) == "web"


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize(("session", "name"), [({}, "web"), ({"name": "db", "name_is_fixed": True}, None)])
def test_a_guest_behind_a_bridge_is_called_as_before_when_it_is_back(loop, counters, guarded, session, name):
    """It does not register. After a restart of the relay, or when the switch had forgotten its MAC."""
    lan, address = Guests(counters, Memory((mac(5), ip("10.0.2.99"), "web"))), ip("10.0.2.99")
    names, pool = lan.ref._actor_weakref()._services.names, lan.ref._actor_weakref()._guests.pool
    lan.register(1, **session)
    for _ in range(2):
        assert names.name_of(address) is None
        if guarded:
            assert pool.claim(mac(5), address).accepted
            lan.tell(AddressUsed(1, mac(5), address, contested=False))
        else:
            assert echoes(lan.sends(1, ether(5) / IP(src="10.0.2.99", dst="10.0.2.2") / ICMP()))
        assert names.name_of(address) == name
        lan.tell(MacAgedOut(1, mac(5)))


def test_a_guest_behind_a_bridge_gets_no_name_where_another_has_it(loop, counters):
    lan = Guests(counters, Memory((mac(5), ip("10.0.2.99"), "web")))
    names = lan.ref._actor_weakref()._services.names
    lan.register(1, name="web")
    assert echoes(lan.sends(1, ether(5) / IP(src="10.0.2.99", dst="10.0.2.2") / ICMP()))
    assert (names.holder_of("web"), names.name_of(ip("10.0.2.99"))) == (mac(1), None)


def test_the_name_that_a_guest_has_by_its_token_is_the_tokens(loop, counters):
    lan = Guests(counters, Memory((mac(1), ip("10.0.2.99"), "web")))
    lan.register(1, name="db", name_is_fixed=True)
    assert lan.ref._actor_weakref()._services.names.name_of(ip("10.0.2.99")) == "db"


def test_leases_and_names_are_kept_when_they_change_and_when_a_guest_leaves(loop, counters):
    memory = Memory()
    lan = Guests(counters, memory)
    lan.register(1, name="web")
    lan.pings(1, "10.0.2.77")
    lan.register(2)
    lan.pings(2, "10.0.2.10")
    lan.tell(PortClosed(1))
    first, last = ip("10.0.2.10"), ip("10.0.2.77")
    assert [kept for kept in memory.kept if kept[0] == mac(1)] == [
        (mac(1), first, ""),
        (mac(1), first, "web"),
        (mac(1), last, ""),
        (mac(1), last, "web"),
        (mac(1), last, ""),
        (mac(1), last, "web"),
        (mac(1), last, ""),
    ]
