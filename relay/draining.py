"""Draining: no new sessions are taken, and those that stand go on for some time, or for as long as they like.

An operator may drain the relay and take it back. SIGTERM drains it before it ends, so that what guests have
under way can finish and clients can look for another relay: it ends once the last session has left, or when
the time is over. Clients of the framed encapsulation are told how long they have (``Draining``), and all of
QUIC that new requests are refused (GOAWAY, RFC 9114 section 5.2); a client that knows neither goes on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from loguru import logger

from actors.close_codes import CloseCode
from relay.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.admission import RelayAdmission
    from relay.lans import Lans

LOOK_EVERY = 0.25
"""Seconds between looks at whether sessions are left."""

AWAY = "none"
"""Carrier of a client that has lost its connection: it cannot come back while sessions are refused."""

DRAINED = "relay is draining"
"""What clients are told whose time is over; they may try again later."""

_log = logger.bind(unthinned=True)


class Draining:
    """Whether the relay drains, and until when. For the event loop's thread."""

    def __init__(self, lans: Lans, admission: RelayAdmission, go_away: Callable[[], object]) -> None:
        """``go_away`` tells all connections that no new requests are taken."""
        self._lans = lans
        self._admission = admission
        self._go_away = go_away
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether new sessions are refused."""
        return self._admission.draining

    def begin(self, seconds: float | None = None) -> None:
        """Refuse new sessions; those that stand are closed after ``seconds``, if that is said."""
        self._refuse(seconds)
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._close_sessions)

    def end(self) -> None:
        """Take new sessions again."""
        self._admission.draining = False
        self._forget_deadline()

    async def until_empty(self, seconds: float) -> None:
        """Drain until the last session has left, but no longer than ``seconds``."""
        sessions = await self._sessions()
        if not sessions or not seconds:
            return
        loop = asyncio.get_running_loop()
        over = loop.time() + seconds
        _log.info("the relay drains: {} sessions have {:g} s", sessions, seconds)
        self._refuse(seconds)
        while sessions and (left := over - loop.time()) > 0:
            await asyncio.sleep(min(left, LOOK_EVERY))
            sessions = await self._sessions()
        if sessions:
            _log.info("the time to drain is over: {} sessions are closed", sessions)
        else:
            _log.info("the last session has left")

    def _refuse(self, seconds: float | None) -> None:
        self._admission.draining = True
        self._forget_deadline()
        self._go_away()
        self._lans.tell_of_drain(seconds)

    async def _sessions(self) -> int:
        """Count the sessions that stand, those that are carried for other workers too."""
        if all(lan.is_empty for lan in self._lans):
            return 0
        described = await Snapshots(self._lans).peers()
        carried = sum(len(lan.peers) for lan in self._lans) - len(described)  # their holders describe them
        return sum(peer.carrier != AWAY for peer in described) + max(0, carried)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_sessions(self) -> None:
        _log.info("the time to drain is over: all sessions are closed")
        self._lans.close_sessions(CloseCode.SHUTDOWN, DRAINED)
