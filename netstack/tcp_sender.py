"""The sending half of a TCP connection: what the guest has yet to acknowledge, and when it is sent (again).

Theory of operation
-------------------
Positions are sequence numbers that do not wrap; the connection cuts them to 32 bits. The buffer holds the
bytes from ``una`` on, and no more than SEND_BUFFER of them. What was sent is a line of records, oldest first,
each one segment as it left. An acknowledgement takes records off the front; a SACK block marks some behind.

Loss is detected as in RFC 8985 (RACK) and RFC 6675: a segment is lost when three that were sent after it
have arrived, or when a later sent one has and the time for reordering is over, which finds lost
retransmissions too. A guest without SACK is served by NewReno (RFC 6582): three duplicate acknowledgements,
then one segment per partial acknowledgement. When nothing comes back at all, the timer of RFC 6298 takes
everything as lost.

A closed window is probed for ever (RFC 9293 section 3.8.6.1), with intervals that double.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from netstack.tcp_congestion import GUESSED_ROUND_TRIP, NewReno, Pacer, RoundTrip

SEND_BUFFER = 256 * 1024
"""Bytes of host data that one connection may hold: the bandwidth-delay product of 400 Mbit/s and 5 ms."""

DUPLICATES = 3
"""RFC 5681 section 3.2."""

MAX_TIMEOUTS = 10
"""Time-outs in a row after which the guest is taken as gone: over 100 s (RFC 9293 section 3.8.3, R2)."""

MIN_REORDERING = 0.001
"""Seconds that packets may overtake each other without one being taken as lost."""

NEVER = math.inf


class Piece(NamedTuple):
    """A segment to send: its first sequence number (not wrapped), its bytes, whether a FIN ends it."""

    position: int
    payload: bytes
    fin: bool


class _Sent:
    """One segment that is on its way; ``end`` counts a FIN."""

    __slots__ = ("end", "lost", "sacked", "start", "times", "when")

    def __init__(self, start: int, end: int, when: float) -> None:
        self.start = start
        self.end = end
        self.when = when
        self.times = 1
        self.sacked = False
        self.lost = False
        """Taken as lost and not sent again yet."""


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
        self.failed = False
        """Whether the guest has not answered for so long that it is taken as gone."""
        self.finished = False
        """Whether a FIN follows the last byte of the buffer."""
        self.fin_sent = False
        self.retransmitted = 0
        """Segments sent again so far."""
        self.waits_for_budget = False
        """Whether the last :meth:`dispatch` could have sent more but for its ``budget``: then no timer runs
        for the rest, and the owner has to call again when it has more to spend."""
        self._pacer = Pacer(mss, now)
        self._buffer = bytearray()
        self._end = first
        """Position after the last byte in the buffer."""
        self._sent: deque[_Sent] = deque()
        self._lost: deque[_Sent] = deque()
        self._flight = 0
        """Bytes on their way: sent, neither acknowledged nor sacked nor lost."""
        self._sacked = 0
        """Records marked as sacked."""
        self._duplicates = 0
        self._recovering = False
        self._recover = first
        """Where ``next`` was when the last loss was noticed."""
        self._send_first = False
        """Whether the first lost segment may be sent whatever the window says."""
        self._delivered_when = 0.0
        """When the segment that was sent last of those that arrived was sent."""
        self._timeout_at = NEVER
        self._reordering_at = NEVER
        self._persist_at = NEVER
        self._persist_backoff = 0
        self._paced_until = NEVER
        self._unaffordable = 0
        """Bytes of the segment for which pace or budget had too little left, in the last dispatch."""

    # -- what the host side asks ----------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes worth reading from the host: what the windows take, and always one segment's worth.

        (With nothing at hand, a window that has closed could not be probed.)
        """
        mss = self.mss
        sendable = min(self.edge - self.next, self.congestion.window - self._flight)
        # Whole segments, so that reading does not make small ones.
        room = max(sendable // mss * mss, mss) - (self._end - self.next)
        return max(0, min(room, SEND_BUFFER - len(self._buffer)))

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
        if newly > 0:
            self._advance(position, now)
            # A window that was not used shows nothing about the path (RFC 7661).
            if not self._recovering and self.congestion.window < 2 * before + self.mss:
                self.congestion.acknowledged(newly)
        elif duplicate and self._sent:
            self._duplicates += 1
        if blocks:
            self._mark(blocks)
        if not self.sack:
            self._detect_by_duplicates(newly)
        elif self._sacked or self._recovering:
            self._detect_by_time(now)
        if newly > 0:
            self._duplicates = 0
            if self._recovering and position >= self._recover:
                self._recovering = False
            self._timeout_at = now + self.round_trip.timeout if self._sent else NEVER

    def _advance(self, position: int, now: float) -> None:
        """Take off what is acknowledged."""
        sent = self._sent
        measured = None
        while sent and sent[0].end <= position:
            record = sent.popleft()
            if record.sacked:
                self._sacked -= 1
                continue
            if record.lost:
                record.lost = False
            else:
                self._flight -= record.end - record.start
            if record.times == 1:
                measured = record.when
            # What follows a retransmission at once may acknowledge the first try (RFC 8985 section 6.2).
            if record.times == 1 or now - record.when >= self.round_trip.latest / 2:
                self._delivered_when = max(self._delivered_when, record.when)
        if sent and sent[0].start < position:
            record = sent[0]
            if not record.sacked and not record.lost:
                self._flight -= position - record.start
            record.start = position
        del self._buffer[: position - self.una]
        self.una = position
        if measured is not None:
            self.round_trip.sample(now - measured)
        self.round_trip.backoff = 0

    def _mark(self, blocks: list[tuple[int, int]]) -> None:
        """Mark what the guest has received out of order."""
        highest = max(high for _, high in blocks)
        for record in self._sent:
            if record.start >= highest:
                break
            if record.sacked or not any(low <= record.start and record.end <= high for low, high in blocks):
                continue
            record.sacked = True
            self._sacked += 1
            self._delivered_when = max(self._delivered_when, record.when)
            if record.lost:
                record.lost = False
            else:
                self._flight -= record.end - record.start

    def _detect_by_time(self, now: float) -> None:
        """Find what was overtaken: by three segments, or by one for longer than reordering explains."""
        self._reordering_at = NEVER
        smoothed = self.round_trip.smoothed
        if smoothed is None:
            smoothed = GUESSED_ROUND_TRIP
        patience = smoothed + max(smoothed / 4, MIN_REORDERING)
        delivered = self._delivered_when
        above = self._sacked
        found = False
        for record in self._sent:
            overtaken = record.when < delivered
            if record.sacked:
                above -= 1
            elif record.lost:
                continue
            elif (above >= DUPLICATES and record.times == 1) or (overtaken and record.when + patience <= now):
                self._lose(record)
                found = True
            elif overtaken:
                self._reordering_at = min(self._reordering_at, record.when + patience)
            elif not above and record.times == 1:
                break  # whatever follows was sent later still
        if found:
            self._enter_recovery()

    def _detect_by_duplicates(self, newly: int) -> None:
        """NewReno, for guests without SACK."""
        if not self._sent:
            return
        first = self._sent[0]
        partial = newly > 0 and self._recovering and self.una < self._recover
        if partial or (self._duplicates == DUPLICATES and not self._recovering):
            if not first.lost:
                self._lose(first)
            self._send_first = True
            self._enter_recovery()

    def _lose(self, record: _Sent) -> None:
        record.lost = True
        self._flight -= record.end - record.start
        self._lost.append(record)

    def _enter_recovery(self) -> None:
        if self._recovering or self.una < self._recover:
            return  # the window has given way for this flight already
        self.congestion.lost(self.next - self.una)
        self._recovering = True
        self._recover = self.next
        self._send_first = True

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
        if round_trip.backoff >= MAX_TIMEOUTS:
            self.failed = True
            self._timeout_at = NEVER
            return
        self.congestion.timed_out(self.next - self.una, again=round_trip.backoff > 0)
        round_trip.backoff += 1
        # A guest that says it holds the first missing byte has dropped it again (RFC 2018 section 8).
        reneged = self._sent[0].sacked
        self._lost.clear()
        for record in self._sent:
            if record.sacked and reneged:
                record.sacked = False
                self._sacked -= 1
            record.lost = not record.sacked
            if record.lost:
                self._lost.append(record)
        self._flight = 0
        self._recovering = False
        self._recover = self.next
        self._duplicates = 0
        self._delivered_when = 0.0
        self._send_first = True
        self._timeout_at = now + round_trip.timeout

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
            record = self._lost[0]
            if not record.lost:  # it has arrived meanwhile
                self._lost.popleft()
                continue
            size = record.end - record.start
            if not self._send_first:
                if self._flight and self._flight + size > window:
                    break
                if size > left:
                    self._unaffordable = size
                    break
            self._lost.popleft()
            self._send_first = False
            pieces += self._cut(view, record)
            record.lost = False
            record.times += 1
            record.when = now
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
        sent = self._sent
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
            sent.append(_Sent(position, stop + fin, now))
            position = stop
            flight += size + fin
            left -= size
            if fin:
                self.fin_sent = True
                position += 1
        if self.finished and not self.fin_sent and position == end:
            pieces.append(Piece(position, b"", True))
            sent.append(_Sent(position, position + 1, now))
            self.fin_sent = True
            position += 1
            flight += 1
        self.next, self._flight = position, flight
        if position < end and not sent and self._persist_at == NEVER and position >= self.edge:
            self._persist_at = now + self.round_trip.timeout
        return left
