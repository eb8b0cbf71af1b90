"""What is said between a guest and the relay; how to read it stands in tcp_talk."""

from __future__ import annotations

import pytest
from tcp_conversations_of_data import DATA, HOST, LOSS
from tcp_conversations_of_ends import CLOSING, OPENING, RESETS
from tcp_talk import Talk

ALL = OPENING | DATA | HOST | LOSS | CLOSING | RESETS


@pytest.mark.parametrize("title", ALL)
def test_conversation(title):
    Talk().play(ALL[title])


def test_there_are_enough_of_them():
    assert len(ALL) >= 60
