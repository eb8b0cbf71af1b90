"""Attack a relay of this tree in all ways that the tests know, for a chosen time, and print a table.

    make attack                                          every attack once
    make attack ARGS="--minutes 60"                      again and again, for an hour
    make attack ARGS="--minutes 5 test_dns_queries.py"

The attacks are ``tests/security``; a row has the pings of the neighbour that were lost in all runs, in how
many milliseconds 99 of 100 came back in the worst run, and what part of a core the relay took meanwhile. The
status is 1 when a test failed. Needs root, as the tests do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parent


class Watch(NamedTuple):
    """What a neighbour saw in one run of an attack."""

    lost: int
    p99: float
    """Seconds."""
    load: float
    """Cores that the relay took meanwhile."""


class Table:
    """A plugin for pytest that writes down what each test's neighbours see."""

    def __init__(self):
        self.watches = defaultdict(list)
        """By test, its last watch in each run: those before it were without an attack, or in vain."""
        self.results = defaultdict(list)
        self._last = None

    def pytest_collection_finish(self):
        """Have the neighbours tell; ``guests`` can be imported once the tests were."""
        from guests import Neighbour

        begin, end = Neighbour.__enter__, Neighbour.__exit__
        table, began = self, {}

        def begin_and_note(neighbour):
            began[neighbour] = time.monotonic(), neighbour._relay.cpu_seconds
            return begin(neighbour)

        def end_and_note(neighbour, *problem):
            at, spent = began.pop(neighbour)
            load = (neighbour._relay.cpu_seconds - spent) / (time.monotonic() - at)
            end(neighbour, *problem)
            p99 = neighbour.p99 if neighbour.round_trips else float("inf")
            table._last = Watch(neighbour.sent - neighbour.intact, p99, load)

        Neighbour.__enter__, Neighbour.__exit__ = begin_and_note, end_and_note
        self._undo = lambda: (
            setattr(Neighbour, "__enter__", begin),
            setattr(Neighbour, "__exit__", end),
        )

    def pytest_sessionfinish(self):
        self._undo()

    def pytest_runtest_setup(self, item):
        self._last = None

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rpartition("/")[2].replace(".py::test_", ": ").removeprefix("test_")
        if report.when == "call":
            self.results[name].append(report.outcome)
            if self._last is not None:
                self.watches[name].append(self._last)
        elif report.outcome != "passed":
            self.results[name].append(report.outcome)

    def rows(self):
        """Yield the table, a line at a time."""
        yield "| attack | runs | failed | neighbour's lost pings | p99 | relay's cores |"
        yield "|---|---|---|---|---|---|"
        for name, outcomes in self.results.items():
            failed = len(outcomes) - outcomes.count("passed")
            watches = self.watches[name]
            seen = ["", "", ""]
            if watches:
                worst, load = max(watch.p99 for watch in watches), max(watch.load for watch in watches)
                seen = [sum(watch.lost for watch in watches), f"{worst * 1000:.1f} ms", f"{load:.2f}"]
            yield f"| {' | '.join(map(str, (name.replace('_', ' '), len(outcomes), failed, *seen)))} |"


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", help="files of tests/security, options of pytest; default: all")
    parser.add_argument("--minutes", type=float, default=0, help="begin no further round after these")
    options, further = parser.parse_known_args()
    table = Table()
    chosen = [str(FOLDER / name) for name in options.files] or [str(FOLDER)]
    end = time.monotonic() + 60 * options.minutes
    while True:
        status = pytest.main(["-q", "-p", "no:cacheprovider", *chosen, *further], plugins=[table])
        if status in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR} or time.monotonic() >= end:
            break
    print()
    for row in table.rows():
        print(row)
    well = all(outcome == "passed" for outcomes in table.results.values() for outcome in outcomes)
    sys.exit(0 if well and table.results else 1)


if __name__ == "__main__":
    main()
