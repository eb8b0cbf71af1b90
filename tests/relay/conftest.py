"""What tests of the relay's commands need: the programs and namespaces of the system tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "system"))


@pytest.fixture(scope="module")
def live_relay():
    """A relay in a process of its own."""
    from processes import Relay

    relay = Relay()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


@pytest.fixture
def certificate_options(tmp_path):
    """Options of a relay whose certificate outlives it."""
    from relay import main

    assert main.main(["certs", "generate", str(tmp_path)]) == 0
    return ("--cert-pem", tmp_path / "relay-cert.pem", "--key-pem", tmp_path / "relay-key.pem")
