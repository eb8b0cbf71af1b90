"""A relay that operators ask, and a guest on it."""

from __future__ import annotations

import pytest
from operators import GUEST_MAC, OperatedRelay

from guest.relay_socket import RelayPeer


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """One relay for all tests of a module; its guests reach what listens on this machine's own addresses."""
    relay = OperatedRelay(tmp_path_factory.mktemp("admin"), "--allow-cidr", "127.0.0.0/8")
    yield relay
    relay.stop()


@pytest.fixture
def guest(relay):
    """A guest on it, ``GUEST_MAC``, which names itself web."""
    peer = RelayPeer(relay.url, insecure=True, mac=GUEST_MAC, name="web")
    yield peer
    peer.close()
