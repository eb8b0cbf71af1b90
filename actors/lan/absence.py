"""A client that is away: what stands for its session, and what is kept for it, until it is back."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from actors.descriptions import PathState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.ports import Session

HELD_BYTES = 64 * 1024
"""Bytes of frames that are kept, the newest: enough for what is said once (answers, ends of connections); TCP
sends its data again."""


class AbsentSession:
    """Implements ``actors.ports.Session`` for a client whose session was lost: it takes nothing."""

    def __init__(self, lost: Session) -> None:
        self.id = lost.id
        self.remote = lost.remote
        self.path = lost.path
        self.datagram_limit = lost.datagram_limit
        self.last_heard = lost.last_heard
        self.queued_bytes = 0
        self.room = 0
        self.writable = False

    def path_state(self) -> PathState:
        """Tell that nothing carries the session."""
        return PathState("none")

    def call_when_writable(self, callback: Callable[[], object]) -> None:
        """Never call: who takes this one's place wakes those who wait."""

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Let control messages go nowhere: they are told anew."""

    def close(self, code: int = 0, reason: str = "") -> None:
        """Do nothing: there is nobody to tell."""


class HeldFrames:
    """Frames for a client that is away."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0

    def hold(self, frames: Sequence[bytes]) -> int:
        """Keep frames; return how many of the oldest were dropped for it."""
        self._frames.extend(frames)
        self._bytes += sum(map(len, frames))
        dropped = 0
        while self._bytes > HELD_BYTES:
            self._bytes -= len(self._frames.popleft())
            dropped += 1
        return dropped

    def take(self) -> list[bytes]:
        """Give all of them up."""
        frames = list(self._frames)
        self._frames.clear()
        self._bytes = 0
        return frames
