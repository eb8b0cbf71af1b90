from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from relay.admin.confinement import Confined, confine
from relay.admin.guard import Refused
from relay.admin.routes import ROUTES

OF_THE_WHOLE_RELAY = {
    ("GET", "/v1/limits"),
    ("GET", "/v1/certificate"),
    ("GET", "/v1/bans"),
    ("POST", "/v1/bans"),
    ("DELETE", "/v1/bans/{id:path}"),
    ("GET", "/v1/tokens/revoked"),
    ("POST", "/v1/tokens/{id:path}/revoke"),
    ("POST", "/v1/reload"),
    ("POST", "/v1/restart"),
    ("POST", "/v1/drain"),
    ("DELETE", "/v1/drain"),
    ("GET", "/metrics"),
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_of_every_route_it_is_decided_whether_it_is_for_one_room(route):
    """Whoever adds one says here which; unless that is done it is closed."""
    path = route.path.replace("{port}", "7").replace("{id:path}", "x")
    query = b"peer=7&destination=192.0.2.1" if route.path == "/v1/trace" else b""
    found = confine(route.method, path, query, "lab")
    if (route.method, route.path) in OF_THE_WHOLE_RELAY:
        assert isinstance(found, Refused)
        assert found.status == 403
        return
    assert isinstance(found, Confined)
    if "{port}" in route.path or route.path == "/v1/trace":
        assert found.port == 7
    elif "room" in route.query:
        assert parse_qs(found.query.decode())["room"] == ["lab"]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"", b"room=lab"),
        (b"room=lab", b"room=lab"),
        (b"port=3&room=lab&room=lab", b"port=3&room=lab"),
        (b"find=a%26room%3Dother", b"find=a%26room%3Dother&room=lab"),
        (b"filter=tcp+port+80&peer=", b"filter=tcp+port+80&peer=&room=lab"),
    ],
)
def test_the_room_is_put_into_the_query(query, left):
    assert confine("GET", "/v1/flows", query, "lab") == Confined(left)


def test_a_guest_may_be_traced_by_its_mac_in_the_room_of_the_token():
    query = b"mac=52%3A54%3A00%3A00%3A00%3A01&destination=192.0.2.1"
    assert confine("GET", "/v1/trace", query, "lab") == Confined(query + b"&room=lab")
    for another in (b"&room=other", b"&peer=7&peer=8", b"&peer="):
        assert isinstance(confine("GET", "/v1/trace", query + another, "lab"), Refused)
    # The session decides where both are named, and has to be of the room.
    assert confine("GET", "/v1/trace", query + b"&peer=7", "lab") == Confined(query + b"&peer=7", 7)


@pytest.mark.parametrize(
    "query", [b"room=other", b"room=", b"room=lab&room=other", b"r%6fom=other", b"room=lab%00", b"room=LAB"]
)
def test_another_room_is_refused(query):
    found = confine("GET", "/v1/flows", query, "lab")
    assert isinstance(found, Refused)
    assert (found.status, found.reason) == (403, "the token is for room lab only")


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/v1/flows", b""),
        ("GET", "/v1/flows/", b""),
        ("GET", "//v1/flows", b""),
        ("GET", "/v1/Flows", b""),
        ("GET", "/v1/nowhere", b""),
        ("PUT", "/v1/forwards", b""),
        ("DELETE", "/v1/peers/x", b""),
        ("DELETE", f"/v1/peers/{'9' * 19}", b""),
        ("DELETE", "/v1/peers/7/frames", b""),
        ("POST", "/v1/peers/7", b""),
        ("GET", "/v1/trace", b""),
        ("GET", "/v1/trace", b"peer=7&peer=8"),
        ("GET", "/v1/trace", b"peer=%EF%BC%97"),
        ("GET", "/v1/flows", b"&".join([b"a=b"] * 40)),
    ],
)
def test_what_is_not_known_is_refused(method, path, query):
    assert isinstance(confine(method, path, query, "lab"), Refused)
