"""Who waits is served by turns: addresses first, then the connections of one."""

from __future__ import annotations

from transport.work_shares import GENEROUS, SATURATED_AFTER, STRICT, WaitingClients


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
