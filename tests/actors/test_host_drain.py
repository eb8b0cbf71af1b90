"""How long what a guest sent before its RST may take to leave the host."""

from __future__ import annotations

from itertools import pairwise

import pytest

from actors.flows.host_drain import DRAIN_PATIENCE, DRAIN_TIMEOUT, FIRST_LOOK, LAST_LOOK, HostDrain
from actors.runtime import NEVER


def looks(left):
    """Look whenever that is due, with ``left(time)`` bytes; give the times, the last that of giving up."""
    now, times = 0.0, []
    drain = HostDrain(now)
    while (again := drain.look(left(now), now)) < NEVER:
        assert again > now
        times.append(now := again)
    return times


def test_nothing_left_is_the_end():
    assert HostDrain(5.0).look(0, 5.0) == NEVER


def test_looks_come_at_twice_the_pause_each_time():
    times = [0.0, *looks(lambda now: 10**9 - int(now * 1e6))]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[0] == FIRST_LOOK
    assert max(pauses) == pytest.approx(LAST_LOOK)
    for before, after in pairwise(pauses[:6]):
        assert after == pytest.approx(2 * before)


def test_without_progress_patience_ends_and_with_it_the_time():
    assert looks(lambda _: 1000)[-1] == DRAIN_PATIENCE
    assert looks(lambda now: 10**9 - int(now * 1e6))[-1] == DRAIN_TIMEOUT
