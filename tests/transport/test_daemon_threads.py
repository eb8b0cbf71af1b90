"""What takes as long as it likes keeps nobody from ending."""

from __future__ import annotations

import asyncio
import threading

import pytest

from transport.daemon_threads import in_daemon_thread


def test_what_work_returns_or_raises_is_the_futures():
    async def scenario():
        assert await in_daemon_thread(lambda: 7, "work") == 7
        with pytest.raises(ZeroDivisionError):
            await in_daemon_thread(lambda: 1 // 0, "work")
        assert await in_daemon_thread(lambda: threading.current_thread().name, "a name") == "a name"

    asyncio.run(scenario())


def test_work_that_goes_on_ends_for_itself():
    go_on, ended = threading.Event(), threading.Event()

    def work():
        go_on.wait()
        ended.set()

    async def scenario():
        found = in_daemon_thread(work, "work")
        found.cancel()
        with pytest.raises(asyncio.CancelledError):
            await found

    asyncio.run(scenario())  # which would wait for a thread of a pool
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(20)


def test_work_that_ends_behind_a_cancelled_future_tells_nobody():
    go_on = threading.Event()

    async def scenario():
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        cancelled, awaited = in_daemon_thread(go_on.wait, "one"), in_daemon_thread(go_on.wait, "other")
        cancelled.cancel()
        go_on.set()
        assert await awaited
        for thread in threading.enumerate():
            if thread.name == "one":
                await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)
        assert failures == []

    asyncio.run(scenario())
