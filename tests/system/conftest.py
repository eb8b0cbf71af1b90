"""What several system tests need."""

from __future__ import annotations

import json
import os
from pathlib import Path

import interpreters
import kernel_guest
import pytest
from namespaces import Namespace
from processes import ROOT, run

TAKING_MINUTES = ["test_packaging", "test_image", "test_chaos", "test_fresh_clone", "test_demo"]
"""Files to begin with: if one of them were begun last, all other cores would wait for it in the end."""
BUILT_RELAYBENCH = ROOT / ".cache/relaybench/release/relaybench"


@pytest.fixture(scope="session")
def relaybench():
    """Path of the load generator; ``make system`` builds it."""
    path = Path(os.environ.get("RELAYBENCH") or BUILT_RELAYBENCH)
    assert path.exists(), "build the load generator with scripts/relaybench.sh, or name it in RELAYBENCH"
    return path


@pytest.fixture(scope="module", autouse=True)
def _guests_with_the_same_macs_in_every_run():
    kernel_guest.forget_roles()


@pytest.fixture(scope="module")
def relay_namespace():
    """A network of its own for a relay."""
    namespace = Namespace("relay")
    yield namespace
    namespace.delete()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium."""
    from browsers import chromium  # Playwright is not on every machine that runs some of these tests

    with chromium(tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture(scope="session")
def load(relaybench):
    """Run one load against a relay and give its figures."""

    def run_load(relay, *arguments):
        done = run(relaybench, "--url", relay.url, "--pid", relay.pid, *arguments, patience=60)
        return json.loads(done.stdout.splitlines()[-1])

    return run_load


def pytest_report_header():
    return interpreters.report()


def pytest_collection_modifyitems(items):
    """Begin with the files that take minutes, in that order."""
    places = {name: place for place, name in enumerate(TAKING_MINUTES)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
