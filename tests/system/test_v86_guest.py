"""A v86 whose network card drops what comes too fast: an NE2000 has room for nine frames, and a slow machine.

Whatever the session's path would carry, the guest has to be paced by what it acknowledges.
"""

from __future__ import annotations

import hashlib
import random

import pytest
from browsers import chromium, site
from file_servers import serving
from processes import ROOT, Relay, run
from test_demo import BUILDING, Machine

DATA = random.Random(7).randbytes(1_500_000)
HEADERS = 20 + 32
"""Bytes of IPv4 and TCP, with timestamps."""
MOST_AGAIN = 0.25
"""Share of the segments that may be sent again: a sender who trusts the path's rate sends most of them so."""


@pytest.fixture(scope="module")
def relay():
    relay = Relay("--host-access")
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


@pytest.fixture(scope="module")
def machines(tmp_path_factory, relay):
    """Booted ones, by what connects them."""
    folder = run(ROOT / "examples/v86/build.sh", patience=BUILDING).stdout.splitlines()[-1]
    with site(folder) as origin, chromium(tmp_path_factory.mktemp("home")) as browser:
        found = {via: Machine(browser, origin, relay, via, card="ne2k") for via in ("client", "v86")}
        for machine in found.values():
            machine.wait_for(r"address (10\.0\.2\.\d+)/24 from [\s\S]*\n/ # ")
        yield found


@pytest.fixture(scope="module")
def file_server():
    """``DATA`` on this computer's loopback, which guests reach as 10.0.2.4; gives its port."""
    with serving(DATA) as port:
        yield port


@pytest.mark.parametrize("via", ["client", "v86"])
def test_a_card_with_few_buffers_gets_a_file_at_its_own_pace(machines, relay, file_server, via):
    machine = machines[via]
    assert "ne2k" in machine.type("dmesg | grep -c ne2k-pci")
    mtu = int(machine.type("cat /sys/class/net/eth0/mtu").split()[-3])
    before = relay.counters()
    said = machine.type(f"wget -q -O - http://10.0.2.4:{file_server}/ | md5sum")
    sent = (relay.counters() - before)["peer.frames_to_client"]
    assert hashlib.md5(DATA).hexdigest() in said
    assert sent < (1 + MOST_AGAIN) * len(DATA) / (mtu - HEADERS)
