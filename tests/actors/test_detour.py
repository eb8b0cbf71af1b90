"""A session whose client has its port at another worker; the passage to it is the test's."""

from __future__ import annotations

from typing import Any

import pytest

from actors.close_codes import CloseCode
from actors.lan.detour import MAX_BEHIND, Detour
from actors.messages import (
    DatagramsFromClient,
    DatagramsLost,
    SessionClosed,
)
from actors.ports import SessionTerms
from actors.runtime import NEVER
from actors.trunk_messages import PortElsewhere

TERMS = SessionTerms("web", NEVER, None, "t1")
REGISTER = b'{"type": "Register"}'


class Passage:
    """Notes what it is told; implements ``actors.ports.Passage``, and of ``RoomLink`` what opens it."""

    def __init__(self):
        self.passed, self.told_lost, self.ended, self.asked = [], [], [], []

    def carry(self, *what):
        self.asked.append(what)
        return self

    def pass_on(self, datagrams):
        self.passed += datagrams

    def lost(self, datagrams):
        self.told_lost += datagrams

    def end(self, code, reason, *, lost):
        self.ended.append((code, reason, lost))


@pytest.fixture
def passage():
    return Passage()


@pytest.fixture
def detour():
    found = Detour(TERMS, is_allowed=True)
    found.register = REGISTER
    return found


SESSION: Any = "session"
PEER: Any = "peer"


def take(detour, passage):
    detour.take(PortElsewhere(3, passage), SESSION, PEER)


def test_until_it_is_taken_nothing_goes_there(detour):
    assert not detour.is_taken
    assert not detour.from_client(DatagramsFromClient([b"x"]))
    assert not detour.lost(DatagramsLost([(b"x", 0.0)]))
    assert not detour.closed(SessionClosed(0, ""))
    assert not detour.leave(CloseCode.DONE, "")


def test_the_register_and_what_came_behind_it_go_first(detour, passage):
    detour.came_behind([b"%d" % number for number in range(MAX_BEHIND + 5)])
    take(detour, passage)
    assert passage.asked == [(3, "session", TERMS, "peer")]
    assert detour.is_taken
    assert detour.from_client(DatagramsFromClient([b"\1more"]))
    behind = [b"\1%d" % number for number in range(MAX_BEHIND)]
    assert passage.passed == [b"\0" + REGISTER, *behind, b"\1more"]
    assert detour.lost(DatagramsLost([(b"x", 2.0)]))
    assert passage.told_lost == [(b"x", 2.0)]


def test_what_came_before_a_register_or_after_an_address_is_not_remembered(passage):
    detour = Detour(TERMS, is_allowed=True)
    detour.came_behind([b"before"])
    detour.register = REGISTER
    detour.came_behind([b"behind"])
    detour.settle()
    detour.came_behind([b"after"])
    detour.register = REGISTER
    take(detour, passage)
    assert passage.passed == [b"\0" + REGISTER]


def test_who_is_allowed_none_remembers_nothing(passage):
    detour = Detour(TERMS, is_allowed=False)
    detour.register = REGISTER
    detour.came_behind([b"behind"])
    take(detour, passage)
    assert passage.passed == [b"\0" + REGISTER]


def test_once_it_is_given_up_there_is_no_other(detour, passage):
    take(detour, passage)
    assert detour.give_up() == REGISTER
    assert not detour.is_allowed
    assert not detour.is_taken
    assert not detour.from_client(DatagramsFromClient([b"x"]))


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        (CloseCode.SHUTDOWN, True),
        (CloseCode.INTERNAL, True),
        (CloseCode.REFUSED, False),
        (CloseCode.DONE, False),
    ],
)
def test_the_port_waits_for_a_client_whom_only_this_worker_sends_away(detour, passage, code, waits):
    take(detour, passage)
    assert detour.leave(code, "why")
    assert passage.ended == [(code, "why", waits)]


@pytest.mark.parametrize("lost", [True, False])
def test_how_the_client_has_gone_is_told(detour, passage, lost):
    take(detour, passage)
    assert detour.closed(SessionClosed(4, "gone", lost))
    assert passage.ended == [(4, "gone", lost)]
