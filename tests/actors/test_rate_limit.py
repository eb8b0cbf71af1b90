"""Bits and packets per second of a session: who slows down, who loses, and that nobody waits for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lan_parts import GATEWAY_MAC, Box, FakeSession, mac

from actors.lan.peer import PeerActor
from actors.line import TURN_BYTES, Line, LineWritable
from actors.messages import DatagramsFromClient, FramesFromPeer, FramesToPeer, SettingsChanged
from actors.port_policy import usual_policy
from actors.rate_limit import BURST, MIN_BURST_BYTES, MIN_BURST_PACKETS, RateLimit
from actors.runtime import run_ready
from actors.settings import LanSettings


def frame(size, source=b"\2" * 6, ethertype=b"\x88\xb5"):
    return mac(1) + source + ethertype + bytes(size - 14)


def tcp_frame(size, version=4):
    if version == 4:
        return mac(1) + GATEWAY_MAC + b"\x08\x00" + bytes(9) + b"\6" + bytes(size - 24)
    return mac(1) + GATEWAY_MAC + b"\x86\xdd" + bytes(6) + b"\6" + bytes(size - 21)


def passed(limit, seconds, frames_per_ms, size):
    """Bytes and frames that pass in so many seconds, when these are offered every millisecond."""
    count = sum(
        len(limit.take([frame(size)] * frames_per_ms, ms / 1000)) for ms in range(int(seconds * 1000))
    )
    return count * size, count


@pytest.mark.parametrize("bits", [1_000_000, 50_000_000])
def test_bits_pass_at_the_rate_after_a_burst(bits):
    volume, _ = passed(RateLimit(bits, 0, 0.0), 10, 10, 1000)
    burst = max(bits / 8 * BURST, MIN_BURST_BYTES)
    assert volume == pytest.approx(bits / 8 * 10 + burst, rel=0.01)


@pytest.mark.parametrize("packets", [100, 5000])
def test_packets_pass_at_the_rate_after_a_burst(packets):
    _, count = passed(RateLimit(0, packets, 0.0), 10, 10, 60)
    assert count == pytest.approx(packets * 10 + max(packets * BURST, MIN_BURST_PACKETS), abs=10)


def test_the_stricter_of_both_holds():
    limit = RateLimit(8_000_000, 100, 0.0)
    assert passed(limit, 10, 10, 60)[1] < 1100
    assert passed(RateLimit(80_000, 100_000, 0.0), 10, 10, 1000)[0] < 10_000 * 10 + MIN_BURST_BYTES + 2000


def test_what_passes_keeps_its_order_and_a_small_frame_may_pass_a_large_one():
    limit = RateLimit(8_000, 0, 0.0)
    limit.take([frame(MIN_BURST_BYTES - 1000)], 0.0)
    first, large, second = frame(400), frame(900), frame(500)
    assert limit.take([first, large, second], 0.0) == [first, second]


@pytest.mark.parametrize("version", [4, 6])
def test_segments_of_the_gateway_pass_and_are_owed(version):
    limit = RateLimit(80_000, 0, 0.0)
    limit.take([frame(MIN_BURST_BYTES)], 0.0)
    segment, other = tcp_frame(1000, version), frame(1000)
    assert limit.take([segment, other, segment], 0.0, GATEWAY_MAC) == [segment, segment]
    assert limit.room(0.0) == 0
    assert limit.seconds_until(500, 0.0) == pytest.approx(0.25)
    assert limit.take([other], 0.2, GATEWAY_MAC) == []
    assert limit.take([other], 0.31, GATEWAY_MAC) == [other]


@pytest.mark.parametrize("rates", [(8_000_000, 0), (0, 1000)], ids=["bits", "packets"])
def test_who_asks_first_has_half_at_least_beside_a_flood_of_others(rates):
    """And all of it without one; what is kept for nobody is for others."""
    limit = RateLimit(rates[0], rates[1], 0.0)
    segment, others, seconds = tcp_frame(1000), [frame(1000)] * 5, 10

    def passing(now, *, flood):
        datagrams = segments = 0
        for ms in range(seconds * 1000):
            at = now + ms / 1000
            if flood:
                datagrams += len(limit.take(others, at, GATEWAY_MAC))
            while limit.is_awaited and limit.room(at) >= 1000:
                segments += len(limit.take([segment], at, GATEWAY_MAC))
        return datagrams, segments

    passing(0.0, flood=True)
    assert passing(10.0, flood=True) == (pytest.approx(1000 * seconds, abs=2), 0)
    limit.is_awaited = True
    datagrams, segments = passing(20.0, flood=True)
    assert 490 * seconds < segments < 750 * seconds
    assert datagrams + segments == pytest.approx(1000 * seconds, rel=0.02)
    assert passing(30.0, flood=False) == (0, pytest.approx(1000 * seconds, rel=0.02))
    limit.is_awaited = False
    assert passing(40.0, flood=True) == (pytest.approx(1000 * seconds, rel=0.02), 0)


def test_what_was_kept_is_for_others_once_nobody_waits():
    limit = RateLimit(8_000_000, 0, 0.0)
    limit.is_awaited = True
    assert len(limit.take([frame(1000)] * 200, 0.0)) == 100
    assert len(limit.take([frame(1000)] * 200, 0.125)) == 75
    limit.is_awaited = False
    assert len(limit.take([frame(1000)] * 200, 0.126)) == 51


def from_guest(number, size=1000):
    return tcp_frame(size).replace(GATEWAY_MAC, mac(number))


def test_segments_of_guests_wait_where_frames_of_others_are_dropped():
    limit = RateLimit(80_000, 0, 0.0)
    limit.take([frame(MIN_BURST_BYTES)], 0.0)
    segment = from_guest(2)
    assert limit.take([segment, frame(1000)], 0.0, GATEWAY_MAC) == []
    assert (limit.dropped, limit.queue_full) == (1, 0)
    assert 0 < limit.wake_at(0.0) <= 0.2
    assert limit.release(0.05) == []
    assert limit.release(0.21) == [segment]
    assert limit.wake_at(0.21) == float("inf")


@pytest.mark.parametrize("rates", [(8_000_000, 0), (0, 1000)], ids=["bits", "packets"])
def test_senders_share_the_rate_and_are_not_shut_out_by_a_flood_of_others(rates):
    limit = RateLimit(rates[0], rates[1], 0.0)
    greedy, modest, others = [from_guest(2)] * 6, [from_guest(3)], [frame(1000)] * 5
    seconds = 3

    def passing(now, offered):
        counts = dict.fromkeys((greedy[0], modest[0], others[0]), 0)
        for ms in range(seconds * 1000):
            for passed in limit.take(offered, now + ms / 1000, GATEWAY_MAC):
                counts[passed] += 1
        return counts.values()

    passing(0.0, greedy)
    first, second, _ = passing(1.0 * seconds, greedy + modest)
    assert first + second == pytest.approx(1000 * seconds, rel=0.01)
    assert second == pytest.approx(first, rel=0.05)
    first, second, flood = passing(2.0 * seconds, others + greedy + modest)
    assert first + second + flood == pytest.approx(1000 * seconds, rel=0.02)
    assert first + second > 450 * seconds
    assert flood > 300 * seconds
    first, second, flood = passing(3.0 * seconds, others)
    assert first + second + flood == pytest.approx(1000 * seconds, rel=0.03)
    assert first + second < 300, "what waited still"


def test_what_is_held_leaves_room_for_who_asked_first():
    limit = RateLimit(8_000_000, 0, 0.0)
    limit.is_awaited = True
    asked, held, seconds = tcp_frame(1000), [from_guest(2)] * 5, 3
    counts = {asked: 0, held[0]: 0}
    for ms in range(seconds * 1000):
        at = ms / 1000
        passed = [*limit.take(held, at, GATEWAY_MAC)]
        while limit.room(at) >= 12_000:
            passed += limit.take([asked] * 12, at, GATEWAY_MAC)
        for one in passed:
            counts[one] += 1
    assert counts[asked] > 480 * seconds
    assert counts[held[0]] > 240 * seconds
    assert sum(counts.values()) == pytest.approx(1000 * seconds + 100, rel=0.03)


# -- at a session -------------------------------------------------------------------------------------


@pytest.fixture
def peer(loop, counters):
    """A session of 80 kbit/s, its switch, and the actor."""
    session, switch = FakeSession(path="/raw"), Box()
    ref = PeerActor.start(session, switch, counters, LanSettings(bits_per_second=80_000))
    run_ready()
    yield session, switch, ref
    ref.stop(block=False)
    run_ready()


def segment():
    """1000 bytes of TCP to another guest."""
    return (mac(2) + mac(1) + b"\x08\x00" + bytes(9) + b"\6").ljust(1000, b"\0")


def test_tcp_to_another_guest_is_held_back_and_leaves_though_nothing_more_comes(peer, counters, loop):
    _, switch, ref = peer
    ref.tell(DatagramsFromClient([segment()] * 60))
    run_ready()
    before = sum(len(message.frames) for message in switch.take(FramesFromPeer))
    assert before == 32, "half a burst"
    loop.advance(1.0)
    assert sum(len(message.frames) for message in switch.take(FramesFromPeer)) in (9, 10, 11)
    loop.advance(3.0)
    assert sum(len(message.frames) for message in switch.take(FramesFromPeer)) in (17, 18, 19)
    assert counters.total("peer.drop") == 0


def test_of_tcp_that_is_held_back_what_is_too_much_is_counted_and_so_is_what_is_left_at_the_end(
    peer, counters, loop
):
    _, switch, ref = peer
    ref.tell(DatagramsFromClient([segment()] * 200))
    run_ready()
    passed = sum(len(message.frames) for message in switch.take(FramesFromPeer))
    full = counters["peer.drop.rate_queue_full"]
    assert full == 200 - passed - 65
    ref.stop(block=False)
    run_ready()
    assert counters["peer.frames_from_client"] == passed + full + counters["peer.drop.closed"] == 200


def test_both_directions_are_limited_and_what_is_dropped_is_counted(peer, counters, loop):
    session, switch, ref = peer
    offered = [frame(1000)] * 200
    ref.tell(DatagramsFromClient(offered))
    run_ready()
    (message,) = switch.take(FramesFromPeer)
    assert len(message.frames) == 65
    assert counters["peer.drop.rate_from_client"] == 135
    ref.tell(FramesToPeer(offered))
    run_ready()
    assert len(session.take()) == 65
    assert counters["peer.drop.rate_to_client"] == 135
    loop.advance(0.5)
    ref.tell(FramesToPeer(offered))
    run_ready()
    assert len(session.take()) == 5


def test_tcp_of_another_guest_is_held_back_and_is_sent_though_nothing_more_comes(peer, counters, loop):
    session, _, ref = peer
    ref.tell(DatagramsFromClient([frame(100)]))
    ref.tell(FramesToPeer([from_guest(2)] * 90))
    run_ready()
    before = len(session.take())
    assert before == 65
    loop.advance(1.0)
    assert 4 <= len(session.take()) <= 6, "half, the other is kept for frames of others until there is enough"
    loop.advance(10.0)
    assert session.take()
    assert counters["peer.frames_to_client"] == 90
    assert counters.total("peer.drop") == 0


def test_what_is_still_held_back_at_the_end_is_counted(peer, counters):
    session, _, ref = peer
    ref.tell(DatagramsFromClient([frame(100)]))
    ref.tell(FramesToPeer([from_guest(2)] * 200))
    run_ready()
    sent = len(session.take())
    full = counters["peer.drop.rate_queue_full"]
    ref.stop(block=False)
    run_ready()
    assert full > 0
    assert sent + full + counters["peer.drop.closed"] == 200


def test_what_was_held_back_is_sent_when_the_limit_ends(peer, counters):
    session, _, ref = peer
    ref.tell(DatagramsFromClient([frame(100)]))
    ref.tell(FramesToPeer([from_guest(2)] * 90))
    run_ready()
    sent = len(session.take())
    ref.tell(SettingsChanged(LanSettings()))
    run_ready()
    assert len(session.take()) == 90 - sent


class Flow:
    def __init__(self):
        self.turns = []

    def tell(self, message):
        assert type(message) is LineWritable
        self.turns.append(message.room)


def test_a_flow_that_waits_for_the_rate_is_woken_by_time(loop):
    limit = RateLimit(800_000, 0, loop.time())
    line, flow = Line(FakeSession(), limit), Flow()
    assert line.room == MIN_BURST_BYTES
    limit.take([frame(MIN_BURST_BYTES)], loop.time())
    assert line.room == 0
    line.wait(flow)
    loop.run()
    assert flow.turns == []
    assert limit.is_awaited
    loop.advance(TURN_BYTES / 100_000 - 0.01)
    assert flow.turns == []
    loop.advance(0.02)
    assert flow.turns == [pytest.approx(TURN_BYTES, abs=200)]
    assert not limit.is_awaited
    line.wait(flow)
    line.leave(flow)
    assert not limit.is_awaited


def test_a_flow_that_waits_for_packets_is_woken_by_time(loop):
    limit = RateLimit(0, 10, loop.time())
    line, flow = Line(FakeSession(), limit), Flow()
    limit.take([frame(60)] * MIN_BURST_PACKETS, loop.time())
    line.wait(flow)
    loop.advance(0.05)
    assert flow.turns == []
    loop.advance(0.06)
    assert len(flow.turns) == 1


@pytest.mark.parametrize(("bits", "packets"), [(800_000_000, 0), (0, 0)])
def test_who_waits_for_a_rate_is_woken_at_once_by_a_higher_one(loop, bits, packets):
    limit = RateLimit(8, 0, loop.time())
    line, flow = Line(FakeSession(), limit), Flow()
    limit.take([frame(MIN_BURST_BYTES)], loop.time())
    line.wait(flow)
    loop.advance(1)
    assert flow.turns == []
    if bits:
        limit.change(bits, packets, loop.time())
        line.change_limits(limit, None)
    else:
        line.change_limits(None, None)
    loop.advance(0.01)
    assert len(flow.turns) == 1


@pytest.mark.parametrize(("bits", "packets"), [(1_000_000, 0), (0, 100), (80_000, 5000)])
def test_a_limit_that_was_changed_holds_as_one_that_began_so(bits, packets):
    limit = RateLimit(50_000_000, 5000, 0.0)
    limit.take([frame(1000)], 0.0)
    limit.change(bits, packets, 0.0)
    assert passed(limit, 10, 10, 1000) == pytest.approx(
        passed(RateLimit(bits, packets, 0.0), 10, 10, 1000), abs=3000
    )


@pytest.mark.parametrize(("rate", "passes"), [(80_000, 65), (0, 200), (800_000_000, 200)])
@pytest.mark.parametrize("before", [0, 8_000, 8_000_000_000])
def test_a_sessions_rate_changes_both_ways_while_it_stands(loop, counters, before, rate, passes):
    session, switch = FakeSession(path="/raw"), Box()
    ref = PeerActor.start(session, switch, counters, LanSettings(bits_per_second=before))
    ref.tell(SettingsChanged(LanSettings(bits_per_second=rate)))
    run_ready()
    loop.advance(10)
    offered = [frame(1000)] * 200
    ref.tell(DatagramsFromClient(offered))
    ref.tell(FramesToPeer(offered))
    run_ready()
    (message,) = switch.take(FramesFromPeer)
    assert (len(message.frames), len(session.take())) == (passes, passes)
    ref.stop(block=False)
    run_ready()


def test_a_session_with_a_policy_of_its_own_keeps_its_rate(loop, counters):
    session, switch = FakeSession(path="/raw"), Box()
    policy = replace(usual_policy(LanSettings(bits_per_second=80_000)), own=frozenset({"bits_per_second"}))
    ref = PeerActor.start(session, switch, counters, LanSettings(), policy=policy)
    ref.tell(SettingsChanged(LanSettings(bits_per_second=1)))
    ref.tell(FramesToPeer([frame(1000)] * 200))
    ref.tell(DatagramsFromClient([frame(1000)] * 200))
    run_ready()
    (message,) = switch.take(FramesFromPeer)
    assert len(message.frames) == 65
    ref.stop(block=False)
    run_ready()


def test_a_session_whose_policy_says_nothing_of_rates_changes_its_rate_with_the_others(loop, counters):
    session, switch = FakeSession(path="/raw"), Box()
    policy = replace(usual_policy(LanSettings()), max_macs=1, own=frozenset({"max_macs"}))
    ref = PeerActor.start(session, switch, counters, LanSettings(), policy=policy)
    for rate in (1, 80_000):
        ref.tell(SettingsChanged(LanSettings(bits_per_second=rate)))
    ref.tell(DatagramsFromClient([frame(1000)] * 200))
    run_ready()
    (message,) = switch.take(FramesFromPeer)
    assert len(message.frames) == 65
    ref.stop(block=False)
    run_ready()
