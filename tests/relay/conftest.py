"""A relay that operators ask, a guest on it, and the two ends of sessions that are carried."""

from __future__ import annotations

import pytest
from carrying_parts import make_pair
from fake_loop import FakeLoop
from operators import GUEST_MAC, OperatedRelay

from actors.scheduler import Scheduler
from guest.relay_socket import RelayPeer
from netstack.counters import Counters


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


@pytest.fixture
def pair():
    """A carrier and a holder whose messages the test passes on; the carrier's session and its PeerActor."""
    with Scheduler(FakeLoop(), Counters()).activate():
        yield make_pair()
