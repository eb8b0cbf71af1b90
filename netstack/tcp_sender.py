"""The sending half of a TCP connection: what the guest has yet to acknowledge, and when it is sent (again).

Theory of operation
-------------------
Positions are sequence numbers that do not wrap; the connection cuts them to 32 bits. The buffer holds the
bytes from ``una`` on, and no more than ``limit`` of them. It grows with the congestion window, since the host
is read as far as that allows and UNSENT_BYTES beyond; the window grows only while it is in use (RFC 7661), so
both follow the path's bandwidth-delay product. ``limit`` is the owner's, which may lower it at any time:
then nothing more is taken until so much is acknowledged.

What was sent is a line of records by position, each one segment as it left. An acknowledgement takes records
off the front; a SACK block marks some behind. Those neither acknowledged, sacked nor lost are also kept by
time of sending, so that the cost of an acknowledgement does not depend on how much is in flight.

Loss is detected as in RFC 8985 (RACK) and RFC 6675: a segment is lost when three that were sent after it
have arrived, or when a later sent one has and the time for reordering is over, which finds lost
retransmissions too. Once segments have been seen to overtake each other, only time counts, and as much more
of it as the latest took, a round trip at most. A guest without SACK is served by NewReno (RFC 6582): three
duplicate acknowledgements, then one segment per partial acknowledgement. When nothing comes back at all, the
timer of RFC 6298 takes everything as lost.

A loss on the path to the client is told by who sees it there (:meth:`Sender.lost_on_path`): the segment is
sent again at once, and the window stays, since what the path carries is the business of its own congestion
control. Where the guest's acknowledgements had told first, the window that was given up is taken back once
every loss of that recovery is explained so, as after a spurious one (RFC 4015). What is lost behind the
client nobody but the guest can tell, and that makes the window smaller.

A closed window is probed for ever (RFC 9293 section 3.8.6.1), with intervals that double.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from operator import attrgetter
from typing import NamedTuple

from netstack.tcp_congestion import GUESSED_ROUND_TRIP, NewReno, Pacer, RoundTrip

SEND_BUFFER = 256 * 1024
"""Bytes of host data that one connection may hold, unless its owner says otherwise."""

UNSENT_BYTES = 128 * 1024
"""Bytes that are read from the host before they may be sent: the largest turn of a peer's line."""

DUPLICATES = 3
"""RFC 5681 section 3.2."""

MAX_TIMEOUTS = 10
"""Time-outs in a row after which the guest is taken as gone: over 100 s (RFC 9293 section 3.8.3, R2)."""

MIN_REORDERING = 0.001
"""Seconds that packets may overtake each other without one being taken as lost."""

RETRIED_ONCE = 2
"""Times that a segment was sent of which the first can have arrived, if it was not the last."""

NEVER = math.inf
_start_of = attrgetter("start")


class Piece(NamedTuple):
    """A segment to send: its first sequence number (not wrapped), its bytes, whether a FIN ends it."""

    position: int
    payload: bytes
    fin: bool


class _Sent:
    """One segment that is on its way; ``end`` counts a FIN."""

    __slots__ = ("end", "first", "sacked", "start", "times", "when")

    def __init__(self, start: int, end: int, when: float) -> None:
        self.start = start
        self.end = end
        self.first = self.when = when
        self.times = 1
        self.sacked = False


class Sender:
    """Bytes towards the guest. ``una``: oldest unacknowledged position; ``next``: first never sent."""

    def __init__(self, first: int, mss: int, round_trip: RoundTrip, now: float) -> None:
        self.una = self.next = first
        self.mss = mss
        self.edge = first
        """First position that the guest's window does not take."""
        self.max_window = 0
        self.sack = False
        self.round_trip = round_trip
        self.congestion = NewReno(mss, SEND_BUFFER)
        self.limit = SEND_BUFFER
        """Bytes that the buffer may hold at present; at least one segment."""
        self.failed = False
        """Whether the guest has not answered for so long that it is taken as gone."""
        self.finished = self.fin_sent = False
        """Whether a FIN follows the last byte of the buffer, and whether it has been sent."""
        self.retransmitted = self.cuts = 0
        """Segments sent again so far; losses behind the client for which the window was made smaller."""
        self.waits_for_budget = False
        """Whether the last :meth:`dispatch` could have sent more but for its ``budget``: then no timer runs
        for the rest, and the owner has to call again when it has more to spend."""
        self._pacer = Pacer(mss, now)
        self._buffer = bytearray()
        # Highest position that has arrived, in order or not; position after the last byte in the buffer.
        self._foremost = self._end = first
        self._sent: deque[_Sent] = deque()
        """By position."""
        self._flying: dict[int, _Sent] = {}
        """Those on their way, by their ends, in the order of sending."""
        self._lost: dict[int, _Sent] = {}
        """Those to be sent again, by their ends."""
        self._flight = self._sacked = 0
        """Bytes on their way (sent, not acknowledged, sacked or lost), and records marked as sacked."""
        self._highest_sacked: list[int] = []
        """Where the last DUPLICATES of these start, in order."""
        self._blocks: dict[int, int] = {}
        """SACK blocks of the last acknowledgement, start to end: their records are marked."""
        self._clear_from = -NEVER
        """What was sent before measures no round trip: it may have arrived long before that acknowledgement
        of it which was not lost (Karn)."""
        # Seconds beyond a round trip after which segments came that others had overtaken; None before any.
        self._lateness: float | None = None
        self._duplicates = self._persist_backoff = 0
        self._recovering = False
        self._recover = first
        """Where ``next`` was when the last loss was noticed."""
        self._blamed: set[int] = set()
        """Where the segments start for whose loss the window was made smaller, while that can be undone."""
        self._excused = self._send_first = False
        """Whether the last recovery's losses were all explained, so that the next one counts anew; whether
        the first lost segment may be sent whatever the window says."""
        self._delivered = (0.0, first)
        """When the segment that was sent last of those that arrived was sent, and its end."""
        self._timeout_at = self._reordering_at = self._persist_at = self._paced_until = NEVER
        self._unaffordable = 0
        """Bytes of the segment for which pace or budget had too little left, in the last dispatch."""

    # -- what the host side asks ----------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes worth reading from the host: what the windows take, and always one segment's worth.

        (With nothing at hand, a window that has closed could not be probed.)
        """
        mss = self.mss
        sendable = min(self.edge - self.next, self.congestion.window - self._flight, UNSENT_BYTES)
        # Whole segments, so that reading does not make small ones.
        room = max(sendable // mss * mss, mss) - (self._end - self.next)
        return max(0, min(room, self.limit - len(self._buffer)))

    def limit_buffer(self, size: int) -> None:
        """Hold ``size`` bytes at most, once what exceeds that has been acknowledged."""
        self.limit = self.congestion.ceiling = size

    @property
    def buffered(self) -> int:
        """Bytes held, sent or not."""
        return len(self._buffer)

    @property
    def all_acknowledged(self) -> bool:
        """Whether everything, and the FIN, has arrived."""
        return self.fin_sent and self.una == self.next

    @property
    def has_unsent(self) -> bool:
        """Whether bytes, a FIN or retransmissions wait to be sent."""
        return self.next < self._end or (self.finished and not self.fin_sent) or bool(self._lost)

    @property
    def is_paced(self) -> bool:
        """Whether what is unsent waits for the pace."""
        return self._paced_until < NEVER

    @property
    def is_busy(self) -> bool:
        """Whether something is unsent or unacknowledged."""
        return self.has_unsent or self.una < self.next

    def write(self, data: bytes) -> None:
        """Take host data, at most :attr:`room` bytes."""
        self._buffer += data
        self._end += len(data)

    # -- what the guest says --------------------------------------------------------------------------

    def set_window(self, position: int, window: int) -> None:
        """Take the guest's window of ``window`` bytes from ``position`` on."""
        self.edge = position + window
        self.max_window = max(self.max_window, window)
        if window == 0:
            # A guest that says so lives, however often its time-outs have doubled.
            self.round_trip.backoff = min(self.round_trip.backoff, MAX_TIMEOUTS // 2)
        if self.edge > self.next:
            self._persist_at, self._persist_backoff = NEVER, 0

    def acknowledge(
        self, position: int, blocks: list[tuple[int, int]], now: float, *, duplicate: bool
    ) -> None:
        """Take an acknowledgement up to ``position``, within what was sent.

        ``blocks`` are the SACK blocks as positions; ``duplicate`` says that it had neither data nor news of
        the window (RFC 5681 section 2).
        """
        before = self._flight
        newly = position - self.una
        foremost = self._foremost
        if newly > 0:
            self._advance(position, now)
            # A window that was not used shows nothing about the path (RFC 7661).
            if not self._recovering and self.congestion.window < 2 * before + self.mss:
                self.congestion.acknowledged(newly)
        elif duplicate and self._sent:
            self._duplicates += 1
        if blocks:
            self._mark(blocks, now, foremost, measure=newly <= 0)
        if not self.sack:
            self._detect_by_duplicates(newly)
        elif self._sacked or self._recovering:
            self._detect_by_time(now)
        if newly > 0:
            self._duplicates = 0
            if self._recovering and position >= self._recover:
                self._recovering = False
                self._blamed.clear()
            self._timeout_at = now + self.round_trip.timeout if self._sent else NEVER

    def _advance(self, position: int, now: float) -> None:
        """Take off what is acknowledged."""
        sent, foremost = self._sent, self._foremost
        measured = None
        while sent and sent[0].end <= position:
            record = sent.popleft()
            if record.sacked:
                self._sacked -= 1
                continue
            self._arrived(record)
            if record.times == 1 and record.when >= self._clear_from:
                measured = record.when
            if record.times > 1 or record.end < foremost:
                self._look_whether_late(record, now)
            # What follows a retransmission at once may acknowledge the first try (RFC 8985 section 6.2).
            if record.times == 1 or now - record.when >= self.round_trip.latest / 2:
                self._delivered = max(self._delivered, (record.when, record.end))
        if sent and sent[0].start < position:
            record = sent[0]
            if record.end in self._flying:
                self._flight -= position - record.start
            record.start = position
        del self._buffer[: position - self.una]
        self.una = position
        self._foremost = max(foremost, position)
        if not self._sacked:
            self._highest_sacked.clear()
            self._blocks.clear()
        if measured is not None:
            self.round_trip.sample(now - measured)
        self.round_trip.backoff = 0

    def _arrived(self, record: _Sent) -> None:
        """Take a record off those that are on their way, or lost."""
        if self._lost.pop(record.end, None) is None:
            del self._flying[record.end]
            self._flight -= record.end - record.start

    def _look_whether_late(self, record: _Sent, now: float) -> None:
        """Take note of a segment that came behind later ones and was not lost, whatever it was taken for.

        Of one that was sent again, the try before it has come where no round trip is as short as since the
        last; but not where all was sent again: that may have arrived long ago. If the window was made smaller
        for nothing else, that is taken back (RFC 4015).
        """
        if record.first < self._clear_from:
            return
        if record.times > 1 and now - record.when >= self.round_trip.shortest * 3 / 4:
            return
        if record.times <= RETRIED_ONCE:
            lateness = now - record.first - (self.round_trip.smoothed or GUESSED_ROUND_TRIP)
            self._lateness = max(self._lateness or 0.0, lateness)
        if record.start in self._blamed:
            self._excuse(record.start)

    def _mark(self, blocks: list[tuple[int, int]], now: float, foremost: int, *, measure: bool) -> None:
        """Mark what the guest has received out of order, and ``measure`` how long it took.

        While a gap is open nothing else shows that queues on the way have become longer. ``foremost`` is the
        highest position that had arrived before.
        """
        latest = 0.0
        sent, known, highest = self._sent, self._blocks, self._highest_sacked
        for low, high in blocks:
            # Where the block only has become longer, its beginning is marked already.
            index = bisect_left(sent, known.get(low, low), key=_start_of)
            while index < len(sent) and (record := sent[index]).end <= high:
                index += 1
                if record.sacked:
                    continue
                record.sacked = True
                self._sacked += 1
                self._delivered = max(self._delivered, (record.when, record.end))
                self._arrived(record)
                if record.times == 1 and record.when >= self._clear_from:
                    latest = max(latest, record.when)
                if record.times > 1 or record.end < foremost:
                    self._look_whether_late(record, now)
                insort(highest, record.start)
                del highest[:-DUPLICATES]
            self._foremost = max(self._foremost, high)
        if measure and latest:
            self.round_trip.sample(now - latest)
        self._blocks = {low: min(high, self._marked_up_to(high)) for low, high in blocks}

    def _marked_up_to(self, high: int) -> int:
        """Give where the record begins which ``high`` cuts, or ``high`` where it cuts none."""
        index = bisect_left(self._sent, high, key=_start_of)
        return self._sent[index - 1].start if index and self._sent[index - 1].end > high else high

    def _detect_by_time(self, now: float) -> None:
        """Find what was overtaken: by three segments, or by one for longer than reordering explains."""
        self._reordering_at = NEVER
        smoothed = self.round_trip.smoothed
        if smoothed is None:
            smoothed = GUESSED_ROUND_TRIP
        lateness = self._lateness
        reordering = max(smoothed / 4, MIN_REORDERING, min(lateness or 0.0, smoothed))
        patience = max(smoothed, self.round_trip.latest) + reordering
        delivered_when, delivered_end = self._delivered
        highest = self._highest_sacked
        third = highest[0] if len(highest) == DUPLICATES else self.una
        lost = []
        for record in self._flying.values():
            when = record.when
            if when > delivered_when:
                break  # whatever follows was sent later still
            if lateness is None and record.times == 1 and record.start < third:
                lost.append(record)
            elif when < delivered_when or record.end < delivered_end:
                if when + patience <= now:
                    lost.append(record)
                else:
                    self._reordering_at = min(self._reordering_at, when + patience)
        for record in lost:
            self._lose(record)
        if lost:
            self._enter_recovery(lost)

    def _detect_by_duplicates(self, newly: int) -> None:
        """NewReno, for guests without SACK."""
        if not self._sent:
            return
        first = self._sent[0]
        partial = newly > 0 and self._recovering and self.una < self._recover
        if partial or (self._duplicates == DUPLICATES and not self._recovering):
            if first.end in self._flying:
                self._lose(first)
            self._send_first = True
            self._enter_recovery([first])

    def _lose(self, record: _Sent) -> None:
        del self._flying[record.end]
        self._flight -= record.end - record.start
        self._lost[record.end] = record

    def _enter_recovery(self, lost: list[_Sent]) -> None:
        if self._blamed:
            self._blamed.update(record.start for record in lost)
            return  # the window has given way for this flight already
        if self.una < self._recover and not self._excused:
            return
        self.congestion.lost(self.next - self.una)
        self.cuts += 1
        self._excused = False
        self._blamed.update(record.start for record in lost)
        self._recovering = True
        self._recover = self.next
        self._send_first = True

    def lost_on_path(self, position: int, sent_at: float) -> bool:
        """Take the segment from ``position``, as sent at ``sent_at``, as lost on the way to the client.

        Returns whether it is to be sent again that would not have been by now. So is a probe of the guest's
        closed window, which may have opened meanwhile, and was told in a segment that was lost, too.
        """
        if position == self.una - 1 and self._persist_at < NEVER:
            self._persist_at = sent_at
            self._persist_backoff = max(0, self._persist_backoff - 1)
            return True
        if position in self._blamed:
            self._excuse(position)
        index = bisect_left(self._sent, position, key=_start_of)
        if index == len(self._sent) or (record := self._sent[index]).start != position:
            return False
        # Another try may have left since.
        if record.end not in self._flying or record.when > sent_at:
            return False
        self._lose(record)
        if not self.sack:
            # The duplicate acknowledgements of what is behind it tell nothing new.
            self._recovering, self._recover = True, self.next
        return True

    def longer_lost(self) -> None:
        """Take what is on its way in longer segments than ``mss`` as lost, for no fault of the network's."""
        lost = [record for record in self._flying.values() if record.end - record.start > self.mss]
        for record in lost:
            self._lose(record)
        if lost and not self.sack:
            self._recovering, self._recover = True, self.next

    def _excuse(self, position: int) -> None:
        """Note that what the window was made smaller for was no sign of congestion behind the client."""
        self._blamed.remove(position)
        if not self._blamed:
            self.congestion.undo()
            self.cuts -= 1
            self._excused = True
            self._recovering = self._recovering and not self.sack

    # -- time -----------------------------------------------------------------------------------------

    @property
    def poll_at(self) -> float:
        """When :meth:`tick` or :meth:`dispatch` next has something to do."""
        return min(self._timeout_at, self._reordering_at, self._persist_at, self._paced_until)

    def tick(self, now: float) -> bool:
        """Do what is due; return whether the guest's window is to be probed with an empty segment."""
        if now >= self._reordering_at:
            self._detect_by_time(now)
        if now >= self._timeout_at:
            self._time_out(now)
        if now < self._persist_at:
            return False
        self._persist_backoff += 1
        self._persist_at = now + min(self.round_trip.timeout * (1 << min(self._persist_backoff, 8)), 60.0)
        return True

    def _time_out(self, now: float) -> None:
        """Take everything on its way as lost (RFC 6298 section 5.4 to 5.6)."""
        if not self._sent:
            self._timeout_at = NEVER
            return
        round_trip = self.round_trip
        first = self._sent[0]
        if first.end in self._flying and now < (due := first.when + round_trip.timeout):
            self._timeout_at = due  # round trips have become longer since it left
            return
        if round_trip.backoff >= MAX_TIMEOUTS:
            self.failed = True
            self._timeout_at = NEVER
            return
        # With nothing on its way but what was lost on the path and waits for it, there is nobody to blame.
        if self._flying or not self._lost:
            self.congestion.timed_out(self.next - self.una, again=round_trip.backoff > 0)
        round_trip.backoff += 1
        self._lose_all(now)

    def all_lost(self, now: float) -> None:
        """Take everything on its way as lost, for no fault of the network's: the path was replaced.

        Neither the window nor the time-out suffers, and a guest's closed window is probed at once.
        """
        self.round_trip.backoff = 0
        if self._sent:
            self._lose_all(now)
        if self._persist_at < NEVER:
            self._persist_at, self._persist_backoff = now, 0

    def _lose_all(self, now: float) -> None:
        self._clear_from = now
        self._blamed.clear()
        self._excused = False
        # A guest that says it holds the first missing byte has dropped it again (RFC 2018 section 8).
        reneged = self._sent[0].sacked
        if reneged:
            for record in self._sent:
                record.sacked = False
            self._sacked = 0
            self._highest_sacked.clear()
            self._blocks.clear()
        self._lost = {record.end: record for record in self._sent if not record.sacked}
        self._flying.clear()
        self._flight = 0
        self._recovering = False
        self._recover = self.next
        self._duplicates = 0
        self._delivered = (0.0, self.una)
        self._send_first = True
        self._timeout_at = now + self.round_trip.timeout

    # -- sending --------------------------------------------------------------------------------------

    def dispatch(self, budget: int, now: float) -> list[Piece]:
        """Return what may be sent now, up to about ``budget`` bytes.

        Liveness: whatever is left unsent has a timer (its own, or that of what is in flight before it), or
        ``waits_for_budget`` is true.
        """
        self._paced_until = NEVER
        self.waits_for_budget = False
        self._unaffordable = 0
        if not self.has_unsent:
            return []
        pace = self._pacer.allowance(self.congestion, self.round_trip.smoothed, now)
        allowed = min(budget, pace)
        pieces: list[Piece] = []
        with memoryview(self._buffer) as view:
            left = self._send_lost(view, allowed, pieces, now) if self._lost else allowed
            if not self._lost:
                left = self._send_new(view, left, pieces, now)
        self._pacer.sent(allowed - left)
        if self._unaffordable:
            # The pace first: a turn on the line is worth nothing to a flow that may not send yet.
            if pace - (allowed - left) < self._unaffordable:
                self._paced_until = self._pacer.ready_at(max(2 * self.mss, self._unaffordable))
            else:
                self.waits_for_budget = True
        if pieces and self._timeout_at == NEVER and self._sent:
            self._timeout_at = now + self.round_trip.timeout
        return pieces

    def _send_lost(self, view: memoryview, left: int, pieces: list[Piece], now: float) -> int:
        window = self.congestion.window
        while self._lost:
            end, record = next(iter(self._lost.items()))
            size = end - record.start
            if not self._send_first:
                if self._flight and self._flight + size > window:
                    break
                if size > left:
                    self._unaffordable = size
                    break
            del self._lost[end]
            self._send_first = False
            pieces += self._cut(view, record)
            record.times += 1
            record.when = now
            if record is self._sent[0]:
                # It gets its time to arrive, however long it took to find out that the last try was lost.
                self._timeout_at = now + self.round_trip.timeout
            self._flying[end] = record
            self._flight += size
            self.retransmitted += 1
            left -= size
        return left

    def _cut(self, view: memoryview, record: _Sent) -> list[Piece]:
        """Make segments of a record: more than one where the MSS has become smaller meanwhile."""
        end = min(record.end, self._end)
        fin = record.end > self._end
        if record.start == end:
            return [Piece(end, b"", fin)]
        return [
            Piece(
                start,
                bytes(view[start - self.una : min(start + self.mss, end) - self.una]),
                fin and start + self.mss >= end,
            )
            for start in range(record.start, end, self.mss)
        ]

    def _send_new(self, view: memoryview, left: int, pieces: list[Piece], now: float) -> int:
        mss, una, end = self.mss, self.una, self._end
        position, flight, window = self.next, self._flight, self.congestion.window
        sent, flying = self._sent, self._flying
        while position < end:
            size = min(mss, end - position)
            if position + size > self.edge:
                # A part of a segment only when the guest has never had a larger window (RFC 9293, 3.8.6.2.1).
                size = self.edge - position
                if size <= 0 or (size < self.max_window // 2 and sent):
                    break
            if flight and flight + size > window:
                break
            if size > left:
                self._unaffordable = size
                break
            payload = bytes(view[position - una : position + size - una])
            stop = position + size
            fin = self.finished and stop == end
            pieces.append(Piece(position, payload, fin))
            record = _Sent(position, stop + fin, now)
            sent.append(record)
            flying[stop + fin] = record
            position = stop
            flight += size + fin
            left -= size
            if fin:
                self.fin_sent = True
                position += 1
        if self.finished and not self.fin_sent and position == end:
            pieces.append(Piece(position, b"", True))
            record = _Sent(position, position + 1, now)
            sent.append(record)
            flying[position + 1] = record
            self.fin_sent = True
            position += 1
            flight += 1
        self.next, self._flight = position, flight
        if position < end and not sent and self._persist_at == NEVER and position >= self.edge:
            self._persist_at = now + self.round_trip.timeout
        return left
