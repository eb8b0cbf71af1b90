"""Who may send to a peer, and when: flows that share its line, alone and with real TCP flows on it."""

from __future__ import annotations

import pytest
from downloads import STEP, Downloads
from lan_parts import FakeSession

from actors.lan.absence import AbsentSession
from actors.line import LINE_BYTES, TURN_BYTES, Line, LineReplaced, LineWritable
from netstack.ethernet import HEADER_LENGTH, LAN_MTU
from transport.quic.session import LEAST_ROOM, MOST_ROOM, QUEUE_BYTES, SLOWEST_ROOM

WRITABLE = MOST_ROOM // 2


class Flow:
    """As far as the line sees one."""

    def __init__(self):
        self.turns = []
        self.had = 0

    def tell(self, message):
        assert type(message) is LineWritable
        self.turns.append(message.room)


@pytest.fixture
def session(loop):
    return FakeSession()


@pytest.fixture
def line(session):
    return Line(session)


@pytest.fixture
def full(loop, line, session):
    """Wait on a line that is full, these many flows."""

    def wait(count):
        session.queued_bytes = LINE_BYTES
        flows = [Flow() for _ in range(count)]
        for flow in flows:
            line.wait(flow)
        loop.run()
        assert not any(flow.turns for flow in flows)
        return flows

    return wait


def test_flows_wait_and_are_woken_at_marks_that_are_more_than_a_segment_apart():
    assert LEAST_ROOM // 2 >= TURN_BYTES > LAN_MTU + HEADER_LENGTH
    # Who was woken and who then found nobody waiting send at once, and the queue takes it.
    assert LINE_BYTES + (LINE_BYTES - WRITABLE) < QUEUE_BYTES


def test_what_was_granted_counts_as_queued_until_it_is(line, session):
    line.grant(1000)
    assert line.room == LINE_BYTES - 1000
    session.queued_bytes = 1000
    line.arrived()
    assert line.room == LINE_BYTES - 1000


def test_flows_fill_no_more_than_the_room_of_the_session_and_are_woken_at_half_of_it(loop, line, session):
    session.room = LEAST_ROOM
    assert line.room == LEAST_ROOM
    session.queued_bytes = LEAST_ROOM
    flow = Flow()
    line.wait(flow)
    loop.run()
    session.leave(LEAST_ROOM // 2)
    assert flow.turns == []
    session.leave(1)
    assert flow.turns == [LEAST_ROOM // 2 + 1]


def test_a_flow_is_woken_when_much_has_left_and_not_for_a_datagram(full, session):
    (flow,) = full(1)
    session.leave(LINE_BYTES - WRITABLE)
    assert flow.turns == []
    session.leave(1)
    assert flow.turns == [LINE_BYTES - WRITABLE + 1]


def test_turns_are_of_one_size_and_go_to_those_who_have_waited_longest(full, loop, session):
    flows = full(8)
    session.leave(LINE_BYTES - 1)
    turn = (LINE_BYTES - 1) // 8
    assert [flow.turns for flow in flows] == [[turn]] * 8


def test_no_more_flows_are_woken_than_there_are_turns_worth_the_wake_up(full, session):
    flows = full(8)
    session.leave(LINE_BYTES - WRITABLE + 1)
    woken = (LINE_BYTES - WRITABLE + 1) // TURN_BYTES
    assert [flow for flow in flows if flow.turns] == flows[:woken]
    assert flows[0].turns[0] >= TURN_BYTES


def test_who_comes_back_sooner_has_no_more_turns(full, line, loop, session):
    flows = full(8)
    hasty = flows[:2]
    for _ in range(40):
        session.leave(LINE_BYTES - WRITABLE + 1)
        woken = [flow for flow in flows if flow.turns]
        for flow in sorted(woken, key=lambda flow: flow not in hasty):  # they use their turns and want more
            flow.had += 1
            line.give_back(flow.turns.pop())
            line.wait(flow)
        session.queued_bytes = LINE_BYTES
        loop.run()
    assert {flow.had for flow in flows} == {40 * 5 // 8}


def test_nobody_jumps_the_queue(full, line, session):
    full(1)
    session.queued_bytes = WRITABLE
    assert line.room == 0


def test_those_who_had_no_use_for_their_turn_do_not_keep_the_others_waiting(full, line, loop, session):
    flows = full(30)
    session.leave(LINE_BYTES)  # nothing is left in the queue, whose leaving could wake the others
    woken = flows[: LINE_BYTES // TURN_BYTES]
    assert [flow for flow in flows if flow.turns] == woken
    while woken:
        for flow in woken:
            line.give_back(flow.turns[0])
        flows = flows[len(woken) :]
        loop.run()
        woken = [flow for flow in flows if flow.turns]
    assert flows == []


def test_grants_that_get_lost_on_their_way_do_not_fill_the_line_for_ever(line, loop):
    line.grant(LINE_BYTES)
    flow = Flow()
    line.wait(flow)
    loop.run()
    assert flow.turns == [LINE_BYTES]


def test_a_turn_is_kept_for_whoever_has_it(full, line, loop, session):
    slow, other = full(2)
    line.leave(other)
    session.leave(WRITABLE + 1)
    assert line.room == 0, "all that is free is the turn of one"
    line.wait(other)
    loop.run()
    assert other.turns == []
    line.give_back(slow.turns[0])
    loop.run()
    assert other.turns == slow.turns


def test_a_flow_that_has_ended_waits_no_longer(full, line, session):
    gone, other = full(2)
    line.leave(gone)
    line.leave(Flow())
    session.leave(LINE_BYTES)
    assert (gone.turns, other.turns) == ([], [LINE_BYTES])


def test_a_line_without_a_session_wakes_by_itself(loop):
    line, flow = Line(), Flow()
    assert line.room == LINE_BYTES
    line.wait(flow)
    loop.run()
    assert flow.turns == [LINE_BYTES]


# -- with flows on it ---------------------------------------------------------------------------------


def jain(shares):
    """Jain's index of fairness: 1 when all have the same, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


@pytest.mark.parametrize("count", [8, 16])
def test_downloads_of_a_guest_share_its_link_fairly(loop, counters, count):
    downloads = Downloads(loop, counters, count, rate=6_000_000)
    for _ in range(1000):
        downloads.step()
    received = downloads.received
    assert sum(received) > 0.9 * 6_000_000 * 1000 * STEP
    assert jain(received) >= 0.9
    assert downloads.link.highest < QUEUE_BYTES


@pytest.mark.parametrize("room", [SLOWEST_ROOM, 5_000])
def test_downloads_over_a_slow_link_have_turns_of_half_of_what_may_be_queued(loop, counters, room):
    downloads = Downloads(loop, counters, 4, rate=20_000)
    downloads.link.session.room = room
    for _ in range(4000):
        downloads.step()
    received = downloads.received
    assert sum(received) > 0.9 * 20_000 * 4000 * STEP
    assert jain(received) >= 0.9
    assert downloads.link.highest < 2 * room


@pytest.mark.parametrize("rate", [700_000, 1_100_000, 3_333_000, 50_000_000])
@pytest.mark.parametrize(("count", "size"), [(5, 200_000), (30, 50_000), (60, 20_000)])
def test_parallel_downloads_come_to_their_end(loop, counters, count, size, rate):
    downloads = Downloads(loop, counters, count, size=size, rate=rate)
    for _ in range(int(4 * count * size / rate / STEP) + 500):
        downloads.step()
        if set(downloads.received) == {size}:
            break
    assert downloads.received == [size] * count
    assert downloads.link.highest < QUEUE_BYTES


# -- another session ------------------------------------------------------------------------------------


class Follower(Flow):
    """One that is told of what the path has lost, too."""

    def __init__(self):
        super().__init__()
        self.replaced = 0

    def tell(self, message):
        if isinstance(message, LineReplaced):
            self.replaced += 1
        else:
            super().tell(message)


def test_a_client_that_is_away_wakes_nobody_and_its_next_session_does(loop, line, session):
    follower, waiting = Follower(), Flow()
    line.follow(b"ends", follower)
    line.grant(5000)
    line.carry(AbsentSession(session))
    assert (line.room, follower.replaced) == (0, 1)
    line.wait(waiting)
    loop.run()
    assert waiting.turns == []
    line.carry(FakeSession(2))
    assert (waiting.turns, follower.replaced) == ([MOST_ROOM], 2)


def test_turns_that_flows_hold_outlast_the_session(loop, line, session):
    flow = Flow()
    session.queued_bytes = LINE_BYTES
    line.wait(flow)
    session.leave(LINE_BYTES)
    (turn,) = flow.turns
    line.carry(FakeSession(2))
    assert line.room == MOST_ROOM - turn
    line.give_back(turn)
    assert line.room == MOST_ROOM


class LostAndBack(Downloads):
    """Downloads of a client that is away for a while: nothing reaches its guest, and nothing comes of it."""

    def go_away(self, *, noticed):
        session = AbsentSession(self.lan.session) if noticed else FakeSession(2)
        self._change_session(session)
        self.link.frames.clear()
        self.say = lambda: None
        self.link.tell = lambda _: None
        self._under_way.clear()

    def come_back(self):
        del self.link.tell, self.say
        self._change_session(FakeSession(3))

    def _change_session(self, session):
        self.link.session = self.lan.session = session
        self.lan.line.carry(session)

    def pass_time(self, seconds):
        for _ in range(int(seconds / STEP)):
            self.loop.advance(STEP)


@pytest.mark.parametrize("away", [0.5, 5.0, 25.0])
@pytest.mark.parametrize("noticed", [True, False], ids=["lost", "not known to be lost"])
def test_downloads_go_on_at_once_when_the_client_is_back(loop, counters, away, noticed):
    size = 2_000_000
    downloads = LostAndBack(loop, counters, 3, size=size, delay=0.02)
    while min(downloads.received) < 200_000:
        downloads.step()
    downloads.go_away(noticed=noticed)
    downloads.pass_time(away)
    before = sum(downloads.received)
    downloads.come_back()
    for _ in range(int(0.4 / STEP)):
        downloads.step()
    assert sum(downloads.received) - before > 500_000
    for _ in range(int(3 / STEP)):
        downloads.step()
    assert downloads.received == [size] * 3
    assert counters["tcp.stalled"] == 0


def test_downloads_outlast_an_absence_that_is_longer_than_their_time_outs(loop, counters):
    size = 1_000_000
    downloads = LostAndBack(loop, counters, 3, size=size, delay=0.02)
    while min(downloads.received) < 100_000:
        downloads.step()
    downloads.go_away(noticed=True)
    loop.advance(3000)
    downloads.come_back()
    for _ in range(int(3 / STEP)):
        downloads.step()
    assert downloads.received == [size] * 3
