"""Whether a client has the token that it needs, and what that says of its session.

A token stands in the URL (``?token=``), in ``Authorization: Bearer`` (RFC 6750), or, since browsers let pages
set neither header for a WebSocket, among the subprotocols that the page offers, as ``token.`` and the token.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

from loguru import logger

from actors.close_codes import CloseCode
from actors.messages import ClosePeer
from actors.port_policy import usual_policy
from actors.runtime import run_ready, tell_alive
from relay.revocations import Revocations
from relay.setting_kinds import OFF, REQUIRED
from relay.state import State
from relay.token_claims import BRIDGE, FORWARD, TokenError
from relay.tokens import LEEWAY, Keys, KeysError, load_keys
from transport.admission import TOKEN_FIELD, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from pathlib import Path

    from actors.port_policy import PortPolicy
    from actors.ports import Session
    from actors.runtime import Mailbox
    from actors.settings import LanSettings
    from relay.lan import Lan
    from relay.token_claims import Pass
    from transport.admission import ClientRequest

SUBPROTOCOL_PREFIX = "token."

_LIMITS = {
    "bit_rate": "bits_per_second",
    "packet_rate": "packets_per_second",
    "max_flows": "max_flows",
    "flow_rate": "new_flows_per_second",
    "max_half_open": "max_half_open",
}
"""Settings that a token may have for its session, as a port's policy calls them."""

NO_TOKEN = Refusal(HTTPStatus.UNAUTHORIZED, "A token is needed: ?token= in the URL.")
REVOKED = "the token has been revoked"
EXPIRED = "the token has expired"
NO_KEY = "the key of the token is no longer in force"
MANY_TOKENS = Refusal(HTTPStatus.BAD_REQUEST, "There is more than one token.")


class Clocks(NamedTuple):
    """What time it is."""

    unix: Callable[[], float]
    """For what stands in tokens."""
    actors: Callable[[], float]
    """For the actors' timers."""


class GuardedLan:
    """A LAN as a client with a token sees it; implements ``transport.admission.Lan``."""

    def __init__(self, lan: Lan, gate: TokenGate, ticket: Pass) -> None:
        self._lan = lan
        self._gate = gate
        self._ticket = ticket

    def next_port(self) -> int:
        """Return a number for a session, which is its port of the switch."""
        return self._lan.next_port()

    def attach(self, session: Session) -> Mailbox:
        """Give a session its port, until the token expires; return who is told what its client sends."""
        ticket = self._ticket
        peer = self._lan.attach(
            session,
            name=ticket.name,
            expires=self._gate.ends_at(ticket),
            policy=policy_of(ticket, self._lan.settings),
            token=ticket.id,
        )
        self._gate.note(peer, ticket)
        return peer


def policy_of(ticket: Pass, settings: LanSettings) -> PortPolicy | None:
    """Tell what the port of a token's session may; None for what any other may."""
    own: dict[str, Any] = {_LIMITS[name]: value for name, value in ticket.limits.items()}
    if ticket.macs is not None:
        own["macs"] = ticket.macs
    if BRIDGE not in ticket.rights:
        own["max_macs"] = 1
    if FORWARD not in ticket.rights:
        own["is_forwarded_to"] = False
    return replace(usual_policy(settings), own=frozenset(own), **own) if own else None


class TokenGate:
    """Asks for tokens as the operator has set it."""

    def __init__(
        self,
        files: tuple[Path, Path | None] | None,
        clocks: Clocks,
        revocations: Revocations | None = None,
    ) -> None:
        """``files`` has keys and revoked tokens, None where none is asked for. Raises KeysError.

        ``revocations`` are those that were made while the relay ran.
        """
        self._files = files
        self._revocations = Revocations(State().file("")) if revocations is None else revocations
        self._clocks = clocks
        self._keys = Keys({})
        self._holders: WeakKeyDictionary[Mailbox, Pass] = WeakKeyDictionary()
        """Sessions, and what their tokens say."""
        self.take(self.load())

    def load(self) -> Keys:
        """Read the files; may run in another thread. Raises KeysError."""
        return Keys({}) if self._files is None else load_keys(*self._files)

    def take(self, keys: Keys) -> bool:
        """Check by these keys from now on, end sessions that they would not let in; whether that is new."""
        keys = replace(keys, revoked=keys.revoked | self._revocations.ids)
        if keys == self._keys:
            return False
        self._keys = keys
        self.end_sessions(keys.revoked, CloseCode.EXPIRED, REVOKED)
        self._end(lambda ticket: not keys.have(ticket.key), CloseCode.EXPIRED, NO_KEY)
        return True

    async def refresh(self, errors: list[str] | None = None) -> bool:
        """Read the files again, and go by them; whether that is new.

        What is wrong with them is logged, and noted in ``errors``.
        Ends sessions of tokens that have expired, too: the actors' clock stands still while a machine sleeps.
        """
        now = self._clocks.unix()
        self._end(lambda ticket: ticket.expires <= now, CloseCode.EXPIRED, EXPIRED)
        try:
            changed = self.take(await asyncio.to_thread(self.load))
        except KeysError as error:
            said = f"the keys and revoked tokens stay as they were: {error}"
            logger.error("{}", said)
            if errors is not None:
                errors.append(said)
            return False
        if changed:
            logger.info("other keys or revoked tokens are in force")
        return changed

    def end_sessions(self, identifiers: Container[str], code: CloseCode, reason: str) -> int:
        """End the sessions of tokens by their ids (``jti``); return how many there were."""
        return self._end(lambda ticket: bool(ticket.id) and ticket.id in identifiers, code, reason)

    def _end(self, concerns: Callable[[Pass], bool], code: CloseCode, reason: str) -> int:
        peers = [peer for peer, ticket in self._holders.items() if concerns(ticket)]
        ended = sum(tell_alive(peer, ClosePeer(code, reason)) for peer in peers)
        run_ready()
        return ended

    async def revoke(self, identifier: str) -> int:
        """Revoke the tokens of an id (``jti``) for good; return how many sessions ended.

        Raises ValueError for what is no such id.
        """
        self._revocations.add(identifier)
        ended = self._enforce(frozenset({identifier}))
        await asyncio.to_thread(self._revocations.save)
        return ended

    def follow(self, identifiers: Iterable[str]) -> int:
        """Go by what another process has revoked, by ids (``jti``); return how many sessions ended."""
        revoked = frozenset(identifiers)
        self._revocations.ids |= revoked
        return self._enforce(revoked)

    def _enforce(self, revoked: frozenset[str]) -> int:
        self._keys = replace(self._keys, revoked=self._keys.revoked | revoked)
        return self.end_sessions(revoked, CloseCode.EXPIRED, REVOKED)

    @property
    def revoked(self) -> list[str]:
        """Ids of the tokens that were revoked while the relay ran, or an earlier one with its state."""
        return sorted(self._revocations.ids)

    def check(self, token: str) -> Pass:
        """Read a token that is shown for something else than a session. Raises TokenError."""
        return self._keys.read(token, self._clocks.unix())

    def holds(self, ticket: Pass) -> bool:
        """Tell whether a token that was accepted still would be, by its time, its id and its key."""
        in_time = self._clocks.unix() < ticket.expires + LEEWAY
        return in_time and ticket.id not in self._keys.revoked and self._keys.have(ticket.key)

    def read(self, request: ClientRequest, room: str, how: str) -> Pass | Refusal | None:
        """Check the token of a request for a room; None for a client that has none and needs none.

        ``how`` is one of ``AUTH_CHOICES``.
        """
        if how == OFF:
            return None
        found = set(tokens_of(request))
        if not found:
            return NO_TOKEN if how == REQUIRED else None
        if len(found) > 1:
            return MANY_TOKENS
        try:
            ticket = self._keys.read(found.pop(), self._clocks.unix())
        except TokenError as error:
            return Refusal(HTTPStatus.UNAUTHORIZED, str(error))
        if ticket.room not in (None, room):
            return Refusal(HTTPStatus.FORBIDDEN, "The token is for another room.")
        return ticket

    def ends_at(self, ticket: Pass) -> float:
        """Say when a token's session ends, by the actors' clock."""
        return self._clocks.actors() + ticket.expires - self._clocks.unix()

    def note(self, peer: Mailbox, ticket: Pass) -> None:
        """Keep in mind whose session it is, in case that the token is revoked."""
        self._holders[peer] = ticket


def tokens_of(request: ClientRequest) -> list[str]:
    """Find all tokens that a request has."""
    found = [value for key, value in parse_qsl(request.query, keep_blank_values=True) if key == TOKEN_FIELD]
    for value in request.values("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            found.append(token.strip())
    for value in request.values("sec-websocket-protocol"):
        offered = (item.strip() for item in value.split(","))
        found += [
            item.removeprefix(SUBPROTOCOL_PREFIX) for item in offered if item.startswith(SUBPROTOCOL_PREFIX)
        ]
    return found
