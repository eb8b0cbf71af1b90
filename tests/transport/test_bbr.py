"""BBR over simulated paths: what it makes of their rate, their buffer, their losses and of other flows."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from simulated_path import PACKET, Clock, Link, Sender

from transport.quic.bbr import BBR, MINIMUM_PACKETS, PROBE_RTT, SHORT_PATH_WINDOW, Bbr
from transport.quic.congestion import WindowCongestion, congestion_of

MBIT = 1e6 / 8


def bbr(seed=1):
    return Bbr(max_datagram_size=PACKET, chance=random.Random(seed).random)


class KernelCubic(WindowCongestion):
    """aioquic's CUBIC told of each packet, and not paced: nearer to a kernel's."""

    def __init__(self):
        super().__init__(CubicCongestionControl(max_datagram_size=PACKET))

    def acknowledged(self, newest, now):
        for _ in range(newest.sent_bytes // PACKET):
            super().acknowledged(newest._replace(sent_bytes=PACKET), now)

    def update(self, _now):
        pass


def path(*, rate, rtt, buffer, loss=0.0, jitter=0.0):
    """A clock and a link of ``rate`` Mbit/s and a buffer of so many seconds."""
    clock, size = Clock(), buffer * rate * MBIT
    return clock, Link(clock, rate=rate * MBIT, delay=rtt / 2, buffer=size, loss=loss, jitter=jitter, seed=3)


# -- alone on a path -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lateness", [0.0, 0.008], ids=["", "late timers"])
@pytest.mark.parametrize(
    ("rate", "rtt", "buffer"),
    [(100, 0.05, 0.1), (20, 0.05, 0.3), (20, 0.05, 0.01), (40, 0.2, 0.2), (5, 0.01, 0.05), (50, 0.001, 0.05)],
)
def test_the_path_is_filled(rate, rtt, buffer, lateness):
    clock, link = path(rate=rate, rtt=rtt, buffer=buffer)
    sender = Sender(clock, link, bbr(), lateness=lateness)
    clock.run(8)
    assert sender.rate(3, 8) > 0.95 * rate * MBIT


@pytest.mark.parametrize("rtt", [0.02, 0.05])
@pytest.mark.parametrize("rate", [5, 10, 20])
def test_a_large_buffer_is_not_filled(rate, rtt):
    clock, link = path(rate=rate, rtt=rtt, buffer=0.3)
    Sender(clock, link, bbr())
    clock.run(15)
    assert link.queueing_percentile(0.5, since=2) < 0.01
    assert link.queueing_percentile(0.95, since=2) < 0.035
    assert link.dropped == 0


@pytest.mark.no_cover
@pytest.mark.parametrize(("rate", "buffer"), [(20, 0.3), (5, 0.3), (100, 0.1)])
def test_a_rate_that_is_measured_too_high_fills_no_buffer(rate, buffer):
    clock, link = path(rate=rate, rtt=0.05, buffer=buffer)
    sender = Sender(clock, link, bbr(), unevenness=0.004)
    clock.run(20)
    assert sender.rate(4, 20) > 0.97 * rate * MBIT
    assert link.queueing_percentile(0.5, since=4) < 0.02
    assert link.queueing_percentile(0.95, since=4) < 0.05


@pytest.mark.parametrize(
    ("rate", "rtt", "loss", "reached"),
    [(40, 0.05, 0.001, 0.85), (40, 0.05, 0.01, 0.7), (40, 0.02, 0.02, 0.7), (100, 0.02, 0.02, 0.6)],
)
def test_losses_by_chance_do_not_slow_it_down(rate, rtt, loss, reached):
    clock, link = path(rate=rate, rtt=rtt, buffer=0.1, loss=loss)
    sender = Sender(clock, link, bbr())
    clock.run(10)
    assert sender.rate(2, 10) > reached * rate * MBIT


def test_a_shallow_buffer_is_not_overrun_for_long():
    clock, link = path(rate=20, rtt=0.05, buffer=0.005)
    sender = Sender(clock, link, bbr())
    clock.run(20)
    assert sender.rate(3, 20) > 0.9 * 20 * MBIT
    # STARTUP finds the buffer by overrunning it, and each trial again by a little.
    assert link.dropped < 0.02 * len(sender.receiver.arrivals)


@pytest.mark.no_cover
def test_a_path_that_becomes_slower_and_faster_again_is_followed():
    clock, link = path(rate=40, rtt=0.04, buffer=0.1)
    sender = Sender(clock, link, bbr())
    clock.run(5)
    link.rate, link.buffer = 10 * MBIT, 0.1 * 10 * MBIT
    clock.run(15)
    assert sender.rate(10, 15) > 0.9 * 10 * MBIT
    assert link.queueing_percentile(0.5, since=12) < 0.04
    link.rate, link.buffer = 40 * MBIT, 0.1 * 40 * MBIT
    clock.run(35)
    assert sender.rate(30, 35) > 0.9 * 40 * MBIT


@pytest.mark.parametrize(
    ("rate", "rtt", "jitter", "loss"),
    [(10, 0.05, 0.005, 0.0), (20, 0.05, 0.02, 0.0), (20, 0.02, 0.01, 0.01), (5, 0.3, 0.1, 0.0)],
)
def test_packets_that_overtake_each_other_do_not_slow_it_down(rate, rtt, jitter, loss):
    clock, link = path(rate=rate, rtt=rtt, buffer=0.2, jitter=jitter, loss=loss)
    sender = Sender(clock, link, bbr())
    clock.run(8)
    lost = sender.lost
    clock.run(12)
    assert sender.rate(8, 12) > (0.65 if loss else 0.85) * rate * MBIT
    # What is only late is taken for lost while the path is new, and no more.
    assert sender.lost - lost < (loss + 0.005) * (12 - 8) * rate * MBIT / PACKET


def test_it_goes_on_after_an_outage():
    clock, link = path(rate=20, rtt=0.05, buffer=0.1)
    sender = Sender(clock, link, bbr())
    clock.run(4)
    link.loss = 1.0
    clock.run(7)
    assert sender.congestion.bytes_in_flight < 2 * 0.06 * 20 * MBIT
    link.loss = 0.0
    clock.run(12)
    assert sender.rate(9, 12) > 0.9 * 20 * MBIT


@pytest.mark.no_cover
def test_on_a_short_path_late_acknowledgements_do_not_stop_the_flow():
    clock, link = path(rate=40, rtt=0.001, buffer=0.3)
    sender = Sender(clock, link, bbr())
    clock.run(1)
    for tick in range(150):
        clock.run(1 + tick * 0.1)
        assert sender.congestion.congestion_window >= SHORT_PATH_WINDOW
    assert sender.rate(2, 15) > 0.95 * 40 * MBIT
    assert link.queueing_percentile(0.5, since=2) < 0.005


# -- when there is little to send ----------------------------------------------------------------------


def test_a_time_with_little_to_send_says_nothing_about_the_path():
    clock, link = path(rate=40, rtt=0.05, buffer=0.1)
    sender = Sender(clock, link, bbr())
    clock.run(4)
    sender.greedy = False
    for tick in range(400):  # for 20 s 20 packets a second
        clock.run(4 + tick * 0.05)
        sender.offer(1)
    sender.greedy = True
    sender.offer(0)
    clock.run(26)
    assert sender.rate(24.3, 25.3) > 0.9 * 40 * MBIT


def test_who_never_had_much_to_send_is_not_held_back_when_it_has():
    clock, link = path(rate=40, rtt=0.05, buffer=0.1)
    sender = Sender(clock, link, bbr(), greedy=False)
    for tick in range(200):
        clock.run(tick * 0.05)
        sender.offer(1)
    sender.greedy = True
    sender.offer(0)
    clock.run(13)
    assert sender.rate(11, 13) > 0.9 * 40 * MBIT


def test_a_lone_packet_never_waits():
    clock, link = path(rate=5, rtt=0.05, buffer=0.1)
    sender = Sender(clock, link, bbr(), greedy=False)
    for tick in range(1200):
        clock.run(tick * 0.01)
        sender.offer(1)
        assert sender.waiting == 0


def test_a_session_without_a_queue_never_drains_its_path():
    clock, link = path(rate=40, rtt=0.02, buffer=0.1)
    sender = Sender(clock, link, bbr(), greedy=False)
    for tick in range(6000):
        clock.run(tick * 0.005)
        sender.offer(2)
        assert sender.congestion.phase != PROBE_RTT


# -- with others ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rtt", "buffer"), [(0.05, 0.05), (0.05, 0.1), (0.02, 0.04)])
def test_two_flows_come_to_share_the_path(rtt, buffer):
    clock, link = path(rate=20, rtt=rtt, buffer=buffer)
    first = Sender(clock, link, bbr(1))
    second = Sender(clock, link, bbr(7), start=5)
    clock.run(40)
    rates = first.rate(20, 40), second.rate(20, 40)
    assert sum(rates) > 0.95 * 20 * MBIT
    assert max(rates) < 2 * min(rates)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("rtt", "buffer"),
    [(0.05, 0.05), (0.05, 0.1), (0.05, 0.3), (0.03, 0.05), (0.05, 0.025)],
)
def test_a_cubic_flow_gets_its_share(rtt, buffer):
    clock, link = path(rate=20, rtt=rtt, buffer=buffer)
    ours = Sender(clock, link, bbr())
    other = Sender(clock, link, KernelCubic(), seed=2)
    clock.run(45)
    assert 0.5 <= ours.rate(15, 45) / other.rate(15, 45) <= 2


# -- as aioquic's controller ---------------------------------------------------------------------------


@dataclass
class Packet:
    """What aioquic's recovery hands over."""

    packet_number: int
    sent_bytes: int
    sent_time: float


def test_aioquic_makes_it_by_name():
    made = create_congestion_control(BBR, max_datagram_size=PACKET)
    assert isinstance(made, Bbr)
    assert congestion_of(made) is made
    assert made.congestion_window == 10 * PACKET


def test_packets_that_aioquic_sends_are_counted_until_their_fate_is_known():
    congestion = bbr()
    packets = [Packet(number, PACKET, 0.0) for number in range(6)]
    for packet in packets:
        congestion.on_packet_sent(packet=packet)
    assert congestion.bytes_in_flight == 6 * PACKET
    congestion.on_packet_acked(now=0.1, packet=packets[5])
    congestion.on_rtt_measurement(now=0.1, rtt=0.1)
    assert congestion.bytes_in_flight == 5 * PACKET
    assert congestion.min_rtt == pytest.approx(0.1)
    congestion.on_packets_lost(now=0.1, packets=packets[:2])
    congestion.on_packets_expired(packets=packets[2:4])
    congestion.on_packet_acked(now=0.2, packet=packets[4])
    congestion.on_rtt_measurement(now=0.2, rtt=0.2)
    assert congestion.bytes_in_flight == 0
    assert not congestion._flights
    assert congestion.get_log_data()["bbr-phase"] == "startup"


def test_losses_before_any_rate_is_known_do_not_stop_the_flow():
    congestion = bbr()
    packets = [Packet(number, PACKET, 0.0) for number in range(40)]
    for packet in packets:
        congestion.on_packet_sent(packet=packet)
    for number in range(0, 40, 8):
        # Acknowledgements that come as soon as their packets have left: they tell of no rate.
        congestion.on_packets_lost(now=0.0, packets=packets[number : number + 7])
        congestion.on_packet_acked(now=0.0, packet=packets[number + 7])
        congestion.on_rtt_measurement(now=0.0, rtt=0.01)
    assert congestion.get_log_data()["bbr-phase"] != "startup"
    assert congestion.max_rate == 0.0
    assert congestion.pacer.rate > PACKET / 0.01


def test_persistent_congestion_leaves_the_smallest_window_until_something_arrives():
    clock, link = path(rate=20, rtt=0.05, buffer=0.1)
    sender = Sender(clock, link, bbr())
    clock.run(3)
    congestion = sender.congestion
    congestion.on_persistent_congestion()
    assert congestion.congestion_window == MINIMUM_PACKETS * PACKET
    clock.run(5)
    assert sender.rate(4, 5) > 0.9 * 20 * MBIT
