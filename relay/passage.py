"""The end of a carried session where its client's connection is (``relay.carrying``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack import carried_wire as wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.ports import Session
    from actors.runtime import Mailbox
    from relay.carried_end import Ends, Worker

MAX_FROM_CLIENT = 8192
"""Datagrams of one client in one turn."""


class Passage:
    """A session of a client here whose port another worker has; implements ``actors.ports.Passage``."""

    def __init__(self, ends: Ends, holder: Worker, room: str, session: Session, peer: Mailbox) -> None:
        self.number = session.id
        self.other = holder
        self.session = session
        self.peer = peer
        self.opened_at = ends.now()
        self.is_open = False
        self.answered = False
        """Whether the holder has taken the session."""
        self._ends = ends
        self._room = room
        self._terms: bytes | None = None
        """Those of an Open that has yet to be sent."""
        self._received = 0
        self._told_limit = session.datagram_limit
        self._up: list[bytes] = []
        self._lost: list[tuple[bytes, float]] = []
        self._tells_state = False
        self._ended: wire.Ended | None = None

    def open(self, terms: bytes) -> None:
        """Have the holder asked to take the session."""
        self.is_open = True
        self._terms = terms
        self._ends.work_for(self)

    def pass_on(self, datagrams: Sequence[bytes]) -> None:
        """Pass on what the client has sent."""
        if self.is_open:
            self._up += datagrams
            self._ends.work_for(self)

    def lost(self, datagrams: Sequence[tuple[bytes, float]]) -> None:
        """Pass on what QUIC takes as lost."""
        if self.is_open:
            self._lost += datagrams
            self._ends.work_for(self)

    def end(self, code: int, reason: str, *, lost: bool) -> None:
        """Say that the session is gone."""
        if self._ends.forget(self):
            self._ended = wire.Ended(code, reason, lost)
            self._ends.work_for(self)

    def report(self) -> None:
        """Tell the holder what waits here."""
        if self.is_open:
            self._tells_state = True
            self._ends.work_for(self)

    def take(self, down: wire.Down) -> None:
        """Give the client what the holder sends."""
        self.answered = True
        self._received = down.total
        if down.datagrams:
            self.session.send(down.datagrams)
            self.session.call_when_writable(self.report)
        if self.session.datagram_limit != self._told_limit:
            self.report()

    def messages(self) -> Iterator[bytes]:
        """Give up what the holder is to be told."""
        if self._terms is not None:
            yield wire.pack_open(self.number, wire.Open(self._room, self._state(), self._terms))
            self._terms = None
        up, self._up = self._ends.fitting(self._up), []
        if len(up) > MAX_FROM_CLIENT:
            self._ends.drop("from_client_queue_full", len(up) - MAX_FROM_CLIENT)
            del up[MAX_FROM_CLIENT:]
        for batch in wire.batches(up):
            yield wire.pack_up(self.number, batch)
        if self._lost:
            yield wire.pack_lost(self.number, self._lost)
            self._lost = []
        if self._ended is not None:
            yield wire.pack_ended(self.number, self._ended)
        elif self._tells_state:
            yield wire.pack_state(self.number, self._state())
        self._tells_state = False

    def _state(self) -> wire.State:
        session = self.session
        path = session.path_state()
        self._told_limit = session.datagram_limit
        return wire.State(
            self._received,
            session.queued_bytes,
            session.room,
            session.datagram_limit,
            session.last_heard,
            path.round_trip,
            path.packets_sent,
            path.packets_lost,
            path.carrier,
            session.remote,
        )
