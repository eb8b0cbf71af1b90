"""The admin API's entrance: a request is admitted, kept to its caller's room, and ends with their token."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

from relay.admin.confinement import confine
from relay.admin.guard import ANYBODY, Caller, Refused
from transport.turns import TaskTurns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from relay.admin.guard import Guard

REQUESTS_PER_TURN = 4
"""Requests that go on in a turn of the event loop, some 0.5 ms each: anyone may send many over TCP, and the
loop carries frames."""

CALLER = "vmrelay.caller"
"""Where a request's scope has who asks."""


class _TokenEndedError(Exception):
    """The token under which something is sent holds no more."""


class Guarded:
    """Lets in who may use the API, before anything else is looked at."""

    def __init__(
        self, app: ASGIApp, guard: Callable[[], Guard], is_in_room: Callable[[int, str], Awaitable[bool]]
    ) -> None:
        """``guard`` is that of the moment; ``is_in_room`` tells whether a session's port is of a room."""
        self._app = app
        self._guard = guard
        self._is_in_room = is_in_room
        self._turns = TaskTurns(REQUESTS_PER_TURN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            return
        await self._turns.next()
        guard = self._guard()
        caller = guard.admit(scope["path"], _joined(scope["headers"]))
        if caller is ANYBODY:
            caller = Caller(still_may=lambda: self._guard().token == guard.token)
        refusal = caller if isinstance(caller, Refused) else await self._confine(scope, caller)
        if refusal is not None:
            await _refuse(refusal)(scope, receive, send)
        elif isinstance(caller, Caller):
            await self._answer(scope, receive, send, caller)

    async def _confine(self, scope: Scope, caller: Caller) -> Refused | None:
        """Keep a request to the caller's room, if it is for one; say why not."""
        scope[CALLER] = caller
        if caller.room is None:
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        found = confine(method, scope["path"], scope["query_string"], caller.room)
        if isinstance(found, Refused):
            return found
        if found.port is not None and not await self._is_in_room(found.port, caller.room):
            # As of one that there is not: which there are in other rooms is not told.
            return Refused(HTTPStatus.NOT_FOUND, f"there is no session {found.port}")
        scope["query_string"] = found.query
        return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        async def send_while_it_holds(message: Message) -> None:
            # What is said at once goes out whole: it was asked for in time.
            if message.get("more_body") and not caller.still_may():
                raise _TokenEndedError
            await send(message)

        try:
            await self._app(scope, receive, send_while_it_holds)
        except _TokenEndedError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Give headers by name, those that come several times as a list (RFC 9110, 5.3).

    So neither the first nor the last of two origins, hosts or tokens is believed.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return {name: ", ".join(values) for name, values in found.items()}


def caller_of(request: Request) -> Caller:
    """Tell who asks."""
    caller: Caller = request.scope[CALLER]
    return caller


def _refuse(refusal: Refused) -> Response:
    fields = {"WWW-Authenticate": "Bearer"} if refusal.status == HTTPStatus.UNAUTHORIZED else None
    body = json.dumps({"error": refusal.reason}, indent=1) + "\n"
    return Response(body, refusal.status, fields, "application/json")
