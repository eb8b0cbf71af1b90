"""A running relay as it changes: what one look at its admin API tells, and the rates since the one before."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.admin.client import AdminClient


@dataclass(frozen=True)
class Session:
    """A session at one look."""

    told: dict[str, Any]
    """As the API describes it (``actors.descriptions.PeerDescription``)."""
    from_guest: float | None = None
    """Bits per second since the look before; None for a session that was not there."""
    to_guest: float | None = None
    loss: float | None = None
    """Share of the packets since then that were lost, of all so far if none were sent since."""

    @property
    def port(self) -> int:
        """Number of the session's port of the switch."""
        return int(self.told["port"])

    @property
    def drops(self) -> int:
        """Frames that were dropped, for whatever reason."""
        return sum(self.told["drops"].values())


@dataclass(frozen=True)
class Look:
    """What there is at a moment."""

    at: float
    """``time.monotonic()``."""
    status: dict[str, Any] = field(default_factory=dict)
    sessions: tuple[Session, ...] = ()
    drops: dict[str, int] = field(default_factory=dict)
    drop_rates: dict[str, float] = field(default_factory=dict)
    """Frames per second since the look before, by reason; empty at the first one."""

    @property
    def rooms(self) -> list[dict[str, Any]]:
        """The rooms, as the API describes them."""
        rooms: list[dict[str, Any]] = self.status.get("rooms", [])
        return rooms

    def session(self, port: int) -> Session | None:
        """Find a session by its port."""
        return next((session for session in self.sessions if session.port == port), None)


class Live:
    """Looks at a relay again and again; each look costs it two snapshots of the sessions at most."""

    def __init__(self, client: AdminClient, clock: Callable[[], float] = monotonic) -> None:
        self._client = client
        self._clock = clock
        self._before: Look | None = None

    def look(self) -> Look:
        """Look at it now; waits for the answers. Raises AskError."""
        status, peers = self._client.ask("/v1/status"), self._client.ask("/v1/peers")
        drops = self._client.ask("/v1/drops")
        now, before = self._clock(), self._before
        earlier = {} if before is None else {session.port: session.told for session in before.sessions}
        span = None if before is None else max(now - before.at, 1e-9)
        self._before = Look(
            now,
            status,
            tuple(_session(peer, earlier.get(peer["port"])) for peer in peers),
            drops,
            {}
            if before is None or span is None
            else {
                reason: max(0, count - before.drops.get(reason, 0)) / span for reason, count in drops.items()
            },
        )
        return self._before

    def flows(self, session: Session) -> list[dict[str, Any]]:
        """Ask for the flows of a session. Raises AskError."""
        room = session.told["room"]
        found = self._client.ask("/v1/flows", {"room": room, "port": str(session.port)})
        return list(found.get(room, ()))

    def events(self) -> list[dict[str, Any]]:
        """Ask what has happened lately, the latest last. Raises AskError."""
        return list(self._client.ask("/v1/events/recent"))


def _session(peer: dict[str, Any], before: dict[str, Any] | None) -> Session:
    sent, lost = peer["packets_sent"], peer["packets_lost"]
    loss = lost / sent if sent else None
    if before is None or peer["age"] < before["age"]:  # the number is another session's, of the next relay
        return Session(peer, loss=loss)
    # Both ages are by the relay's clock: how long the answers took to come does not matter.
    span = max(peer["age"] - before["age"], 1e-9)
    from_guest, to_guest = (8 * (peer[way] - before[way]) / span for way in ("bytes_in", "bytes_out"))
    if sent and before["packets_sent"] and sent > before["packets_sent"]:
        # Packets are sent before they are lost, so that more may be lost in a while than are sent in it.
        loss = min(1.0, max(0, lost - before["packets_lost"]) / (sent - before["packets_sent"]))
    return Session(peer, from_guest, to_guest, loss)
