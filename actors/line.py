"""The line to one peer, as the flows that write much to it see it: how much more it takes now.

A session's queue drops its oldest datagrams when it is full. Flows that can wait (TCP) therefore ask first.
What flows were granted but has not reached the session yet (it is in actors' inboxes, all within one run of
the scheduler) counts as queued, so that many flows together do not overrun what each found free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.messages import LineWritable
from actors.runtime import tell_alive

if TYPE_CHECKING:
    from actors.messages import Mailbox
    from actors.ports import Session

LINE_BYTES = 128 * 1024
"""Bytes that flows together keep queued for one peer: half of what its session takes before it drops, so
that pings and datagrams of others still fit, and 10 ms at 100 Mbit/s."""


class Line:
    """One per port; its PeerActor makes it, its flows ask it."""

    __slots__ = ("_granted", "_session", "_waiting")

    def __init__(self, session: Session | None = None) -> None:
        """Without a session (a port that is not a client's) there is always room."""
        self._session = session
        self._granted = 0
        self._waiting: dict[Mailbox, None] = {}
        """Flows that wait for room; the session of each has a bounded number of them."""

    @property
    def room(self) -> int:
        """Bytes that may be sent now; none or less when it is time to wait."""
        if self._session is None:
            return LINE_BYTES
        return LINE_BYTES - self._session.queued_bytes - self._granted

    def grant(self, size: int) -> None:
        """Note that ``size`` bytes are on their way to the session."""
        self._granted += size

    def arrived(self) -> None:
        """Note that what was granted is in the session's queue now."""
        self._granted = 0

    def wait(self, flow: Mailbox) -> None:
        """Have ``flow`` told LineWritable when there is room."""
        if self._session is not None:
            self._waiting[flow] = None
            self._session.call_when_writable(self._wake)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for flow in waiting:
            tell_alive(flow, LineWritable())
