"""The admin API of a relay with workers: asked of all of them, and answered as by one.

It has the routes of ``relay.admin.routes``, for which each worker has an API of its own at a private socket.
Reads are asked of all workers and put together (``relay.supervisor.merging``); changes are made in all, and
what is to last is kept by the supervisor, for workers that start later. Streams follow workers that come and
go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from netstack import pcapng
from netstack.forward import parse_forward
from netstack.room_names import DEFAULT_ROOM
from relay.admin.api import KEEP_ALIVE
from relay.admin.entrance import caller_of
from relay.admin.json_answers import ApiResponse, told_bans
from relay.admin.metrics import CONTENT_TYPE
from relay.admin.request_fields import (
    MAX_USER,
    WHO,
    asked_ban,
    body_of,
    fields_of,
    forward_room,
    who_asks,
    whole,
)
from relay.admin.routes import assemble
from relay.admin.stream_places import Places
from relay.admin.streams import Stream
from relay.announcement import limits_of
from relay.called import as_told
from relay.capture import MAX_CAPTURES, TOO_MANY_CAPTURES
from relay.operations import DRAINS_NO_MORE, NotThereError, OperationError, drains, note_change
from relay.own_certificate import describe_certificate
from relay.supervisor import asking, captures, exposition, merging
from relay.supervisor.asking import NoAnswerError, Question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from relay.supervisor.served import ServedWhole

MOST_WAITING = 256
"""Pieces of a stream that wait for its reader; then the workers' own queues fill, and drop and count."""

LOOK_AGAIN = 0.5
"""Seconds between looks whether a worker is back, or has the room, that is followed."""


class WholeApi:
    """Answers requests as ``relay.admin.api.Api`` does, by what the workers answer."""

    def __init__(self, served: ServedWhole) -> None:
        self._served = served
        self._whole = served.whole
        self._totals = exposition.Totals()
        self._captures = Places(MAX_CAPTURES, TOO_MANY_CAPTURES)
        """Of captures and traces."""

    async def is_in_room(self, port: int, room: str) -> bool:
        """Tell whether a session is of a room."""
        with contextlib.suppress(HTTPException):  # where no worker has the room
            peers = await self._merged(f"/v1/peers?{urlencode({'room': room})}", merging.peers)
            return any(peer["port"] == port for peer in peers)
        return False

    # -- what there is ------------------------------------------------------------------------------

    async def status(self, request: Request) -> Response:
        """Answer with the relay, or a room of it, at a glance."""
        asked = await _question(request)
        found = await self._ask(asked)
        rooms = {worker: answer.json()["rooms"] for worker, answer in found.items()}
        drops = await self._merged(asked.target.replace("/v1/status", "/v1/drops", 1), merging.drops)
        told = {
            **self._facts(),
            "rooms": merging.rooms(rooms),
            "drops": dict(list(drops.items())[: merging.MOST_DROPS]),
        }
        if caller_of(request).room is None:  # a worker's sessions are those of all rooms
            told["workers"] = self._workers()
        return ApiResponse(told)

    def _facts(self) -> dict[str, Any]:
        return {
            **self._served.facts,
            "uptime": time.monotonic() - self._served.started,
            "draining": self._whole.draining,
            "certificate": describe_certificate(self._whole.certificates),
        }

    def _workers(self) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        return [
            {
                "worker": number,
                "pid": child.pid,
                "state": child.state,
                "age": now - child.started,
                "sessions": child.sessions,
                "version": child.version,
            }
            for number, child in sorted(self._whole.crew.children.items())
        ]

    async def overview(self, request: Request) -> Response:
        """Answer with what the dashboard shows."""
        seen = merging.overview(await self._answers(request))
        if (only := caller_of(request).room) is not None:  # of whom the workers know nothing
            seen["rooms"] = [room for room in seen["rooms"] if room["name"] == only]
        return ApiResponse({"relay": self._facts(), "seen": seen})

    async def rooms(self, request: Request) -> Response:
        """Answer with all rooms, or one."""
        return ApiResponse(merging.rooms(await self._answers(request)))

    async def peers(self, request: Request) -> Response:
        """Answer with the sessions."""
        return ApiResponse(merging.peers(await self._answers(request)))

    async def macs(self, request: Request) -> Response:
        """Answer with the MAC tables."""
        return ApiResponse(merging.shared("macs")(await self._answers(request)))

    async def leases(self, request: Request) -> Response:
        """Answer with who holds which address."""
        return ApiResponse(merging.shared("leases")(await self._answers(request)))

    async def flows(self, request: Request) -> Response:
        """Answer with the flows."""
        return ApiResponse(merging.flows(await self._answers(request)))

    async def names(self, request: Request) -> Response:
        """Answer with the name servers."""
        return ApiResponse(merging.names(await self._answers(request)))

    async def forwards(self, request: Request) -> Response:
        """Answer with the forwards."""
        return ApiResponse(merging.shared("forwards")(await self._answers(request)))

    async def counters(self, request: Request) -> Response:
        """Answer with all counters."""
        return ApiResponse(merging.counters(await self._answers(request)))

    async def drops(self, request: Request) -> Response:
        """Answer with what was dropped."""
        return ApiResponse(merging.drops(await self._answers(request)))

    async def limits(self, _: Request) -> Response:
        """Answer with the limits that are set."""
        return ApiResponse(limits_of(self._whole.settings))

    async def why(self, request: Request) -> Response:
        """Answer whether a guest would reach something, by the worker that has it."""
        asked = await _question(request)
        guest = request.query_params.get("from")
        if guest:
            room = request.query_params.get("room", DEFAULT_ROOM)
            peers = await self._merged(f"/v1/peers?{urlencode({'room': room})}", merging.peers)
            said = as_told(guest)
            known = [
                p["worker"] for p in peers if said in {p["name"], p["address"], p["mac"], str(p["port"])}
            ]
            found = await self._ask(asked, only=set(known) or None)
        else:
            found = await self._ask(asked)
        return _as_it_is(next(iter(found.values())))

    async def certificate(self, _: Request) -> Response:
        """Answer with the certificate."""
        return ApiResponse(describe_certificate(self._whole.certificates))

    # -- what is done -------------------------------------------------------------------------------

    async def disconnect(self, request: Request) -> Response:
        """End a session, wherever it is."""
        return await self._by_whom_it_concerns(request)

    async def inject(self, request: Request) -> Response:
        """Put frames on the LAN, where the session is."""
        return await self._by_whom_it_concerns(request)

    async def bans(self, _: Request) -> Response:
        """Answer with who is kept out."""
        return ApiResponse(told_bans(self._whole.bans))

    async def ban(self, request: Request) -> Response:
        """Keep somebody out, of all workers and of those to come."""
        asked = await _question(request)
        ban = asked_ban(asked.body)
        self._whole.bans.add(ban)
        note_change(who_asks(request), f"banned {ban}")
        await self._whole.bans.keep()  # first: it holds whether a worker answers or not
        found = await self._ask(asked)
        ended = sum(answer.json()["ended"] for answer in found.values())
        return ApiResponse({"id": ban.id, "ended": ended}, HTTPStatus.CREATED)

    async def unban(self, request: Request) -> Response:
        """Let somebody in again."""
        identifier = request.path_params["id"]
        if not self._whole.bans.remove(identifier):
            raise NotThereError(f"there is no ban {identifier}")
        note_change(who_asks(request), f"lifted the ban {identifier}")
        await self._whole.bans.keep()
        with contextlib.suppress(HTTPException):  # of a worker that has let it end already
            await self._ask(await _question(request))
        return ApiResponse({"lifted": identifier})

    async def revoked(self, _: Request) -> Response:
        """Answer with the ids of the tokens that were revoked while the relay ran."""
        return ApiResponse(self._whole.tokens.revoked)

    async def revoke(self, request: Request) -> Response:
        """Revoke a token for good, in all workers and in those to come."""
        identifier = request.path_params["id"]
        try:
            await self._whole.tokens.revoke(identifier)
        except ValueError as error:
            raise OperationError(str(error)) from None
        note_change(who_asks(request), f"revoked the token {identifier}")
        found = await self._ask(await _question(request))
        ended = sum(answer.json()["ended"] for answer in found.values())
        return ApiResponse({"revoked": identifier, "ended": ended})

    async def add_forward(self, request: Request) -> Response:
        """Open a port of the host to a guest."""
        fields = fields_of(await body_of(request), {"room", "forward"})
        room = forward_room(request, fields)
        if room not in {found["name"] for found in await self._merged("/v1/rooms", merging.rooms)}:
            raise NotThereError(f"there is no room {room}")
        try:
            forward = parse_forward(str(fields.get("forward", "")))
        except ValueError as error:
            raise OperationError(str(error)) from None
        self._whole.forwards.add(room, forward)
        note_change(who_asks(request), f"added the forward {forward} to room {room}")
        await self._whole.forwards_changed()
        return ApiResponse({"room": room, "forward": str(forward)}, HTTPStatus.CREATED)

    async def remove_forward(self, request: Request) -> Response:
        """Close a port of the host."""
        room, text = request.query_params.get("room", DEFAULT_ROOM), request.query_params.get("forward", "")
        removed = self._whole.forwards.remove(room, text)
        note_change(who_asks(request), f"removed the forward {removed} of room {room}")
        await self._whole.forwards_changed()
        return ApiResponse({"removed": text})

    async def reload(self, request: Request) -> Response:
        """Read configuration, certificate and keys again."""
        note_change(who_asks(request), "asked for a reload")
        return ApiResponse(await self._whole.reload())

    async def restart(self, request: Request) -> Response:
        """Begin to replace the workers one by one."""
        note_change(who_asks(request), "restarts the workers one by one")
        self._whole.restart()
        return ApiResponse({"restarting": self._whole.crew.live}, HTTPStatus.ACCEPTED)

    async def drain(self, request: Request) -> Response:
        """Refuse new sessions, or take them again."""
        asked = await _question(request)
        # First: a worker that becomes ready meanwhile is told.
        was, self._whole.draining = self._whole.draining, request.method != "DELETE"
        try:
            found = await self._ask(asked)
        except HTTPException:
            self._whole.draining = was
            raise
        if self._whole.draining:
            fields = json.loads(asked.body or b"{}")
            note_change(who_asks(request), drains(fields.get("seconds")))
        elif was:
            note_change(who_asks(request), DRAINS_NO_MORE)
        return _as_it_is(next(iter(found.values())))

    # -- streams and what monitors ask ---------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Send what happens, as it happens (server-sent events)."""
        asked = await _question(request)
        taken = contextlib.ExitStack()
        own = taken.enter_context(self._served.events.subscribed(caller_of(request).room))
        told: asyncio.Queue[str] = asyncio.Queue(MOST_WAITING)

        async def read(_: int, stream: asking.Stream) -> None:
            async for event in _events(stream.lines()):
                await told.put(event)

        tasks = [
            asyncio.create_task(self._follow(worker, asked, read)) for worker in range(self._whole.crew.count)
        ]
        tasks.append(asyncio.create_task(_pass_on(own, told, request.query_params.get("room"))))
        for task in tasks:
            taken.callback(task.cancel)
        return Stream(_kept_alive(told), "text/event-stream", taken, self._served.ending)

    async def _follow(
        self,
        worker: int,
        asked: Question,
        read: Callable[[int, asking.Stream], Awaitable[None]],
        stream: asking.Stream | None = None,
    ) -> None:
        """Read a worker's stream to its end, and those of the ones that come after it, without end.

        ``stream`` is the first one, if it is open already.
        """
        while True:
            path = self._whole.sockets().get(worker)
            with contextlib.suppress(NoAnswerError):
                if stream is None and path is not None:
                    stream = await asking.open_stream(path, asked)
                if stream is not None:
                    with contextlib.closing(stream):
                        if stream.status < HTTPStatus.BAD_REQUEST:
                            await read(worker, stream)
            stream = None
            await asyncio.sleep(LOOK_AGAIN)

    async def recent_events(self, request: Request) -> Response:
        """Answer with what has happened lately."""
        answers = await self._answers(request)
        own = self._served.events.recent(request.query_params.get("room"))
        return ApiResponse(merging.recent_events({**answers, -1: own}))

    async def capture(self, request: Request) -> Response:
        """Send what passes all workers, also later ones, as pcapng, until the client has enough."""
        asked = await _question(request)
        opened, taken = await self._open_streams(asked, request)
        told: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        told.put_nowait(pcapng.section("vmrelay"))
        interfaces = captures.Interfaces()

        async def read(worker: int, stream: asking.Stream) -> None:
            interfaces.begin(worker)
            async for block in captures.blocks(stream):
                if mine := interfaces.renumber(worker, block):
                    await told.put(mine)

        self._follow_all(asked, opened, read, taken)
        return Stream(_from(told), "application/x-pcapng", taken, self._served.ending)

    async def trace(self, request: Request) -> Response:
        """Send what becomes of a guest's packets, wherever they pass and whichever worker has it later."""
        asked = await self._by_mac(await _question(request), request)
        opened, taken = await self._open_streams(asked, request)
        told: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)

        async def read(_: int, stream: asking.Stream) -> None:
            async for line in stream.lines():
                await told.put(line)

        self._follow_all(asked, opened, read, taken)
        return Stream(_from(told), "application/jsonl", taken, self._served.ending)

    async def _by_mac(self, asked: Question, request: Request) -> Question:
        """Ask for a guest by its MAC: its session, and so its port, is another one at another worker."""
        query = request.query_params
        if "peer" not in query:
            return asked
        port = whole(query["peer"], "peer")
        peers = await self._merged("/v1/peers", merging.peers)
        found = next((peer for peer in peers if peer["port"] == port and peer["mac"]), None)
        if found is None:
            raise NotThereError(f"there is no session {port} with a guest")
        fields = {"mac": found["mac"], "room": found["room"], "destination": query.get("destination", "")}
        return asked._replace(target=f"/v1/trace?{urlencode(fields)}")

    def _follow_all(
        self,
        asked: Question,
        opened: dict[int, asking.Stream],
        read: Callable[[int, asking.Stream], Awaitable[None]],
        taken: contextlib.ExitStack,
    ) -> None:
        """Have streams of all workers read, open ones and those to come; closing ``taken`` ends it."""
        for worker in range(self._whole.crew.count):
            following = self._follow(worker, asked, read, opened.get(worker))
            taken.callback(asyncio.create_task(following).cancel)

    async def _open_streams(
        self, asked: Question, request: Request
    ) -> tuple[dict[int, asking.Stream], contextlib.ExitStack]:
        """Ask all for a stream; give those that have one, and what lets go of these and of their place."""
        found: dict[int, asking.Stream] = {}
        refused: list[asking.Stream] = []
        with contextlib.ExitStack() as taken:
            taken.enter_context(self._captures.taken(caller_of(request).room))

            async def open_one(worker: int, path: Path) -> None:
                with contextlib.suppress(NoAnswerError):
                    stream = await asking.open_stream(path, asked)
                    if stream.status < HTTPStatus.BAD_REQUEST:
                        found[worker] = stream
                        taken.callback(stream.close)
                    else:
                        refused.append(stream)

            # At once: each may take a while to compile the filter, or to look for the destination.
            await asyncio.gather(*(open_one(*each) for each in self._whole.sockets().items()))
            try:
                if not found:
                    raise await _refusal(refused)
            finally:
                for stream in refused:
                    stream.close()
            return found, taken.pop_all()

    async def metrics(self, request: Request) -> Response:
        """Answer in Prometheus's text format."""
        crew = self._whole.crew
        processes = {worker: child.pid for worker, child in crew.children.items()}
        found = await self._ask(await _question(request))
        rooms = await self._merged("/v1/rooms", merging.rooms)
        own = exposition.of_relay(
            rooms=len(rooms), running=len(crew.live), wanted=crew.count, restarts=crew.restarts
        )
        told = {
            worker: (processes[worker], answer.content.decode())
            for worker, answer in found.items()
            if worker in processes
        }
        return Response(self._totals.expose(told, own), media_type=CONTENT_TYPE)

    async def livez(self, _: Request) -> Response:
        """Answer that the supervisor's event loop turns."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Answer whether new sessions are taken."""
        if self._whole.draining:
            return PlainTextResponse("draining\n", HTTPStatus.SERVICE_UNAVAILABLE)
        if not self._whole.crew.live:
            return PlainTextResponse("no worker is ready\n", HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ready\n")

    async def openapi(self, request: Request) -> Response:
        """Answer with the description of all this."""
        return ApiResponse(request.app.state.described)

    # -- asking the workers -------------------------------------------------------------------------

    async def _ask(self, asked: Question, only: set[int] | None = None) -> dict[int, asking.Answer]:
        """Ask all workers; give the answers of those that do not refuse. Raises HTTPException, if all do."""
        sockets = {
            worker: path for worker, path in self._whole.sockets().items() if only is None or worker in only
        }
        answers = await asking.ask_all(sockets, asked)
        good = {worker: answer for worker, answer in answers.items() if answer.is_good}
        if not good:
            raise _no_answer(next(iter(answers.values()), None))
        return good

    async def _answers(self, request: Request) -> merging.Answers:
        found = await self._ask(await _question(request))
        return {worker: answer.json() for worker, answer in found.items()}

    async def _merged(self, path: str, merge: Callable[[merging.Answers], Any]) -> Any:
        found = await self._ask(Question("GET", path))
        return merge({worker: answer.json() for worker, answer in found.items()})

    async def _by_whom_it_concerns(self, request: Request) -> Response:
        found = await self._ask(await _question(request))
        return _as_it_is(next(iter(found.values())))


async def _question(request: Request) -> Question:
    """Pass a request on as it is; our own commands say which user runs them."""
    path = request.scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1") or request.url.path
    query = f"?{request.url.query}" if request.url.query else ""
    token, said = caller_of(request).token, request.headers.get(WHO, "")
    who = said if token is None else f"token {token}"[:MAX_USER]
    headers = {WHO: who} if who and who.isprintable() else {}
    method = "GET" if request.method == "HEAD" else request.method  # what is answered is put together first
    return Question(method, f"{path}{query}", await body_of(request), headers)


def _as_it_is(answer: asking.Answer) -> Response:
    return Response(answer.content, answer.status, media_type="application/json")


def _no_answer(refusal: asking.Answer | None) -> HTTPException:
    """Say what the workers say that refuse; or that there is none."""
    if refusal is None:
        return HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "no worker answers")
    try:
        reason = str(refusal.json()["error"])
    except (ValueError, KeyError, TypeError):
        reason = "a worker refuses"
    return HTTPException(refusal.status, reason)


async def _refusal(refused: list[asking.Stream]) -> HTTPException:
    """Say why all refuse a stream: the reason that is not that it is not there, where there is one."""
    if not refused:
        return _no_answer(None)
    first = next((stream for stream in refused if stream.status != HTTPStatus.NOT_FOUND), refused[0])
    return _no_answer(asking.Answer(first.status, await first.read()))


async def _events(lines: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Give each event with the empty line behind it; comments are left out."""
    event = b""
    async for line in lines:
        if line.startswith(b":"):
            continue
        event += line
        if line == b"\n":
            if event != b"\n":
                yield event.decode()
            event = b""


async def _pass_on(own: asyncio.Queue[dict[str, Any]], told: asyncio.Queue[str], room: str | None) -> None:
    """Tell the supervisor's own events, of one room only for ``room``; most of them are of none."""
    while True:
        event = await own.get()
        if room in (None, event.get("room")):
            await told.put(f"event: {event['event']}\ndata: {json.dumps(event)}\n\n")


async def _kept_alive(told: asyncio.Queue[str]) -> AsyncIterator[str]:
    yield ": connected\n\n"
    while True:
        try:
            yield await asyncio.wait_for(told.get(), KEEP_ALIVE)
        except TimeoutError:
            yield ": still here\n\n"


async def _from(told: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:
        yield await told.get()


def application(served: ServedWhole) -> ASGIApp:
    """Make the application that answers."""
    return assemble(WholeApi(served), served)
