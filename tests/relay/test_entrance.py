from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from relay.admin.entrance import REQUESTS_PER_TURN, Guarded, caller_of
from relay.admin.guard import LOOPBACK_HOSTS, Caller, Guard
from transport.turns import sockets_first


async def echo(scope, receive, send):
    request = Request(scope, receive)
    answer = PlainTextResponse(f"{caller_of(request).token} {request.url.query}")
    await answer(scope, receive, send)


def ask(app, target, *, method="GET", caller=None, in_room=True, headers=()):
    """Give the status, and the messages of the body."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), (b"authorization", b"Bearer x"), *headers],
    }
    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    async def is_in_room(port, room):
        return in_room

    guard = Guard(LOOPBACK_HOSTS, None if caller else "x", (lambda _: caller) if caller else None)
    asyncio.run(Guarded(app, lambda: guard, is_in_room)(scope, receive, send))
    start, *bodies = sent
    return start["status"], bodies


def text(bodies):
    return b"".join(message["body"] for message in bodies).decode()


def test_the_operator_asks_as_it_stands():
    status, bodies = ask(echo, "/v1/flows?port=3&room=lab")
    assert (status, text(bodies)) == (200, "None port=3&room=lab")


OWN, FOREIGN = (b"origin", b"http://localhost"), (b"origin", b"http://evil.example")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([OWN], 200),
        ([OWN, FOREIGN], 403),
        ([FOREIGN, OWN], 403),
        ([OWN, OWN], 403),
        ([(b"authorization", b"Bearer x")], 401),
        ([(b"authorization", b"Bearer y")], 401),
        ([(b"host", b"evil.example")], 421),
        ([(b"host", b"localhost")], 421),
        ([(b"accept", b"a"), (b"accept", b"b")], 200),
    ],
)
def test_no_header_that_decides_comes_twice(headers, status):
    assert ask(echo, "/v1/flows", headers=headers)[0] == status


def test_who_may_ask_about_a_room_is_answered_about_that():
    caller = Caller("boss", "lab")
    assert text(ask(echo, "/v1/flows?port=3", caller=caller)[1]) == "boss port=3&room=lab"
    status, bodies = ask(echo, "/v1/flows?room=other", caller=caller)
    assert (status, json.loads(text(bodies))["error"]) == (403, "the token is for room lab only")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_head_is_asked_for_as_what_it_is_of(method):
    assert ask(echo, "/v1/flows", method=method, caller=Caller("boss", "lab"))[0] == 200
    assert ask(echo, "/metrics", method=method, caller=Caller("boss", "lab"))[0] == 403


def test_a_session_elsewhere_is_none():
    caller = Caller("boss", "lab")
    assert ask(echo, "/v1/peers/7", method="DELETE", caller=caller)[0] == 200
    status, bodies = ask(echo, "/v1/peers/7", method="DELETE", caller=caller, in_room=False)
    assert (status, json.loads(text(bodies))["error"]) == (404, "there is no session 7")


def test_of_many_requests_at_once_a_few_go_on_in_a_turn():
    at_once = []

    async def scenario():
        turn = 0

        async def send(_message):
            at_once.append(turn)

        async def receive():
            await asyncio.Event().wait()

        async def no_room(_port, _room):
            return False

        guarded = Guarded(echo, lambda: Guard(LOOPBACK_HOSTS, "x"), no_room)
        scope = {"type": "http", "method": "GET", "path": "/v1/flows", "query_string": b"", "headers": []}
        asking = [asyncio.create_task(guarded(dict(scope), receive, send)) for _ in range(40)]
        while not all(task.done() for task in asking):
            await sockets_first()
            turn += 1

    asyncio.run(scenario())
    messages = 2  # of each answer, which is that no name was given
    assert len(at_once) == 40 * messages
    assert max(Counter(at_once).values()) <= 2 * REQUESTS_PER_TURN * messages


def test_what_goes_on_ends_with_the_token_and_what_is_said_at_once_is_whole():
    answers = iter([True, True, False, False])
    caller = Caller("boss", None, lambda: next(answers))

    async def long(scope, receive, send):
        async def pieces():
            for _ in range(100):
                yield "x"

        await StreamingResponse(pieces())(scope, receive, send)

    status, bodies = ask(long, "/v1/events", caller=caller)
    assert (status, text(bodies), bodies[-1]["more_body"]) == (200, "xx", False)
    over = Caller("boss", None, lambda: False)
    assert text(ask(echo, "/v1/flows", caller=over)[1]) == "boss "


def test_what_was_begun_with_the_operators_token_ends_with_it():
    token = "x"

    async def stream(scope, receive, send):
        nonlocal token

        async def pieces():
            nonlocal token
            yield "one"
            token = "y"
            yield "two"

        await StreamingResponse(pieces())(scope, receive, send)

    async def scenario():
        sent = []

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", b"Bearer x")]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/events",
            "query_string": b"",
            "headers": headers,
        }
        guarded = Guarded(stream, lambda: Guard(LOOPBACK_HOSTS, token), lambda *_: None)
        await guarded(scope, receive, send)
        return sent

    assert text(asyncio.run(scenario())[1:]) == "one"
