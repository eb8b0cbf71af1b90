"""Attacks on a running relay, with the parts of the system tests and the forgers of packets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for parts in ("system", "transport"):
    sys.path.insert(0, str(Path(__file__).parent.parent / parts))


@pytest.fixture(scope="module")
def relay():
    """One for all attacks of a file, as it is by default."""
    from processes import Relay

    relay = Relay()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output
