from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.shares import HALF, Shares, client_network


def fill(shares, owner):
    """Take until there is no more for the owner; return how much it has."""
    while shares.take(owner):
        pass
    return shares.held_by(owner)


def test_one_owner_gets_its_share_of_everything():
    assert fill(Shares(512, HALF), "a") == 256
    assert fill(Shares(1000, 90), "a") == 900


@pytest.mark.parametrize("percent", [0, 100])
def test_without_shares_one_owner_may_take_everything(percent):
    shares = Shares(512, percent)
    assert fill(shares, "a") == 512
    assert not shares.take("b")


def test_the_default_leaves_room_for_a_newcomer_beside_a_thousand_sessions_of_one_address():
    shares = Shares(1024, 98)
    assert fill(shares, "a") >= 1000
    assert fill(shares, "b") >= 10
    assert fill(shares, "c") >= 5
    assert shares.take("d")


def test_owners_that_want_all_leave_something_for_the_next():
    shares = Shares(512, HALF)
    for owner in range(8):
        assert fill(shares, owner) > 0
    assert shares.take("newcomer")


def test_what_is_given_back_is_there_for_others():
    shares = Shares(2, HALF)
    assert fill(shares, "a") == 1
    assert shares.take("b")
    assert not shares.take("c")
    shares.give_back("a")
    assert shares.take("c")
    shares.forget("b")
    shares.forget("b")
    shares.give_back("a")
    assert shares.total == 1
    assert shares.owners == 1


@given(
    limit=st.integers(1, 50),
    percent=st.integers(0, 100),
    steps=st.lists(st.tuples(st.sampled_from(["take", "add", "give_back", "forget"]), st.integers(0, 5))),
)
def test_the_total_is_what_the_owners_hold(limit, percent, steps):
    shares, model = Shares(limit, percent), Counter()
    for step, owner in steps:
        if step == "take":
            took = shares.take(owner)
            assert not (took and sum(model.values()) >= limit)
            model[owner] += took
        elif step == "add":
            shares.add(owner)
            model[owner] += 1
        elif step == "give_back":
            shares.give_back(owner)
            model[owner] = max(0, model[owner] - 1)
        else:
            shares.forget(owner)
            model[owner] = 0
        assert shares.total == sum(model.values())
        assert shares.owners == sum(held > 0 for held in model.values())
        assert all(shares.held_by(owner) == held for owner, held in model.items())


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:ffff::1]", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("some:thing", "some:thing"),
    ],
)
def test_clients_are_told_apart_by_ipv4_address_and_ipv6_network(host, network):
    assert client_network(host) == network
