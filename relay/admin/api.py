"""The admin API: HTTP and JSON for whoever operates the relay.

Reads are snapshots of the actors, writes are the relay's operations (``relay.operations``). What may be asked
stands in ``relay.admin.routes``; ``relay.admin.request_fields`` reads what requests say. Loaded only when the
first client comes: Starlette takes a while, and most relays are never asked.

Who may use it says ``relay.admin.guard``; the page that shows it in a browser is ``relay.admin.page``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from loguru import logger
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from netstack.ethernet import format_mac, parse_mac
from netstack.forward import MAX_PORT
from netstack.pcapng import MAX_SNAP
from netstack.room_names import DEFAULT_ROOM
from relay.admin.entrance import caller_of
from relay.admin.json_answers import ApiResponse, told_bans
from relay.admin.metrics import CONTENT_TYPE, exposition
from relay.admin.overview import overview
from relay.admin.request_fields import (
    asked_ban,
    bad_request,
    body_of,
    forward_room,
    mac_of,
    read_fields,
    room_of,
    seconds_of,
    who_asks,
    whole,
)
from relay.admin.stream_places import Places
from relay.admin.streams import Stream
from relay.bpf import FilterError, Filters
from relay.capture import MAX_CAPTURES, TOO_MANY_CAPTURES, Capture
from relay.operations import OperationError
from relay.snapshots import Snapshots
from relay.trace import Trace
from relay.why import Question, addresses_of, explain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from relay.admin.service import Served
    from relay.observation import Observer

KEEP_ALIVE = 15.0
"""Seconds between comments in an event stream, so that whoever is between knows that it lives."""

MAX_NAME = 253
"""Characters of a host name (RFC 1035 section 2.3.4)."""


class Api:
    """Answers requests; one for the relay, whatever listeners there are."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._snapshots = Snapshots(served.operations.lans)
        self._filters = Filters()
        self._captures = Places(MAX_CAPTURES, TOO_MANY_CAPTURES)

    # -- what there is ------------------------------------------------------------------------------

    async def is_in_room(self, port: int, room: str) -> bool:
        """Tell whether a session is of a room."""
        lan = self._served.operations.lans.find(room)
        return lan is not None and any(peer.port == port for peer in await self._snapshots.peers(room))

    async def status(self, request: Request) -> Response:
        """Answer with the relay, or a room of it, at a glance."""
        room = room_of(request)
        return ApiResponse(
            {
                **self._facts(),
                "rooms": await self._snapshots.rooms(room),
                "drops": dict(list(self._snapshots.drops(room).items())[:10]),
            }
        )

    def _facts(self) -> dict[str, Any]:
        served, operations = self._served, self._served.operations
        return {
            **served.facts,
            "uptime": time.monotonic() - served.started,
            "draining": operations.is_draining,
            "certificate": operations.certificate(),
        }

    async def overview(self, request: Request) -> Response:
        """Answer with what the dashboard shows."""
        sought = request.query_params.get("find", "")[:MAX_NAME]
        seen = await overview(self._snapshots, room_of(request), sought)
        if (only := caller_of(request).room) is not None:
            rooms = [room for room in seen.rooms if room.name == only]
            seen = dataclasses.replace(seen, rooms=rooms)
        return ApiResponse({"relay": self._facts(), "seen": seen})

    async def rooms(self, request: Request) -> Response:
        """Answer with all rooms, or one."""
        return ApiResponse(await self._snapshots.rooms(room_of(request)))

    async def peers(self, request: Request) -> Response:
        """Answer with the sessions."""
        return ApiResponse(await self._snapshots.peers(room_of(request)))

    async def macs(self, request: Request) -> Response:
        """Answer with the MAC tables."""
        return ApiResponse(await self._snapshots.macs(room_of(request)))

    async def leases(self, request: Request) -> Response:
        """Answer with who holds which address."""
        return ApiResponse(await self._snapshots.leases(room_of(request)))

    async def flows(self, request: Request) -> Response:
        """Answer with the flows."""
        port = request.query_params.get("port")
        return ApiResponse(
            await self._snapshots.flows(room_of(request), None if port is None else whole(port, "port"))
        )

    async def names(self, request: Request) -> Response:
        """Answer with the name servers."""
        return ApiResponse(await self._snapshots.names(room_of(request)))

    async def forwards(self, request: Request) -> Response:
        """Answer with the forwards."""
        return ApiResponse(await self._snapshots.forwards(room_of(request)))

    async def counters(self, request: Request) -> Response:
        """Answer with all counters."""
        return ApiResponse(self._snapshots.counters(room_of(request)))

    async def drops(self, request: Request) -> Response:
        """Answer with what was dropped."""
        return ApiResponse(self._snapshots.drops(room_of(request)))

    async def limits(self, _: Request) -> Response:
        """Answer with the limits that are set."""
        return ApiResponse(self._served.limits())

    async def why(self, request: Request) -> Response:
        """Answer whether a guest would reach something."""
        query = request.query_params
        protocol, port = query.get("protocol", "tcp"), query.get("port")
        if protocol not in {"tcp", "udp", "icmp"}:
            raise bad_request("protocol must be tcp, udp or icmp")
        if not (target := query.get("target", "")):
            raise bad_request("target must be an address or a name")
        number = None if port is None else whole(port, "port")
        if number is not None and not 1 <= number <= MAX_PORT:
            raise bad_request(f"port must be from 1 to {MAX_PORT}")
        [lan] = self._snapshots.rooms_named(query.get("room", DEFAULT_ROOM))
        asked = Question(target[:MAX_NAME], protocol, number, query.get("from"))
        return ApiResponse(await explain(lan, self._snapshots, asked))

    async def certificate(self, _: Request) -> Response:
        """Answer with the certificate."""
        return ApiResponse(self._served.operations.certificate())

    # -- what is done -------------------------------------------------------------------------------

    async def disconnect(self, request: Request) -> Response:
        """End a session."""
        port = whole(request.path_params["port"], "port")
        await self._served.operations.disconnect(
            port, request.query_params.get("reason", ""), who_asks(request)
        )
        return ApiResponse({"disconnected": port})

    async def inject(self, request: Request) -> Response:
        """Put frames on the LAN."""
        port = whole(request.path_params["port"], "port")
        fields = await read_fields(request, {"frames", "to_guest"})
        given = fields.get("frames")
        if not isinstance(given, list) or not all(isinstance(frame, str) for frame in given):
            raise bad_request("frames must be a list of hexadecimal texts")
        try:
            frames = [bytes.fromhex(frame) for frame in given]
        except ValueError:
            raise bad_request("frames must be a list of hexadecimal texts") from None
        to_guest = fields.get("to_guest", False) is True
        await self._served.operations.inject(port, frames, who_asks(request), to_guest=to_guest)
        return ApiResponse({"frames": len(frames)}, HTTPStatus.ACCEPTED)

    async def bans(self, _: Request) -> Response:
        """Answer with who is kept out."""
        return ApiResponse(told_bans(self._served.operations.bans))

    async def ban(self, request: Request) -> Response:
        """Keep somebody out."""
        ban = asked_ban(await body_of(request))
        ended = await self._served.operations.ban(ban, who_asks(request))
        return ApiResponse({"id": ban.id, "ended": ended}, HTTPStatus.CREATED)

    async def unban(self, request: Request) -> Response:
        """Let somebody in again."""
        await self._served.operations.unban(request.path_params["id"], who_asks(request))
        return ApiResponse({"lifted": request.path_params["id"]})

    async def revoked(self, _: Request) -> Response:
        """Answer with the ids of the tokens that were revoked while the relay ran."""
        return ApiResponse(self._served.operations.revoked)

    async def revoke(self, request: Request) -> Response:
        """Revoke a token for good."""
        identifier = request.path_params["id"]
        ended = await self._served.operations.revoke(identifier, who_asks(request))
        return ApiResponse({"revoked": identifier, "ended": ended})

    async def add_forward(self, request: Request) -> Response:
        """Open a port of the host to a guest."""
        fields = await read_fields(request, {"room", "forward"})
        room, text = forward_room(request, fields), str(fields.get("forward", ""))
        added = await self._served.operations.add_forward(room, text, who_asks(request))
        return ApiResponse({"room": room, "forward": added}, HTTPStatus.CREATED)

    async def remove_forward(self, request: Request) -> Response:
        """Close a port of the host."""
        room, text = request.query_params.get("room", DEFAULT_ROOM), request.query_params.get("forward", "")
        await self._served.operations.remove_forward(room, text, who_asks(request))
        return ApiResponse({"removed": text})

    async def reload(self, request: Request) -> Response:
        """Read configuration, certificate and keys again."""
        return ApiResponse(await self._served.operations.reload(who_asks(request)))

    async def restart(self, _: Request) -> Response:
        """Say that there are no workers to replace."""
        raise OperationError("it is one process, which whoever started it restarts; --workers makes several")

    async def drain(self, request: Request) -> Response:
        """Refuse new sessions, or take them again."""
        if request.method == "DELETE":
            self._served.operations.end_draining(who_asks(request))
        else:
            seconds = seconds_of(await read_fields(request, {"seconds"}, or_none=True))
            self._served.operations.drain(who_asks(request), seconds)
        return ApiResponse({"draining": self._served.operations.is_draining})

    # -- streams and what monitors ask ---------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Send what happens, as it happens (server-sent events)."""
        room = request.query_params.get("room")
        taken = contextlib.ExitStack()
        queue = taken.enter_context(self._served.events.subscribed(caller_of(request).room))
        return Stream(_server_sent(queue, room), "text/event-stream", taken, self._served.ending)

    async def recent_events(self, request: Request) -> Response:
        """Answer with what has happened lately."""
        return ApiResponse(self._served.events.recent(room_of(request)))

    async def capture(self, request: Request) -> Response:
        """Send what passes, as pcapng, until the client has enough."""
        query, room = request.query_params, room_of(request)
        port = None if "peer" not in query else whole(query["peer"], "peer")
        mac = None if "mac" not in query else mac_of(query["mac"])
        if mac is not None and room is None:
            room = DEFAULT_ROOM
        snap_length = whole(query.get("snaplen", "0"), "snaplen")
        if snap_length > MAX_SNAP:
            raise bad_request(f"snaplen must be from 0 to {MAX_SNAP}")
        self._snapshots.rooms_named(room)  # one that there is not is refused
        try:
            wanted = await self._filters.compile(query["filter"]) if query.get("filter") else None
        except FilterError as error:
            raise bad_request(str(error)) from None
        peers = await self._snapshots.peers(room)
        if mac is not None:
            port = next((peer.port for peer in peers if peer.mac == format_mac(mac)), None)
        names = {peer.port: peer.name for peer in peers}
        capture = Capture(port=port, mac=mac, wanted=wanted, snap_length=snap_length, name_of=names.get)
        taken = self._look_on(capture, room, request)
        taken.callback(capture.log_end)
        _note_look(request, f"captures {room or 'all rooms'}")
        return Stream(capture.stream(), "application/x-pcapng", taken, self._served.ending)

    def _look_on(self, observer: Observer, room: str | None, request: Request) -> contextlib.ExitStack:
        """Have somebody look on at a room or all, if not too many do; closing what is returned ends it."""
        taken = contextlib.ExitStack()
        taken.enter_context(self._captures.taken(caller_of(request).room))
        lans = self._served.operations.lans
        lans.look_on(observer, room)
        taken.callback(lans.look_away, observer)
        return taken

    async def trace(self, request: Request) -> Response:
        """Send what becomes of a guest's packets for one destination, a JSON object for each decision."""
        query = request.query_params
        mac, room = await self._traced(request)
        [lan] = self._snapshots.rooms_named(room)
        destination = query.get("destination", "")[:MAX_NAME]
        addresses, step = await addresses_of(lan, self._snapshots, destination)
        if not addresses:
            said = "destination must be an address or a name" if step is None else step.answer
            # Not 404, as a worker answers that is without the room: the reason is told by one that has it.
            raise OperationError(said)
        trace = Trace(parse_mac(mac), frozenset(address.packed for address in addresses))
        taken = self._look_on(trace, lan.name, request)
        taken.callback(trace.log_end)
        _note_look(request, f"traces {mac} and {destination}")
        return Stream(_json_lines(trace), "application/jsonl", taken, self._served.ending)

    async def _traced(self, request: Request) -> tuple[str, str]:
        """Tell MAC and room of a guest: of the session that is named, or those that are, come who may."""
        query = request.query_params
        if "peer" in query:
            port = whole(query["peer"], "peer")
            for peer in await self._snapshots.peers():
                if peer.port == port and peer.mac is not None:
                    return peer.mac, peer.room
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no session {port} with a guest")
        try:
            return format_mac(parse_mac(query.get("mac", ""))), query.get("room", DEFAULT_ROOM)
        except ValueError:
            raise OperationError("peer must be the port of a session, or mac the MAC of a guest") from None

    async def metrics(self, _: Request) -> Response:
        """Answer in Prometheus's text format."""
        return Response(await exposition(self._served, self._snapshots), media_type=CONTENT_TYPE)

    async def livez(self, _: Request) -> Response:
        """Answer that the event loop turns."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Answer whether new sessions are taken."""
        if self._served.operations.is_draining:
            return PlainTextResponse("draining\n", HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ready\n")

    async def openapi(self, request: Request) -> Response:
        """Answer with the description of all this."""
        return ApiResponse(request.app.state.described)


def _note_look(request: Request, what: str) -> None:
    """Log each look at what passes, with who asked."""
    logger.bind(unthinned=True).info("{} {}", who_asks(request).text, what)


async def _server_sent(queue: asyncio.Queue[dict[str, Any]], room: str | None) -> AsyncIterator[str]:
    yield ": connected\n\n"
    while True:
        try:
            event = await asyncio.wait_for(queue.get(), KEEP_ALIVE)
        except TimeoutError:
            yield ": still here\n\n"
            continue
        if room in (None, event.get("room")):
            yield f"event: {event['event']}\ndata: {json.dumps(event)}\n\n"


async def _json_lines(trace: Trace) -> AsyncIterator[str]:
    async for line in trace.lines():
        yield f"{json.dumps(line)}\n"
