"""Who may come in: what both edges ask before they answer 200 or 101, and what they are told."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.ports import Session
    from actors.runtime import Mailbox

TOKEN_FIELD = "token"  # noqa: S105 - the field's name
"""Field of the query that holds a secret."""

TOLD_EVERY = 10.0
"""Seconds between two lines, and events, about connections that find no room for one reason."""

Carrier = Literal["webtransport", "websocket", "http"]
"""How the client would go on: with a session of either kind, or with the answer to a plain request."""


class ClientRequest(NamedTuple):
    """What matters of a request for whether it is granted."""

    carrier: Carrier
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    """Names in lower case; among them ``origin``, ``authorization`` and ``x-forwarded-for``."""
    authority: str
    """Host and port that the client asked for; empty if it named none."""
    secure: bool
    remote: str
    """The client's address and port."""

    def values(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key == name]


class Refusal(NamedTuple):
    """Why a request is not granted."""

    status: HTTPStatus
    reason: str
    """A sentence for the log and the client, which names the setting that would grant it."""
    room: str | None = None
    """The room that was asked for, where one was."""

    @property
    def fields(self) -> dict[str, str]:
        """Header fields that the answer has to have (RFC 9110, section 11.6.1)."""
        return {"WWW-Authenticate": "Bearer"} if self.status == HTTPStatus.UNAUTHORIZED else {}


def refused(refusal: Refusal, remote: str, carrier: Carrier) -> dict[str, str | None]:
    """Tell what a log line binds of the event that a client at ``remote`` (``host:port``) gets no session."""
    return {
        "event": "refused",
        "room": refusal.room,
        "mac": None,
        "remote": remote,
        "carrier": carrier,
        "why": refusal.reason,
    }


class NoRoom:
    """Tells of connections that find no room: not of each, for this is the way of a flood."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier: Carrier = carrier
        self._next: dict[str, float] = {}
        """When each reason may be told again."""

    def tell(self, remote: str, reason: str, now: float) -> None:
        """Log that a client at ``remote`` (``host:port``) is refused, unless others were just now.

        There are few reasons.
        """
        if now >= self._next.get(reason, now):
            from loguru import logger  # settings, of which --help tells, read origins by this module

            self._next[reason] = now + TOLD_EVERY
            event = refused(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason), remote, self._carrier)
            logger.bind(reason=f"{self._carrier}: {reason}", **event).warning(
                "{} and others are refused: {}", remote, reason
            )


class Lan(Protocol):
    """What the edges know of a LAN."""

    def next_port(self) -> int:
        """Return a number for a session, which is its port of the switch; no other session had it."""

    def attach(self, session: Session) -> Mailbox:
        """Give a session its port; return who is told what its client sends."""


class Grant(NamedTuple):
    """Where a session goes."""

    lan: Lan
    path: str
    """The session's path, such as ``"/?encap=raw"``: the LAN and the like are no longer in it."""


class Admission(Protocol):
    """Decides about requests, without I/O."""

    def check(self, request: ClientRequest) -> Refusal | None:
        """Return why nothing at all is answered to this client, None when something is."""

    def admit(self, request: ClientRequest) -> Grant | Refusal:
        """Decide about a request for a session, which has to follow at once."""

    def explain(self, request: ClientRequest) -> Refusal | None:
        """Say why a request for a session would be refused, if it would; nothing is made for it."""

    def where(self, request: ClientRequest) -> Sequence[str] | Refusal:
        """Tell the URLs of machines that have the room of a session that would be granted, most of it first.

        The others follow. A relay that takes no new sessions itself tells it too.
        """


def without_secrets(target: str) -> str:
    """Return a request's path and query as they may stand in a log.

    Logs blot out what is plainly spelled anyway; here the field is found however its name is written.
    """
    path, mark, query = target.partition("?")
    fields = query.split("&")
    for index, field in enumerate(fields):
        name, equals, _ = field.partition("=")
        if equals and unquote_plus(name) == TOKEN_FIELD:
            fields[index] = f"{name}=..."
    return f"{path}{mark}{'&'.join(fields)}"
