"""Who has an address that two guests use."""

from __future__ import annotations

import pytest

from netstack.contests import (
    MAX_CONTESTS,
    MAX_PER_PORT,
    NEVER,
    PROBE_INTERVAL,
    PROBES,
    SETTLED_AT_FIRST,
    SETTLED_FOR,
    Contest,
    Contests,
    Due,
)

HOLDER, CHALLENGER = b"\x52\x54\0\0\0\1", b"\x52\x54\0\0\0\2"
ADDRESS = bytes((10, 0, 2, 50))
CONTEST = Contest(ADDRESS, HOLDER, CHALLENGER, 2)


@pytest.fixture
def contests():
    contests = Contests()
    assert contests.begin(CONTEST, 0.0)
    return contests


def test_a_silent_holder_loses_after_its_probes(contests):
    for number in range(PROBES):
        assert contests.poll_at == number * PROBE_INTERVAL
        assert contests.due(contests.poll_at) == Due([CONTEST], [])
        assert contests.due(contests.poll_at - 0.01) == Due([], [])
    assert contests.due(PROBES * PROBE_INTERVAL) == Due([], [CONTEST])
    assert contests.poll_at == NEVER
    assert contests.due(99.0) == Due([], [])


def test_a_holder_that_answers_is_left_alone_for_a_while(contests):
    contests.due(0.0)
    assert not contests.answered(ADDRESS, CHALLENGER, 0.1)
    assert contests.answered(ADDRESS, HOLDER, 0.1)
    assert contests.poll_at == NEVER
    assert not contests.begin(CONTEST, 0.1 + SETTLED_AT_FIRST - 0.01)
    assert contests.begin(CONTEST, 0.1 + SETTLED_AT_FIRST)


def test_a_holder_that_answers_again_and_again_is_left_alone_for_longer(contests):
    now, pauses = 0.0, [2.0, 4.0, 8.0, SETTLED_FOR, SETTLED_FOR]
    for pause in pauses:
        assert contests.answered(ADDRESS, HOLDER, now)
        assert not contests.begin(CONTEST, now + pause - 0.01)
        assert contests.begin(CONTEST, now + pause)
        now += pause
    contests.forget(CHALLENGER)
    now += SETTLED_FOR
    for pause in pauses[:2]:
        assert contests.begin(CONTEST, now), "and no more after a while without a contest"
        assert contests.answered(ADDRESS, HOLDER, now)
        assert not contests.begin(CONTEST, now + pause - 0.01)
        now += pause


def test_one_contest_an_address_at_a_time(contests):
    assert not contests.begin(CONTEST._replace(port=3), 0.0)


def test_a_guest_that_left_has_no_contests(contests):
    contests.forget(b"\x52\x54\0\0\0\3")
    assert contests.poll_at == 0.0
    contests.forget(HOLDER)
    assert contests.poll_at == NEVER
    assert contests.begin(CONTEST, 0.0)
    contests.forget(CHALLENGER)
    assert contests.poll_at == NEVER


def other(number, port):
    return Contest(number.to_bytes(4, "big"), HOLDER, CHALLENGER, port)


def test_a_port_has_few_contests_at_a_time():
    contests = Contests()
    begun = [contests.begin(other(number, 1), 0.0) for number in range(MAX_PER_PORT + 1)]
    assert begun == [True] * MAX_PER_PORT + [False]
    assert contests.begin(other(99, 2), 0.0)


def test_all_contests_together_are_bounded_and_a_port_that_has_few_gets_some():
    contests = Contests()
    begun = [
        contests.begin(other(MAX_PER_PORT * port + number, port), 0.0)
        for port in range(MAX_CONTESTS // MAX_PER_PORT)
        for number in range(MAX_PER_PORT)
    ]
    assert MAX_CONTESTS // 2 < sum(begun) < MAX_CONTESTS
    assert contests.begin(other(10**6, 10**6), 0.0)
    while contests.poll_at < NEVER:
        contests.due(contests.poll_at)
    assert contests.begin(other(0, 0), 99.0)


def test_of_those_that_were_settled_the_latest_are_kept():
    contests = Contests()
    for number in range(MAX_CONTESTS + 1):
        assert contests.begin(other(number, 1), 0.0)
        assert contests.answered(other(number, 1).address, HOLDER, 0.0)
    assert contests.begin(other(0, 1), 0.0), "forgotten for the last one"
    assert not contests.begin(other(1, 1), 0.0)
