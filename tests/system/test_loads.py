"""relaybench, whose sessions are those of the native VM client (wtransport, quinn), at moderate rates."""

from __future__ import annotations

import json

import pytest
from processes import Program, Relay

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def relay():
    # The servers of the loads listen on the relay's own loopback, closed to guests unless allowed.
    relay = Relay("--allow-cidr", "127.0.0.0/8")
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def servers(relaybench):
    """What the load generator says of its servers on loopback."""
    # relaybench takes four ports in a row and cannot choose them itself; try until four are free.
    for port in range(21_000, 22_000, 4):
        server = Program(relaybench, "servers", "--bind", f"127.0.0.1:{port}")
        try:
            listening = server.wait_for(r"{.*}")
        except AssertionError:
            server.stop()
            continue
        yield json.loads(listening[0])
        server.stop()
        return
    raise AssertionError("no four free ports in a row")


@pytest.fixture(scope="module")
def echo_server(servers):
    """Address of a UDP echo server."""
    return servers["udp_echo"]


@pytest.fixture(scope="module")
def tcp_source(servers):
    """Address of a TCP server that sends."""
    return servers["tcp_source"]


@pytest.mark.parametrize("size", [200, 900, 1514], ids=lambda size: f"{size} bytes")
def test_pairs_of_guests_lose_nothing(relay, load, size):
    figures = load(relay, "l2", "--pairs", 4, "--size", size, "--rate", 250, "--secs", 2)
    assert figures["sent"] > 0
    assert figures["delivered"] == figures["sent"]


@pytest.mark.parametrize("size", [300, 1514], ids=lambda size: f"{size} bytes")
def test_broadcasts_reach_everyone(relay, load, size):
    figures = load(relay, "broadcast", "--peers", 12, "--rate", 100, "--size", size, "--secs", 2)
    assert figures["sent"] > 0
    assert figures["copies"] == figures["sent"] * 11


@pytest.fixture
def other_relay():
    """For loads that leave hundreds of sessions behind if the machine is too busy for their last words."""
    relay = Relay()
    yield relay
    relay.stop()


def test_raw_sessions_lose_nothing(other_relay, load):
    # They take addresses by hand, which those who left the common relay a moment ago may still have.
    figures = load(other_relay, "--raw", "l2", "--pairs", 2, "--size", 900, "--rate", 250, "--secs", 2)
    assert figures["sent"] > 0
    assert figures["delivered"] == figures["sent"]


def test_sessions_open_and_close(other_relay, load):
    figures = load(other_relay, "setup", "--count", 200, "--concurrency", 8)
    assert (figures["ok"], figures["failed"]) == (200, 0)


def test_many_sessions_at_a_time(other_relay, load):
    figures = load(other_relay, "setup", "--count", 200, "--concurrency", 8, "--hold")
    assert (figures["ok"], figures["failed"]) == (200, 0)


@pytest.mark.parametrize("destination", ["10.0.2.2", "127.0.0.1"], ids=["gateway", "outside"])
@pytest.mark.parametrize("size", [0, 56, 1400], ids=lambda size: f"{size} bytes")
def test_pings_come_back_intact(relay, load, destination, size):
    figures = load(relay, "ping", "--dst", destination, "--count", 50, "--size", size, "--interval-ms", 5)
    assert (figures["replies"], figures["intact"]) == (50, 50)


@pytest.mark.parametrize("streams", [5, 16, 30])
def test_parallel_tcp_downloads_come_to_their_end(relay, load, tcp_source, streams):
    figures = load(
        relay, "tcp", "--dst", tcp_source, "--streams", streams, "--bytes", 12_000_000, "--mtu", 1100,
    )  # fmt: skip
    assert figures["complete"]
    assert figures["corrupt_bytes"] == 0


@pytest.mark.parametrize("flows", [1, 50])
def test_udp_through_the_nat_reaches_the_right_flow(relay, load, echo_server, flows):
    figures = load(relay, "udp", "--dst", echo_server, "--window", 16, "--flows", flows, "--secs", 2)
    assert figures["echoed"] > flows
    assert (figures["lost"], figures["misrouted"]) == (0, 0)


def test_every_frame_is_accounted_for(relay):
    """Runs last: what all loads above sent was delivered, or dropped for a counted reason."""
    counters = relay.counters()
    dropped = sum(count for name, count in counters.items() if name.startswith("switch.drop."))
    assert counters["switch.received"] > 10_000
    assert counters["switch.received"] == counters["switch.unicast"] + counters["switch.flooded"] + dropped
    assert counters["tcp.stalled"] == 0
    assert "Traceback" not in relay.output
