"""What may be asked of the admin API, and the application that answers.

Each thing stands once, in ``ROUTES``, from which the OpenAPI document is made too.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from relay.admin.api import Api
from relay.admin.entrance import Guarded
from relay.admin.guard import Guard
from relay.admin.json_answers import ApiResponse
from relay.admin.openapi import Endpoint, openapi
from relay.admin.page import page_routes
from relay.admin.stream_places import NoPlaceError
from relay.bans import BanError
from relay.operations import NotThereError, OperationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from relay.admin.service import Offered, Served

_ROOM = {"room": "name of a room; all of them without it"}

ROUTES = (
    Endpoint("GET", "/v1/status", "The relay at a glance", Api.status, _ROOM),
    Endpoint(
        *("GET", "/v1/overview", "Rooms, sessions, flows and drops; of each kind some", Api.overview),
        {**_ROOM, "find": "text in the name or an address of the sessions"},
    ),
    Endpoint("GET", "/v1/rooms", "Rooms", Api.rooms, _ROOM),
    Endpoint(
        "GET", "/v1/peers", "Sessions, with what they moved and what of it was dropped", Api.peers, _ROOM
    ),
    Endpoint("DELETE", "/v1/peers/{port}", "End a session", Api.disconnect, {"reason": "told to its client"}),
    Endpoint(
        *(
            "POST",
            "/v1/peers/{port}/frames",
            "Put frames on the LAN, as a session's or for it",
            Api.inject,
            {},
        ),
        {"frames": "Ethernet frames in hexadecimal", "to_guest": "true: give them to its guest instead"},
    ),
    Endpoint("GET", "/v1/macs", "MAC tables, by room", Api.macs, _ROOM),
    Endpoint("GET", "/v1/leases", "Who holds which address, by room", Api.leases, _ROOM),
    Endpoint(
        *("GET", "/v1/flows", "NAT mappings and connections, by room", Api.flows),
        {**_ROOM, "port": "only those of this session"},
    ),
    Endpoint("GET", "/v1/names", "Guests' names, and the name servers' state, by room", Api.names, _ROOM),
    Endpoint("GET", "/v1/forwards", "Forwards, by room", Api.forwards, _ROOM),
    Endpoint(
        *("POST", "/v1/forwards", "Open a port of this machine to a guest", Api.add_forward, {}),
        {
            "room": "name of the room, default without it",
            "forward": "PROTOCOL:ADDRESS:PORT:VM:PORT, as --forward",
        },
    ),
    Endpoint(
        *("DELETE", "/v1/forwards", "Close a forward", Api.remove_forward),
        {"room": "name of the room, default without it", "forward": "as it is listed"},
    ),
    Endpoint("GET", "/v1/counters", "All counters, of a room or of the relay", Api.counters, _ROOM),
    Endpoint(
        "GET", "/v1/drops", "What was dropped and why, the most frequent reason first", Api.drops, _ROOM
    ),
    Endpoint("GET", "/v1/limits", "The limits that are set", Api.limits),
    Endpoint(
        *("GET", "/v1/why", "Whether a guest would reach something, and what decides", Api.why),
        {
            "target": "an address or a name",
            "protocol": "tcp (as without it), udp or icmp",
            "port": "of the target",
            "from": "port of the session, name, address or MAC of the guest",
            "room": "name of the room, default without it",
        },
    ),
    Endpoint("GET", "/v1/certificate", "The certificate of new sessions", Api.certificate),
    Endpoint("GET", "/v1/bans", "Who is kept out", Api.bans),
    Endpoint(
        *("POST", "/v1/bans", "Keep somebody out, and end their sessions", Api.ban, {}),
        {
            "kind": "address, mac or token",
            "what": "an address or network, a MAC, or a token's id (jti)",
            "seconds": "for how long; for ever without it",
            "reason": "told to the clients",
        },
    ),
    Endpoint("DELETE", "/v1/bans/{id:path}", "Let somebody in again", Api.unban),
    Endpoint("GET", "/v1/tokens/revoked", "Ids of the tokens that were revoked", Api.revoked),
    Endpoint("POST", "/v1/tokens/{id:path}/revoke", "Revoke a token by its id (jti), for good", Api.revoke),
    Endpoint("POST", "/v1/reload", "Read configuration, certificate and keys again", Api.reload),
    Endpoint("POST", "/v1/restart", "Replace the workers one by one (--workers)", Api.restart),
    Endpoint(
        *("POST", "/v1/drain", "Refuse new sessions", Api.drain, {}),
        {"seconds": "close those that stand after this time; never without it"},
    ),
    Endpoint("DELETE", "/v1/drain", "Take new sessions again", Api.drain),
    Endpoint("GET", "/v1/events", "What happens, as server-sent events", Api.events, _ROOM),
    Endpoint("GET", "/v1/events/recent", "What has happened lately", Api.recent_events, _ROOM),
    Endpoint(
        *("GET", "/v1/capture", "What passes, as a stream of pcapng", Api.capture),
        {
            **_ROOM,
            "peer": "only what comes from and goes to this session; or in its place",
            "mac": "MAC of a guest of the room, the default one without it, in whichever session it comes",
            "filter": "in tcpdump's syntax",
            "snaplen": "bytes of each frame, 262144 at most; all of them without it",
        },
    ),
    Endpoint(
        *(
            "GET",
            "/v1/trace",
            "What becomes of a guest's packets, a line of JSON for each decision",
            Api.trace,
        ),
        {
            "peer": "port of the session; or in its place",
            "mac": "MAC of the guest, in whichever session it comes",
            "room": "its room; the default one without it",
            "destination": "address or name that it talks to",
        },
    ),
    Endpoint("GET", "/metrics", "Metrics for Prometheus", Api.metrics),
    Endpoint("GET", "/livez", "Whether the relay lives", Api.livez),
    Endpoint("GET", "/readyz", "Whether new sessions are taken; 503 while draining", Api.readyz),
    Endpoint("GET", "/openapi.json", "This description", Api.openapi),
)


def application(served: Served) -> ASGIApp:
    """Make the application that answers."""
    return assemble(Api(served), served)


def assemble(api: Any, offered: Offered) -> ASGIApp:
    """Make an application of an object that has the methods of :class:`Api`."""

    def route(endpoint: Endpoint) -> Route:
        handle: Callable[[Request], Awaitable[Response]] = getattr(api, endpoint.handle.__name__)

        async def answer(request: Request) -> Response:
            return await handle(request)

        return Route(endpoint.path, answer, methods=[endpoint.method])

    app = Starlette(
        routes=[*map(route, ROUTES), *page_routes()],
        exception_handlers={
            HTTPException: _refused,
            NotThereError: _not_there,
            OperationError: _impossible,
            BanError: _impossible,
            NoPlaceError: _no_place,
            KeyError: _no_room,
            ClientDisconnect: _gone,
        },
    )
    app.state.described = openapi(ROUTES, str(offered.facts["version"]))

    def guard() -> Guard:
        return Guard(offered.hosts, offered.token, offered.read_token, offered.everywhere)

    return Guarded(app, guard, api.is_in_room)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return ApiResponse({"error": error.detail}, error.status_code, error.headers)


async def _not_there(_: Request, error: Exception) -> Response:
    return ApiResponse({"error": str(error)}, HTTPStatus.NOT_FOUND)


async def _impossible(_: Request, error: Exception) -> Response:
    return ApiResponse({"error": str(error)}, HTTPStatus.CONFLICT)


async def _no_place(_: Request, error: Exception) -> Response:
    return ApiResponse({"error": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE)


async def _gone(_: Request, __: Exception) -> Response:
    """Answer whoever has left in the middle of a body: nobody hears it."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _no_room(_: Request, error: Exception) -> Response:
    return ApiResponse({"error": f"there is no room {str(error.args[0])[:70]}"}, HTTPStatus.NOT_FOUND)
