"""A session whose client has its port at another worker: what its PeerActor does is done there then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.close_codes import CloseCode
from netstack.encapsulation import CONTROL, DATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.messages import (
        DatagramsFromClient,
        DatagramsLost,
        SessionClosed,
    )
    from actors.ports import Passage, Session, SessionTerms
    from actors.runtime import Mailbox
    from actors.trunk_messages import PortElsewhere

COMES_BACK = frozenset({CloseCode.SHUTDOWN, CloseCode.INTERNAL})
"""Ends of a session, which are none of the port's: that waits for its client at the other worker."""

MAX_BEHIND = 64
"""Frames that are remembered: those of one turn, mostly."""

_CONTROL, _DATA = bytes((CONTROL,)), bytes((DATA,))


class Detour:
    """The way of one session to another worker, once the switch has said so."""

    def __init__(self, terms: SessionTerms, *, is_allowed: bool) -> None:
        """Stay here for now; a session that came by a detour already is allowed no other."""
        self.is_allowed = is_allowed
        self.register = b""
        """The client's last Register, which the other worker has to be told."""
        self._behind: list[bytes] = []
        """Frames that came behind it: the switch has no port for them, if it sends the session elsewhere."""
        self._terms = terms
        self._passage: Passage | None = None

    @property
    def is_taken(self) -> bool:
        """Whether all that comes goes to another worker."""
        return self._passage is not None

    def came_behind(self, frames: Sequence[bytes]) -> None:
        """Remember frames of a session that has no address yet."""
        if self.register and self.is_allowed:
            self._behind += frames[: MAX_BEHIND - len(self._behind)]

    def settle(self) -> None:
        """Keep nothing for another worker: the session has its place here."""
        self.register = b""
        self._behind = []

    def take(self, message: PortElsewhere, session: Session, peer: Mailbox) -> None:
        """Let the other worker have the session, and the Register."""
        self._passage = message.link.carry(message.worker, session, self._terms, peer)
        self._passage.pass_on([_CONTROL + self.register, *[_DATA + frame for frame in self._behind]])
        self._behind = []

    def give_up(self) -> bytes:
        """Stay here, for the other worker does not take the session; return what the client has asked for."""
        self._passage = None
        self.is_allowed = False
        return self.register

    def from_client(self, message: DatagramsFromClient) -> bool:
        """Pass on what the client has sent; whether there is where to."""
        if self._passage is not None:
            self._passage.pass_on(message.datagrams)
        return self._passage is not None

    def lost(self, message: DatagramsLost) -> bool:
        """Pass on what QUIC takes as lost; whether there is where to."""
        if self._passage is not None:
            self._passage.lost(message.datagrams)
        return self._passage is not None

    def closed(self, message: SessionClosed) -> bool:
        """Pass on that the client is gone; whether there is where to."""
        if self._passage is not None:
            self._passage.end(message.code, message.reason, lost=message.lost)
        return self._passage is not None

    def leave(self, code: int, reason: str) -> bool:
        """Say that the session is ended here; whether there is to whom."""
        if self._passage is not None:
            self._passage.end(code, reason, lost=code in COMES_BACK)
        return self._passage is not None
