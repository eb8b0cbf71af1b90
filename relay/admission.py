"""Who may come in, and to which room: implements ``transport.admission.Admission``.

Asked are the origin of the page, then the URL, then the token. ``/`` is the room ``default``, ``/room/NAME``
and ``/?room=NAME`` are another one; a session there speaks what its first datagram tells. With ``/raw``
behind it, it is raw. Rooms are made by whoever names them first, within bounds.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from loguru import logger

from netstack.encapsulation import MAX_QUERY_FIELDS
from netstack.room_names import DEFAULT_ROOM, NAME_RULE, ROOM_NAME, SESSION_PATH
from netstack.shares import client_network
from relay.lan import ForwardError
from relay.lans import NoRoomError
from relay.token_gate import GuardedLan
from transport.admission import TOKEN_FIELD, Grant, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.bans import Ban, Bans
    from relay.lans import Lans
    from relay.room_rules import RoomRules
    from relay.token_claims import Pass
    from relay.token_gate import TokenGate
    from transport.admission import ClientRequest
    from transport.origins import OriginPolicy

NOWHERE = Refusal(
    HTTPStatus.NOT_FOUND, "Sessions are at / and /room/NAME, raw ones at /raw and /room/NAME/raw."
)


class Target(NamedTuple):
    """What a URL asks for."""

    room: str
    path: str
    """The session's path, such as ``"/?encap=raw"``."""


DRAINING = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The relay takes no new sessions at the moment.")


class Invitation(NamedTuple):
    """A request that nothing speaks against."""

    target: Target
    ticket: Pass | None
    """What its token says, if it has one."""


class RelayAdmission:
    """Decides by what the operator has set, and by the rooms that there are."""

    def __init__(
        self,
        origins: OriginPolicy,
        rules: RoomRules,
        tokens: TokenGate,
        lans: Lans,
        bans: Bans,
        *,
        urls: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> None:
        """``urls`` tells those of machines at which a room is, and then of the others."""
        self.bans = bans
        self.draining = False
        """Whether nobody new is let in."""
        self._origins = origins
        self._rules = rules
        self.tokens = tokens
        self._lans = lans
        self._urls = urls

    def check(self, request: ClientRequest) -> Refusal | None:
        """Return why nothing at all is answered to this client, None when something is."""
        refusal = self._origins.admit(request)
        return refusal and _of_its_room(refusal, request)

    def _shut_out(self, request: ClientRequest, *, only_asks: bool) -> Refusal | None:
        if self.draining and not only_asks:
            return DRAINING
        ban = self.bans.find(request.remote)
        return None if ban is None else _banned(ban)

    def explain(self, request: ClientRequest) -> Refusal | None:
        """Say why a request for a session would be refused, if it would; nothing is made for it."""
        found = self._look_at(request)
        if isinstance(found, Refusal):
            return found
        why_not = self._lans.why_not(found.target.room, _client_of(request))
        return None if why_not is None else Refusal(why_not.status, str(why_not), found.target.room)

    def admit(self, request: ClientRequest) -> Grant | Refusal:
        """Decide about a request for a session; the room is made where it is not there."""
        found = self._look_at(request)
        if isinstance(found, Refusal):
            return found
        target, ticket = found
        try:
            lan = self._lans.get(target.room, _client_of(request))
        except NoRoomError as error:
            return Refusal(error.status, str(error), target.room)
        except ForwardError as error:
            logger.bind(reason="room not made").error("room {}: {}", target.room, error)
            text = "The room cannot be made; the relay's log says why."
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, text, target.room)
        return Grant(lan if ticket is None else GuardedLan(lan, self.tokens, ticket), target.path)

    def where(self, request: ClientRequest) -> Sequence[str] | Refusal:
        """Tell the URLs of machines at which the room is, and of the others, to whom would be let in."""
        found = self._look_at(request, only_asks=True)
        return found if isinstance(found, Refusal) else self._urls(found.target.room)

    def _look_at(self, request: ClientRequest, *, only_asks: bool = False) -> Invitation | Refusal:
        """Say where a request leads, and what its token says; ``only_asks``: of the room, for no session."""
        found = self._judge(request, only_asks=only_asks)
        return _of_its_room(found, request) if isinstance(found, Refusal) else found

    def _judge(self, request: ClientRequest, *, only_asks: bool) -> Invitation | Refusal:
        refused = self.check(request) or self._shut_out(request, only_asks=only_asks)
        target = refused or read_target(request.path, request.query)
        if isinstance(target, Refusal):
            return target
        rule = self._rules.of(target.room)
        refusal = None if rule.origins is None else rule.origins.admit_page(request)
        ticket = refusal or self.tokens.read(request, target.room, rule.auth)
        if isinstance(ticket, Refusal):
            return ticket
        if ticket is not None and (ban := self.bans.find(request.remote, token=ticket.id)):
            return _banned(ban)
        return Invitation(target, ticket)


def _of_its_room(refusal: Refusal, request: ClientRequest) -> Refusal:
    """Have a refusal tell which room was asked for."""
    target = read_target(request.path, request.query)
    return refusal if isinstance(target, Refusal) else refusal._replace(room=target.room)


def _client_of(request: ClientRequest) -> str:
    return client_network(request.remote.rpartition(":")[0])


def _banned(ban: Ban) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, f"Banned by the operator{f': {ban.reason}' if ban.reason else ''}.")


def read_target(path: str, query: str) -> Target | Refusal:
    """Read the path and the query of a session's URL."""
    found = SESSION_PATH.fullmatch(path)
    if found is None or not path or (found[1] is not None and found[2] == "/"):
        return NOWHERE
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        return Refusal(HTTPStatus.BAD_REQUEST, f"The query has more than {MAX_QUERY_FIELDS} fields.")
    named = [value for key, value in fields if key == "room"]
    rooms = {*named, *([] if found[1] is None else [found[1]])} or {DEFAULT_ROOM}
    if len(rooms) > 1:
        return Refusal(HTTPStatus.BAD_REQUEST, "The URL names more than one room.")
    [room] = rooms
    if not ROOM_NAME.fullmatch(room):
        return Refusal(HTTPStatus.BAD_REQUEST, f"{room[:70]!r} is no room: {NAME_RULE}.")
    # Named twice the encapsulation would be refused, and a URL may well say it again.
    is_said = any(key == "encap" for key, _ in fields)
    encapsulation = "encap=raw" if found[2] == "/raw" and not is_said else ""
    kept = (field for field in query.split("&") if unquote_plus(field.partition("=")[0]) != TOKEN_FIELD)
    said = "&".join(filter(None, (encapsulation, *kept)))
    return Target(room, f"/?{said}" if said else "/")
