from __future__ import annotations

import pytest

from guest.retry_delays import FIRST_WITHIN, LAST, SOON, SOON_ATTEMPTS, RetryDelays


def test_the_first_attempt_is_made_at_once_a_few_soon_and_the_others_less_and_less_often():
    delays = RetryDelays()
    assert 0 <= delays.next() <= FIRST_WITHIN
    soon = [delays.next() for _ in range(SOON_ATTEMPTS)]
    assert all(0.75 * SOON <= delay <= 1.25 * SOON for delay in soon)
    for doublings in range(1, 7):
        assert delays.next() == pytest.approx(SOON * 2**doublings, rel=0.251)
    ousted = RetryDelays()
    ousted.next(soon=False)
    for doublings in range(6):
        assert ousted.next(soon=False) == pytest.approx(SOON * 2**doublings, rel=0.251)
    mixed = RetryDelays()
    assert mixed.next(soon=False) <= FIRST_WITHIN
    for doublings in range(6):
        assert mixed.next() == pytest.approx(SOON, rel=0.251)
        assert mixed.next(soon=False) == pytest.approx(SOON * 2**doublings, rel=0.251)
    late = [delays.next() for _ in range(1000)]
    assert all(0.75 * LAST <= delay <= 1.25 * LAST for delay in late)


def test_the_delays_of_many_clients_are_spread():
    clients = [RetryDelays() for _ in range(200)]
    for _ in range(3):
        delays = [client.next() for client in clients]
        assert max(delays) - min(delays) > 0.05
        assert len(set(delays)) == len(delays)


def test_they_start_over_when_a_session_had_lasted():
    delays = RetryDelays()
    for _ in range(20):
        delays.next()
    delays.start_over()
    assert delays.next() <= FIRST_WITHIN
