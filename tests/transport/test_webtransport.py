import itertools
from http import HTTPStatus

import pytest
from aioquic.buffer import encode_uint_var
from hypothesis import given, settings
from hypothesis import strategies as st

from transport.admission import Refusal
from transport.quic import webtransport
from transport.quic.webtransport import (
    CapsuleReader,
    SessionClosure,
    answer,
    client_request,
    encode_close_capsule,
    read_request,
    refuse,
)


def request(method=b"CONNECT", protocol=b"webtransport", extra=()):
    headers = [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", b"vm.test"),
        (b":path", b"/?encap=raw"),
    ]
    if protocol is not None:
        headers.append((b":protocol", protocol))
    return [*headers, *extra]


def respond(headers, *, has_session=False):
    return answer(read_request(headers), headers, has_session=has_session)


@pytest.mark.parametrize("protocol", [b"webtransport", b"webtransport-h3"])
def test_connect_for_webtransport_opens_a_session(protocol):
    response = respond(request(protocol=protocol))
    assert response.session
    assert dict(response.headers)[b":status"] == b"200"


def test_path_with_query_reaches_the_session():
    assert read_request(request()).path == "/?encap=raw"


@pytest.mark.parametrize(
    ("headers", "has_session", "status"),
    [
        (request(method=b"GET", protocol=None), False, 405),
        (request(method=b"POST", protocol=None), False, 405),
        (request(protocol=None), False, 501),
        (request(protocol=b"websocket"), False, 501),
        (request(), True, 429),
        (request(extra=[(b"x-%d" % n, b"v" * 1000) for n in range(20)]), False, 431),
    ],
)
def test_other_requests_get_their_status(headers, has_session, status):
    response = respond(headers, has_session=has_session)
    assert response.status == status
    assert not response.session
    assert dict(response.headers)[b":status"] == str(status).encode()
    assert int(dict(response.headers)[b"content-length"]) == len(response.body)


def test_admission_is_told_what_was_asked_for():
    asked = client_request(request(extra=[(b"origin", b"https://a.example")]), "192.0.2.1:5")
    assert (asked.carrier, asked.path, asked.query) == ("webtransport", "/", "encap=raw")
    assert (asked.authority, asked.secure, asked.remote) == ("vm.test", True, "192.0.2.1:5")
    assert asked.values("origin") == ["https://a.example"]


def test_405_names_the_allowed_method_and_head_has_no_body():
    get = respond(request(method=b"GET", protocol=None))
    head = respond(request(method=b"HEAD", protocol=None))
    assert dict(get.headers)[b"allow"] == b"CONNECT"
    assert head.body == b""
    assert dict(head.headers)[b"content-length"] == dict(get.headers)[b"content-length"]


def test_close_capsule_comes_back_whole_in_any_pieces():
    capsule = encode_close_capsule(0x12345678, "wartet, später")
    for cut in range(len(capsule) + 1):
        reader = CapsuleReader()
        first = reader.feed(capsule[:cut])
        result = first or reader.feed(capsule[cut:])
        assert result == SessionClosure(0x12345678, "wartet, später")


def test_close_reason_is_cut_to_whole_characters():
    closure = CapsuleReader().feed(encode_close_capsule(1, "é" * 1000))
    assert closure is not None
    assert closure.reason == "é" * 512


def test_what_utf8_cannot_say_of_a_reason_is_replaced():
    closure = CapsuleReader().feed(encode_close_capsule(1, "tired\udcff"))
    assert closure == SessionClosure(1, "tired?")
    assert refuse(Refusal(HTTPStatus.FORBIDDEN, "tired\udcff")).body == b"tired?\n"


def test_unknown_capsules_are_skipped():
    stream = (
        encode_uint_var(0x78AE) + encode_uint_var(0) + encode_uint_var(0x1234) + encode_uint_var(3) + b"abc"
    )
    assert CapsuleReader().feed(stream + encode_close_capsule(5, "x")) == SessionClosure(5, "x")


@pytest.mark.parametrize("length", [0, 3, 4 + 1025, 5000, 1 << 61])
def test_a_closing_capsule_whose_length_cannot_be_is_refused(length):
    with pytest.raises(ValueError, match=f"closing capsule of {length} bytes"):
        CapsuleReader().feed(encode_uint_var(0x2843) + encode_uint_var(length))


@pytest.mark.parametrize("kind", [0x00, 0x29, 0x78AE, 0x190B4D3D, (1 << 62) - 1])
@pytest.mark.parametrize("length", [4096, 4097, 65536, 3_000_000])
def test_capsules_of_other_kinds_are_passed_over_whatever_their_length(kind, length):
    head = encode_uint_var(kind) + encode_uint_var(length)
    stream = head + bytes(length) + head + bytes(length) + encode_close_capsule(5, "x")
    assert CapsuleReader().feed(stream) == SessionClosure(5, "x")
    reader = CapsuleReader()
    closures = []
    for at in range(0, len(stream), 1009):
        closures.append(reader.feed(stream[at : at + 1009]))
        assert len(reader._pending) <= 1009
    assert closures[-1] == SessionClosure(5, "x")
    assert closures.count(None) == len(closures) - 1


def test_a_capsule_without_end_is_not_kept():
    reader = CapsuleReader()
    assert reader.feed(encode_uint_var(0x1234) + encode_uint_var((1 << 62) - 1)) is None
    for _ in range(1000):
        assert reader.feed(bytes(10_000)) is None
        assert reader._pending == b""


capsules = st.builds(
    lambda kind, body: encode_uint_var(kind) + encode_uint_var(len(body)) + body,
    st.integers(0, (1 << 62) - 1).filter(lambda kind: kind != 0x2843),
    st.binary(max_size=40),
)


@given(st.lists(capsules, max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_capsules_are_read_the_same_however_they_are_cut(skipped, cuts):
    stream = b"".join(skipped) + encode_close_capsule(9, "so")
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reader = CapsuleReader()
    closures = [reader.feed(stream[start:end]) for start, end in itertools.pairwise(edges)]
    assert closures[-1] == SessionClosure(9, "so")
    assert not any(closures[:-1])


@settings(derandomize=True)
@given(st.lists(st.binary(max_size=64), max_size=16))
def test_any_stream_is_read_or_refused_and_little_is_kept(pieces):
    reader = CapsuleReader()
    try:
        for piece in pieces:
            reader.feed(piece)
    except ValueError:
        return
    assert len(reader._pending) <= 16 + 4 + webtransport.MAX_CLOSE_REASON


def test_every_dialect_is_announced_with_one_session():
    for setting in (0x2B603742, 0xC671706A, 0x14E9CD29, 0x2C7CF000):
        assert webtransport.WEBTRANSPORT_SETTINGS[setting] == 1
