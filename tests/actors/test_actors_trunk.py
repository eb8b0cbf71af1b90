"""Other workers as ports of a switch: their guests' MACs, and how these sessions count."""

from __future__ import annotations

from typing import Any, cast

import pytest
from lan_parts import mac
from test_elsewhere import Link

from actors.lan.forwarding import FIRST_TRUNK, Forwarding
from actors.lan.trunk import Elsewhere
from actors.messages import FramesToPeer
from actors.port_policy import usual_policy
from actors.settings import LanSettings
from netstack.room_wire import Binding
from netstack.shares import Shares


@pytest.fixture
def parts(counters):
    settings = LanSettings(isolated=True)
    link, forwarding, shares = Link(), Forwarding(counters, settings), Shares(10, 50)
    return link, forwarding, shares, Elsewhere(cast("Any", link), forwarding, usual_policy(settings), shares)


def test_a_worker_is_a_port_that_sends_into_the_trunk(parts):
    link, forwarding, _, elsewhere = parts
    assert elsewhere.set_workers({3: 1}, 0.0)
    assert not elsewhere.set_workers({3: 2}, 0.0)
    port = forwarding.ports[FIRST_TRUNK - 3]
    assert not port.isolated
    port.peer.tell(FramesToPeer([b"frame"]))
    assert link.sent == [(3, [b"frame"])]


def test_sessions_elsewhere_count_by_client_once_each(parts):
    _, _, shares, elsewhere = parts
    for n, port in ((1, 5), (2, 5), (3, 6)):
        elsewhere.bind(1, Binding(mac(n), port=port, client="192.0.2.9"), 0.0)
    assert (shares.total, shares.held_by("192.0.2.9")) == (2, 2)
    elsewhere.unbind(mac(1))
    assert shares.total == 2
    elsewhere.unbind(mac(2))
    elsewhere.taken(mac(3))
    assert shares.total == 0


def test_a_mac_goes_with_who_announced_it_last(parts):
    _, forwarding, shares, elsewhere = parts
    elsewhere.bind(1, Binding(mac(1), port=5), 0.0)
    elsewhere.bind(2, Binding(mac(1), port=6), 0.0)
    assert forwarding.table.lookup(mac(1), 0.0) == FIRST_TRUNK - 2
    assert shares.total == 1
    elsewhere.unbind(mac(1))
    assert forwarding.table.lookup(mac(1), 0.0) is None
