from __future__ import annotations

import asyncio
import json
import math
import time

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from relay.admin.entrance import CALLER
from relay.admin.guard import MAX_BODY, Caller
from relay.admin.request_fields import (
    MAX_DIGITS,
    MAX_SECONDS,
    MAX_USER,
    WHO,
    asked_ban,
    forward_room,
    read_fields,
    room_of,
    seconds_of,
    who_asks,
    whole,
)


def request(*chunks, query=b"", user=None, caller=None):
    parts = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    parts.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        return parts.pop(0)

    headers = [] if user is None else [(WHO.encode(), user.encode("latin-1"))]
    scope = {"type": "http", "query_string": query, "headers": headers, CALLER: caller or Caller()}
    return Request(scope, receive)


def read(*chunks, **options):
    return asyncio.run(read_fields(request(*chunks), {"seconds", "reason"}, **options))


def refused(do, *given, **options):
    with pytest.raises(HTTPException) as caught:
        do(*given, **options)
    return caught.value.status_code


def test_the_log_names_the_user_and_the_token_that_were_told():
    assert who_asks(request()).text == "the operator"
    assert who_asks(request(user="ann")).text == "the operator (ann)"
    assert who_asks(request(user="ann", caller=Caller("t1"))).text == "the holder of token 't1' (ann)"


@pytest.mark.parametrize("user", ["a\nb", "\x1b[2J", "u" * (MAX_USER + 1)])
def test_users_that_would_disturb_the_log_are_left_out(user):
    assert who_asks(request(user=user)).text == "the operator"


def test_a_request_is_about_the_room_it_names_or_about_all():
    assert room_of(request(query=b"room=lab")) == "lab"
    assert room_of(request()) is None


def test_a_forward_is_for_the_default_room_or_the_one_of_the_token():
    assert forward_room(request(), {}) == "default"
    assert forward_room(request(), {"room": "lab"}) == "lab"
    assert forward_room(request(caller=Caller("t", "lab")), {}) == "lab"
    assert refused(forward_room, request(caller=Caller("t", "lab")), {"room": "other"}) == 403


def test_whole_numbers_are_ascii_digits_of_64_bits():
    assert whole("9" * MAX_DIGITS, "port") < 2**63
    for text in ("", "-1", "1.0", "٤", "9" * (MAX_DIGITS + 1)):
        assert refused(whole, text, "port") == 400


def test_what_lasts_lasts_some_seconds_or_for_ever():
    assert seconds_of({}) is None
    assert seconds_of({"seconds": 1}) == 1.0
    assert seconds_of({"seconds": MAX_SECONDS}) == MAX_SECONDS
    for bad in (0, -1, True, "1", math.nan, math.inf, MAX_SECONDS * 2):
        assert refused(seconds_of, {"seconds": bad}) == 400


def test_a_body_comes_in_pieces_and_is_an_object_of_known_fields():
    assert read(b'{"seco', b'nds": 3}') == {"seconds": 3}
    assert read(or_none=True) == {}
    for bad in (b"", b"[]", b"\xff", b"[" * 50_000, b'{"second": 3}'):
        assert refused(read, bad) == 400


@pytest.mark.parametrize("half", [rb"\udcff", rb"\ud83d", b"\xed\xb3\xbf"])
def test_half_a_character_is_refused_wherever_it_stands(half):
    for bad in (b'{"reason": "a%s"}', b'{"reason": ["%s"]}', b'{"%s": 1}'):
        assert refused(read, bad % half) == 400
    assert read(rb'{"reason": "\ud83d\ude00"}') == {"reason": "\U0001f600"}


def test_a_body_that_is_too_large_is_refused_before_its_end():
    assert read(b"{" + b" " * (MAX_BODY - 2) + b"}") == {}
    assert refused(read, b" " * MAX_BODY, b" ") == 413


def test_a_ban_lasts_for_the_time_that_was_asked_for():
    asked = {"kind": "token", "what": "t1", "seconds": 60, "reason": "tired"}
    ban = asked_ban(json.dumps(asked).encode())
    assert (ban.kind, ban.what, ban.reason) == ("token", "t1", "tired")
    assert 0 < ban.until - time.time() <= 60
    assert asked_ban(b'{"kind": "token", "what": "t1"}').until == math.inf
