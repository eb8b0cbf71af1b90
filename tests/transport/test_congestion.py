"""aioquic's own controllers behind what the datagram path asks."""

from __future__ import annotations

import pytest
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.congestion.reno import RenoCongestionControl
from simulated_path import PACKET, Clock, Link, Sender

from transport.quic.bbr import Bbr
from transport.quic.congestion import MOST_IN_FLIGHT, PACING, SLOW_START_PACING, congestion_of
from transport.quic.ledger import SentPacket
from transport.quic.pacing import UNLIMITED

MBIT = 1e6 / 8


@pytest.fixture(params=[RenoCongestionControl, CubicCongestionControl])
def controller(request):
    return request.param(max_datagram_size=PACKET)


def test_the_window_is_the_controllers(controller):
    congestion = congestion_of(controller)
    assert congestion.window == 10 * PACKET
    flight = congestion.flight(1.0)
    congestion.sent(flight, 2, 3 * PACKET)
    assert controller.bytes_in_flight == 3 * PACKET
    congestion.acknowledged(SentPacket(0, PACKET, 1.0, flight), 1.1)
    congestion.expired(SentPacket(1, PACKET, 1.0, flight))
    congestion.packets_lost([SentPacket(2, PACKET, 1.0, flight)], 1.2)
    assert controller.bytes_in_flight == 0
    assert congestion.window == controller.congestion_window < 10 * PACKET
    congestion.persistent_congestion()
    assert congestion.window == 2 * PACKET


@pytest.mark.parametrize("kind", [RenoCongestionControl, CubicCongestionControl, Bbr])
def test_what_is_on_its_way_is_bounded_whatever_the_window(kind):
    controller = kind(max_datagram_size=PACKET)
    congestion = congestion_of(controller)
    controller.congestion_window = 1 << 40
    assert congestion.window == MOST_IN_FLIGHT
    congestion.sent(congestion.flight(1.0), 0, MOST_IN_FLIGHT)
    assert congestion.window == 0
    congestion.acknowledged(SentPacket(0, PACKET, 1.0), 2.0)
    assert congestion.window == PACKET


def test_packets_are_paced_by_window_and_round_trip(controller):
    congestion = congestion_of(controller)
    congestion.update(1.0)
    assert congestion.pacer.rate == UNLIMITED
    congestion.sample_round_trip(0.1, 1.0)
    congestion.update(1.0)
    assert congestion.pacer.rate == pytest.approx(SLOW_START_PACING * 10 * PACKET / 0.1)
    flight = congestion.flight(1.0)
    congestion.sent(flight, 0, PACKET)
    congestion.packets_lost([SentPacket(0, PACKET, 1.0, flight)], 1.2)
    congestion.update(1.2)
    assert congestion.pacer.rate == pytest.approx(PACING * controller.congestion_window / 0.1)


def test_a_window_grows_only_while_it_is_used(controller):
    clock = Clock()
    link = Link(clock, rate=20 * MBIT, delay=0.02, buffer=0.1 * 20 * MBIT)
    sender = Sender(clock, link, congestion_of(controller), greedy=False)
    for tick in range(1000):
        clock.at(tick * 0.05, sender.offer, 2)
    clock.run(50)
    assert controller.congestion_window == 10 * PACKET
    sender.greedy = True
    clock.at(clock.now, sender.offer, 0)
    clock.run(58)
    assert sender.rate(53, 58) > 0.9 * 20 * MBIT


def test_a_path_is_filled(controller):
    clock = Clock()
    link = Link(clock, rate=20 * MBIT, delay=0.02, buffer=0.1 * 20 * MBIT)
    sender = Sender(clock, link, congestion_of(controller))
    clock.run(8)
    assert sender.rate(3, 8) > 0.9 * 20 * MBIT
