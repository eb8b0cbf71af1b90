from __future__ import annotations

import pytest
from lan_parts import GATEWAY_MAC, mac

from actors.rate_limit import BURST, MIN_BURST_BYTES
from actors.upload_limit import (
    HELD_SECONDS,
    LEAST_OWED_BYTES,
    LEAST_OWED_PACKETS,
    MOST_HELD,
    QUEUE_FULL,
    UploadLimit,
)

RATE = 1_000_000
"""Bytes per second."""

HEADERS = {4: b"\x08\x00" + bytes(9) + b"\6", 6: b"\x86\xdd" + bytes(6) + b"\6"}


def tcp(size=1000, version=4, destination=GATEWAY_MAC):
    return (destination + mac(1) + HEADERS[version]).ljust(size, b"\0")


def other(size=1000):
    return (GATEWAY_MAC + mac(1) + b"\x08\x00" + bytes(9) + b"\x11").ljust(size, b"\0")


def offer(limit, seconds, per_ms, *, owed=0):
    """Offer datagrams every millisecond, and segments so that ``owed`` bytes stay owed; bytes that passed."""
    datagrams = segments = 0
    for ms in range(int(seconds * 1000)):
        now = ms / 1000
        datagrams += sum(map(len, limit.take([other()] * per_ms, now, GATEWAY_MAC)))
        while limit.owed(now) < owed:
            segments += len(limit.take([tcp()], now, GATEWAY_MAC)[0])
    return datagrams, segments


@pytest.mark.parametrize("tags", [b"", b"\x81\0\xe0\0"], ids=["untagged", "priority tag"])
@pytest.mark.parametrize("version", [4, 6])
def test_segments_to_the_gateway_pass_and_are_paid_for_at_the_rate(version, tags):
    limit = UploadLimit(8 * RATE, 0, 0.0)
    segment = tcp(1000 - len(tags), version)
    frames = [segment[:12] + tags + segment[12:]] * 300
    assert limit.take(frames, 0.0, GATEWAY_MAC) == frames
    limit.owed(0.1)
    before = limit.owed(0.15)
    assert before - limit.owed(0.2) == pytest.approx(0.05 * RATE, rel=0.01)
    assert limit.owed(1.0) == 0


def test_a_little_is_paid_for_at_once():
    limit = UploadLimit(8 * RATE, 0, 0.0)
    for ms in range(1000):
        limit.take([tcp(100)], ms / 1000, GATEWAY_MAC)
        assert limit.owed(ms / 1000) == 0


def to_guest(number=0, size=1000, version=4):
    return tcp(size - 2, version, destination=mac(2)) + number.to_bytes(2, "big")


@pytest.mark.parametrize("version", [4, 6])
def test_segments_to_guests_wait_and_leave_in_order_at_the_rate(version):
    limit = UploadLimit(8 * RATE, 0, 0.0)
    offered = [to_guest(number, version=version) for number in range(120)]
    left = limit.take(offered, 0.0, GATEWAY_MAC)
    assert len(left) == 50, "half a burst at once"
    assert limit.dropped == {}
    now = 0.0
    while limit.wake_at(now) < float("inf"):
        now = limit.wake_at(now)
        left += limit.release(now)
    assert left == offered
    assert now == pytest.approx(70_000 / RATE, rel=0.3)


def test_what_waits_is_bounded_in_bytes_and_number():
    limit = UploadLimit(8 * RATE, 0, 0.0)
    assert len(limit.take([to_guest()] * 1000, 0.0, GATEWAY_MAC)) == 50
    assert limit.dropped == {QUEUE_FULL: 1000 - 50 - int(HELD_SECONDS * RATE / 1000)}
    assert len(limit.give_up()) == HELD_SECONDS * RATE / 1000
    limit = UploadLimit(800 * RATE, 10, 0.0)
    limit.take([to_guest(size=60)] * 2000, 0.0, GATEWAY_MAC)
    assert len(limit.give_up()) == MOST_HELD


def test_beside_segments_that_wait_others_pass_and_a_flood_of_them_leaves_a_share():
    limit = UploadLimit(8 * RATE, 0, 0.0)
    for ms in range(1000):
        limit.take([to_guest()] * 2, ms / 1000, GATEWAY_MAC)
        if ms % 20 == 0:
            assert other(100) in limit.take([other(100)], ms / 1000, GATEWAY_MAC)
    waited = flooded = 0
    for ms in range(1000, 2000):
        passing = limit.take([to_guest()] * 2 + [other()] * 3, ms / 1000, GATEWAY_MAC)
        waited += sum(map(len, (frame for frame in passing if frame[:6] == mac(2))))
        flooded += sum(map(len, (frame for frame in passing if frame[:6] != mac(2))))
    assert waited + flooded == pytest.approx(RATE, rel=0.15)
    assert min(waited, flooded) > 0.4 * RATE


def test_segments_to_guests_and_to_the_gateway_each_get_a_share():
    limit = UploadLimit(8 * RATE, 0, 0.0)
    waited = 0
    paid = 0.0
    for ms in range(2000):
        now = ms / 1000
        waited += sum(map(len, limit.take([to_guest()] * 2, now, GATEWAY_MAC)))
        before = limit.owed(now)
        limit.take([tcp()] * 2 if before < 100_000 else [], now, GATEWAY_MAC)
        paid += limit.owed(now) - before
    assert waited > 0.2 * 2 * RATE
    assert paid > 0.2 * 2 * RATE


def test_others_have_the_rate_after_a_burst():
    assert offer(UploadLimit(8 * RATE, 0, 0.0), 10, 10)[0] == pytest.approx(10.1 * RATE, rel=0.01)


def test_segments_have_the_rate_where_there_are_no_others():
    assert offer(UploadLimit(8 * RATE, 0, 0.0), 10, 0, owed=50_000)[1] == pytest.approx(10.1 * RATE, rel=0.02)


def test_segments_and_a_flood_of_others_have_half_each():
    datagrams, segments = offer(UploadLimit(8 * RATE, 0, 0.0), 10, 10, owed=50_000)
    assert segments == pytest.approx(5 * RATE, rel=0.05)
    assert datagrams + segments == pytest.approx(10.1 * RATE, rel=0.02)


def test_a_few_others_lose_nothing_beside_segments():
    datagrams, segments = offer(UploadLimit(80 * RATE, 0, 0.0), 2, 1, owed=100_000)
    assert datagrams == 2 * RATE
    assert segments == pytest.approx(18 * RATE + 0.5 * RATE, rel=0.02)


@pytest.mark.parametrize("rate", [RATE // 10, RATE])
def test_no_more_than_so_much_is_owed(rate):
    limit = UploadLimit(8 * rate, 0, 0.0)
    passed = sum(len(limit.take([tcp()] * 100, 0.0, GATEWAY_MAC)) for _ in range(100)) * 1000
    paid = max(rate * BURST, MIN_BURST_BYTES) / 2
    assert passed == pytest.approx(max(LEAST_OWED_BYTES, rate) + paid, abs=1000)
    assert limit.take([tcp()], 0.0, GATEWAY_MAC) == []
    assert limit.take([tcp()], 0.1, GATEWAY_MAC) == [tcp()]


def test_packets_are_owed_too():
    """In bytes: as many as segments of that size have."""
    limit = UploadLimit(0, 100, 0.0)
    for _ in range(100):
        limit.take([tcp(500)] * 10, 0.0, GATEWAY_MAC)
    assert limit.owed(0.0) == pytest.approx(LEAST_OWED_PACKETS * 500, rel=0.1)
    assert limit.rate == pytest.approx(100 * 500, rel=0.1)
    assert limit.owed(0.5) > limit.owed(1.0)
    assert limit.owed(10.0) == 0


def test_frames_larger_than_what_there_is_wait_for_no_one():
    limit = UploadLimit(8000, 0, 0.0)
    first, large, small = other(MIN_BURST_BYTES - 500), other(900), other(400)
    assert limit.take([first, large, small], 0.0, GATEWAY_MAC) == [first, small]


def test_a_limit_that_was_changed_holds_as_one_that_began_so():
    limit = UploadLimit(80 * RATE, 0, 0.0)
    limit.take([tcp()] * 10, 0.0, GATEWAY_MAC)
    limit.change(8 * RATE, 0, 0.0)
    assert limit.rate == RATE
    datagrams, _ = offer(limit, 10, 2)
    assert datagrams == pytest.approx(10 * RATE, rel=0.05)


def test_no_more_is_owed_than_the_new_rate_allows():
    limit = UploadLimit(80 * RATE, 0, 0.0)
    limit.take([tcp()] * 5000, 0.0, GATEWAY_MAC)
    limit.change(8 * RATE, 0, 0.0)
    assert limit.owed(0.0) <= RATE
