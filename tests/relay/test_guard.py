from __future__ import annotations

from http import HTTPStatus

import pytest

from relay.admin.guard import ANYBODY, LOOPBACK_HOSTS, Caller, Guard, Refused

GUARD = Guard(LOOPBACK_HOSTS, "a-token-of-some-length")
OURS = {"host": "127.0.0.1:9000"}
SIGNED = {**OURS, "authorization": "Bearer a-token-of-some-length"}


def status(path, headers, guard=GUARD):
    refusal = guard.refusal(path, headers)
    return refusal and refusal[0].value


@pytest.mark.parametrize(
    "path",
    ["/v1/rooms", "/metrics", "/openapi.json", "/dashboard", "//dashboard/", "/v1/dashboard/", "/x/livez"],
)
def test_all_that_tells_something_needs_the_token(path):
    assert status(path, SIGNED) is None
    assert status(path, OURS) == 401


@pytest.mark.parametrize("path", ["/", "/dashboard/", "/dashboard/main.js", "/livez", "/readyz"])
def test_what_is_the_same_for_everybody_needs_none_but_is_for_no_other_page_and_name(path):
    assert status(path, OURS) is None
    assert status(path, {**OURS, "origin": "https://evil.example"}) == 403
    assert status(path, {"host": "evil.example:9000"}) == 421


@pytest.mark.parametrize(
    "said", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic a-token-of-some-length", "Bearer \xfc\xfc"]
)
def test_other_tokens_are_refused(said):
    assert status("/v1/rooms", {**OURS, "authorization": said}) == 401


def test_the_token_does_not_let_pages_of_other_origins_in():
    assert status("/v1/rooms", {**SIGNED, "origin": "http://127.0.0.1:9001"}) == 403
    assert status("/v1/rooms", {**SIGNED, "origin": "http://127.0.0.1:9000"}) is None


def test_on_a_unix_socket_any_name_will_do_and_no_token_is_asked_for():
    anybody = Guard(None, None)
    assert status("/v1/rooms", {"host": "vmrelay"}, anybody) is None
    assert status("/v1/rooms", {"host": "vmrelay", "origin": "https://evil.example"}, anybody) == 403


def test_a_relay_that_listens_everywhere_may_be_called_by_any_address_and_by_no_other_name():
    everywhere = Guard(LOOPBACK_HOSTS, "a-token-of-some-length", everywhere=True)
    for host in ("10.1.2.3:9433", "[2001:db8::1]:9433", "192.0.2.1"):
        assert status("/v1/rooms", {**SIGNED, "host": host}, everywhere) is None
        assert status("/v1/rooms", {**SIGNED, "host": host}) == 421
        assert status("/v1/rooms", {"host": host}, everywhere) == 401
    for host in ("evil.example:9433", "evil.example", "1.2.3.4.evil.example", "[::1", "10.1.2"):
        assert status("/v1/rooms", {**SIGNED, "host": host}, everywhere) == 421


def test_without_a_token_of_the_operators_one_of_a_clients_is_needed_over_tcp():
    boss, no = Caller("boss", "lab"), Refused(HTTPStatus.FORBIDDEN, "no")
    guard = Guard(LOOPBACK_HOSTS, None, {"yes": boss, "": boss}.get)
    assert guard.admit("/v1/rooms", {**OURS, "authorization": "Bearer yes"}) == boss
    assert guard.admit("/livez", OURS) == ANYBODY
    assert status("/v1/rooms", OURS, guard) == 401
    refusing = Guard(LOOPBACK_HOSTS, None, lambda _: no)
    assert refusing.admit("/v1/rooms", {**OURS, "authorization": "Bearer x"}) == no
    assert status("/v1/rooms", OURS, Guard(LOOPBACK_HOSTS, None)) == 401


@pytest.mark.parametrize("own", [None, "a-token-of-some-length"])
def test_who_comes_without_a_token_is_told_which_would_do(own):
    _, said = Guard(LOOPBACK_HOSTS, own, lambda _: ANYBODY).admit("/v1/rooms", OURS)
    assert "a token with the right admin" in said
    assert ("--admin-token" in said) == (own is not None)
