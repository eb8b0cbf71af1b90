"""Attacks on a running relay, with the parts of the system tests and the forgers of packets."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def relay():
    """One for all attacks of a file, as it is by default."""
    from processes import Relay

    relay = Relay()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output
