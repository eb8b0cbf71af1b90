import subprocess
import sys

import pytest

from transport.host import heap
from transport.host.heap import CROWD, Crowd


@pytest.fixture
def trims(monkeypatch):
    trims = []
    monkeypatch.setattr(heap, "trim", lambda: trims.append(None))
    return trims


def test_a_crowd_that_leaves_is_trimmed_after_now_and_then(trims):
    crowd = Crowd()
    for present in (*range(4 * CROWD), *range(4 * CROWD, CROWD // 2, -1)):
        crowd.counted(present)
    assert len(trims) == 3
    for present in (*range(CROWD // 2, CROWD + 1), *range(CROWD, -1, -1)):
        crowd.counted(present)
    assert len(trims) == 4


def test_comings_and_goings_of_few_are_not(trims):
    crowd = Crowd()
    for present in (*range(CROWD - 1), 0, CROWD - 1, 0):
        crowd.counted(present)
    for present in [4 * CROWD, 3 * CROWD + 1] * 10:
        crowd.counted(present)
    assert trims == []


PEAK = """
import sys
from relay.memory import resident
from transport.host.heap import trim

def peak():
    # Frames of a busy moment, and what was made among them and stays.
    frames, kept = [], []
    for number in range(60_000):
        frames.append(bytes(1400))
        if number % 60 == 0:
            kept.append(bytes(1400))
    return kept

before = resident()
kept = peak()
after = resident()
assert trim()
print(before, after, resident(), len(kept))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no malloc_trim")
def test_what_a_peak_left_is_given_back_between_what_stays():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after, trimmed, _ = map(int, done.stdout.split())
    assert after - before > 60 * 2**20, "the pages are kept"
    assert trimmed - before < 12 * 2**20
