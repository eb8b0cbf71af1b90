"""One TCP connection with a guest (RFC 9293): segments and time in, frames and news out; no I/O, no clock.

Theory of operation
-------------------
:meth:`TcpConnection.process` takes what one turn brought, :meth:`TcpConnection.dispatch` returns the frames
to send, ``poll_at`` says when to call it next although nothing came. In between the owner moves the bytes:
``received`` to the host (then :meth:`TcpConnection.host_took`), host data in by :meth:`TcpConnection.write`,
at most ``room`` of it. :meth:`TcpConnection.finish` says that the host has ended its direction, and
``guest_finished`` that the guest has ended its own; each may go on alone.

What is checked of a segment follows RFC 9293 section 3.10.7 with RFC 5961: a RST counts only at exactly the
next position (what was received, or the number that was acknowledged while the host has not taken all of it),
one elsewhere in the window and every SYN get a challenge ACK, of which there are few per second. A guest that
has begun anew answers that with a RST which is exact. The urgent flag is ignored: its bytes are data like all
others. Timestamps are not offered, so they cost nothing. Transitions are in ``tcp_states``, the halves in
``tcp_sender`` and ``tcp_receiver``.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from netstack.tcp_congestion import RoundTrip
from netstack.tcp_receiver import MAX_WINDOW, Appetite, Receiver
from netstack.tcp_segment import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    SynOptions,
    encode_sack,
    encode_syn_options,
    parse_sack,
    parse_syn_options,
    sequence_length,
)
from netstack.tcp_sender import Sender
from netstack.tcp_states import MAY_RECEIVE, OPENING, SYNCHRONIZED, Event, State, after
from netstack.tcp_time_wait import TIME_WAIT, TimeWait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netstack.tcp_segment import Segment, TcpFrameTemplate

MAX_UNSCALED = 0xFFFF

UNKNOWN = 0.2
"""Seconds of a round trip that could not be measured, for what becomes more generous with it."""

DELAYED_ACK = 0.02
"""Seconds that a lone segment's acknowledgement waits for a second one or for data to ride on; RFC 9293
section 3.8.6.3 allows 0.5. Short, since what the host does not take at once is a window's worth at most."""

QUICK_ACKS = 16
"""Segments at the start that are acknowledged at once: the guest's window is small then and waits for it."""

MAX_SYNS = 6
"""Times that a SYN or SYN-ACK is sent unasked: some 60 s."""

CHALLENGES = 10
CHALLENGE_PERIOD = 5.0
"""Challenge ACKs per period, in seconds (RFC 5961 section 7)."""

MIN_MSS = 28
"""Bytes: what headers leave of the 68 that travel whole everywhere (RFC 791); small systems name 48. One that
names less would make one byte of data cost a packet."""

NEVER = math.inf
_HALF = 0x8000_0000
_WORD = 0xFFFF_FFFF


class Ending(Enum):
    """How a connection came to its end."""

    FINISHED = "finished"
    """Both directions ended and were acknowledged."""
    RESET = "reset"
    """The guest sent a RST."""
    ABORTED = "aborted"
    """The relay sent one."""
    TIMED_OUT = "timed_out"
    """The guest does not answer any more."""


class Offer(NamedTuple):
    """What this end puts in its SYN: largest segment to receive, and what the host takes at the start.

    ``most`` is the largest window that there will be; the scale that is offered fits it (RFC 7323).
    """

    mss: int
    room: int
    most: int = MAX_WINDOW


class TcpConnection:
    """The relay's end of one connection with a guest."""

    def __init__(self, template: TcpFrameTemplate, first: int, offer: Offer, now: float) -> None:
        """Take the initial sequence number ``first`` (32 bits, unpredictable: RFC 6528)."""
        self.state = State.CLOSED
        self.ending: Ending | None = None
        self._template = template
        self._first = first
        self._offer = offer
        self._round_trip = RoundTrip()
        self.sender = Sender(first + 1, offer.mss, self._round_trip, now)
        self.receiver = Receiver(0, 0)
        self._begins_at = 0
        """Position of the guest's first byte."""
        self._appetite = Appetite(0, now)
        self._buffer_limit: int | None = None
        """What the owner has said of that."""
        self._guest_mss = offer.mss
        self._guest_shift = 0
        self._shift: int | None = max(0, offer.most.bit_length() - 16)
        self._sack = True
        self._finish_asked = False
        self._reset_asked = False
        self._window_from = (0, 0)
        """Sequence and acknowledgement numbers of the segment that told the guest's window last."""
        self._told = 0
        """What was acknowledged last."""
        self._unacknowledged = 0
        """Segments with data since the last acknowledgement."""
        self._quick = QUICK_ACKS
        self._ack_now = False
        self._ack_at = NEVER
        self._syn_at = NEVER
        self._syns = 0
        self._syn_sent_at = now
        self._answers_again = self._answered_again = False
        """Whether a repeated SYN is to be answered, and whether one has been."""
        self._ends_at = NEVER
        self._resets: list[bytes] = []
        self._challenges = 0
        self._challenges_until = now

    # -- opening --------------------------------------------------------------------------------------

    def accept(self, syn: Segment, now: float) -> None:
        """Answer the guest's SYN; the SYN-ACK is the next that is dispatched."""
        self._move(Event.GOT_OPENING_SYN)
        self._learn_from_syn(syn, now)
        self._syn_at = now

    def connect(self, now: float) -> None:
        """Open a connection to the guest; the SYN is the next that is dispatched."""
        self._move(Event.SENT_SYN)
        self._syn_at = now

    def _learn_from_syn(self, syn: Segment, now: float) -> None:
        options = parse_syn_options(syn.options)
        self._guest_mss = max(options.mss, MIN_MSS)
        if options.window_shift is None or self._shift is None:
            self._shift, self._guest_shift = None, 0
        else:
            self._guest_shift = options.window_shift
        self._sack = self.sender.sack = options.sack
        room = self._offer.room if self._shift is not None else min(self._offer.room, MAX_UNSCALED)
        # A SYN's window is not scaled, so at first no more than that can be told.
        most = self._offer.most if self._shift is not None else MAX_UNSCALED
        self.receiver = Receiver(syn.sequence + 1, min(room, MAX_UNSCALED), most)
        self._appetite = Appetite(self.receiver.next, now)
        self._told = self._begins_at = self.receiver.next
        self.limit_segments(self._offer.mss)
        sender = self.sender
        # Sized for what the guest takes; the buckets and windows begin anew.
        self.sender = Sender(sender.una, sender.mss, self._round_trip, now)
        self.sender.sack = options.sack
        if self._buffer_limit is not None:
            self.limit_buffers(self._buffer_limit)
        self._set_window(syn, scaled=False)

    def limit_segments(self, mss: int) -> None:
        """Send segments of at most ``mss`` bytes, or less where the guest said so."""
        sender = self.sender
        sender.mss = sender.congestion.mss = min(mss, self._guest_mss)

    # -- the owner's side -----------------------------------------------------------------------------

    def limit_buffers(self, size: int) -> None:
        """Hold at most ``size`` bytes for each direction from now on; at least a segment must fit."""
        self._buffer_limit = size
        if size != self.sender.limit:
            self.sender.limit_buffer(size)
        self.receiver.limit = size

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes of the guest's that the host took, and bytes that the guest acknowledged."""
        return self.receiver.taken - self._begins_at, max(0, self.sender.una - self._first - 1)

    @property
    def held(self) -> int:
        """Bytes in memory, of both directions."""
        return self.sender.buffered + self.receiver.held

    @property
    def dropped(self) -> int:
        """Segments that came out of order and had no place."""
        return self.receiver.dropped

    @property
    def refused(self) -> int:
        """Segments that came in order and had no place, for the host did not take what came before."""
        return self.receiver.refused

    @property
    def received(self) -> list[bytes]:
        """What the guest sent and the host has not taken, in order."""
        return self.receiver.ready

    def host_took(self, size: int, room: int) -> None:
        """Note that the host took ``size`` bytes of ``received``, and takes ``room`` more."""
        receiver = self.receiver
        if size:
            receiver.take(size)
            # What was held is acknowledged as soon as it is taken; what came just now has its own rules.
            self._ack_now = self._ack_now or self._ack_at == NEVER
        if self.state in MAY_RECEIVE and receiver.open_window(
            room, self._offer.mss, wanted=self._appetite.window
        ):
            self._ack_now = True

    @property
    def window_left(self) -> int:
        """Bytes that the guest may still send until the host has taken some."""
        return self.receiver.edge - self.receiver.next

    @property
    def guest_finished(self) -> bool:
        """Whether the guest's direction has ended and the host took everything."""
        return self.receiver.finished and not self.receiver.ready

    @property
    def room(self) -> int:
        """Bytes of host data that can be taken now."""
        if self.state not in SYNCHRONIZED or self._finish_asked:
            return 0
        return self.sender.room

    @property
    def waits_for_budget(self) -> bool:
        """Whether the last :meth:`dispatch` left something unsent for want of budget, and of nothing else."""
        return self.sender.waits_for_budget and self.state in SYNCHRONIZED

    @property
    def is_open(self) -> bool:
        """Whether both directions go on."""
        return self.state is State.ESTABLISHED and not self._reset_asked

    @property
    def is_paced(self) -> bool:
        """Whether the last :meth:`dispatch` left something unsent for the sake of the pace, for a moment."""
        return self.sender.is_paced and self.state in SYNCHRONIZED

    @property
    def is_sending(self) -> bool:
        """Whether data or a FIN of the host are unsent or unacknowledged."""
        return self.state in SYNCHRONIZED and self.sender.is_busy

    @property
    def is_stalled(self) -> bool:
        """Whether there is something to send and nothing will bring that about; never true after dispatch.

        Either a timer runs, or the owner was told to come back with more budget.
        """
        return self.is_sending and self.sender.poll_at == NEVER and not self.sender.waits_for_budget

    def lost_on_path(self, segments: Iterable[tuple[int, float]]) -> int:
        """Take segments as lost before they reached the client; return how many are sent again for it.

        Each is its sequence number (32 bits) and when it left.
        """
        una = self.sender.una
        return sum(
            self.sender.lost_on_path(una + ((sequence - una + _HALF) & _WORD) - _HALF, sent_at)
            for sequence, sent_at in segments
        )

    def path_narrowed(self, sequence: int, mss: int) -> bool:
        """Send segments of at most ``mss`` bytes, and again what is on its way in longer ones.

        But only if the one from ``sequence`` (32 bits) on is on its way; returns whether it is.
        """
        sender = self.sender
        if self.state not in SYNCHRONIZED or (sequence - sender.una) & _WORD >= sender.next - sender.una:
            return False
        self.limit_segments(mss)
        sender.longer_lost()
        return True

    def path_replaced(self, now: float) -> None:
        """Take all that is on its way to the guest as lost, and send it again without waiting longer."""
        if self.state in SYNCHRONIZED:
            self.sender.all_lost(now)

    def write(self, data: bytes) -> None:
        """Take host data, at most ``room`` bytes."""
        self.sender.write(data)

    def finish(self) -> None:
        """End the direction towards the guest, after all that was written."""
        self._finish_asked = True
        self.sender.finished = True

    def reset_after_data(self) -> None:
        """Reset the connection once the guest has acknowledged all that was written; nothing more will be."""
        if self.state in SYNCHRONIZED:
            self._finish_asked = self._reset_asked = True
        else:
            self.abort()

    def abort(self) -> None:
        """Reset the connection; the RST is the next that is dispatched."""
        if self.state is State.CLOSED:
            return
        if self.state is not State.SYN_SENT:
            acknowledged = self.receiver.acknowledged & _WORD
            self._resets.append(self._template.build(self.sender.next & _WORD, acknowledged, RST | ACK, 0))
        self._end(Ending.ABORTED)

    # -- segments in ----------------------------------------------------------------------------------

    def process(self, segments: Iterable[Segment], now: float) -> None:
        """Take segments of this connection, in the order in which they came."""
        for segment in segments:
            if self.state in SYNCHRONIZED:
                self._process_synchronized(segment, now)
            elif self.state is State.SYN_SENT:
                self._process_in_syn_sent(segment, now)
            elif self.state is State.SYN_RECEIVED:
                self._process_in_syn_received(segment, now)
            else:
                self._refuse(segment)
        round_trip = self._round_trip.smoothed
        self._appetite.measure(self.receiver.taken, UNKNOWN if round_trip is None else round_trip, now)

    def _process_in_syn_sent(self, segment: Segment, now: float) -> None:
        flags = segment.flags
        acknowledges = segment.acknowledgment == self._first + 1 & _WORD
        if flags & ACK and not acknowledges:
            self._refuse(segment)
        elif flags & RST:
            if flags & ACK:
                self._end(Ending.RESET)
        elif flags & SYN:
            self._learn_from_syn(segment, now)
            if flags & ACK:
                self._move(Event.GOT_SYN_ACK)
                self._opened(now)
                self._ack_now = True
            else:
                self._move(Event.GOT_SYN)
                self._syn_at = now

    def _process_in_syn_received(self, segment: Segment, now: float) -> None:
        position = self._position(segment)
        flags = segment.flags
        if flags & SYN:
            if position + 1 == self.receiver.next:
                # Our answer was lost; or, when both opened at once, this is the guest's. How often it repeats
                # its SYN is its own affair: what we send by our timer is counted.
                self._answers_again = self._may_answer(now) or self._answers_again
                if flags & ACK and segment.acknowledgment == self._first + 1 & _WORD:
                    self._move(Event.SYN_ACKNOWLEDGED)
                    self._opened(now)
                    self._set_window(segment, scaled=False)
                    self._ack_now = True
            else:
                self._challenge(now)
        elif flags & RST:
            if position == self.receiver.next:
                self._end(Ending.RESET)
            elif self.receiver.acceptable(position, 0):
                self._challenge(now)
        elif flags & ACK:
            if segment.acknowledgment != self._first + 1 & _WORD:
                self._refuse(segment)
                return
            self._move(Event.SYN_ACKNOWLEDGED)
            self._opened(now)
            self._set_window(segment)
            self._process_synchronized(segment, now)

    def _opened(self, now: float) -> None:
        if self._syns == 1 and not self._answered_again:  # else it is unknown which was answered (Karn)
            self._round_trip.sample(now - self._syn_sent_at)
        self._syn_at = NEVER

    def _process_synchronized(self, segment: Segment, now: float) -> None:
        sequence, acknowledgment, flags, _, options, payload = segment
        receiver = self.receiver
        position = receiver.next + ((sequence - receiver.next + _HALF) & _WORD) - _HALF
        length = len(payload)
        if flags & RST:
            self._take_reset(position, now)
            return
        is_acceptable = receiver.acceptable(position, length + (flags & FIN))
        if not is_acceptable:
            if not self._out_of_window(segment, position, now):
                return
            position = receiver.next
        if flags & SYN:
            self._challenge(now)
            return
        if not flags & ACK:
            return
        sender = self.sender
        una = sender.una
        acknowledged = una + ((acknowledgment - una + _HALF) & _WORD) - _HALF
        if acknowledged > sender.next or acknowledged < una - max(sender.max_window, 1):
            self._challenge(now)  # RFC 5961 section 5.2
            return
        if acknowledged >= una:
            edge = sender.edge
            if (position, acknowledged) >= self._window_from:
                self._window_from = (position, acknowledged)
                sender.set_window(acknowledged, segment.window << self._guest_shift)
            duplicate = acknowledged == una and not length and sender.edge == edge and not flags & FIN
            if acknowledged > una or duplicate or options:
                blocks = self._blocks(options) if options and self._sack else []
                sender.acknowledge(acknowledged, blocks, now, duplicate=duplicate)
                if acknowledged == sender.next and sender.all_acknowledged:
                    self._fin_acknowledged(now)
        if is_acceptable and (length or flags & FIN) and self.state in MAY_RECEIVE:
            self._take(position, payload, flags, now)

    def _take_reset(self, position: int, now: float) -> None:
        """End at an exact RST, challenge one elsewhere in the window that the guest knows (RFC 5961).

        While the host has not taken everything, that window begins at the number that was acknowledged.
        """
        receiver = self.receiver
        acknowledged = max(receiver.acknowledged, self._told)
        if position in {receiver.next, acknowledged}:
            self._end(Ending.RESET)
        elif acknowledged < position <= max(receiver.edge, receiver.next + 1):
            # Also where a guest stands that has probed our closed window with a byte.
            self._challenge(now)

    def _out_of_window(self, segment: Segment, position: int, now: float) -> bool:
        """Answer with where we are; a repeated FIN begins TIME-WAIT again.

        Returns whether what it acknowledges counts all the same, since our window is closed (RFC 9293 section
        3.10.7.4): guests probe that with a byte beyond it, and some count that byte as sent.
        """
        if segment.flags & SYN:
            self._challenge(now)
            return False
        if self.state is State.TIME_WAIT and segment.flags & FIN:
            self._ends_at = now + TIME_WAIT
        following = self.receiver.next
        if position < following:
            self._told = following
        is_shut = self.receiver.edge == following and following <= position <= following + 1
        length = sequence_length(segment)
        if length:
            # Also a probe of a closed window, and what was acknowledged but is sent again.
            self._ack_now = True
        elif not is_shut:
            # Two ends that answer each other's bare ACKs would never fall silent.
            self._challenge(now)
        if segment.flags & ACK and position + length == following:
            self._take_late_acknowledgment(segment, position, now)
        return is_shut

    def gives_way_to(self, syn: Segment) -> bool:
        """Whether a SYN without ACK opens another connection in the place of this one.

        It does so after the end, and in TIME-WAIT if its number is beyond all that the guest used before
        (RFC 9293 section 3.6.1).
        """
        if self.state is State.CLOSED:
            return True
        return self.state is State.TIME_WAIT and self._position(syn) >= self.receiver.next

    def time_wait(self) -> TimeWait:
        """Give what has to be kept of this connection in TIME-WAIT."""
        sent, expected = self.sender.next & _WORD, self.receiver.next & _WORD
        return TimeWait(expected, sent, self._template.build(sent, expected, ACK, MAX_UNSCALED))

    def _take_late_acknowledgment(self, segment: Segment, position: int, now: float) -> None:
        """Take the acknowledgement and the window of a segment whose data are known already."""
        sender = self.sender
        una = sender.una
        acknowledged = una + ((segment.acknowledgment - una + _HALF) & _WORD) - _HALF
        if not una <= acknowledged <= sender.next:
            return
        if (position, acknowledged) >= self._window_from:
            self._window_from = (position, acknowledged)
            sender.set_window(acknowledged, segment.window << self._guest_shift)
        if acknowledged > una:
            sender.acknowledge(acknowledged, [], now, duplicate=False)
            if sender.all_acknowledged:
                self._fin_acknowledged(now)

    def _take(self, position: int, payload: bytes, flags: int, now: float) -> None:
        receiver = self.receiver
        gap = receiver.has_gap
        in_order = receiver.accept(position, payload, fin=bool(flags & FIN))
        self._unacknowledged += 1
        if not in_order or gap or receiver.has_gap or self._unacknowledged > 1 or self._quick > 0:
            self._ack_now = True
            self._quick -= 1
        elif self._ack_at == NEVER:
            self._ack_at = now + DELAYED_ACK
        if receiver.finished:
            self._ack_now = True
            self._move(Event.GOT_FIN)
            if self.state is State.TIME_WAIT:
                self._ends_at = now + TIME_WAIT

    def _fin_acknowledged(self, now: float) -> None:
        if self.state is State.LAST_ACK and self.receiver.ready:
            return  # the end is that of both directions: the host has not taken everything
        if self.state in {State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK}:
            self._move(Event.FIN_ACKNOWLEDGED)
        if self.state is State.TIME_WAIT:
            self._ends_at = now + TIME_WAIT
        elif self.state is State.CLOSED:
            self.ending = Ending.FINISHED

    def _blocks(self, options: bytes) -> list[tuple[int, int]]:
        """SACK blocks as positions, as far as they lie in what is on its way (RFC 2018, RFC 2883)."""
        una, last = self.sender.una, self.sender.next
        blocks = []
        for low, high in parse_sack(options):
            start = una + ((low - una + _HALF) & _WORD) - _HALF
            stop = una + ((high - una + _HALF) & _WORD) - _HALF
            if una < start < stop <= last:
                blocks.append((start, stop))
        return blocks

    def _position(self, segment: Segment) -> int:
        following = self.receiver.next
        return following + ((segment.sequence - following + _HALF) & _WORD) - _HALF

    def _set_window(self, segment: Segment, *, scaled: bool = True) -> None:
        shift = self._guest_shift if scaled else 0
        self.sender.set_window(self.sender.una, segment.window << shift)

    def _refuse(self, segment: Segment) -> None:
        """Answer a segment that belongs to no connection of ours (RFC 9293 section 3.10.7.1)."""
        if segment.flags & RST or len(self._resets) >= CHALLENGES:
            return
        if segment.flags & ACK:
            self._resets.append(self._template.build(segment.acknowledgment, 0, RST, 0))
        else:
            acknowledgment = segment.sequence + sequence_length(segment) & _WORD
            self._resets.append(self._template.build(0, acknowledgment, RST | ACK, 0))

    def _challenge(self, now: float) -> None:
        if self._may_answer(now):
            self._ack_now = True

    def _may_answer(self, now: float) -> bool:
        """Whether one more segment may be answered that does not belong here."""
        if now >= self._challenges_until:
            self._challenges_until, self._challenges = now + CHALLENGE_PERIOD, 0
        self._challenges += 1
        return self._challenges <= CHALLENGES

    def _move(self, event: Event) -> None:
        self.state = after(self.state, event)

    def _end(self, ending: Ending) -> None:
        self._move(Event.ENDED)
        self.ending = ending

    # -- frames out -----------------------------------------------------------------------------------

    @property
    def poll_at(self) -> float:
        """When :meth:`dispatch` is due, though nothing comes before."""
        if self.state is State.CLOSED:
            return NEVER
        return min(self.sender.poll_at, self._ack_at, self._syn_at, self._ends_at)

    def dispatch(self, now: float, budget: int = MAX_WINDOW) -> list[bytes]:
        """Return the frames to send now, up to about ``budget`` bytes of data."""
        frames: list[bytes] = []
        probe = self._tick(now)
        if self.state in OPENING:
            if self._syn_at <= now:
                self._send_syn(frames, now)
            elif self._answers_again:
                self._answered_again = True
                frames.append(self._build_syn())
            elif self._ack_now and self.state is State.SYN_RECEIVED:
                self._send(frames, 0, now, probe=False)
        elif self.state is not State.CLOSED:
            self._send(frames, budget, now, probe=probe)
            if self._reset_asked and not self.sender.is_busy:
                self.abort()
            elif self.state is State.LAST_ACK and self.sender.all_acknowledged:
                self._fin_acknowledged(now)
        if self._resets:
            frames += self._resets
            self._resets = []
        return frames

    def _tick(self, now: float) -> bool:
        """Let time pass; return whether the guest's closed window is to be probed."""
        if now >= self._ends_at and self.receiver.ready:
            self._ends_at = now + TIME_WAIT
        elif now >= self._ends_at:
            self._ends_at = NEVER
            self._end(Ending.FINISHED)
        if self.state not in SYNCHRONIZED:
            return False
        sender = self.sender
        probe = now >= sender.poll_at and sender.tick(now)
        if sender.failed:
            self.abort()
            self.ending = Ending.TIMED_OUT
            return False
        return probe

    def _send_syn(self, frames: list[bytes], now: float) -> None:
        if self._syns >= MAX_SYNS:
            self._end(Ending.TIMED_OUT)
            return
        frames.append(self._build_syn())
        self._syns += 1
        self._syn_sent_at = now
        self._round_trip.backoff = self._syns - 1
        self._syn_at = now + self._round_trip.timeout
        self._round_trip.backoff = 0

    def _build_syn(self) -> bytes:
        self._answers_again = False
        options = encode_syn_options(SynOptions(self._offer.mss, self._shift, self._sack))
        window = min(self._offer.room, MAX_UNSCALED)
        if self.state is State.SYN_SENT:
            return self._template.build(self._first, 0, SYN, window, options=options)
        acknowledged = self.receiver.acknowledged & _WORD
        return self._template.build(self._first, acknowledged, SYN | ACK, window, options=options)

    def _send(self, frames: list[bytes], budget: int, now: float, *, probe: bool) -> None:
        sender, receiver = self.sender, self.receiver
        pieces = sender.dispatch(budget, now)
        if not pieces and not self._ack_now and now < self._ack_at and not probe:
            return
        acknowledged = max(receiver.acknowledged, self._told)
        self._told = acknowledged
        window = max(receiver.edge - acknowledged, 0) >> (self._shift or 0)
        acknowledgment = acknowledged & _WORD
        build = self._template.build
        if pieces:
            if self._ack_now and receiver.has_gap and self._sack:
                frames.append(self._bare(acknowledgment, window))
            last = pieces[-1].position
            for position, payload, fin in pieces:
                # Push where the data at hand end (RFC 9293 section 3.9.1.2).
                flags = ACK | FIN | PSH if fin else ACK | PSH if position == last else ACK
                frames.append(build(position & _WORD, acknowledgment, flags, window, payload))
            if sender.fin_sent and self.state in {State.ESTABLISHED, State.CLOSE_WAIT}:
                self._move(Event.SENT_FIN)
        elif probe:
            # One number before what is unacknowledged: not acceptable, so it must be answered.
            frames.append(build(sender.una - 1 & _WORD, acknowledgment, ACK, window))
        else:
            frames.append(self._bare(acknowledgment, window))
        self._ack_now = False
        self._ack_at = NEVER
        self._unacknowledged = 0

    def _bare(self, acknowledgment: int, window: int) -> bytes:
        """Build an acknowledgement without data; it tells what came out of order."""
        options = b""
        if self._sack and self.receiver.has_gap:
            options = encode_sack([(low & _WORD, high & _WORD) for low, high in self.receiver.sack_blocks()])
        return self._template.build(self.sender.next & _WORD, acknowledgment, ACK, window, options=options)
