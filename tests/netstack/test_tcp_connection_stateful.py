"""A stateful model: whatever a network and two hosts do in whatever order, what arrives is what was sent.

One side is the relay's connection as the gateway uses it, the other the same code as a guest that opens.
Rules are single events; at the end the network behaves, and all that was written must have arrived.

Liveness: whoever has something to send has a timer, or has been told to come back with more budget (a flow of
the relay is registered with its line then). It must hold after every step, since any of them may be the last
before everything falls silent.
"""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tcp_talk import FROM_GUEST, TO_GUEST

from netstack.tcp_connection import Ending, Offer, TcpConnection
from netstack.tcp_receiver import MAX_PIECES, MAX_WINDOW
from netstack.tcp_segment import FIN, RST, SYN, read_tcp
from netstack.tcp_states import OPENING, SYNCHRONIZED, State

START = 100.0
DELAY = 0.01
PATIENCE = 2000.0
"""Simulated seconds in which everything must have arrived once the network behaves."""
ON_THE_WIRE = 40
"""Frames in flight per direction; more are lost, as in a real queue."""

MOST = 4 * MAX_WINDOW
"""Bytes that an end may hold when memory is plenty."""
LEAST = 1400
"""When it is scarce: no less than a segment."""

RELAY, GUEST = 0, 1
side = st.sampled_from([RELAY, GUEST])
position = st.integers(0, ON_THE_WIRE - 1)


def stream(number, start, size):
    """Bytes of the stream that end ``number`` sends: different at every position and end."""
    return bytes((number * 101 + at * 7 + at // 251) % 256 for at in range(start, start + size))


class Conversation(RuleBasedStateMachine):
    @initialize(
        first=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), mss=st.integers(64, 1400)
    )
    def open(self, first, mss):
        self.now = START
        self.ends = [
            TcpConnection(template, number, Offer(mss, MAX_WINDOW, MOST), self.now)
            for template, number in zip((TO_GUEST, FROM_GUEST), first, strict=True)
        ]
        self.wire = [[], []]
        """Frames on their way to the relay and to the guest."""
        self.written = [0, 0]
        self.taken = [0, 0]
        self.finished = [False, False]
        self.resets = [False, False]
        """Whose host has failed, and wants that said when the other end has everything."""
        self.budget = [MAX_WINDOW, MAX_WINDOW]
        """Bytes that each end may send at a time."""
        self.limit = [MOST, MOST]
        """Bytes that each end may hold."""
        self.excess = [0, 0]
        """Bytes that each held beyond its limit when that was lowered."""
        for end in self.ends:
            end.limit_buffers(MOST)
        self.ends[GUEST].connect(self.now)
        self.dispatch()

    # -- what hosts do --------------------------------------------------------------------------------

    @rule(who=side, size=st.integers(1, 5000))
    def write(self, who, size):
        end = self.ends[who]
        size = min(size, end.room)
        if not self.finished[who] and size > 0 and end.state in {State.ESTABLISHED, State.CLOSE_WAIT}:
            end.write(stream(who, self.written[who], size))
            self.written[who] += size
            self.dispatch()

    @rule(who=side, size=st.integers(0, 5000), room=st.integers(0, MAX_WINDOW))
    def take(self, who, size, room):
        self.take_from(who, size, room)
        self.dispatch()

    @precondition(lambda self: not all(self.finished))
    @rule(who=side)
    def finish(self, who):
        if not self.finished[who] and self.ends[who].state in {State.ESTABLISHED, State.CLOSE_WAIT}:
            self.finished[who] = True
            self.ends[who].finish()
            self.dispatch()

    @precondition(lambda self: not any(self.resets))
    @rule(who=side)
    def reset(self, who):
        if self.ends[who].state in {State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1}:
            self.resets[who] = self.finished[who] = True
            self.ends[who].reset_after_data()
            self.dispatch()

    @rule(who=side, budget=st.one_of(st.integers(-3000, 3000), st.just(MAX_WINDOW)))
    def allow(self, who, budget):
        """The line to one end gets emptier or fuller, to any degree: also to less than a segment."""
        self.budget[who] = budget
        self.dispatch()

    @rule(who=side, limit=st.one_of(st.integers(LEAST, 20_000), st.just(MOST)))
    def limit_memory(self, who, limit):
        """Others need memory, or need it no more."""
        self.limit[who] = limit
        self.ends[who].limit_buffers(limit)
        self.excess[who] = max(0, self.ends[who].sender.buffered - limit)
        self.dispatch()

    # -- what the network does ------------------------------------------------------------------------

    @rule(to=side, at=position)
    def deliver(self, to, at):
        """Deliver any frame in flight: reordering is delivering a later one first."""
        if self.wire[to]:
            self.arrive(to, self.wire[to].pop(at % len(self.wire[to])))
            self.dispatch()

    @rule(to=side)
    def deliver_all(self, to):
        frames, self.wire[to] = self.wire[to], []
        for frame in frames:
            self.arrive(to, frame)
        self.dispatch()

    @rule(to=side, at=position)
    def repeat(self, to, at):
        if self.wire[to]:
            self.arrive(to, self.wire[to][at % len(self.wire[to])])
            self.dispatch()

    @rule(to=side, at=position)
    def lose(self, to, at):
        if self.wire[to]:
            del self.wire[to][at % len(self.wire[to])]

    @rule(at=position, told=st.booleans(), age=st.sampled_from([0.0, 0.001, 1.0]))
    def lose_on_path(self, at, told, age):
        """The path to the client loses something and says so; or says so, and it arrives all the same."""
        if self.wire[GUEST]:
            at %= len(self.wire[GUEST])
            frame = self.wire[GUEST][at] if told else self.wire[GUEST].pop(at)
            self.ends[RELAY].lost_on_path([(read_tcp(frame).sequence, self.now - age)])
            self.dispatch()

    @rule(
        to=side,
        forged=st.one_of(
            st.tuples(st.sampled_from([RST, SYN, RST | SYN]), st.integers(1, 60_000)),
            st.tuples(st.sampled_from([RST, SYN, FIN, RST | SYN]), st.integers(2**20, 2**31 - 2**20)),
        ),
    )
    def forge(self, to, forged):
        """Say something in the other's name, near to where it is or far off, not just there (RFC 5961)."""
        flags, away = forged
        end = self.ends[to]
        if end.state in {State.CLOSED, State.SYN_SENT}:
            return
        template = FROM_GUEST if to == RELAY else TO_GUEST
        segment = template.build((end.receiver.next + away) % 2**32, 0, flags, 1000)
        end.process([read_tcp(segment)], self.now)
        self.dispatch()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 2.0]))
    def wait(self, seconds):
        self.now += seconds
        self.dispatch()

    # -- what must hold at all times ------------------------------------------------------------------

    @invariant()
    def buffers_are_bounded(self):
        for who, end in enumerate(getattr(self, "ends", ())):
            if not self.excess[who] or end.sender.buffered <= self.limit[who]:
                self.excess[who] = 0
            assert end.sender.buffered <= self.limit[who] + self.excess[who]
            assert end.receiver.held <= MOST
            assert end.receiver.next <= end.receiver.edge
            assert end.held == end.sender.buffered + sum(map(len, end.received)) + sum(
                len(piece.data) for piece in end.receiver._early
            )
            assert len(end.receiver._early) <= MAX_PIECES

    @invariant()
    def whoever_has_something_to_send_has_a_timer_or_waits_for_budget(self):
        for end, budget in zip(getattr(self, "ends", ()), getattr(self, "budget", ()), strict=True):
            sender = end.sender
            unsent = sender.next < sender._end or sender._lost or (sender.finished and not sender.fin_sent)
            unacknowledged = sender.una < sender.next
            if end.state in OPENING:
                assert end.poll_at < math.inf
            elif end.state in SYNCHRONIZED and (unsent or unacknowledged):
                assert sender.poll_at < math.inf or end.waits_for_budget
                assert not end.is_stalled
            # Only who was given too little may wait for more: nobody would wake the others.
            assert not end.waits_for_budget or budget < MAX_WINDOW

    @invariant()
    def what_has_arrived_is_how_the_others_stream_begins(self):
        for who, end in enumerate(getattr(self, "ends", ())):
            waiting = b"".join(end.received)
            other = 1 - who
            assert self.taken[who] + len(waiting) <= self.written[other]
            assert waiting == stream(other, self.taken[who], len(waiting))

    @invariant()
    def nobody_is_reset_before_everything_has_arrived(self):
        for who, resets in enumerate(getattr(self, "resets", ())):
            if resets and self.ends[who].ending is Ending.ABORTED:
                waiting = sum(map(len, self.ends[1 - who].received))
                assert self.taken[1 - who] + waiting == self.written[who]

    @invariant()
    def nobody_ends_for_a_reason_that_nobody_gave(self):
        endings = [end.ending for end in getattr(self, "ends", ())]
        for ending, other in zip(endings, reversed(endings), strict=True):
            # Who has ended answers what still comes with a RST (RFC 9293, 3.10.7.1).
            given = {None, Ending.FINISHED, Ending.TIMED_OUT, Ending.ABORTED if any(self.resets) else None}
            assert ending in given or other is not None

    # -- helpers --------------------------------------------------------------------------------------

    def arrive(self, to, frame):
        end, segment = self.ends[to], read_tcp(frame)
        if end.state is State.CLOSED and end.ending is None:
            if segment.flags == SYN:
                end.accept(segment, self.now)
        else:
            end.process([segment], self.now)

    def take_from(self, who, size, room):
        end = self.ends[who]
        size = min(size, sum(map(len, end.received)))
        self.taken[who] += size
        end.host_took(size, room)

    def dispatch(self):
        for who, end in enumerate(self.ends):
            for frame in end.dispatch(self.now, self.budget[who]):
                if len(self.wire[1 - who]) < ON_THE_WIRE:
                    self.wire[1 - who].append(frame)

    def teardown(self):
        if not hasattr(self, "ends"):
            return
        given_up = any(self.resets) or any(end.ending not in {None, Ending.FINISHED} for end in self.ends)
        deadline = self.now + PATIENCE
        self.budget = [MAX_WINDOW, MAX_WINDOW]
        while self.now < deadline and not all(end.ending for end in self.ends):
            for to in (RELAY, GUEST):
                self.deliver_all(to)
                self.take_from(to, MAX_WINDOW, MAX_WINDOW)
                self.finish(to)
            self.dispatch()
            if any(self.wire):
                self.now += DELAY
            else:
                self.now = max(self.now + DELAY, min(end.poll_at for end in self.ends))
        if not given_up:
            for who, end in enumerate(self.ends):
                self.take_from(who, MAX_WINDOW, MAX_WINDOW)
                assert end.state is State.CLOSED
                assert self.taken[who] == self.written[1 - who]


Conversation.TestCase.settings = settings(max_examples=300, stateful_step_count=60)
TestConversation = Conversation.TestCase
