from __future__ import annotations

from http import HTTPStatus
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.web.http1 import (
    MAX_BODY,
    MAX_CHUNKS,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_REQUEST_LINE,
    Answer,
    BadRequestError,
    Request,
    RequestReader,
)

HOST = b"Host: relay.example:4433\r\n"


def read(data, cut=None):
    """Read requests, and the status that ended that if one did; ``cut`` is the size of the pieces."""
    reader = RequestReader()
    found: list[Any] = []
    size = cut or len(data) or 1
    try:
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])
            while (request := reader.next()) is not None:
                found.append(request)
    except BadRequestError as error:
        found.append(int(error.status))
    return found


def one(data):
    [request] = read(data)
    assert isinstance(request, Request), request
    return request


# -- what is understood -------------------------------------------------------------------------------


def test_a_request_is_its_method_target_host_and_fields():
    request = one(b"GET /raw?room=1 HTTP/1.1\r\n" + HOST + b"X-Test:  a b \t\r\nx-test: c\r\nEmpty:\r\n\r\n")
    assert (request.method, request.target, request.minor_version) == ("GET", "/raw?room=1", 1)
    assert request.authority == "relay.example:4433"
    assert (request.field("x-test"), request.field("empty"), request.field("absent")) == ("a b, c", "", None)
    assert request.keep_alive


@pytest.mark.parametrize(
    ("connection", "version", "stays"),
    [
        (b"", b"1.1", True),
        (b"Connection: keep-alive\r\n", b"1.1", True),
        (b"Connection: CLOSE\r\n", b"1.1", False),
        (b"Connection: Upgrade, close\r\n", b"1.1", False),
        (b"", b"1.0", False),
        (b"Connection: keep-alive\r\n", b"1.0", False),
        (b"", b"1.9", True),
    ],
)
def test_whether_the_connection_stays(connection, version, stays):
    request = one(b"GET / HTTP/" + version + b"\r\n" + HOST + connection + b"\r\n")
    assert request.keep_alive is stays


WELL = {
    "lines that end in LF": b"GET / HTTP/1.1\nHost: a\nX: y\n\n",
    "mixed ends": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\n",
    "empty lines before": b"\r\n\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.0 without a host": b"GET / HTTP/1.0\r\n\r\n",
    "a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "a length said twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5\r\nhello\r\n0A;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
    "chunks with LF": b"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n",
    "no chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an absolute target": b"GET http://a/path?q HTTP/1.1\r\nHost: b\r\n\r\n",
    "an absolute target without a path": b"GET HTTPS://a?q HTTP/1.1\r\nHost: b\r\n\r\n",
    "all of the server": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "an IPv6 host": b"GET / HTTP/1.1\r\nHost: [fe80::1]:4433\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "bytes over 127": b"GET / HTTP/1.1\r\nHost: a\r\nCookie: caf\xc3\xa9\r\n\r\n",
    "fields up to the limit": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * (MAX_FIELDS - 1) + b"\r\n",
    "a long target": b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "trailers up to the limit": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"a: b\r\n" * (MAX_FIELDS - 2)
    + b"\r\n",
    "a large field": b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"a" * (MAX_HEAD - 100) + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", WELL)
@pytest.mark.parametrize("cut", [None, 1, 7])
def test_requests_are_found_however_they_are_cut_and_one_behind_the_other(case, cut):
    if cut == 1 and len(WELL[case]) > 10_000:
        cut = 1000
    first, second = read(WELL[case] * 2, cut)
    assert isinstance(first, Request)
    assert first == second


def test_an_absolute_target_says_whom_it_is_for():
    request = one(b"GET http://user.example:80 HTTP/1.1\r\nHost: other.example\r\n\r\n")
    assert (request.target, request.authority) == ("/", "user.example:80")


def test_what_follows_belongs_to_the_next_protocol():
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x82\x80")
    assert reader.next() is not None
    assert not reader.idle
    assert reader.take_rest() == b"\x82\x80"
    assert reader.idle


def test_a_client_that_waits_for_a_word_is_not_waited_for():
    expecting = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    [request] = read(expecting + b"hello" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1)
    assert request.unread_body
    assert not request.keep_alive
    without_body = one(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n")
    assert without_body.keep_alive


@pytest.mark.parametrize("part", [b"", b"\r\n\r\n"])
def test_nothing_of_a_request_is_idle(part):
    reader = RequestReader()
    reader.feed(part)
    assert reader.next() is None
    assert reader.idle
    reader.feed(b"G")
    assert reader.next() is None
    assert not reader.idle
    reader.feed(b"ET / HTTP/1.1\r\n")
    assert reader.next() is None
    assert not reader.idle


# -- what is not --------------------------------------------------------------------------------------

START = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD = {
    "HTTP/0.9": (b"GET /\r\n", 400),
    "no words": (b"hello\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n", 400),
    "a space in the target": (b"GET /a b HTTP/1.1\r\n", 400),
    "a target that is not ASCII": ("GET /ä HTTP/1.1\r\n".encode(), 400),
    "another protocol": (b"SSH-2.0-OpenSSH_9.9\r\n", 400),
    "lower case": (b"GET / http/1.1\r\n", 400),
    "a control character at once": (b"\x80\x00\x01", 400),
    "a bare CR": (b"GET / HTTP/1.1\rHost: a\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3": (b"GET / HTTP/3.0\r\n", 505),
    "a target that is no path": (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "all of the server, but to get": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "another scheme": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "an absolute target of nobody": (b"GET http:///path HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a user in the target": (b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no host": (START + b"\r\n", 400),
    "two hosts": (START + b"Host: a\r\nHost: a\r\n\r\n", 400),
    "a host that is none": (START + b"Host: [\r\n\r\n", 400),
    "a host with a path": (START + b"Host: a/b\r\n\r\n", 400),
    "a host with a strange port": (START + b"Host: a:b\r\n\r\n", 400),
    "a field without a colon": (START + b"Host\r\n\r\n", 400),
    "a space before the colon": (START + b"Host : a\r\n\r\n", 400),
    "a folded line": (START + b"Host: a\r\n b\r\n\r\n", 400),
    "a space before the first field": (START + b" Host: a\r\n\r\n", 400),
    "a field without a name": (START + b": a\r\n\r\n", 400),
    "a NUL in a field": (START + b"Host: a\0b\r\n\r\n", 400),
    "a CR in a field": (START + b"Host: a\rb\r\n\r\n", 400),
    "a long line": (b"GET /" + b"a" * MAX_REQUEST_LINE + b" HTTP/1.1\r\n", 414),
    "a line without an end": (b"a" * (MAX_REQUEST_LINE + 1), 414),
    "large fields": (START + b"Cookie: " + b"a" * MAX_HEAD + b"\r\n", 431),
    "a field without an end": (START + b"a" * (MAX_HEAD + 1), 431),
    "fields that are large together": (START + (b"a: " + b"b" * 1000 + b"\r\n") * 40, 431),
    "many fields": (START + b"a: b\r\n" * (MAX_FIELDS + 1), 431),
    "a length that is no number": (POST + b"Content-Length: five\r\n\r\n", 400),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "a length with a sign": (POST + b"Content-Length: +1\r\n\r\n", 400),
    "a length behind what is a blank to few": (POST + b"Content-Length: \xa01\r\n\r\nx", 400),
    "a coding behind what is a blank to few": (POST + b"Transfer-Encoding: \x85chunked\r\n\r\n", 400),
    "an endless length": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    "an empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a length and chunks": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunks in chunks": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    "a body without an end": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "no coding": (POST + b"Transfer-Encoding: \r\n\r\n", 400),
    "a large body": (POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), 413),
    "many chunks": (CHUNKED + b"1\r\nx\r\n" * (MAX_CHUNKS + 1), 413),
    "nothing but ends of lines": (b"\r\n" * 100, 400),
    "a large chunk": (CHUNKED + b"fffffffff\r\n", 413),
    "large chunks": (CHUNKED + (b"1000\r\n" + bytes(4096) + b"\r\n") * 17, 413),
    "a chunk without a size": (CHUNKED + b"\r\nhello\r\n", 400),
    "a size that is no number": (CHUNKED + b"xyz\r\n", 400),
    "a negative size": (CHUNKED + b"-1\r\n", 400),
    "a size without an end": (CHUNKED + b"1" * 2000, 400),
    "a chunk that is longer": (CHUNKED + b"1\r\nxy\r\n", 400),
    "a thousand chunks": (CHUNKED + b"1\na\n" * 1000, 413),
    "many trailers": (CHUNKED + b"0\r\n" + b"a\n" * (MAX_FIELDS + 1), 431),
    "fields and trailers that are many together": (CHUNKED + b"0\r\n" + b"a: b\r\n" * (MAX_FIELDS - 1), 431),
    "large trailers": (CHUNKED + b"0\r\n" + b"a" * (MAX_HEAD + 1), 431),
    "another expectation": (POST + b"Expect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("cut", [None, 1])
def test_what_cannot_be_understood_is_a_status(case, cut):
    data, status = BAD[case]
    cut = cut if len(data) < 10_000 else 1000
    assert read(data, cut) == [status]


def test_requests_before_one_that_is_bad_are_told():
    good, bad = read(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nrubbish\r\n")
    assert (good.target, bad) == ("/a", 400)


def test_a_field_of_blanks_costs_what_its_bytes_do():
    blanks = b" " * (MAX_HEAD - 1000)
    began = process_time()
    assert one(START + HOST + b"a: b" + blanks + b"c \t\r\n\r\n").field("a") == "b" + blanks.decode() + "c"
    # A millisecond, or seconds where each blank is looked at for all that are before it.
    assert process_time() - began < 1


@given(
    st.lists(st.sampled_from([*WELL.values(), *(data for data, _ in BAD.values())]), max_size=3), st.data()
)
def test_no_bytes_raise_anything_else_and_the_cut_changes_nothing(parts, data):
    whole = b"".join(parts)
    where = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=20))
    mixed = whole[:where] + noise + whole[where:]
    if len(mixed) < 5000:
        assert read(mixed) == read(mixed, data.draw(st.integers(1, 50)))
    else:
        read(mixed)


def test_what_is_kept_of_a_client_that_never_ends_a_line_is_bounded():
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n")
    for _ in range(MAX_HEAD // 1000):
        reader.feed(b"x" * 1000)
        assert reader.next() is None
    reader.feed(b"x" * 1000)
    with pytest.raises(BadRequestError):
        reader.next()


# -- answers ------------------------------------------------------------------------------------------


def test_an_answer_says_its_length_its_date_and_whether_it_is_the_last():
    answer = Answer(HTTPStatus.OK, {"X-Test": "yes"}, b"body")
    head, _, body = answer.encode(close=True).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert status == "HTTP/1.1 200 OK"
    assert fields.pop("Date").endswith(" GMT")
    assert fields == {"X-Test": "yes", "Content-Length": "4", "Connection": "close"}
    assert body == b"body"
    assert b"Connection" not in answer.encode(close=False)


def test_an_answer_without_its_body_says_the_length_all_the_same():
    assert b"Content-Length: 4\r\n" in Answer(HTTPStatus.OK, {}, b"body").encode(close=False, head_only=True)
    assert Answer(HTTPStatus.OK, {}, b"body").encode(close=False, head_only=True).endswith(b"\r\n\r\n")
    assert b"Content-Length" not in Answer(HTTPStatus.NO_CONTENT, {}).encode(close=False)
