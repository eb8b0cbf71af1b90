"""The RFCs' requirements that concern two guests, with the two at different workers of the relay."""

from __future__ import annotations

import pytest
from apart import guests_apart
from test_rfc4787_udp import (
    test_req_3_no_port_overloading,  # noqa: F401 - tests are found by their names
    test_req_9_hairpinning_with_the_external_source,  # noqa: F401
)
from test_rfc5382_tcp import (
    served,  # noqa: F401
    test_req_7_no_port_overloading,  # noqa: F401
)
from test_workers import Workers


@pytest.fixture(scope="module")
def relay(lab):
    relay = Workers("--allow-cidr", "10.99.0.0/24", before=lab.relay.prefix)
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def pair(lab, relay):
    guests = guests_apart(relay, lab.relay, "--mtu", "1500")
    yield guests
    for guest in guests:
        guest.leave()
