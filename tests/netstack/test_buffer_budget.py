"""Memory that is shared: who is alone gets much, all together stay within the budget, nobody is starved."""

from __future__ import annotations

import pytest

from netstack.buffer_budget import LEAST, BufferBudget

MOST = 8 * 1024 * 1024


def test_a_connection_may_hold_what_is_free_of_session_and_total():
    total = BufferBudget(10_000_000)
    session, other = BufferBudget(6_000_000, total), BufferBudget(6_000_000, total)
    assert session.limit(MOST) == 6_000_000
    assert session.limit(1_000_000) == 1_000_000
    other.add(5_000_000)
    assert (session.limit(MOST), other.limit(MOST)) == (5_000_000, 1_000_000)
    session.add(4_950_000)
    assert session.limit(MOST) == other.limit(MOST) == LEAST
    session.add(-4_950_000)
    other.add(-5_000_000)
    assert (total.used, session.used, other.used) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_busy_connections_share_a_budget_evenly(count):
    budget = BufferBudget(8_000_000)
    held = [0] * count
    for _ in range(1000):
        for number in range(count):
            if held[number] < budget.limit(MOST):
                held[number] += 10_000
                budget.add(10_000)
    assert max(held) - min(held) <= 20_000
    assert max(held) == pytest.approx(8_000_000 / (count + 1), rel=0.02)
