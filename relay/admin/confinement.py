"""What a token with the right ``admin`` may ask that is for one room.

All that is not named here is about the whole relay, and refused; so what is added to the API later is closed
until somebody decides about it.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from relay.admin.guard import DASHBOARD, Refused

_OF_ONE_ROOM = frozenset(
    {
        *(
            ("GET", f"/v1/{what}")
            for what in ("status", "overview", "rooms", "peers", "macs", "leases", "flows")
        ),
        *(("GET", f"/v1/{what}") for what in ("names", "forwards", "counters", "drops", "why", "capture")),
        *(("GET", f"/v1/{what}") for what in ("events", "events/recent")),
        ("DELETE", "/v1/forwards"),
    }
)
"""What is told, or done, of the room that the query names."""

_OF_A_ROOM_IN_THE_BODY = ("POST", "/v1/forwards")

_TRACE = ("GET", "/v1/trace")
"""Of a session that has to be of the room, or of a MAC in the room that the query names."""

_OF_A_SESSION = re.compile(r"(DELETE /v1/peers/([0-9]{1,18}))|(POST /v1/peers/([0-9]{1,18})/frames)")

_FOR_ALL = frozenset({"/", "/livez", "/readyz", "/openapi.json"})

MAX_FIELDS = 32
"""Of a query."""


class Confined(NamedTuple):
    """A request as it is answered to who may ask about one room."""

    query: bytes
    port: int | None = None
    """A session that has to be of the room."""


def confine(method: str, path: str, query: bytes, room: str) -> Confined | Refused:
    """Keep a request to a room, or refuse it."""
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return Refused(HTTPStatus.BAD_REQUEST, f"the query has more than {MAX_FIELDS} fields")
    if path in _FOR_ALL or path.startswith(DASHBOARD) or (method, path) == _OF_A_ROOM_IN_THE_BODY:
        return Confined(query)
    names = {name for name, _ in fields}
    if (method, path) in _OF_ONE_ROOM or (
        (method, path) == _TRACE and "mac" in names and "peer" not in names
    ):
        if any(name == "room" and value != room for name, value in fields):
            return about_another(room)
        others = [(name, value) for name, value in fields if name != "room"]
        return Confined(urlencode([*others, ("room", room)]).encode())
    session = _OF_A_SESSION.fullmatch(f"{method} {path}")
    if session is not None:
        return Confined(query, int(session[2] or session[4]))
    if (method, path) == _TRACE:
        ports = [value for name, value in fields if name == "peer"]
        if len(ports) == 1 and re.fullmatch(r"[0-9]{1,18}", ports[0]):
            return Confined(query, int(ports[0]))
    return Refused(HTTPStatus.FORBIDDEN, f"the token is for room {room} only; this is about the whole relay")


def about_another(room: str) -> Refused:
    """Refuse what is about another room."""
    return Refused(HTTPStatus.FORBIDDEN, f"the token is for room {room} only")
