"""The line to one peer, as the flows that write much to it see it: what it takes now, and whose turn it is.

A session's queue drops its oldest datagrams when it is full. Flows that can wait (TCP) therefore ask first.
What flows were granted but has not reached the session yet (it is in actors' inboxes, all within one run of
the scheduler) counts as queued, so that many flows together do not overrun what each found free.

Two marks: flows wait once the session's ``room`` is taken, which follows the rate of the path, and are woken
when half of it is free (``call_when_writable``). So a wake-up is worth many segments, and the line does not
run empty meanwhile. While anybody waits nobody else is let in. Turns are of equal size and go to those whose
last one is longest ago: each backlogged flow has the same share, however soon it comes back for more. A flow
that is held back by its pace keeps the rest of its turn, which counts as queued until it is used.

Where the session's rate is limited (``rate_limit``), what that leaves counts as room too, and a timer
wakes those who wait for it.

What the path to the client has lost is known here too: the session tells which datagrams, and flows that
registered are told which of their segments, so that they go again at once.

A client that lost its session and comes back has another one; its flows keep the line.

Liveness: whoever waits is woken by the session, when what is in its queue leaves. Where too little is in the
queue for that (what was granted got lost on its way, or those who had a turn had no use for it), a look at
the end of the scheduler's run wakes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from actors.runtime import current_scheduler, tell_alive
from netstack.tcp_segment import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.ports import Session
    from actors.rate_limit import RateLimit
    from actors.runtime import Mailbox
    from actors.scheduler import TimerHandle
    from actors.upload import Upload

LINE_BYTES = 128 * 1024
"""Bytes that flows together keep queued where there is no session that says."""

TURN_BYTES = 12 * 1024
"""Bytes of one turn at least, eight full segments: where more flows wait than get such a turn, the others
are woken later rather than all for a segment each. On a slow path it is half of the session's room."""


TIMER_SLACK = 0.001
"""Seconds beyond the moment at which the rate leaves room, so that rounding makes no second timer."""


class SegmentsLost(NamedTuple):
    """Line -> flow: sequence numbers of segments that the path to the client has lost, and when they left."""

    segments: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class LineReplaced:
    """Line -> flow: the client has another session now; what was on its way to it is lost."""


@dataclass(frozen=True, slots=True)
class LineWritable:
    """Line -> flow: the queue towards the client has room again, of which ``room`` bytes are the flow's turn.

    It gives them back when they are used, or when it has no use for them.
    """

    room: int


class Line:
    """One per port; its PeerActor makes it, its flows ask it."""

    __slots__ = (
        *(
            "_flows",
            "_granted",
            "_last_turn",
            "_limit",
            "_promised",
            "_session",
            "_settles",
            "_timer",
            "_turns",
        ),
        *("_waiting", "packet_limit", "upload"),
    )

    def __init__(
        self, session: Session | None = None, limit: RateLimit | None = None, upload: Upload | None = None
    ) -> None:
        """Without a session (a port that is not a client's) there is always room."""
        self._limit = limit
        self.upload = upload
        """What flows ask before they take what the guest sent; None where that is not limited."""
        self.packet_limit: Callable[[], int] | None = None
        """Tells the largest IP packet that travels in one datagram at present; None where there are none."""
        self._timer: TimerHandle | None = None
        """Runs :meth:`_wake_by_time` when the rate leaves room for a turn."""
        self._session = session
        self._flows: dict[bytes, Mailbox] = {}
        """Flows by addresses and ports of their segments, to be told of losses."""
        self._granted = 0
        self._promised = 0
        """Bytes of turns that flows hold and have not used."""
        self._waiting: dict[Mailbox, None] = {}
        """Flows that wait for room, longest first; a session has a bounded number of flows."""
        self._last_turn: dict[Mailbox, int] = {}
        """Number of the last turn of each flow that had one."""
        self._turns = count(1)
        self._settles = False
        """Whether :meth:`_settle` is called at the end of this run."""

    @property
    def room(self) -> int:
        """Bytes that a flow may send now which has no turn: none while others wait for theirs."""
        return 0 if self._waiting else max(0, self._free)

    @property
    def _free(self) -> int:
        if self._session is None:
            return LINE_BYTES
        under_way = self._granted + self._promised
        free = self._session.room - self._session.queued_bytes - under_way
        if self._limit is None:
            return free
        return min(free, self._limit.room(current_scheduler().loop.time()) - under_way)

    @property
    def is_away(self) -> bool:
        """Whether the client is: what stands for its session has no room at all."""
        return self._session is not None and self._session.room <= 0

    def grant(self, size: int) -> None:
        """Note that ``size`` bytes are on their way to the session."""
        self._granted += size
        self._settle_later()

    def arrived(self) -> None:
        """Note that what was granted is in the session's queue now."""
        self._granted = 0

    def wait(self, flow: Mailbox) -> None:
        """Have ``flow`` told LineWritable when there is room: it holds a turn then."""
        self._waiting[flow] = None
        self._tell_limit()
        if self._session is not None:
            self._session.call_when_writable(self._wake)
        self._settle_later()

    def give_back(self, size: int) -> None:
        """Take back ``size`` bytes of a turn: they were used, and granted, or will not be."""
        self._promised -= size
        if self._waiting:
            self._settle_later()

    def follow(self, ends: bytes, flow: Mailbox) -> None:
        """Have ``flow`` told SegmentsLost of its segments; ``ends`` are their addresses and ports."""
        self._flows[ends] = flow

    def unfollow(self, ends: bytes) -> None:
        """Tell nobody any more."""
        self._flows.pop(ends, None)

    @property
    def limit(self) -> RateLimit | None:
        """What limits the rate towards the client; it outlasts the session."""
        return self._limit

    def change_limits(self, limit: RateLimit | None, upload: Upload | None) -> None:
        """Go on with other limits, or with the same ones at other rates; wake who waited for the former."""
        former, self.upload = self.upload, upload
        if former is not None and former is not upload:
            former.release()
        self._limit = limit
        self._tell_limit()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._wake()

    def carry(self, session: Session) -> None:
        """Take another session in the place of the one there was.

        What was on its way to the client is lost, and flows that wait are woken, if there is room.
        """
        self._session = session
        self._granted = 0
        for flow in list(self._flows.values()):
            tell_alive(flow, LineReplaced())
        if self._waiting:
            self._wake()

    def lost(self, frames: Sequence[tuple[bytes, float]]) -> None:
        """Tell the flows which of their frames the path to the client has lost; each with its time."""
        segments: dict[bytes, list[tuple[int, float]]] = {}
        for frame, sent_at in frames:
            traced = trace(frame)
            if traced is not None and traced[0] in self._flows:
                segments.setdefault(traced[0], []).append((traced[1], sent_at))
        for ends, lost in segments.items():
            tell_alive(self._flows[ends], SegmentsLost(lost))

    def leave(self, flow: Mailbox) -> None:
        """Forget a flow that has ended."""
        self._waiting.pop(flow, None)
        self._last_turn.pop(flow, None)
        self._tell_limit()

    def _tell_limit(self) -> None:
        """Have the limit keep something for those who wait, if any do."""
        if self._limit is not None:
            self._limit.is_awaited = bool(self._waiting)

    def _settle_later(self) -> None:
        if not self._settles:
            self._settles = True
            current_scheduler().at_end(self._settle)

    def _settle(self) -> None:
        """Forget grants that got lost on their way, and wake whom the session has no cause to wake."""
        self._settles = False
        self._granted = 0
        if self._waiting and (self._session is None or self._session.writable):
            self._wake()

    def _wake(self) -> None:
        """Give turns to those who have been without one for longest, as far as there is room."""
        waiting, last_turn, free = self._waiting, self._last_turn, self._free
        least = TURN_BYTES if self._session is None else min(TURN_BYTES, max(self._session.room // 2, 1))
        turns = min(len(waiting), free // least)
        if turns > 0:
            turn = LineWritable(free // turns)
            for flow in nsmallest(turns, waiting, key=lambda flow: last_turn.get(flow, 0)):
                del waiting[flow]
                if tell_alive(flow, turn):
                    self._promised += turn.room
                    last_turn[flow] = next(self._turns)
            self._tell_limit()
        if waiting and self._session is not None:
            self._session.call_when_writable(self._wake)
            self._wake_when_rate_allows()

    def _wake_when_rate_allows(self) -> None:
        """Come back when the limit of the rate, if it is that, leaves room for a turn."""
        if self._limit is None or self._timer is not None:
            return
        loop = current_scheduler().loop
        wanted = TURN_BYTES + self._granted + self._promised
        seconds = self._limit.seconds_until(wanted, loop.time())
        if seconds > 0:
            self._timer = loop.call_at(loop.time() + seconds + TIMER_SLACK, self._wake_by_time)

    def _wake_by_time(self) -> None:
        self._timer = None
        if self._waiting:
            self._wake()
