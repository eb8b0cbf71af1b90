from typing import Any

import pytest

from netstack.counters import Counters
from transport.quic.session import (
    LEAST_ROOM,
    MOST_ROOM,
    QUEUE_BYTES,
    QUEUE_SECONDS,
    DatagramQueue,
    WebTransportSession,
    remote_text,
)


class Carrier:
    remote = "192.0.2.1:4000"
    datagram_limit = 1160
    last_heard = 5.0

    def __init__(self):
        self.flushes = 0
        self.closed = []

    def want_flush(self):
        self.flushes += 1

    def close_session(self, code, reason):
        self.closed.append((code, reason))


def session(clock=lambda: 0.0):
    counters = Counters()
    carrier: Any = Carrier()
    return WebTransportSession(7, "/", carrier, clock, counters), carrier, counters


def test_queue_keeps_order_and_counts_bytes():
    queue = DatagramQueue(Counters())
    queue.extend([b"a", b"bb"], now=0)
    queue.extend([b"ccc"], now=1)
    assert queue.bytes == 6
    assert [queue.pop(), queue.pop(), queue.pop()] == [b"a", b"bb", b"ccc"]
    assert queue.bytes == 0


def test_over_the_bound_the_oldest_go_first_and_are_counted():
    counters = Counters()
    queue = DatagramQueue(counters)
    datagrams = [n.to_bytes(4, "big") + bytes(1020) for n in range(300)]
    queue.extend(datagrams, now=0)
    kept = QUEUE_BYTES // 1024
    assert queue.bytes <= QUEUE_BYTES
    assert queue.take_all() == datagrams[-kept:]
    assert counters["session.drop.queue_full"] == 300 - kept
    assert queue.bytes == 0


def test_producers_fill_what_the_path_delivers_in_ten_milliseconds():
    queue = DatagramQueue(Counters())
    assert queue.room == MOST_ROOM
    for rate, room in ((5e6, 50_000), (1e5, LEAST_ROOM), (1e12, MOST_ROOM)):
        queue.fit_room(rate)
        assert queue.room == room


@pytest.mark.parametrize("rate", [3_000, 8_000, 16_000, 30_000, 90_000])
def test_on_slow_paths_nothing_waits_until_it_is_worth_nothing(rate):
    queue = DatagramQueue(Counters())
    queue.fit_room(rate)
    assert queue.room == max(2 * 1522, rate // 4)
    assert queue.room / rate <= max(QUEUE_SECONDS / 4, 2 * 1522 / rate)


def test_a_session_is_writable_when_half_of_its_room_is_free():
    port, _, _ = session()
    port.queue.fit_room(5e6)
    port.send([bytes(1000)] * 25)
    assert (port.room, port.writable) == (50_000, False)
    port.queue.pop()
    assert port.writable


def test_what_waited_too_long_is_dropped_counted_and_told():
    counters = Counters()
    queue = DatagramQueue(counters)
    queue.extend([b"old", b"older"], now=10)
    queue.extend([b"new"], now=10 + QUEUE_SECONDS)
    assert queue.drop_stale(10 + QUEUE_SECONDS) == []
    assert len(queue) == 3
    assert queue.drop_stale(10.001 + QUEUE_SECONDS) == [(b"old", 10), (b"older", 10)]
    assert queue.take_all() == [b"new"]
    assert counters["session.drop.stale"] == 2


def test_session_sends_through_its_carrier():
    port, carrier, _ = session()
    port.send([b"x", b"y"])
    assert carrier.flushes == 1
    assert port.queued_bytes == 2
    assert (port.id, port.remote, port.datagram_limit, port.last_heard) == (7, "192.0.2.1:4000", 1160, 5.0)
    port.close(3, "enough")
    assert carrier.closed == [(3, "enough")]


def test_a_reason_that_utf8_cannot_say_closes_all_the_same():
    port, carrier, _ = session()
    port.close(3, "tired\udcff")
    assert carrier.closed == [(3, "tired?")]


def test_session_says_when_a_producer_should_wait():
    port, _, _ = session()
    assert port.writable
    port.send([bytes(1000)] * (MOST_ROOM // 2000 + 1))
    assert not port.writable
    port.queue.take_all()
    assert port.writable


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("192.0.2.1", 4433), "192.0.2.1:4433"),
        (("::ffff:192.0.2.1", 4433, 0, 0), "192.0.2.1:4433"),
        (("2001:db8::1", 4433, 0, 0), "[2001:db8::1]:4433"),
        (("?", 0), "?:0"),
    ],
)
def test_addresses_are_written_as_in_urls(address, text):
    assert remote_text(address) == text
