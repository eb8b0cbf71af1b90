"""What requests to the admin API say: who asks, what of, and the JSON in their bodies."""

from __future__ import annotations

import json
import math
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from netstack.ethernet import parse_mac
from netstack.room_names import DEFAULT_ROOM
from relay.admin.confinement import about_another
from relay.admin.entrance import caller_of
from relay.admin.guard import MAX_BODY
from relay.bans import parse_ban
from relay.operations import MAX_REASON, Who

if TYPE_CHECKING:
    from starlette.requests import Request

    from relay.bans import Ban

MAX_USER = 64
"""Characters of a user's name in the log."""

MAX_SECONDS = 1e9
"""Of what is to last for a time: thirty years."""

MAX_DIGITS = 18
"""Of a number that fits 64 bits."""

WHO = "x-vmrelay-user"
"""Header in which our own commands say which user runs them."""


def who_asks(request: Request) -> Who:
    """Name whoever makes a request, for the log."""
    said = request.headers.get(WHO, "")
    name = said if said.isprintable() and len(said) <= MAX_USER else ""
    token = caller_of(request).token
    who = "the operator" if token is None else f"the holder of token {token[:MAX_USER]!r}"
    return Who(f"{who}{f' ({name})' if name else ''}")


def room_of(request: Request) -> str | None:
    """Name the room that a request is about; None for all."""
    return request.query_params.get("room")


def forward_room(request: Request, fields: dict[str, Any]) -> str:
    """Tell the room in which a request wants a forward. Raises HTTPException, if it may not."""
    only = caller_of(request).room
    room = str(fields.get("room", only or DEFAULT_ROOM))
    if only not in (None, room):
        raise HTTPException(*about_another(str(only)))
    return room


def asked_ban(body: bytes) -> Ban:
    """Read whom a request wants kept out. Raises BanError, HTTPException."""
    fields = fields_of(body, {"kind", "what", "seconds", "reason"})
    seconds = seconds_of(fields)
    return parse_ban(
        str(fields.get("kind", "")),
        str(fields.get("what", "")),
        math.inf if seconds is None else time.time() + seconds,
        str(fields.get("reason", ""))[:MAX_REASON],
    )


def whole(text: str, name: str) -> int:
    """Read a whole number that a request has as ``name``. Raises HTTPException."""
    if not text.isascii() or not text.isdecimal() or len(text) > MAX_DIGITS:
        raise bad_request(f"{name} must be a whole number")
    return int(text)


def mac_of(text: str) -> bytes:
    """Read the MAC of a guest. Raises HTTPException."""
    try:
        return parse_mac(text)
    except ValueError as error:
        raise bad_request(str(error)) from None


def seconds_of(fields: dict[str, Any]) -> float | None:
    """Read how many seconds something is to last; None for ever. Raises HTTPException."""
    seconds = fields.get("seconds")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        raise bad_request("seconds must be a number above 0, or left out for ever")
    return float(seconds)


async def body_of(request: Request) -> bytes:
    """Read a request's body. Raises HTTPException."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY} bytes")
    return body


async def read_fields(request: Request, known: set[str], *, or_none: bool = False) -> dict[str, Any]:
    """Read the JSON object of a request's body; ``or_none``: it may have none. Raises HTTPException."""
    body = await body_of(request)
    return {} if or_none and not body else fields_of(body, known)


def fields_of(body: bytes, known: set[str]) -> dict[str, Any]:
    """Read the JSON object of a body, all of whose text can be sent on as UTF-8. Raises HTTPException."""
    try:
        fields = json.loads(body)
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad_request("the body has half a surrogate pair in it, which is no character") from None
    except (ValueError, RecursionError):
        raise bad_request("the body must be a JSON object") from None
    if not isinstance(fields, dict):
        raise bad_request("the body must be a JSON object")
    if unknown := sorted(set(fields) - known):
        raise bad_request(f"unknown field {unknown[0][:80]!r}; there are {', '.join(sorted(known))}")
    return fields


def bad_request(reason: str) -> HTTPException:
    """Make the answer 400 with a reason, to be raised."""
    return HTTPException(HTTPStatus.BAD_REQUEST, reason)
