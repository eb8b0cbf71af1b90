"""What Linux kernels do with each other on one LAN, with the two at different workers of the relay."""

from __future__ import annotations

import pytest
from apart import guests_apart
from test_kernels import (
    outside,  # noqa: F401 - fixtures and tests are found by their names
    relay_namespace,  # noqa: F401
    test_arping,  # noqa: F401
    test_ipv6_neighbours_find_each_other,  # noqa: F401
    test_ping_a_host_outside,  # noqa: F401
    test_ping_each_other,  # noqa: F401
    test_the_kernel_has_the_address_that_the_relay_assigned,  # noqa: F401
)
from worker_relays import Workers


@pytest.fixture(scope="module")
def relay(relay_namespace, outside):  # noqa: F811 - the fixtures imported above
    relay = Workers("--allow-cidr", "10.99.0.0/24", before=relay_namespace.prefix)
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def guests(relay, relay_namespace):  # noqa: F811
    pair = guests_apart(relay, relay_namespace, "--mtu", "1500")
    yield pair
    for guest in pair:
        guest.leave()
