"""Attacks on a running relay, with the parts of the system tests and the forgers of packets."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import pytest
from watch import LatenessError

ATTEMPTS = 3
"""How often an attack is run before it is said to make a neighbour's pings late."""
URGENT = -15
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux groups processes by session, their priorities hold within the group only (sched(7))."""


@pytest.fixture(scope="session", autouse=True)
def urgent():
    """Relays and attackers run before whatever else this machine does, where the user may have that."""
    if not hasattr(os, "setpriority"):
        yield
        return
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, usual + URGENT)
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(URGENT))
    yield
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text("0")
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, usual)


@pytest.fixture(scope="module")
def relay(live_relay):
    """One for all attacks of a file, as it is by default."""
    return live_relay


@pytest.fixture
def many_files():
    """Let this process have as many sockets as the attacks need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """How late a neighbour's pings are is what attacks are judged by."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.alone)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run an attack again that made a neighbour wait, for what the relay does it does each time.

    A machine that others use as well stops now and then for longer than any attack may cost, which nothing in
    it tells; three times in a row it does not.
    """
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for left in reversed(range(ATTEMPTS)):
        try:
            pyfuncitem.obj(**arguments)
        except LatenessError as late:
            if not left:
                raise
            print(f"once more, for {late}")
        else:
            break
    return True
