"""Who waits is served by turns: addresses first, then the connections of one."""

from __future__ import annotations

import asyncio

import pytest
from fake_loop import FakeLoop

from transport import work_shares
from transport.work_shares import (
    BEHIND_SHARE,
    BEHIND_SHARE_OF_SMALL,
    GENEROUS,
    LIGHT_BURST,
    LIGHT_SHARE,
    MOST_AT_ONCE,
    MOST_BEHIND,
    MOST_EXCESS,
    MOST_USED,
    SATURATED_AFTER,
    STRICT,
    TOLERATED_EXCESS,
    LastTurns,
    WaitingClients,
    WorkAccount,
)


def waiting(*clients):
    """A queue of clients, named by the letter of their address and a number."""
    queue = WaitingClients()
    for client in clients:
        queue.add(client, client[0], now=0.0)
    return queue


def taken(queue):
    return [queue.take() for _ in range(len(queue))]


def test_an_address_gets_no_more_turns_by_more_connections():
    assert taken(waiting("a1", "a2", "a3", "b1", "c1")) == ["a1", "b1", "c1", "a2", "a3"]


def test_who_goes_on_needing_turns_gets_every_second_one_beside_eight_of_another_address():
    queue = waiting(*(f"a{number}" for number in range(8)), "b1")
    turns = []
    for _ in range(16):
        turns.append(client := queue.take())
        queue.add(client, client[0], now=0.0)
    assert turns.count("b1") == 8
    assert {turns.count(f"a{number}") for number in range(8)} == {1}


def test_a_client_that_waits_keeps_its_place():
    queue = waiting("a1", "a2")
    queue.add("a1", "a", now=0.0)
    assert len(queue) == 2
    assert taken(queue) == ["a1", "a2"]


def test_a_client_that_has_ended_is_left_out():
    queue = waiting("a1", "a2", "b1")
    for gone in ("a1", "b1", "b1"):
        queue.discard(gone)
    assert list(queue) == taken(queue) == ["a2"]


def test_the_relay_is_strict_once_somebody_has_waited_for_long():
    queue = waiting("a1")
    assert queue.allowance(SATURATED_AFTER) is GENEROUS
    assert queue.allowance(SATURATED_AFTER + 0.01) is STRICT
    queue.take()
    queue.add("a1", "a", now=1.0)
    queue.end_round()
    assert queue.allowance(1.0) is STRICT, "there was no time for all of them"
    queue.take()
    queue.end_round()
    assert queue.allowance(1.0) is GENEROUS
    queue.add("a1", "a", now=2.0)
    assert queue.allowance(2.0) is GENEROUS


ORDINARY = 1.0
"""Seconds that no turn here takes: what it took is not beyond the ordinary."""


def test_who_takes_more_than_a_light_share_of_a_core_is_heavy_until_it_has_waited_for_that():
    account = WorkAccount(0.0)
    account.end_turn(LIGHT_BURST, ORDINARY, 0.0)
    assert not account.is_heavy(0.0)
    account.end_turn(0.002, ORDINARY, 0.0)
    assert account.is_heavy(0.0)
    assert account.is_heavy(0.9 * 0.002 / LIGHT_SHARE)
    assert not account.is_heavy(1.1 * 0.002 / LIGHT_SHARE)
    assert account.excess == 0.0, "it was all ordinary"
    account.end_turn(2 * LIGHT_BURST, ORDINARY, 5.0)
    assert account.is_heavy(5.0), "what was not used before is not saved up"


def test_no_more_use_is_remembered_than_is_forgotten_in_two_seconds():
    account = WorkAccount(0.0)
    account.end_turn(50.0, 2 * 50.0, 0.0)
    assert account.is_heavy(0.9 * MOST_USED / LIGHT_SHARE)
    assert not account.is_heavy(MOST_USED / LIGHT_SHARE)


def test_what_is_beyond_the_ordinary_makes_a_client_heavy_and_much_of_it_excessive():
    account = WorkAccount(0.0)
    account.charge(0.001 + TOLERATED_EXCESS, 0.002, 0.0)
    assert not account.is_heavy(0.0)
    account.charge(0.002, 0.0, 0.0)
    assert account.is_heavy(0.0)
    assert not account.is_excessive
    slices = round(MOST_EXCESS / MOST_AT_ONCE)
    for _ in range(slices):
        assert not account.is_excessive
        account.charge(10.0, ORDINARY, 0.0)  # the garbage collector's time, most of it
    assert account.is_excessive


def test_of_a_turn_only_what_was_not_charged_within_it_is_charged_at_its_end():
    account = WorkAccount(0.0)
    account.begin_turn(GENEROUS)
    account.charge(0.008, 0.001, 0.0)
    account.end_turn(0.010, 0.0005, 0.0)
    assert account.excess == pytest.approx(0.007 + 0.0015)
    account.begin_turn(GENEROUS)
    account.end_turn(0.003, 0.0, 0.0)
    assert account.excess == pytest.approx(0.0085 + 0.003)


def test_within_strict_turns_little_is_forgiven_and_after_them_as_much_as_ever():
    account = WorkAccount(0.0)
    account.charge(0.010, 0.0, 0.0)
    account.begin_turn(STRICT)
    account.charge(0.0, 0.0, 1.0)
    assert account.excess == pytest.approx(0.010 - STRICT.relief)
    account.end_turn(0.0, 0.0, 1.0)
    account.charge(0.0, 0.0, 1.05)
    assert account.excess == pytest.approx(0.010 - STRICT.relief - 0.05 * GENEROUS.relief)


def test_what_a_turn_takes_whatever_is_in_it_is_nobodys_excess():
    account, now = WorkAccount(0.0), 0.0
    for _ in range(50 * 60):  # a minute of pings beside a flood
        now += 0.02
        account.begin_turn(STRICT)
        account.charge(STRICT.packet + 0.0001, STRICT.packet, now)
        account.end_turn(STRICT.packet + STRICT.frames + 0.9 * STRICT.turn, STRICT.frames, now)
        assert not account.is_heavy(now)
    assert account.excess == pytest.approx(0.0)


def test_a_turn_s_own_cost_is_forgiven_once_and_not_later():
    account = WorkAccount(0.0)
    account.begin_turn(STRICT)
    account.charge(0.002, 0.0, 0.0)
    account.end_turn(0.005, 0.0, 0.0)
    assert account.excess == pytest.approx(0.005 - STRICT.turn)
    account.begin_turn(STRICT)
    account.end_turn(0.0, 0.0, 0.0)
    account.charge(0.001, 0.0, 0.0)
    assert account.excess == pytest.approx(0.006 - STRICT.turn)


class Client:
    """One that waits, and needs some turns of its own."""

    def __init__(self, last, needs=1):
        self.last, self.needs = last, needs
        self.turns = 0
        self.rooms = []

    def wait(self, now=0.0):
        self.last.add(self, "192.0.2.1", now)

    def serve_last(self):
        self.turns += 1
        if self.turns < self.needs:
            self.wait()

    def keep_waiting(self, packets):
        self.rooms.append(packets)


@pytest.fixture
def turn(monkeypatch):
    """A function that lets the loop turn once."""
    loop = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop.turn


@pytest.fixture
def one_at_a_time(monkeypatch):
    """A clock by which each client's turn takes as long as all together may."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(work_shares, "perf_counter", lambda: next(ticks) * BEHIND_SHARE * 0.6)


@pytest.mark.usefixtures("one_at_a_time")
def test_all_that_wait_are_served_in_turns_though_nobody_else_comes(turn):
    last = LastTurns()
    clients = [Client(last, needs) for needs in (1, 1, 3)]
    for client in clients:
        client.wait()
    for served in range(1, 6):
        turn()
        assert sum(client.turns for client in clients) == served
    assert len(last) == 0
    assert [client.turns for client in clients] == [1, 1, 3]


@pytest.mark.usefixtures("one_at_a_time")
def test_who_is_only_behind_others_waits_for_one_of_them_at_most(turn):
    last = LastTurns()
    heavy = [Client(last, needs=100) for _ in range(8)]
    light = [Client(last) for _ in range(3)]
    for client in heavy:
        client.wait()
    for client in light:
        last.add(client, "192.0.2.1", 0.0, is_light=True)
    for served in (1, 1, 2, 2, 3, 3):
        turn()
        assert sum(client.turns for client in light) == served
    assert sum(client.turns for client in heavy) == 3, "the others get on in between"
    for _ in range(5):
        turn()
    assert {client.turns for client in heavy} == {1}


def test_beside_those_who_are_only_behind_others_all_get_on(turn, monkeypatch):
    ticks = iter(range(100_000))
    monkeypatch.setattr(work_shares, "perf_counter", lambda: next(ticks) * BEHIND_SHARE / 10)
    last = LastTurns()
    heavy = [Client(last, needs=100) for _ in range(2)]

    class AlwaysBehind(Client):
        def wait(self, now=0.0):
            self.last.add(self, "192.0.2.2", now, is_light=True)

    light = [AlwaysBehind(last, needs=100) for _ in range(5)]
    for client in (*heavy, *light):
        client.wait()
    for _ in range(8):
        turn()
    share = sum(client.turns for client in heavy)
    assert share >= 0.4 * sum(client.turns for client in light)
    assert sum(client.turns for client in light) >= share


def test_who_waits_in_one_queue_does_not_wait_in_the_other(turn):
    last = LastTurns()
    one, other = Client(last), Client(last)
    one.wait()
    last.add(one, "192.0.2.1", 0.0, is_light=True)
    last.add(other, "192.0.2.1", 0.0, is_light=True)
    other.wait()
    assert len(last) == 2
    last.discard(one)
    last.discard(other)
    assert len(last) == 0


@pytest.mark.usefixtures("one_at_a_time")
def test_the_sockets_are_looked_at_again_when_their_share_is_over(turn):
    for share, turns in ((BEHIND_SHARE, 1), (BEHIND_SHARE * 6, 10), (BEHIND_SHARE_OF_SMALL, 0)):
        last = LastTurns()
        last.share = share
        client = Client(last, 10)
        client.wait()
        turn()
        assert client.turns == turns


@pytest.mark.usefixtures("one_at_a_time")
def test_those_who_wait_share_the_room_for_packets(turn):
    last = LastTurns()
    clients = [Client(last) for _ in range(10)]
    for client in clients:
        client.wait()
    assert [client.rooms for client in clients] == [
        *([MOST_BEHIND // 8] for _ in range(8)), [MOST_BEHIND // 9], [MOST_BEHIND // 10],
    ]  # fmt: skip
    turn()
    assert [client.rooms[1:] for client in clients] == [[]] + [[MOST_BEHIND // 9]] * 9


def test_who_has_ended_is_not_served(turn):
    last = LastTurns()
    gone, stays = Client(last), Client(last)
    for client in (gone, stays):
        client.wait()
    last.discard(gone)
    turn()
    assert (gone.turns, stays.turns) == (0, 1)


def test_the_relay_is_not_saturated_once_all_have_been_served(turn):
    last = LastTurns()
    Client(last).wait(0.0)
    assert last.allowance(1.0) is STRICT
    turn()
    Client(last).wait(1.0)
    assert last.allowance(1.0) is GENEROUS
