"""Work at the end of a turn: once for each who asked, in rounds that are bounded, and none is lost."""

from __future__ import annotations

import pytest

from transport.end_of_turn import MOST_ROUNDS, EndOfTurn


class Turn:
    """Calls back when a test says that the turn is over."""

    def __init__(self):
        self.callbacks = []
        self.served = []
        self.ends = EndOfTurn(self.callbacks.append, self.work)

    def work(self, asked):
        self.served.append(list(asked))

    def over(self):
        callbacks, self.callbacks[:] = list(self.callbacks), []
        for callback in callbacks:
            callback()


@pytest.fixture
def turn():
    return Turn()


def test_each_is_served_once_at_the_end_however_often_it_asked(turn):
    for asker in "abaab":
        turn.ends.ask(asker)
    assert turn.served == []
    assert len(turn.callbacks) == 1
    turn.over()
    assert turn.served == [["a", "b"]]
    assert turn.callbacks == []


def test_each_turn_is_served_by_itself(turn):
    turn.ends.ask("a")
    turn.over()
    turn.ends.ask("a")
    turn.over()
    assert turn.served == [["a"], ["a"]]


def test_a_turn_that_is_ended_by_its_owner_costs_no_callback(turn):
    turn.ends.begin()
    turn.ends.ask("a")
    assert turn.callbacks == []
    turn.ends.end(["b", "a"])
    assert turn.served == [["a", "b"]]
    turn.ends.ask("c")
    assert len(turn.callbacks) == 1


def test_a_callback_that_finds_all_done_does_nothing(turn):
    turn.ends.ask("a")
    turn.ends.end()
    turn.over()
    assert turn.served == [["a"]]


def test_who_asks_during_the_work_is_served_right_after_it(turn):
    def work(asked):
        turn.work(asked)
        if asked == {"a": None}:
            turn.ends.ask("b")

    turn.ends = EndOfTurn(turn.callbacks.append, work)
    turn.ends.ask("a")
    turn.over()
    assert turn.served == [["a"], ["b"]]
    assert turn.callbacks == []


def test_who_asks_again_and_again_leaves_room_for_the_loop_and_is_served_in_the_next_turn(turn):
    def work(asked):
        turn.work(asked)
        turn.ends.ask("a")

    turn.ends = EndOfTurn(turn.callbacks.append, work)
    turn.ends.ask("a")
    turn.over()
    assert len(turn.served) == MOST_ROUNDS
    assert len(turn.callbacks) == 1
    turn.over()
    assert len(turn.served) == 2 * MOST_ROUNDS


def test_those_for_whom_there_is_no_time_come_first_in_the_next_turn(turn):
    def serve_two(asked):
        turn.work(list(asked)[:2])
        if "a" in asked:
            turn.ends.ask("a")
        return list(asked)[2:]

    turn.ends = EndOfTurn(turn.callbacks.append, serve_two)
    for asker in "abcd":
        turn.ends.ask(asker)
    turn.over()
    assert turn.served == [["a", "b"]]
    assert len(turn.ends) == 3
    assert len(turn.callbacks) == 1
    turn.over()
    assert turn.served == [["a", "b"], ["c", "d"]]


def test_who_has_ended_is_not_served(turn):
    turn.ends.ask("a")
    turn.ends.ask("b")
    turn.ends.discard("a")
    turn.ends.discard("stranger")
    turn.over()
    assert turn.served == [["b"]]


def test_work_that_fails_loses_nobody_who_asked_meanwhile_or_asks_later(turn):
    def fail(asked):
        turn.work(asked)
        if "a" in asked:
            turn.ends.ask("b")
            raise OSError("as a test wants it")

    turn.ends = EndOfTurn(turn.callbacks.append, fail)
    turn.ends.begin()
    with pytest.raises(OSError, match="as a test wants it"):
        turn.ends.end(["a"])
    turn.over()
    turn.ends.ask("c")
    turn.over()
    assert turn.served == [["a"], ["b"], ["c"]]
