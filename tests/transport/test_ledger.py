from __future__ import annotations

import pytest
from aioquic.quic.rangeset import RangeSet
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from transport.quic.delivery_rate import Flight
from transport.quic.ledger import Ledger, SentPacket
from transport.quic.reordering import MEMORY, PACKET_THRESHOLD, TIME_THRESHOLD

RTT = 0.1


def ledger_of(*sizes, first=0, now=0.0):
    ledger = Ledger()
    ledger.add(first, [bytes(size) for size in sizes], Flight(now))
    return ledger


def kept(ledger):
    """When what is outstanding was sent, and its sizes, by number."""
    return {number: (flight.sent_at, size) for number, (flight, size) in ledger.sent.items()}


def without_flight(packet):
    return packet._replace(flight=None)


def test_sent_packets_are_summed_up():
    ledger = Ledger()
    assert ledger.add(5, [b"ab", b"c"], Flight(1.0)) == 3
    assert kept(ledger) == {5: (1.0, 2), 6: (1.0, 1)}


def test_an_acknowledgement_takes_off_what_it_names():
    ledger = ledger_of(10, 20, 30, 40)
    acknowledged = ledger.acknowledge([(3, 3), (0, 1)])
    assert acknowledged.packets == 3
    assert without_flight(acknowledged.newest) == SentPacket(3, 70, 0.0)
    assert acknowledged.largest_size == 40
    assert acknowledged.is_largest
    assert list(ledger.sent) == [2]


def test_the_same_acknowledgement_twice_is_nothing_new():
    ledger = ledger_of(10, 20)
    assert ledger.acknowledge([(0, 1)]) is not None
    assert ledger.acknowledge([(0, 1)]) is None


def test_a_round_trip_is_sampled_by_the_largest_only():
    ledger = ledger_of(10, 10, 10)
    assert not ledger.acknowledge([(7, 7), (1, 1)]).is_largest


@pytest.mark.parametrize("ranges", [[(0, 1 << 60)], [(1 << 59, 1 << 60), (0, 1 << 40)]])
def test_a_range_of_any_size_costs_only_what_was_sent(ranges):
    ledger = ledger_of(10, 10, 10, first=1 << 30)
    acknowledged = ledger.acknowledge(ranges)
    assert acknowledged is not None
    assert acknowledged.packets == 3


def test_packets_overtaken_by_three_are_lost():
    ledger = ledger_of(*[10] * 6)
    ledger.acknowledge([(3, 3)])
    lost, next_loss = ledger.detect_lost(0.01, RTT)
    assert [packet.packet_number for packet in lost] == [0]
    assert next_loss == pytest.approx(TIME_THRESHOLD * RTT)
    assert list(ledger.sent) == [1, 2, 4, 5]


def test_overtaken_packets_are_lost_after_their_time():
    ledger = ledger_of(10, 10)
    ledger.acknowledge([(1, 1)])
    assert ledger.detect_lost(0.1, RTT) == ([], pytest.approx(TIME_THRESHOLD * RTT))
    lost, next_loss = ledger.detect_lost(0.1126, RTT)
    assert list(map(without_flight, lost)) == [SentPacket(0, 10, 0.0)]
    assert next_loss is None


def test_what_nothing_has_overtaken_is_never_lost():
    ledger = ledger_of(10, 10)
    assert ledger.detect_lost(1e6, RTT) == ([], None)


def test_a_late_acknowledgement_of_a_lost_packet_acknowledges_nothing():
    ledger = ledger_of(10, 10, 10, 10)
    ledger.acknowledge([(3, 3)])
    ledger.detect_lost(0.0, RTT)
    assert ledger.acknowledge([(0, 0)]) is None


@pytest.mark.parametrize("late", [1, 0], ids=["", "taken for lost"])
def test_what_came_late_tells_how_long_to_wait(late):
    ledger = ledger_of(*[10] * 4, now=1.0)
    ledger.acknowledge([(3, 3)])
    assert [packet.packet_number for packet in ledger.detect_lost(1.1, RTT)[0]] == [0]
    ledger.acknowledge([(3, 3), (late, late)])
    ledger.detect_lost(1.115, RTT)
    distance = 3 - late
    assert ledger.reordering.packets > distance
    ledger.add(4, [bytes(10)] * 8, Flight(1.2))
    ledger.acknowledge([(4 + distance, 4 + distance)])
    lost, next_loss = ledger.detect_lost(1.3, RTT)
    assert 4 not in [packet.packet_number for packet in lost]
    assert next_loss == pytest.approx(1.3 + TIME_THRESHOLD * 0.015)


def test_what_came_late_once_is_forgotten():
    ledger = ledger_of(*[10] * 12)
    ledger.acknowledge([(11, 11)])
    ledger.detect_lost(0.0, RTT)
    ledger.acknowledge([(0, 11)])
    ledger.detect_lost(0.0, RTT)
    assert ledger.reordering.packets > 11
    for now in (MEMORY, 2 * MEMORY):
        ledger.detect_lost(now, RTT)
    assert ledger.reordering.packets == PACKET_THRESHOLD


def test_the_oldest_can_be_written_off():
    ledger = ledger_of(10, 20, 30, first=7, now=1.5)
    assert without_flight(ledger.write_off_oldest()) == SentPacket(7, 10, 1.5)
    assert list(ledger.sent) == [8, 9]
    assert ledger.acknowledge([(7, 7)]) is None


class Model(RuleBasedStateMachine):
    """The ledger against a list of packets, each of them outstanding, acknowledged or lost."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger()
        self.number = 0
        self.now = 0.0
        self.outstanding = {}
        self.largest_acked = -1

    @rule(sizes=st.lists(st.integers(1, 1452), min_size=1, max_size=12), skipped=st.integers(0, 3))
    def send(self, sizes, skipped):
        # Numbers are skipped where aioquic sends packets of its own.
        self.number += skipped
        assert self.ledger.add(self.number, [bytes(size) for size in sizes], Flight(self.now)) == sum(sizes)
        for size in sizes:
            self.outstanding[self.number] = (self.now, size)
            self.number += 1

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 0.2]))
    def wait(self, seconds):
        self.now += seconds

    @rule(data=st.data())
    def acknowledge(self, data):
        edge = st.integers(0, self.number + 5)
        chosen = data.draw(st.lists(st.tuples(edge, st.integers(1, 9)), min_size=1, max_size=5))
        ranges = RangeSet()
        for start, length in chosen:
            ranges.add(start, start + length)
        acknowledged = self.ledger.acknowledge([(block.start, block.stop - 1) for block in reversed(ranges)])
        taken = {number: self.outstanding[number] for number in self.outstanding if number in ranges}
        self.largest_acked = max(self.largest_acked, ranges[-1].stop - 1)
        if not taken:
            assert acknowledged is None
            return
        newest = max(taken)
        assert acknowledged.packets == len(taken)
        assert acknowledged.largest_size == max(size for _, size in taken.values())
        assert without_flight(acknowledged.newest) == SentPacket(
            newest, sum(size for _, size in taken.values()), taken[newest][0]
        )
        assert acknowledged.is_largest == (newest == ranges[-1].stop - 1)
        for number in taken:
            del self.outstanding[number]

    @rule()
    def lose(self):
        threshold, delay = self.ledger.reordering.packets, self.ledger.reordering.patience(self.now, RTT)
        assert PACKET_THRESHOLD <= threshold <= 2 * self.largest_acked + PACKET_THRESHOLD + 2
        assert TIME_THRESHOLD * RTT <= delay <= 2 * RTT
        lost, next_loss = self.ledger.detect_lost(self.now, RTT)
        overtaken = [number for number in self.outstanding if number <= self.largest_acked]
        expected = [
            number
            for number in overtaken
            if number <= self.largest_acked - threshold or self.outstanding[number][0] <= self.now - delay
        ]
        assert list(map(without_flight, lost)) == [
            SentPacket(number, self.outstanding[number][1], self.outstanding[number][0])
            for number in expected
        ]
        for number in expected:
            del self.outstanding[number]
        waiting = [self.outstanding[number][0] + delay for number in overtaken if number not in expected]
        assert next_loss == (min(waiting) if waiting else None)

    @invariant()
    def nothing_else_is_kept(self):
        assert kept(self.ledger) == self.outstanding
        assert list(self.ledger.sent) == sorted(self.outstanding)
        assert self.ledger.largest_acked == self.largest_acked


TestModel = Model.TestCase
TestModel.settings = settings(derandomize=True, max_examples=60, stateful_step_count=40)
