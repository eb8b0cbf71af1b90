"""The buffers of TCP flows: they grow to what the path holds, and all together stay within the budget."""

from __future__ import annotations

from downloads import STEP, WINDOW, Downloads, Source

from actors.messages import PortClosed, SocketWritable
from actors.runtime import run_ready
from netstack.buffer_budget import LEAST
from netstack.tcp_receiver import BASE_WINDOW

MOST = 8 * 1024 * 1024
RATE = 4_000_000
"""Bytes per second of the link, which with DELAY holds 1.6 MB."""
DELAY = 0.2


def test_buffers_grow_to_what_a_long_path_holds(loop, counters):
    downloads = Downloads(loop, counters, 1, rate=RATE, delay=DELAY)
    for _ in range(4000):
        downloads.step()
    before = sum(downloads.received)
    for _ in range(1000):
        downloads.step()
    assert sum(downloads.received) - before > 0.9 * RATE * 1000 * STEP
    assert downloads.budget.used <= MOST
    assert "tcp.buffers_limited" not in counters


def test_buffers_shrink_as_their_session_uses_its_budget_up(loop, counters):
    size = 1024 * 1024
    downloads = Downloads(loop, counters, 8, rate=RATE, delay=DELAY, tcp_buffers_per_peer=size)
    most = 0
    for _ in range(4000):
        downloads.step()
        most = max(most, downloads.budget.used)
    assert size * 0.6 < most <= size + LEAST
    assert counters["tcp.buffers_limited"] > 0
    assert min(downloads.received) > 0.4 * max(downloads.received)
    assert counters["tcp.stalled"] == 0


def test_all_sessions_together_keep_to_the_total(loop, counters):
    downloads = Downloads(loop, counters, 4, rate=RATE, delay=DELAY, total=LEAST)
    most = 0
    for _ in range(3000):
        downloads.step()
        most = max(most, downloads.budget.used)
    assert most <= 5 * LEAST
    assert min(downloads.received) > 0, "each has a little, whatever the others hold"


def test_windows_that_a_host_has_earned_do_not_fill_the_memory_once_it_takes_nothing(
    loop, counters, monkeypatch
):
    size, count = 512 * 1024, 6
    takes = True
    monkeypatch.setattr(Source, "write", lambda _, chunks: sum(map(len, chunks)) if takes else 0)
    uploads = Downloads(loop, counters, count, size=0, delay=DELAY, tcp_buffers_per_peer=size)

    def step():
        for guest in uploads.guests.values():
            guest.limit_buffers(WINDOW)
            guest.write(bytes(min(guest.room, 20_000)))
        uploads.step()

    for _ in range(1500):
        step()
    promised = sum(guest.sender.edge - guest.sender.una for guest in uploads.guests.values())
    assert promised > 1.5 * count * BASE_WINDOW
    takes = False
    for _ in range(1000):
        step()
    assert counters["tcp.drop.buffers_full"] > 0
    assert uploads.budget.used <= count * BASE_WINDOW + size / 2 < promised
    # What was refused comes again once the host goes on.
    before = counters["tcp.bytes_to_net"]
    takes = True
    for socket in uploads.lan.outside.tcp:
        socket.tell(SocketWritable())
    for _ in range(3000):
        step()
    assert counters["tcp.bytes_to_net"] - before > promised


def test_what_was_held_is_given_back_when_connections_end(loop, counters):
    downloads = Downloads(loop, counters, 5, size=300_000, rate=RATE)
    for _ in range(3000):
        downloads.step()
    assert downloads.received == [300_000] * 5
    assert downloads.budget.used == 0


def test_a_session_that_ends_gives_back_what_its_connections_held(loop, counters):
    downloads = Downloads(loop, counters, 5, rate=RATE)
    for _ in range(300):
        downloads.step()
    assert downloads.budget.used > 0
    downloads.lan.gateway.tell(PortClosed(1))
    run_ready()
    assert downloads.budget.used == 0
