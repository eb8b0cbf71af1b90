from __future__ import annotations

import pytest

from netstack.tcp_states import (
    MAY_RECEIVE,
    OPENING,
    SYNCHRONIZED,
    TRANSITIONS,
    Event,
    ImpossibleTransition,
    State,
    after,
)


def test_every_state_has_its_row_and_can_end():
    assert set(TRANSITIONS) == set(State)
    assert all(row[Event.ENDED] is State.CLOSED for row in TRANSITIONS.values())


def test_every_state_is_reached_from_closed():
    reached = {State.CLOSED}
    while True:
        following = reached | {target for state in reached for target in TRANSITIONS[state].values()}
        if following == reached:
            break
        reached = following
    assert reached == set(State)


def test_what_a_state_does_not_know_is_impossible():
    with pytest.raises(ImpossibleTransition, match="SENT_FIN in CLOSED"):
        after(State.CLOSED, Event.SENT_FIN)


def test_groups():
    assert OPENING.isdisjoint(SYNCHRONIZED)
    assert MAY_RECEIVE < SYNCHRONIZED
