from __future__ import annotations

import math
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.admission import RelayAdmission
from relay.bans import Bans, parse_ban
from relay.lan import ForwardError
from relay.lans import NoRoomError
from relay.room_rules import RoomRules
from relay.room_tables import RoomTables
from relay.settings import Settings, SettingsWithRooms
from relay.token_gate import Clocks, TokenGate
from transport.admission import ClientRequest, Grant, Refusal
from transport.origins import OriginPolicy

NO_TOKENS = TokenGate(None, Clocks(lambda: 0.0, lambda: 0.0))
NO_BANS = Bans(lambda: 0.0)
SETTINGS = Settings()
FORBIDDEN = Refusal(HTTPStatus.FORBIDDEN, "not from there")


class Origins:
    """An origin policy with one answer."""

    def __init__(self, refusal=None):
        self.refusal = refusal

    def admit(self, _request):
        return self.refusal

    def admit_page(self, _request):
        return self.refusal


class Lans:
    """Rooms that are known by their names."""

    def __init__(self):
        self.asked = []
        self.error = None

    def why_not(self, name, client):
        return self.error if isinstance(self.error, NoRoomError) else None

    def get(self, name, client):
        self.asked.append((name, client))
        if self.error is not None:
            raise self.error
        return name


def admission_to(lans: Any, refusal=None, bans=NO_BANS, settings=SETTINGS, of_rooms=None):
    origins: Any = Origins(refusal)
    rules = RoomRules(settings, lambda _: cast("Any", Origins(of_rooms)))
    return RelayAdmission(origins, rules, NO_TOKENS, lans, bans, urls=lambda room: [f"https://{room}"])


def request(target, carrier):
    path, _, query = target.partition("?")
    return ClientRequest(carrier, path, query, (), "relay.example", True, "192.0.2.1:4000")


def told(refusal):
    """What a client is told."""
    return refusal.status, refusal.reason


@pytest.mark.parametrize(
    ("target", "room"),
    [
        ("/", "default"),
        ("/room/lab?token=x", "lab"),
        ("/?room=lab", "lab"),
        ("/elsewhere", None),
        ("/room/L", None),
    ],
)
def test_refusals_tell_the_room_that_was_asked_for(target, room):
    asked = request(target, "websocket")
    refusing = admission_to(Lans(), FORBIDDEN)
    assert [found.room for found in (refusing.admit(asked), refusing.check(asked))] == [room, room]
    draining = admission_to(Lans())
    draining.draining = True
    assert draining.admit(asked).room == room


both_carriers = pytest.mark.parametrize("carrier", ["webtransport", "websocket"])


@both_carriers
@pytest.mark.parametrize(
    ("target", "room", "path"),
    [
        ("/", "default", "/"),
        ("/raw", "default", "/?encap=raw"),
        ("/?encap=framed", "default", "/?encap=framed"),
        ("/raw?encap=raw", "default", "/?encap=raw"),
        ("/raw?a=1", "default", "/?encap=raw&a=1"),
        ("/raw?recap=1", "default", "/?encap=raw&recap=1"),
        ("/raw?enc%61p=raw", "default", "/?enc%61p=raw"),
        ("/room/lab", "lab", "/"),
        ("/room/lab/raw", "lab", "/?encap=raw"),
        ("/room/lab?encap=raw", "lab", "/?encap=raw"),
        ("/room/default", "default", "/"),
        ("/room/raw", "raw", "/"),
        ("/room/raw/raw", "raw", "/?encap=raw"),
        ("/room/" + 63 * "x", 63 * "x", "/"),
        ("/room/-0", "-0", "/"),
        ("/?room=lab", "lab", "/?room=lab"),
        ("/raw?room=l%61b", "lab", "/?encap=raw&room=l%61b"),
        ("/room/lab?room=lab", "lab", "/?room=lab"),
        # A token is nothing that a session need know, wherever it stands.
        ("/?token=secret", "default", "/"),
        ("/raw?token=secret&a=1&tok%65n=other", "default", "/?encap=raw&a=1"),
    ],
)
def test_both_carriers_lead_to_a_room_by_the_same_urls(carrier, target, room, path):
    lans = Lans()
    assert admission_to(lans).admit(request(target, carrier)) == Grant(room, path)
    assert lans.asked == [(room, "192.0.2.1")]


@both_carriers
@pytest.mark.parametrize(
    "target",
    [
        *(
            "/elsewhere",
            "/raw/",
            "//",
            "",
            "/RAW",
            "/raw/raw",
            "/cert-hash",
            "/room",
            "/rooms/lab",
        ),
        *(
            "room/lab",
            "/room/lab/",
            "/room/lab/framed",
            "/room/lab/raw/",
            "/room/lab/raw/raw",
            "//room/lab",
            "/room/a/b",
        ),
        *("/Room/lab", "/room/lab/raw\n", "/raw\n"),
    ],
)
def test_at_other_paths_there_is_no_room(carrier, target):
    lans = Lans()
    found = admission_to(lans).admit(request(target, carrier))
    assert found.status == HTTPStatus.NOT_FOUND
    assert lans.asked == []


@both_carriers
@pytest.mark.parametrize(
    "target",
    [
        *(
            "/room/",
            "/room//raw",
            "/room/Lab",
            "/room/a_b",
            "/room/a.b",
            "/room/%61",
            "/room/a b",
        ),
        *(
            "/room/lab\n",
            "/room/" + 64 * "x",
            "/room/é",
            "/?room=",
            "/?room=Lab",
            "/raw?room=a/b",
            "/?room=%0a",
        ),
        *("/?room=a&room=b", "/room/a?room=b", "/?" + 17 * "a&"),
    ],
)
def test_names_that_no_room_may_have_are_a_clear_400(carrier, target):
    lans = Lans()
    found = admission_to(lans).admit(request(target, carrier))
    assert found.status == HTTPStatus.BAD_REQUEST
    assert "1 to 63 of a-z, 0-9 and -" in found.reason or "more than" in found.reason
    assert found.reason.isprintable()
    assert len(found.reason) < 200
    assert lans.asked == []


@both_carriers
def test_an_origin_that_is_refused_learns_nothing_and_makes_no_room(carrier):
    lans = Lans()
    admission = admission_to(lans, FORBIDDEN)
    for target in ("/", "/elsewhere", "/room/lab", "/room/Lab"):
        assert told(admission.admit(request(target, carrier))) == told(FORBIDDEN)
    assert told(admission.check(request("/", "http"))) == told(FORBIDDEN)
    assert lans.asked == []


@both_carriers
def test_why_there_is_no_room_is_told(carrier, lines):
    lans = Lans()
    admission = admission_to(lans)
    lans.error = NoRoomError("many", HTTPStatus.TOO_MANY_REQUESTS, "too many")
    refusal = Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too many", "lab")
    assert admission.admit(request("/room/lab", carrier)) == refusal
    assert admission.explain(request("/room/lab", carrier)) == refusal
    lans.error = ForwardError("cannot forward it")
    assert admission.admit(request("/room/lab", carrier)).status == HTTPStatus.SERVICE_UNAVAILABLE
    assert lines == ["ERROR room lab: cannot forward it"]


def test_a_refusal_is_explained_without_a_room_being_made():
    lans = Lans()
    admission = admission_to(lans)
    assert admission.explain(request("/room/lab", "websocket")) is None
    for target in ("/elsewhere", "/room/Lab"):
        asked = request(target, "websocket")
        assert admission.explain(asked) == admission.admit(asked)
    assert admission_to(lans, FORBIDDEN).explain(request("/", "websocket")) == FORBIDDEN._replace(
        room="default"
    )
    assert lans.asked == []


@both_carriers
def test_rooms_may_be_for_fewer_pages_and_for_tokens_only(carrier):
    tables = RoomTables(
        others={"auth": "required"}, named={"lab": {"auth": "off", "allow_origin": ("https://a.example",)}}
    )
    admission = admission_to(Lans(), settings=SettingsWithRooms(tables=tables), of_rooms=FORBIDDEN)
    assert isinstance(admission.admit(request("/", carrier)), Grant)
    assert admission.admit(request("/room/lab", carrier)) == FORBIDDEN._replace(room="lab")
    refusal = admission.admit(request("/room/other", carrier))
    assert (refusal.status, refusal.reason) == (401, "A token is needed: ?token= in the URL.")


@both_carriers
def test_a_room_for_fewer_pages_is_at_the_hosts_that_the_relay_knows(carrier):
    tables = RoomTables(named={"lab": {"allow_origin": ("https://a.example",)}})
    relays = ("https://a.example", "https://relay.example")
    settings = SettingsWithRooms(allow_origin=relays, tables=tables)
    certificates: Any = SimpleNamespace(
        current=SimpleNamespace(names=frozenset({"localhost"}), is_self_signed=True)
    )
    make_policy = partial(OriginPolicy, certificates=certificates, on_loopback=False)
    lans: Any = Lans()
    rules = RoomRules(settings, make_policy)
    admission = RelayAdmission(make_policy(relays), rules, NO_TOKENS, lans, NO_BANS)

    def status(room, *origins, host="relay.example"):
        asked = request(f"/room/{room}", carrier)
        found = admission.admit(asked._replace(headers=[("origin", it) for it in origins], authority=host))
        return found.status if isinstance(found, Refusal) else HTTPStatus.OK

    assert status("lab") == status("lab", "https://a.example") == HTTPStatus.OK
    assert status("lab", "https://relay.example") == HTTPStatus.FORBIDDEN, "it is not one of the room's"
    assert status("other", "https://relay.example") == HTTPStatus.OK
    if carrier == "websocket":
        for room in ("lab", "other"):
            assert status(room, host="unknown.example") == HTTPStatus.MISDIRECTED_REQUEST


def test_who_is_banned_or_comes_while_the_relay_drains_is_refused_before_a_room_is_made():
    lans, bans = Lans(), Bans(lambda: 0.0)
    admission = admission_to(lans, bans=bans)
    asked = request("/room/lab", "webtransport")
    ban = parse_ban("address", asked.remote.rpartition(":")[0], math.inf, "noise")
    bans.add(ban)
    refusal = admission.admit(asked)
    assert (refusal.status, refusal.reason) == (403, "Banned by the operator: noise.")
    assert admission.where(asked) == refusal
    bans.remove(ban.id)
    admission.draining = True
    assert admission.admit(asked).status == 503
    assert lans.asked == []
    assert list(admission.where(asked)) == ["https://lab"]
    admission.draining = False
    assert isinstance(admission.admit(asked), Grant)
