"""Clients' tokens with the right ``admin``, which open the admin API."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.admin.guard import Caller, Refused
from relay.token_claims import ADMIN, TokenError

if TYPE_CHECKING:
    from relay.bans import Bans
    from relay.token_gate import TokenGate


class Passes:
    """Reads them, by the keys that clients' tokens are checked by."""

    def __init__(self, tokens: TokenGate, bans: Bans) -> None:
        self._tokens = tokens
        self._bans = bans

    def read(self, token: str) -> Caller | Refused:
        """Tell who shows a token, or why that is refused."""
        try:
            ticket = self._tokens.check(token)
        except TokenError as error:
            return Refused(HTTPStatus.UNAUTHORIZED, str(error))
        if ADMIN not in ticket.rights:
            return Refused(HTTPStatus.FORBIDDEN, f"The token has not the right {ADMIN}.")
        if ticket.id and self._bans.has_token(ticket.id):
            return Refused(HTTPStatus.FORBIDDEN, "The token is banned.")

        def still_may() -> bool:
            return self._tokens.holds(ticket) and not (ticket.id and self._bans.has_token(ticket.id))

        return Caller(ticket.id or "without an id", ticket.room, still_may)
