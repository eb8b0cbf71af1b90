from __future__ import annotations

import pykka
import pytest
from fake_loop import FakeLoop

from actors.runtime import Scheduler
from netstack.counters import Counters


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def loop(counters):
    """An event loop whose time stands still; at the end no actor may have stalled, and none is left."""
    loop = FakeLoop()
    with Scheduler(loop, counters).activate():
        yield loop
        loop.run()
        pykka.ActorRegistry.stop_all(block=False)
        loop.run()
    assert pykka.ActorRegistry.get_all() == []
    assert counters["tcp.stalled"] == 0


@pytest.fixture
def lan(loop, counters):
    """A switch of three ports."""
    from switch_parts import Lan

    return Lan(counters)


@pytest.fixture
def trio(lan):
    """The same, whose three guests are known to it."""
    from lan_parts import mac

    for number in (1, 2, 3):
        lan.register(number, mac(number))
    lan.gateway.clear()
    return lan
