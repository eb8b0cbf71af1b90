"""The other direction of a limited line (``actors.line``): how fast TCP flows take what a guest sends.

What a flow holds of its guest's data is acknowledged when it has been taken. Where the session's rate is
limited, flows take no more than has been paid for (``actors.upload_limit``): what is owed they hold
together, and what has been paid for is divided among them by what each has. So acknowledgements pace the
guests at the rate, and windows (WINDOW_SECONDS of it, shared) keep the wait short, which else would pass the
guests' retransmission timeouts.

Liveness: whoever holds something back is woken by a timer until nothing is owed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.runtime import current_scheduler, tell_alive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.runtime import Mailbox
    from actors.upload_limit import UploadLimit

WINDOW_SECONDS = 0.2
"""What flows may have under way together, and wait for, in seconds of the rate: less than the 0.2 s of the
shortest retransmission timeout (Linux), since half of it is on its way to be acknowledged."""

LEAST_SEGMENTS = 4
"""Segments of a flow's window in any case: fewer, and a lost one is noticed by timeout only (RFC 5681)."""

WAKE_BYTES = 3 * 1460
SOONEST, LATEST = 0.005, 0.05
"""A wake-up is worth so many bytes for each flow, within these seconds."""


@dataclass(frozen=True, slots=True)
class UploadAllowed:
    """Upload -> flow: more of what the guest sent has been paid for."""


class Upload:
    """One per port with a limited rate; its PeerActor makes it, its flows ask it."""

    __slots__ = ("_allowed", "_held", "_limit", "_timed", "_total", "_waiting")

    def __init__(self, limit: UploadLimit) -> None:
        self._limit = limit
        self._allowed: dict[Mailbox, int] = {}
        """Bytes that have been paid for, by the flows that are to take them."""
        self._held: dict[Mailbox, int] = {}
        """Bytes by the flows that hold some."""
        self._total = 0
        self._waiting: dict[Mailbox, None] = {}
        self._timed = False

    @property
    def limit(self) -> UploadLimit:
        """What limits the rate; it outlasts the session."""
        return self._limit

    def window(self, mss: int) -> int:
        """Bytes that a flow may let its guest send."""
        share = int(self._limit.rate * WINDOW_SECONDS) // max(1, len(self._held))
        return max(LEAST_SEGMENTS * mss, share)

    def admit(self, flow: Mailbox, chunks: Sequence[bytes]) -> list[bytes]:
        """Say which of a flow's data it may take now: the first ones, of those that it holds."""
        held = sum(map(len, chunks))
        self._note(flow, held)
        allowed = self._allowed.pop(flow, 0)
        left = allowed if self._limit.owed(current_scheduler().loop.time()) else held
        admitted = []
        for chunk in chunks:
            if left <= 0:
                break
            admitted.append(chunk if len(chunk) <= left else chunk[:left])
            left -= len(chunk)
        return admitted

    def wait(self, flow: Mailbox) -> None:
        """Have ``flow`` told UploadAllowed when more has been paid for."""
        self._waiting[flow] = None
        self._set_timer()

    def took(self, flow: Mailbox, size: int) -> None:
        """Note that a flow took ``size`` bytes of what it held."""
        self._note(flow, self._held.get(flow, 0) - size)

    def leave(self, flow: Mailbox) -> None:
        """Forget a flow that has ended."""
        self._waiting.pop(flow, None)
        self._allowed.pop(flow, None)
        self._note(flow, 0)

    def release(self) -> None:
        """Let all that wait go on: nothing limits the port any more."""
        waiting, self._waiting = self._waiting, {}
        for flow in waiting:
            tell_alive(flow, UploadAllowed())

    def _note(self, flow: Mailbox, held: int) -> None:
        self._total += held - self._held.pop(flow, 0)
        if held:
            self._held[flow] = held

    def _set_timer(self) -> None:
        if not self._timed and self._waiting:
            self._timed = True
            loop = current_scheduler().loop
            seconds = min(max(WAKE_BYTES * len(self._held) / self._limit.rate, SOONEST), LATEST)
            loop.call_at(loop.time() + seconds, self._wake)

    def _wake(self) -> None:
        self._timed = False
        owed, total = self._limit.owed(current_scheduler().loop.time()), self._total
        if owed < total or not owed:
            waiting, self._waiting = self._waiting, {}
            for flow in waiting:
                self._allowed[flow] = int(self._held.get(flow, 0) * (total - owed) / max(1, total))
            for flow in waiting:
                tell_alive(flow, UploadAllowed())
        self._set_timer()
