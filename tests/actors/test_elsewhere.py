"""What a gateway knows of other workers' guests, and how new addresses come about; the link is the test's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from lan_of_guests import Client
from lan_parts import Box, FakeOutside, control, ip, mac, register
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from actors.descriptions import DescribeHolder, HolderDescription
from actors.gateway import elsewhere
from actors.gateway.gateway import GatewayActor
from actors.lan.forwarding import FIRST_TRUNK
from actors.lan.switch import SwitchActor
from actors.lan.trunk import TrunkPort
from actors.messages import Ipv6AddressesKnown, NameBound, SettingsChanged
from actors.runtime import run_ready
from actors.settings import FixedLease, LanSettings
from actors.trunk_messages import (
    AddressContested,
    AddressGranted,
    AddressTaken,
    FramesFromTrunk,
    GuestElsewhere,
    GuestNowhereElse,
    WorkersChanged,
)
from netstack.room_wire import Binding, Flag


class Link:
    """Keeps what it is told; implements ``actors.ports.RoomLink``."""

    share = (0, 2)

    def __init__(self):
        self.here, self.asked, self.sent, self.contested, self.touched = {}, [], [], [], []
        self.known = {}
        self.wanted = []
        self.keeper = b""
        self.ports = 0

    def attach(self, switch):
        self.switch = switch

    def describe_by(self, describe):
        self.describe = describe

    def key_of(self, worker=None):
        return b"key" if worker in (None, 1) else None

    def elsewhere(self, address):
        return self.known.get(address)

    def may_carry(self, worker):
        return False

    def keeps_name(self, address, other):
        return self.keeper != other

    def is_here(self, address):
        return address in self.here

    def set_ports(self, ports):
        self.ports = ports

    def present(self, address, port, client, flags):
        self.here[address] = (port, client, flags)

    def absent(self, address):
        self.here.pop(address, None)

    def touch(self, address):
        self.touched.append(address)

    def send(self, worker, frames):
        self.sent.append((worker, frames))

    def ask(self, address, candidates, asker):
        self.asked.append((address, candidates, asker))

    def want_address_of(self, worker, address):
        self.wanted.append((worker, address))

    def contest(self, worker, address, challenger):
        self.contested.append((worker, address, challenger))


class Lan:
    def __init__(self, loop, counters, dns=None, **settings):
        self.loop, self.counters = loop, counters
        self.settings = LanSettings(**{"ipv6_prefix": None} | settings)
        self.link = Link()
        self.switch = SwitchActor.start(counters, self.settings, self.link)
        self.gateway = GatewayActor.start(
            self.switch, FakeOutside(), counters, self.settings, dns, link=self.link
        )
        run_ready()
        self.tell(WorkersChanged({1: 2}))

    def tell(self, message):
        self.switch.tell(message)
        run_ready()

    def answer(self, address):
        hardware, _, asker = self.link.asked.pop(0)
        asker.tell(AddressGranted(hardware, address))
        run_ready()

    def comes_elsewhere(self, n, *addresses, lost=False, **more):
        binding = Binding(mac(n), tuple(ip_address(each).packed for each in addresses), port=7, **more)
        self.link.known[binding.mac] = (1, binding)
        self.tell(GuestElsewhere(1, binding, lost))

    def registers(self, n, number=1):
        client = Client(self, number, mac(n))
        client.hears(register(mac(n)))
        return client


@pytest.fixture
def lan(loop, counters):
    return Lan(loop, counters)


def assigned(client):
    return [
        ".".join(map(str, said["ip"])) for said in client.session.controls() if said["type"] == "Assigned"
    ]


def test_a_registration_waits_until_the_home_has_said_which_address(lan):
    client = lan.registers(1)
    assert assigned(client) == []
    (asked,) = lan.link.asked
    assert asked[0] == mac(1)
    lan.answer(asked[1][3])
    assert assigned(client) == [".".join(map(str, asked[1][3]))]
    assert lan.link.describe(mac(1)).ipv4 == (asked[1][3],)


def test_a_guest_that_moves_from_one_worker_to_the_next_ends_no_session_here(lan, monkeypatch):
    told = []
    monkeypatch.setattr(TrunkPort, "tell", lambda _, message: told.append(message))
    lan.comes_elsewhere(1)
    lan.tell(GuestElsewhere(2, Binding(mac(1), port=8), False))
    assert told == []


def test_without_an_answer_it_is_decided_here(lan):
    client = lan.registers(1)
    lan.answer(None)
    assert len(assigned(client)) == 1
    assert lan.counters["rooms.addresses_chosen_alone"] == 1


def test_the_home_is_asked_again_for_others_where_all_are_taken(lan):
    client = lan.registers(1)
    asked = []
    for _ in range(elsewhere.ATTEMPTS):
        asked.append(lan.link.asked[0][1])
        assert assigned(client) == []
        lan.answer(b"")
    assert len({address for each in asked for address in each}) == 16 * elsewhere.ATTEMPTS
    assert lan.link.asked == []
    assert len(assigned(client)) == 1


def test_the_home_is_asked_later_for_what_it_was_asked_for_before_and_by_then_is_anothers(loop, counters):
    lan = Lan(loop, counters, pool_first=ip("10.0.2.10"), pool_last=ip("10.0.2.11"))
    first, second = lan.registers(1), lan.registers(2, 2)
    asked = [lan.link.asked[n][1] for n in (0, 1)]
    lan.answer(asked[0][0])
    assert len(assigned(first)) == 1
    lan.answer(b"")  # that of the first was asked for, too
    assert lan.link.asked == []
    left = ({ip("10.0.2.10"), ip("10.0.2.11")} - {asked[0][0]}).pop()
    lan.comes_elsewhere(9, str(ip_address(left)))
    lan.loop.advance(elsewhere.ASKED_AGAIN_AFTER)
    while lan.link.asked:
        assert lan.link.asked[0][1] == ()
        lan.answer(b"")
        lan.loop.advance(elsewhere.ASKED_AGAIN_AFTER)
    assert (assigned(second), lan.gateway._actor_weakref()._elsewhere._waiting) == ([], {})


def test_who_leaves_before_the_home_is_asked_again_is_forgotten(loop, counters):
    lan = Lan(loop, counters, pool_first=ip("10.0.2.10"), pool_last=ip("10.0.2.10"))
    client = lan.registers(1)
    lan.answer(b"")
    client.leaves()
    lan.loop.advance(elsewhere.ASKED_AGAIN_AFTER)
    lan.answer(ip("10.0.2.10"))
    gone = lan.gateway._actor_weakref()._elsewhere
    assert (gone._waiting, gone._ask_at, lan.link.asked) == ({}, {}, [])


def test_a_guest_that_has_an_address_is_not_asked_about(loop, counters):
    lan = Lan(loop, counters, fixed_leases=(FixedLease(mac(1), ip("10.0.2.50")),))
    assert assigned(lan.registers(1)) == ["10.0.2.50"]
    assert lan.link.asked == []


FIXED = "10.0.2.50"


@pytest.mark.parametrize("ends", ["the other leaves", "it is told to give it up", "it leaves"])
def test_an_address_that_is_fixed_is_its_guests_though_one_elsewhere_has_it(loop, counters, ends):
    lan = Lan(loop, counters, fixed_leases=(FixedLease(mac(1), ip(FIXED)),))
    lan.comes_elsewhere(9, FIXED)
    client = lan.registers(1)
    assert assigned(client) == [FIXED]
    assert lan.link.describe(mac(1)).fixed == ip(FIXED)
    pool = lan.gateway._actor_weakref()._guests.pool
    if ends == "the other leaves":
        lan.tell(GuestNowhereElse(mac(9)))
    elif ends == "it leaves":
        client.leaves()
        lan.comes_elsewhere(9, FIXED)
        client = lan.registers(1)
    else:
        lan.tell(AddressTaken(mac(1), ip(FIXED), mac(9)))
    assert pool.holder_of(ip(FIXED)) == mac(1)
    assert assigned(client) == ([FIXED] if ends == "it leaves" else [])
    assert lan.gateway.is_alive()


@pytest.mark.parametrize(("is_fixed", "moved"), [(True, 0), (False, 1)])
def test_a_fixed_address_stays_though_its_guest_does_not_answer_for_it(loop, counters, is_fixed, moved):
    leases = (FixedLease(mac(1), ip(FIXED)),) if is_fixed else ()
    lan = Lan(loop, counters, fixed_leases=leases)
    client = lan.registers(1)
    if not is_fixed:
        lan.answer(ip(FIXED))
    assert assigned(client) == [FIXED]
    lan.tell(AddressContested(ip(FIXED), mac(9)))
    lan.loop.advance(30.0)
    assert lan.counters["gateway.contests"] == 1
    assert lan.counters["gateway.addresses_moved"] == moved
    pool = lan.gateway._actor_weakref()._guests.pool
    assert pool.holder_of(ip(FIXED)) == (mac(1) if is_fixed else None)


@pytest.mark.parametrize("address", ["10.0.2.2", "10.0.2.0", "10.0.2.255"])
def test_what_a_guest_elsewhere_has_by_other_settings_is_not_taken_from_the_gateway(lan, address):
    lan.comes_elsewhere(9, address)
    pool = lan.gateway._actor_weakref()._guests.pool
    assert pool.holder_of(ip(address)) is None
    lan.tell(GuestNowhereElse(mac(9)))
    assert pool.held() == ()


def test_an_answer_for_a_guest_that_has_left_gives_nothing_away(lan):
    client = lan.registers(1)
    client.leaves()
    lan.answer(ip("10.0.2.10"))
    assert lan.gateway._actor_weakref()._guests.pool.held() == ()


def test_more_guests_than_may_wait_are_decided_here(lan, monkeypatch):
    monkeypatch.setattr(elsewhere, "MAX_WAITING", 2)
    clients = [lan.registers(n, n) for n in (1, 2, 3)]
    assert [len(assigned(client)) for client in clients] == [0, 0, 1]


def test_what_a_guest_elsewhere_has_is_not_given_away_and_free_when_it_leaves(lan):
    lan.comes_elsewhere(9, "10.0.2.20")
    pool = lan.gateway._actor_weakref()._guests.pool
    assert ip("10.0.2.20") not in pool.candidates(mac(1), 300)
    lan.tell(GuestNowhereElse(mac(9)))
    assert pool.held() == ()
    lan.registers(9)
    assert lan.link.asked[0][1][0] == ip("10.0.2.20"), "it is to have the same address again"


def test_a_guest_that_comes_here_keeps_its_address_unasked(lan):
    lan.comes_elsewhere(9, "10.0.2.20", client="192.0.2.1")
    assert assigned(lan.registers(9)) == ["10.0.2.20"]
    assert lan.link.asked == []
    assert mac(9) in lan.link.here


def test_a_guest_is_told_another_address_when_its_own_is_anothers(lan):
    client = lan.registers(1)
    lan.answer(ip("10.0.2.30"))
    assert assigned(client) == ["10.0.2.30"]
    lan.comes_elsewhere(9, "10.0.2.30")
    lan.tell(AddressTaken(mac(1), ip("10.0.2.30"), mac(9)))
    lan.answer(ip("10.0.2.31"))
    assert assigned(client) == ["10.0.2.31"]
    pool = lan.gateway._actor_weakref()._guests.pool
    assert pool.holder_of(ip("10.0.2.30")) == mac(9)
    assert lan.counters["gateway.leases_changed"] == 1


def test_a_session_ends_whose_mac_is_another_workers(lan):
    client = lan.registers(1)
    lan.answer(ip("10.0.2.30"))
    lan.comes_elsewhere(1, "10.0.2.30", lost=True)
    assert client.session.closed[0] == 4
    assert lan.link.here == {}
    assert lan.gateway._actor_weakref()._guests.pool.holder_of(ip("10.0.2.30")) == mac(1)


def test_frames_for_a_guest_elsewhere_go_into_the_trunk_and_come_back_only_to_guests(lan):
    client = lan.registers(1)
    lan.answer(ip("10.0.2.30"))
    lan.comes_elsewhere(9, "10.0.2.31")
    out = mac(9) + mac(1) + b"\x88\xb5" + bytes(50)
    client.sends(out)
    assert lan.link.sent == [(1, [out])]
    client.session.take()
    back = mac(1) + mac(9) + b"\x88\xb5" + bytes(50)
    for_gateway = lan.settings.gateway_mac + back[6:]
    for_another_worker = mac(9) + back[6:]
    lan.tell(FramesFromTrunk(1, [back, for_gateway, for_another_worker]))
    assert client.session.frames() == [back]
    assert lan.counters["switch.drop.split_horizon"] == 2
    assert lan.link.sent == [(1, [out])]


def test_other_workers_ports_do_what_changed_settings_say_and_stay_theirs(lan):
    """What is for all comes by them, before and after, and goes to the guests of this worker alone."""
    client = lan.registers(1)
    lan.answer(ip("10.0.2.30"))
    lan.tell(SettingsChanged(replace(lan.settings, packets_per_second=1000, floods_per_second=0)))
    client.session.take()
    lan.tell(WorkersChanged({1: 2, 2: 1}))
    ports = lan.switch._actor_weakref()._ports
    assert {ports[FIRST_TRUNK - worker].policy.floods_per_second for worker in (1, 2)} == {0}
    to_all = b"\xff" * 6 + mac(9) + b"\x88\xb5" + bytes(50)
    lan.tell(FramesFromTrunk(1, [to_all]))
    assert client.session.frames() == [to_all]
    assert lan.link.sent == []


def test_a_worker_that_has_no_ports_any_more_is_sent_nothing(lan):
    client = lan.registers(1)
    lan.tell(WorkersChanged({}))
    client.sends(b"\xff" * 6 + mac(1) + b"\x88\xb5" + bytes(50))
    assert lan.link.sent == []
    assert FIRST_TRUNK - 1 not in lan.switch._actor_weakref()._ports


@pytest.mark.parametrize("granted", [False, True])
def test_a_guest_elsewhere_is_known_to_the_name_server_by_its_addresses(loop, counters, granted):
    names = Box()
    lan = Lan(loop, counters, names, ipv6_prefix=ip_address("fd00:1::").packed[:8])
    first, last = ip_address("fd00:1::7").packed, ip_address("fd00:1::8").packed
    flags = Flag.GRANTED_NAME if granted else Flag.ISOLATED
    lan.comes_elsewhere(9, "10.0.2.31", "fd00:1::8", "fe80::7", "fd00:1::7", name="web", flags=flags)
    assert NameBound(mac(9), ip("10.0.2.31"), "web", granted) in names
    assert Ipv6AddressesKnown(mac(9), (last, first)) in names


@pytest.mark.parametrize("address", ["10.0.2.30", "fd76:6d72:656c:6179::b"])
@pytest.mark.parametrize("leaves", [True, False])
def test_what_two_guests_elsewhere_have_is_the_others_once_one_gives_it_up(loop, counters, address, leaves):
    lan = Lan(loop, counters, ipv6_prefix=ip_address("fd76:6d72:656c:6179::").packed[:8])
    guests = lan.gateway._actor_weakref()._guests
    table = guests.pool if "." in address else guests.bindings
    lan.comes_elsewhere(8, "10.0.2.28", address, name="web")
    lan.comes_elsewhere(9, "10.0.2.29", address, name="web")
    assert table.holder_of(ip_address(address).packed) == mac(8)
    if leaves:
        lan.tell(GuestNowhereElse(mac(8)))
    else:
        lan.comes_elsewhere(8, "10.0.2.28")
    assert table.holder_of(ip_address(address).packed) == mac(9)
    names = lan.gateway._actor_weakref()._services.names
    assert (names.address_of("web"), names.label_of(mac(8))[0]) == (ip("10.0.2.29"), "")
    assert lan.gateway._actor_weakref()._elsewhere._left_out == {}


def test_addresses_of_guests_elsewhere_count_as_those_of_their_clients(lan):
    shares = lan.gateway._actor_weakref()._guests.shares
    lan.comes_elsewhere(8, "10.0.2.30", "10.0.2.31", client="192.0.2.1")
    lan.comes_elsewhere(9, "10.0.2.32", client="192.0.2.1")
    lan.comes_elsewhere(7, "10.0.2.33", client="[2001:db8::7]")
    lan.comes_elsewhere(6, "10.0.2.34", client="")
    assert [shares.elsewhere(client) for client in ("192.0.2.1", "2001:db8::/64", "")] == [3, 1, 0]
    lan.comes_elsewhere(9, "10.0.2.32", client="192.0.2.2")
    assert [shares.elsewhere(client) for client in ("192.0.2.1", "192.0.2.2")] == [2, 1]
    lan.tell(GuestNowhereElse(mac(9)))
    lan.registers(8)
    assert mac(8) in lan.link.here
    assert [shares.elsewhere(client) for client in ("192.0.2.1", "192.0.2.2")] == [0, 0]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_name_that_a_guest_here_and_one_elsewhere_have_is_whose_it_is_by_rule(lan, keeps):
    client = Client(lan, 1, mac(1))
    client.hears(control(type="Register", mac=list(mac(1)), name="web"))
    lan.answer(ip("10.0.2.30"))
    lan.link.touched.clear()
    lan.link.keeper = mac(1) if keeps else mac(9)
    lan.comes_elsewhere(9, "10.0.2.31", name="web")
    names = lan.gateway._actor_weakref()._services.names
    assert names.holder_of("web") == lan.link.keeper
    assert lan.link.describe(mac(1)).name == ("web" if keeps else "")
    assert (lan.counters["rooms.names_lost"], mac(1) in lan.link.touched) == (not keeps, not keeps)


def test_a_name_that_a_token_gives_is_taken_from_a_guest_here_and_that_is_told(lan):
    client = Client(lan, 1, mac(1))
    client.hears(control(type="Register", mac=list(mac(1)), name="web"))
    lan.answer(ip("10.0.2.30"))
    lan.link.touched.clear()
    lan.gateway._actor_weakref()._services.name(mac(2), ip("10.0.2.40"), "web", granted=True)
    assert lan.link.describe(mac(1)).name == ""
    assert mac(1) in lan.link.touched


def refusals(client):
    return [said["message"] for said in client.session.controls() if said["type"] == "Error"]


@pytest.fixture
def full(loop, counters):
    """A LAN of three addresses, of guests elsewhere: two whose clients are away, and one that is silent."""
    lan = Lan(loop, counters, pool_first=ip("10.0.2.10"), pool_last=ip("10.0.2.12"))
    for n, address in ((7, "10.0.2.10"), (8, "10.0.2.11"), (9, "10.0.2.12")):
        flags = Flag.SILENT if n == 7 else Flag.SILENT | Flag.AWAY
        client = "192.0.2.1" if n == 9 else "198.51.100.1"
        lan.comes_elsewhere(n, address, client=client, flags=int(flags))
    return lan


def test_who_is_away_elsewhere_gives_its_address_up_ones_own_first(full):
    first = full.registers(1)
    assert (full.link.wanted, refusals(first)) == ([(1, mac(9))], [])
    full.tell(GuestNowhereElse(mac(9)))
    full.answer(full.link.asked[0][1][0])
    assert assigned(first) == ["10.0.2.12"]
    second = full.registers(2, 2)
    assert full.link.wanted[1:] == [(1, mac(8))]
    full.tell(GuestNowhereElse(mac(8)))
    full.answer(full.link.asked[0][1][0])
    assert assigned(second) == ["10.0.2.11"]
    third = full.registers(3, 3)
    assert (len(full.link.wanted), refusals(third)) == (2, ["address pool is full"]), (
        "one is there, and silent"
    )


def test_a_worker_that_does_not_let_its_guest_go_is_not_waited_for_for_long(full):
    client = full.registers(1)
    for count in (1, 2):
        assert (len(full.link.wanted), refusals(client)) == (count, [])
        full.loop.advance(0.2)
    assert refusals(client) == ["address pool is full"]
    assert full.switch._actor_weakref()._wanted == {}


def test_an_answer_for_who_has_left_meanwhile_is_nobodys(full):
    full.registers(1).leaves()
    full.tell(GuestNowhereElse(mac(9)))
    assert (full.link.asked, full.switch._actor_weakref()._wanted) == ([], {})


def test_more_than_may_wait_for_addresses_are_refused_at_once(full, monkeypatch):
    monkeypatch.setattr("actors.lan.switch.MAX_WANTED", 1)
    clients = [full.registers(n, n) for n in (1, 2)]
    assert [refusals(client) for client in clients] == [[], ["address pool is full"]]


def discover(hardware, client=b""):
    own = [("client_id", b"\0" + client)] if client else []
    request = BOOTP(chaddr=hardware, xid=7) / DHCP(options=[("message-type", "discover"), *own, "end"])
    packet = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / request
    return Ether(src=hardware.hex(":"), dst="ff:ff:ff:ff:ff:ff") / packet


def offered(client):
    return [frame[BOOTP].yiaddr for frame in map(Ether, client.session.frames()) if BOOTP in frame]


@pytest.mark.parametrize("answer", ["10.0.2.90", None])
def test_a_dhcp_client_behind_a_guest_is_answered_once_it_is_decided_and_once(lan, answer):
    client = lan.registers(1)
    lan.answer(ip("10.0.2.30"))
    client.session.take()
    client.sends(discover(mac(2)))
    assert offered(client) == []
    lan.answer(None if answer is None else ip(answer))
    (given,) = offered(client)
    assert given != "10.0.2.30"
    assert answer in (None, given)
    client.sends(discover(mac(2)))
    assert (offered(client), lan.link.asked) == ([given], [])


@pytest.mark.parametrize("answer", ["10.0.2.90", None])
def test_a_further_dhcp_client_of_a_mac_is_answered_once_it_is_decided_and_once(lan, answer):
    client = lan.registers(1)
    lan.answer(ip("10.0.2.30"))
    client.sends(discover(mac(1), b"first"))
    client.session.take()
    client.sends(discover(mac(1), b"second"))
    assert offered(client) == []
    lan.answer(None if answer is None else ip(answer))
    (given,) = offered(client)
    assert given != "10.0.2.30"
    assert answer in (None, given)
    client.sends(discover(mac(1), b"second"))
    assert (offered(client), lan.link.asked) == ([given], [])


def test_who_has_an_address_is_told_wherever_it_is(loop, counters):
    ipv6 = "fd76:6d72:656c:6179::77"
    lan = Lan(loop, counters, ipv6_prefix=ip_address(ipv6).packed[:8])
    mine, its = ip("10.0.2.50"), (ip("10.0.2.77"), ip_address(ipv6).packed, mac(1))

    def holder(sought):
        reply = lan.gateway.ask(DescribeHolder(sought), block=False)
        run_ready()
        return reply.get()

    client = lan.registers(2)
    lan.answer(mine)
    lan.comes_elsewhere(1, "10.0.2.77", ipv6, name="web")
    guest = HolderDescription(mac(1).hex(":"), None, "web", elsewhere=True)
    assert [holder(sought) for sought in its] == [guest] * 3
    here = HolderDescription(client.mac.hex(":"), 1, None, elsewhere=False)
    assert [holder(mine), holder(client.mac)] == [here] * 2
    lan.tell(GuestNowhereElse(mac(1)))
    assert [holder(sought) for sought in (*its, ip("10.0.2.99"), b"")] == [None] * 5
