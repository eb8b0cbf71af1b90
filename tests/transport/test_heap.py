import sys

import pytest

from transport import heap
from transport.heap import CROWD, FEW, Crowd


@pytest.fixture
def trims(monkeypatch):
    trims = []
    monkeypatch.setattr(heap, "trim", lambda: trims.append(None))
    return trims


def test_a_crowd_that_is_gone_is_trimmed_after_once(trims):
    crowd = Crowd()
    for present in (*range(CROWD), *range(CROWD, -1, -1)):
        crowd.counted(present)
    assert len(trims) == 1
    for present in (*range(CROWD + 1), *range(CROWD, -1, -1)):
        crowd.counted(present)
    assert len(trims) == 2


def test_comings_and_goings_of_few_are_not(trims):
    crowd = Crowd()
    for present in (*range(CROWD - 1), 0, CROWD - 1, 0):
        crowd.counted(present)
    assert trims == []


def test_nor_are_those_of_many_while_many_stay(trims):
    crowd = Crowd()
    for present in [4 * CROWD, 4 * CROWD // FEW + 1] * 10:
        crowd.counted(present)
    assert trims == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no malloc_trim")
def test_the_c_library_takes_the_call():
    assert heap.trim() in {True, False}
