"""The end of a carried session where its port is (``relay.carrying``): to actors a session like any other.

What waits at the carrier is known from what that tells: what has been sent in all, less what it has received,
is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.descriptions import PathState
from netstack import carried_wire as wire
from netstack.encapsulation import CONTROL
from transport.quic.session import QUEUE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actors.runtime import Mailbox
    from relay.carried_end import Ends, Worker

UNDER_WAY = QUEUE_BYTES
"""Bytes that are on their way to a client or wait at its carrier, whose queue would take no more."""

FOR_CONTROL = 16 * 1024
"""Bytes beyond that for control messages: a client whose heartbeats bring nothing gives its session up."""

_CONTROL = bytes((CONTROL,))


class CarriedSession:
    """A session whose client's connection another worker has; implements ``actors.ports.Session``."""

    def __init__(self, ends: Ends, carrier: Worker, number: int, path: str, state: wire.State) -> None:
        self.id = number
        self.path = path
        self.other = carrier
        self.peer: Mailbox | None = None
        self._ends = ends
        self._state = state
        self._sent = 0
        """The sum of all bytes."""
        self._pending: list[bytes] = []
        self._repeats = False
        """Whether the sum is told though there is nothing to be sent."""
        self._on_writable: Callable[[], object] | None = None
        self._closed: wire.Close | None = None

    @property
    def remote(self) -> str:
        """The client's present address, as the carrier told it last; so are all others."""
        return self._state.remote

    @property
    def datagram_limit(self) -> int:
        """Bytes that one datagram may carry."""
        return self._state.datagram_limit

    @property
    def room(self) -> int:
        """Bytes that producers which can wait should have queued at most."""
        return self._state.room

    @property
    def last_heard(self) -> float:
        """Monotonic time of the client's last packet: workers of one machine have one clock."""
        return self._state.last_heard

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait here, are on their way to the carrier, or wait there."""
        return self._sent - self._state.received + self._state.queued

    @property
    def writable(self) -> bool:
        """Whether a producer should go on reading from its source."""
        return self.queued_bytes < self._state.room // 2

    def path_state(self) -> PathState:
        """Tell what carries the session."""
        state = self._state
        return PathState(state.carrier, state.round_trip, state.packets_sent, state.packets_lost)

    def call_when_writable(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, when producers may go on."""
        self._on_writable = callback

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams for the end of this turn; what exceeds the bound is dropped."""
        queued, dropped = self.queued_bytes, 0
        for datagram in datagrams:
            size = len(datagram)
            if queued + size > UNDER_WAY and (
                datagram[:1] != _CONTROL or queued + size > UNDER_WAY + FOR_CONTROL
            ):
                dropped += 1
                continue
            queued += size
            self._pending.append(datagram)
            self._sent += size
        if dropped:
            self._ends.drop("queue_full", dropped)
        self._ends.work_for(self)

    def close(self, code: int = 0, reason: str = "") -> None:
        """Have the carrier close the session."""
        if self._ends.forget(self):
            self._closed = wire.Close(code, reason)
            self._ends.work_for(self)

    def hear(self, state: wire.State) -> None:
        """Note what the carrier tells, and wake who waits for it."""
        self._state = state
        if self._on_writable is not None and self.writable:
            callback, self._on_writable = self._on_writable, None
            callback()

    def repeat(self, *, always: bool = False) -> None:
        """Tell the sum again, unless the carrier is known to have seen it."""
        if always or self._sent != self._state.received:
            self._repeats = True
            self._ends.work_for(self)

    def messages(self) -> Iterator[bytes]:
        """Give up what the carrier is to be told."""
        pending, self._pending = self._ends.fitting(self._pending), []
        total = self._sent - sum(map(len, pending))
        for batch in wire.batches(pending):
            total += sum(map(len, batch))
            yield wire.pack_down(self.id, total, batch)
        if self._repeats and not pending:
            yield wire.pack_down(self.id, total, ())
        self._repeats = False
        if self._closed is not None:
            yield wire.pack_close(self.id, self._closed)
