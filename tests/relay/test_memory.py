"""Memory that was needed for a moment goes back to the system."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

from relay import memory

PEAK = """
import sys
from relay import memory

def peak():
    # Frames of a busy moment, and what was made among them and stays.
    frames, kept = [], []
    for number in range(60_000):
        frames.append(bytes(1400))
        if number % 60 == 0:
            kept.append(bytes(1400))
    return kept

before = memory.resident()
kept = peak()
after = memory.resident()
assert memory.trim()
print(before, after, memory.resident(), len(kept))
"""


def test_what_a_peak_left_is_given_back_between_what_stays():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after, trimmed, _ = map(int, done.stdout.split())
    assert after - before > 60 * 2**20, "the pages are kept"
    assert trimmed - before < 12 * 2**20


def test_it_is_done_when_the_process_has_grown_and_not_before(monkeypatch):
    sizes = iter([100, 110, 116, 117, 105, 105, 121, 122, 104])
    seen = []

    def resident():
        seen.append(next(sizes))
        return seen[-1]

    done = []
    monkeypatch.setattr(memory, "resident", resident)
    monkeypatch.setattr(memory, "trim", lambda: done.append(seen[-1]))

    async def scenario():
        # The figures end, and with them the task.
        with contextlib.suppress(RuntimeError):
            await memory.keep_giving_back(0, 16)

    asyncio.run(scenario())
    assert done == [117, 122]


def test_a_system_that_does_not_tell_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATM", tmp_path / "nothing")
    assert memory.resident() == 0
