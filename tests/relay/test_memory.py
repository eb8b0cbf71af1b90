"""Memory that was needed for a moment goes back to the system."""

from __future__ import annotations

import asyncio
import contextlib

from relay import memory


def test_it_is_done_when_the_process_has_grown_and_not_before(monkeypatch):
    sizes = iter([100, 110, 116, 117, 105, 105, 121, 122, 104, 90, 106, 107, 91])
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
    assert done == [117, 122, 107]


def test_a_system_that_does_not_tell_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATM", tmp_path / "nothing")
    assert memory.resident() == 0
