"""Rules for the whole suite."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import is_hypothesis_test, settings
from loguru import logger

# Programs, namespaces and simulated parts, which tests of several packages use.
sys.path += [str(Path(__file__).parent / folder) for folder in ("system", "actors", "transport")]

# Programs that tests start buffer their output as they do for users, whatever this machine's habits are.
os.environ.pop("PYTHONUNBUFFERED", None)

# Relays of tests find nothing of each other's, and leave nothing in the user's home.
os.environ["VMRELAY_STATE"] = "none"

# Nor what signals it was started with: shells have SIGINT and SIGQUIT ignored in the background, nohup
# SIGHUP, and children inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

COVERAGE_OF_PROGRAMS = "COVERAGE_PROCESS_CONFIG"
"""Variable by which coverage has programs that are started take part."""
_coverage_of_programs = pytest.StashKey[str]()

NOTHING_MAY_BE_SKIPPED = os.environ.get("CI", "").lower() in {"1", "true"}

# The same examples in every run, and no deadlines: a busy machine is not a failure.
settings.register_profile("vmrelay", derandomize=True, deadline=None)
settings.load_profile("vmrelay")


def _skip_is_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NOTHING_MAY_BE_SKIPPED and report.skipped:
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid} cannot run here, and with CI=true that is a failure: {report.longrepr}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _skip_is_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _skip_is_failure(report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Have the programs count for coverage that every second test starts.

    Most run the same code, and with coverage they take half as long again; which do, goes by the test's name.
    """
    if COVERAGE_OF_PROGRAMS in os.environ:
        item.config.stash[_coverage_of_programs] = os.environ.pop(COVERAGE_OF_PROGRAMS)
    if crc32(item.nodeid.encode()) % 2 == 0 and _coverage_of_programs in item.config.stash:
        os.environ[COVERAGE_OF_PROGRAMS] = item.config.stash[_coverage_of_programs]


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    """Take coverage's tracer away from ``no_cover`` tests; pytest-cov does not in workers of xdist.

    And from those of many examples, which would take twice as long: what they reach, others reach too.
    """
    tracer = sys.gettrace()
    if item.get_closest_marker("no_cover") or is_hypothesis_test(item.obj):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture
def lines():
    """What is logged, as it comes: "LEVEL message"."""
    found: list[str] = []
    number = logger.add(
        lambda message: found.append(message.rstrip("\n")), format="{level} {message}", level="INFO"
    )
    yield found
    logger.remove(number)


@pytest.fixture
def bound():
    """What is bound to the lines that are logged, from INFO on."""
    found: list[dict[str, Any]] = []
    number = logger.add(lambda message: found.append(message.record["extra"]), level="INFO")
    yield found
    logger.remove(number)


def _run_relay():
    from processes import Relay

    relay = Relay()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


live_relay = pytest.fixture(scope="module", name="live_relay")(_run_relay)
"""A relay in a process of its own; as it sums up what it logs often, not to be read by many tests."""

fresh_relay = pytest.fixture(name="fresh_relay")(_run_relay)
"""One whose log tells everything."""


@pytest.fixture
def certificate_options(tmp_path):
    """Options of a relay whose certificate outlives it."""
    from relay import main

    assert main.main(["certs", "generate", str(tmp_path)]) == 0
    return ("--cert-pem", tmp_path / "relay-cert.pem", "--key-pem", tmp_path / "relay-key.pem")


@pytest.fixture
def udp_server():
    """A UDP server of this machine: a socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20.0)
        yield server
