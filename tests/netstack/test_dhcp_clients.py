from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from scapy.layers.dhcp import BOOTP, DHCP

from netstack.address_pool import AddressPool
from netstack.dhcp import parse_dhcp
from netstack.dhcp_clients import (
    MAX_FURTHER_PER_MAC,
    MAX_FURTHER_PER_PORT,
    MAX_REMEMBERED,
    OFFERED_FOR,
    Client,
    DhcpClients,
    client_of,
)

MAC = bytes.fromhex("525415ee0001")  # has the first address of the pool
OTHER = bytes.fromhex("525415ee0002")
HARDWARE = b"\1" + MAC
DUID = b"\xff\0\0\0\1\0\4" + bytes(16)
LEASE = 3600.0


def ip(last):
    return bytes((10, 0, 2, last))


class Table:
    """The clients of a LAN whose MAC has 10.0.2.10; all are behind port 1."""

    def __init__(self, **pool):
        self.pool = AddressPool(**pool)
        self.pool.assign(MAC)
        self.clients = DhcpClients(self.pool, LEASE)

    def lease(self, identifier=b"", now=0.0, mac=MAC, port=1):
        """Discover and request."""
        address = self.clients.assign(Client(mac, identifier), port, now)
        self.clients.acknowledge(Client(mac, identifier), now)
        return address


@pytest.fixture
def table():
    return Table()


@pytest.mark.parametrize("identifier", [b"", HARDWARE, DUID, b"\0name"])
def test_the_usual_client_has_the_macs_own_address(table, identifier):
    assert [table.lease(identifier, now) for now in (0.0, 10.0, 2 * LEASE)] == [ip(10)] * 3
    assert table.pool.further_of(MAC) == ()


@pytest.mark.parametrize(
    "identifiers",
    [
        (b"\0one", b"\0two"),
        (DUID, DUID + b"2"),
        (HARDWARE, b"\0two"),
        (b"\0one", HARDWARE),
        (DUID, b"\0two"),
        (b"\1" + OTHER, HARDWARE),
    ],
)
def test_two_identifiers_are_two_clients(table, identifiers):
    assert [table.lease(identifier) for identifier in identifiers * 2] == [ip(10), ip(11)] * 2
    assert table.lease() == ip(10)
    assert [table.pool.holder_of(ip(n)) for n in (10, 11)] == [MAC, MAC]


def test_an_initial_ram_disk_and_the_system_behind_it_are_one_client(table):
    assert [table.lease(name) for name in (HARDWARE, DUID, HARDWARE, b"", DUID)] == [ip(10)] * 5
    assert table.lease(DUID + b"2") == ip(11)


@pytest.mark.parametrize(
    "options",
    [
        [("vendor_class_id", b"PXEClient:Arch:00000:UNDI:002001")],
        [("vendor_class_id", b"HTTPClient:Arch:00016:UNDI:003001")],
        [(93, b"\0\7")],
    ],
)
def test_firmware_and_the_system_that_it_starts_are_one_machine(table, options):
    options = [("message-type", "discover"), ("client_id", b"\0uuid"), *options, "end"]
    firmware = client_of(parse_dhcp(bytes(BOOTP(chaddr=MAC) / DHCP(options=options))))
    assert firmware == Client(MAC, b"")
    for _ in range(3):
        assert table.lease(firmware.identifier) == ip(10)
        assert table.lease(DUID) == ip(10)
    assert table.pool.further_of(MAC) == ()


def test_an_identifier_of_one_byte_is_none(table):
    options = [("message-type", "discover"), ("client_id", b"x"), "end"]
    assert client_of(parse_dhcp(bytes(BOOTP(chaddr=MAC) / DHCP(options=options)))).identifier == b""


def test_a_new_identifier_gets_the_macs_own_address_once_the_former_is_over(table):
    table.lease(b"\0one")
    assert table.lease(b"\0two", LEASE - 1) == ip(11)
    assert table.lease(b"\0three", LEASE) == ip(10)


def test_after_a_release_the_macs_own_address_is_for_the_next(table):
    table.lease(b"\0one")
    table.clients.release(Client(MAC, b"\0two"), ip(10))
    assert table.lease(b"\0two") == ip(11)
    table.clients.release(Client(MAC, b"\0one"), ip(10))
    assert table.pool.address_of(MAC) == ip(10)
    assert table.lease(b"\0three") == ip(10)


def test_a_further_lease_ends_by_release_by_time_and_with_its_guest(table):
    table.lease(b"\0one")
    for end in (
        lambda address: table.clients.release(Client(MAC, b"\0two"), address),
        lambda _: table.lease(b"\0one", LEASE),
        lambda _: (table.pool.release(MAC), table.clients.forget(MAC)),
    ):
        address = table.lease(b"\0two")
        assert table.pool.further_of(MAC) == (address,)
        end(address)
        assert table.pool.holder_of(address) is None
        assert table.pool.further_of(MAC) == ()
        assert table.pool.free == 245 - len(table.pool.held())


def test_clients_keep_their_addresses_when_their_guest_comes_back(table):
    """In whatever order they ask then; another guest has come meanwhile."""
    table.lease(b"\0one")
    assert table.lease(b"\0two") == ip(11)
    table.clients.forget(MAC)
    table.pool.release(MAC)
    assert table.lease(mac=bytes.fromhex("525415ee0063")) not in (ip(10), ip(11))
    assert table.lease(b"\0two") == ip(11)
    assert table.lease(b"\0one") == ip(10)


def test_a_former_address_is_not_taken_from_who_has_it_now(table):
    table.lease(b"\0one")
    assert table.lease(b"\0two") == ip(11)
    table.clients.release(Client(MAC, b"\0two"), ip(11))
    assert table.pool.claim(OTHER, ip(11)).accepted
    assert table.lease(b"\0two") == ip(12)


def test_what_is_remembered_of_guests_that_left_is_bounded(table):
    for n in range(MAX_REMEMBERED + 50):
        mac = b"\2\0" + n.to_bytes(4, "big")
        table.lease(b"\0one", mac=mac)
        table.lease(b"\0two", mac=mac)
        table.clients.forget(mac)
        table.pool.release(mac)
    assert len(table.clients._former) == len(table.clients._former_owners) == MAX_REMEMBERED


def test_an_offer_that_nobody_takes_ends_soon(table):
    table.lease(b"\0one")
    table.clients.assign(Client(MAC, b"\0two"), 1, 0.0)
    table.lease(b"\0one", OFFERED_FOR - 1)
    assert table.pool.holder_of(ip(11)) == MAC
    table.lease(b"\0one", OFFERED_FOR)
    assert table.pool.holder_of(ip(11)) is None


def test_a_declined_further_address_is_the_last_to_be_given_again():
    table = Table(last="10.0.2.12")
    table.lease(b"\0one")
    assert table.lease(b"\0two") == ip(11)
    table.clients.decline(Client(MAC, b"\0two"), ip(10))
    assert table.lease(b"\0two") == ip(11)
    table.clients.decline(Client(MAC, b"\0two"), ip(11))
    assert table.lease(b"\0two") == ip(12)
    assert table.lease(mac=OTHER) == ip(11)


def test_an_address_that_moved_to_another_guest_is_not_given_again(table):
    table.lease(b"\0one")
    assert table.lease(b"\0two") == ip(11)
    table.pool.move(ip(11), OTHER)
    assert table.pool.holder_of(ip(11)) == OTHER
    assert table.lease(b"\0two") == ip(12)
    assert table.pool.held() == ((ip(10), MAC), (ip(11), OTHER), (ip(12), MAC))


def test_a_machine_with_a_new_identifier_at_each_boot_replaces_its_own_old_leases(table):
    first = [table.lease(b"\0%d" % n) for n in range(MAX_FURTHER_PER_MAC + 1)]
    assert first == [ip(10 + n) for n in range(MAX_FURTHER_PER_MAC + 1)]
    table.pool.uses(MAC, ip(11))
    for n in range(100):
        last = table.lease(b"\0again%d" % n)
        table.pool.uses(MAC, ip(11))
        assert len(table.pool.further_of(MAC)) == MAX_FURTHER_PER_MAC
    assert table.lease(b"\0again99") == last
    assert table.lease(b"\0%d" % 1) == ip(11), "it was in use all the time"
    assert len(table.pool.held()) == 1 + MAX_FURTHER_PER_MAC


def test_a_port_has_a_bound(table):
    for mac in (bytes([2, 0, 0, 0, 0, n]) for n in range(5)):
        for n in range(MAX_FURTHER_PER_MAC + 1):
            table.lease(b"\0%d" % n, mac=mac)
    held = len(table.pool.held())
    assert held == 1 + 5 + MAX_FURTHER_PER_PORT
    last = bytes([2, 0, 0, 0, 0, 4])
    assert table.lease(b"\0more", mac=last) is None
    assert table.lease(mac=last) is not None, "its own address is not touched"
    assert table.lease(b"\0one", mac=OTHER, port=2) != table.lease(b"\0two", mac=OTHER, port=2)


def test_when_all_addresses_are_held_a_further_client_gets_none():
    table = Table(last="10.0.2.10")
    assert [table.lease(b"\0one"), table.lease(b"\0two"), table.lease(b"\0one")] == [ip(10), None, ip(10)]


class Clients(RuleBasedStateMachine):
    """Guests, clients behind them and time; no address has two clients, and none is lost."""

    macs = st.sampled_from([MAC, OTHER, b"\2" * 6])
    names = st.sampled_from([b"", b"\0a", b"\0b", b"\0c", DUID, HARDWARE])

    def __init__(self):
        super().__init__()
        self.pool = AddressPool(first="10.0.2.10", last="10.0.2.15")
        self.clients = DhcpClients(self.pool, LEASE)
        self.now = 0.0

    @rule(mac=macs, name=names, kept=st.booleans())
    def ask(self, mac, name, kept):
        client = Client(mac, name)
        address = self.clients.assign(client, 1, self.now)
        assert address is None or self.pool.holder_of(address) == mac
        assert self.clients.assign(client, 1, self.now) == address
        if kept and address is not None:
            self.clients.acknowledge(client, self.now)

    @rule(mac=macs, name=names, last=st.integers(10, 15), declined=st.booleans())
    def end(self, mac, name, last, declined):
        (self.clients.decline if declined else self.clients.release)(Client(mac, name), ip(last))

    @rule(mac=macs)
    def leave(self, mac):
        self.clients.forget(mac)
        self.pool.release(mac)

    @rule(mac=macs, last=st.integers(10, 15))
    def move(self, mac, last):
        self.pool.move(ip(last), mac)

    @rule(seconds=st.sampled_from([1.0, OFFERED_FOR, LEASE]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def every_address_is_free_or_held_by_one(self):
        held = dict(self.pool.held())
        assert len(held) + self.pool.free == 6
        for mac in set(held.values()):
            for address in self.pool.further_of(mac):
                assert held[address] == mac
                assert address != self.pool.address_of(mac)


TestClients = Clients.TestCase
TestClients.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
