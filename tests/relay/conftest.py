"""What tests of the relay need: programs and namespaces of the system tests, parts of the actors' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent.parent / folder) for folder in ("system", "actors", "transport")]


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
