from __future__ import annotations

import pytest
from lan_parts import mac

from actors.flows.batch import PortState
from actors.gateway.address_shares import ALIASES, AddressShares
from actors.settings import LanSettings
from netstack.address_pool import AddressPool, Claim
from netstack.buffer_budget import TOTAL, BufferBudget


class Sessions:
    """A pool of 245 addresses and the sessions that share it."""

    def __init__(self, percent=98, **pool):
        self.pool = AddressPool(**pool)
        self.ports = {}
        self.port_of = {}
        self.shares = AddressShares(self.pool, self.ports, self.port_of, percent)
        self.pool.admits = self.shares.admits

    def guest(self, session, number, client=""):
        """The MAC of a guest behind a session."""
        if session not in self.ports:
            self.ports[session] = PortState(session, LanSettings(), BufferBudget(TOTAL), 0.0)
            self.ports[session].client = client
        address = mac(100 * session + number)
        self.ports[session].macs.add(address)
        self.port_of[address] = session
        return address

    def fill(self, session, client=""):
        """Register MACs and claim addresses, as long as one is to be had; return how many there are."""
        got = 0
        for number in range(16):
            guest = self.guest(session, number, client)
            got += self.pool.assign(guest) is not None
            for last in range(10, 255):
                if self.pool.count_of(guest) > 4:
                    break
                got += self.pool.claim(guest, bytes((10, 0, 2, last))) is Claim.GRANTED
            for _ in range(16):
                got += self.pool.assign_further(guest) is not None
        return got


def test_sessions_that_take_all_they_can_leave_addresses_for_others():
    sessions = Sessions()
    for session in range(1, 8):
        assert sessions.fill(session) >= ALIASES
    assert sessions.pool.free > 245 // 8
    for session in range(8, 30):
        sessions.fill(session)
    assert sessions.pool.assign(sessions.guest(100, 0))


def test_a_bridge_has_addresses_for_its_guests():
    sessions = Sessions()
    assert all(sessions.pool.assign(sessions.guest(1, number)) for number in range(16))


def test_a_classroom_behind_one_address_has_one_for_each():
    sessions = Sessions()
    guests = [sessions.guest(session, 0, "192.0.2.1") for session in range(1, 201)]
    assert all(map(sessions.pool.assign, guests))


@pytest.mark.parametrize(("percent", "left"), [(98, 4), (50, 122), (0, 0)])
def test_clients_of_one_address_leave_a_reserve_for_others(percent, left):
    sessions = Sessions(percent)
    guests = [sessions.guest(session, 0, "192.0.2.1") for session in range(1, 261)]
    assert sum(sessions.pool.assign(guest) is not None for guest in guests) == 245 - left
    newcomer = sessions.guest(500, 0, "192.0.2.2")
    assert (sessions.pool.assign(newcomer) is not None) is (left > 0)


def test_what_a_session_has_it_keeps():
    sessions = Sessions()
    guests = [sessions.guest(session, 0, "192.0.2.1") for session in range(1, 261)]
    addresses = [sessions.pool.assign(guest) for guest in guests]
    assert [sessions.pool.assign(guest) for guest in guests] == addresses
    assert sessions.pool.claim(guests[0], addresses[0]) is Claim.OWN


def test_a_small_pool_is_there_for_whoever_comes():
    sessions = Sessions(last="10.0.2.20")
    assert all(sessions.pool.assign(sessions.guest(1, number, "192.0.2.1")) for number in range(11))


def test_an_address_over_the_share_is_refused_with_its_own_word():
    sessions = Sessions()
    sessions.fill(1)
    assert sessions.pool.claim(sessions.guest(1, 99), bytes((10, 0, 2, 250))) is Claim.OVER_SHARE


def test_what_a_client_has_at_other_workers_counts_as_its_own():
    elsewhere = {"192.0.2.1": 238}
    sessions = Sessions()
    sessions.shares.elsewhere = lambda client: elsewhere.get(client, 0)
    for number, address in enumerate(range(10, 248)):
        sessions.pool.hold_elsewhere(mac(10_000 + number), (bytes((10, 0, 2, address)),))
    assert sessions.pool.free == 7
    assert sessions.pool.assign(sessions.guest(1, 0, "192.0.2.7"))
    late = sessions.guest(2, 0, "192.0.2.1")
    before, sessions.shares.elsewhere = sessions.shares.elsewhere, lambda _: 0
    assert sessions.shares.admits(late)
    sessions.shares.elsewhere = before
    while sessions.pool.free > 4:
        number = sessions.pool.free
        sessions.pool.assign(sessions.guest(number + 10, 0, f"192.0.2.{number + 10}"))
    assert sessions.pool.assign(late) is None
    assert sessions.pool.assign(sessions.guest(3, 0, "192.0.2.8"))
