"""The laboratory of the conformance tests.

    guest one ─┐
               ├─ relay (10.99.0.1) ── cable ── outside (10.99.0.2, .3, .4)
    guest two ─┘

Each box is a network namespace with a Linux kernel's own stack in it; the tests hold sockets in all of them.
The NAT's external address is the relay's end of the cable. What needs no settings of its own is tried on a
relay of one process, and on one of two workers, of which each has one of the guests.
"""

from __future__ import annotations

import contextlib

import pytest
from apart import two_guests
from kernel_guest import KernelGuest
from lab import EXTERNAL, SERVERS, Lab
from namespaces import Namespace, connect
from processes import Relay
from worker_relays import Workers


@pytest.fixture(scope="package")
def lab():
    with contextlib.ExitStack() as stack:
        relay, outside = Namespace("nat"), Namespace("out")
        stack.callback(relay.delete)
        stack.callback(outside.delete)
        relay.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
        connect(relay, f"{EXTERNAL}/24", outside, f"{SERVERS[0]}/24")
        device = outside.run("ip", "-o", "-4", "route", "show", "10.99.0.0/24").stdout.split()[2]
        for address in SERVERS[1:]:
            outside.run("ip", "address", "add", f"{address}/24", "dev", device)
        yield Lab(relay, outside)


@pytest.fixture(scope="package", params=[Relay, Workers], ids=["one process", "two workers"])
def relay(request, lab):
    """A relay with the defaults."""
    relay = request.param("--allow-cidr", "10.99.0.0/24", before=lab.relay.prefix)
    yield relay
    assert "Traceback" not in relay.output
    relay.stop()


@pytest.fixture(scope="module")
def pair(lab, relay):
    guests = two_guests(relay, lab.relay, "--mtu", "1500")
    yield guests
    for guest in guests:
        guest.leave()


@pytest.fixture
def guests(pair):
    """Two guests that the tests of a module share, quiet at the beginning of each."""
    for guest in pair:
        guest.wait_until_quiet()
    return pair


@pytest.fixture
def guest(guests):
    return guests[0]


@pytest.fixture
def relay_with(lab):
    """Start a relay with settings of its own and a guest on it; gives both."""
    with contextlib.ExitStack() as stack:

        def start(*options):
            relay = Relay("--allow-cidr", "10.99.0.0/24", *options, before=lab.relay.prefix)
            stack.callback(relay.stop)
            guest = KernelGuest("set", relay, lab.relay)
            stack.callback(guest.leave)
            return relay, guest

        yield start


@pytest.fixture
def sockets():
    """Open sockets inside: ``sockets.udp(guest)``, ``sockets.udp(lab.outside, address, port)``."""
    with contextlib.ExitStack() as stack:
        from lab import Sockets

        yield Sockets(stack)
