from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

import pytest

from transport.admission import ClientRequest
from transport.origins import OriginPolicy, parse_origins, read_origin


class Certificate(NamedTuple):
    names: frozenset[str]
    is_self_signed: bool


class Certificates(NamedTuple):
    current: Certificate


OWN = Certificate(frozenset({"localhost", "127.0.0.1", "myhost"}), is_self_signed=True)
OF_AUTHORITY = Certificate(
    frozenset({"relay.example.org", "example.org", "*.vm.example.org", "192.0.2.1"}), is_self_signed=False
)
AWAY = "198.51.100.9:5000"
HERE = "127.0.0.1:5000"


def decide(
    *origins,
    authority="192.0.2.1:4433",
    remote=AWAY,
    secure=True,
    allowed="",
    certificate=OWN,
    on_loopback=False,
    carrier="websocket",
    path="/raw",
    host=None,
    names=(),
):
    certificates: Any = Certificates(certificate)
    policy = OriginPolicy(parse_origins(allowed), certificates, on_loopback=on_loopback, names=names)
    headers = [("origin", origin) for origin in origins]
    if carrier != "webtransport":
        headers.append(("host", host or authority))
    return policy.admit(ClientRequest(carrier, path, "", headers, authority, secure, remote))


def admits(*origins, **options):
    """Ask of both carriers, and of the page that says the same; they have to agree."""
    answers = {
        decide(*origins, **{"carrier": carrier, "path": path, **options}) is None
        for carrier, path in (("websocket", "/raw"), ("webtransport", "/"), ("http", "/cert-hash"))
    }
    assert len(answers) == 1
    return answers.pop()


def test_a_certificate_that_was_kept_need_not_have_the_name_that_the_machine_has_now():
    asked = {"authority": "newhost:4433", "carrier": "http", "path": "/"}
    assert decide(**asked) is not None
    assert decide(**asked, names=["NewHost"]) is None
    assert decide("https://newhost:4433", **asked | {"carrier": "websocket"}, names=["newhost"]) is None


ELSEWHERE = [
    "https://evil.example",
    "http://evil.example",
    "http://127.0.0.2",
    "http://127.0.0.1.evil.example",
    "https://localhost.evil.example",
    "http://localhost.",
    "http://[::2]",
    "http://[::ffff:127.0.0.1]",
    "http://192.168.1.1",
    "http://10.0.2.2",
    "null",
    "file://",
    "file:///home/x.html",
    "",
    "chrome-extension://abcdefghijklmnop",
    "https://127.0.0.1@evil.example",
    "https://evil.example/http://localhost",
    "ftp://localhost",
    "localhost",
    "http://localhost:99999",
    "http://localhost:0",
    "https://é.example",
    "http://localhost, https://evil.example",
]


@pytest.mark.parametrize("origin", ELSEWHERE)
@pytest.mark.parametrize(
    "where",
    [
        {"authority": "127.0.0.1:4433", "remote": HERE, "on_loopback": True},
        {"authority": "localhost:4433", "remote": "[::1]:5000"},
        {"authority": "192.168.1.1:4433", "remote": "192.168.1.7:5000"},
        {"authority": "relay.example.org", "certificate": OF_AUTHORITY},
    ],
    ids=["loopback", "reached at loopback", "private network", "public"],
)
def test_pages_of_other_origins_are_refused_by_default(origin, where):
    assert not admits(origin, **where)


def test_clients_without_an_origin_are_let_in():
    assert admits()
    assert admits(authority="localhost:4433", remote=HERE, on_loopback=True)


def test_two_origins_are_none():
    assert not admits("http://localhost", "http://localhost", on_loopback=True)
    assert not admits("null", "null", allowed="null")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "[0:0::1]"])
@pytest.mark.parametrize("port", ["", ":80", ":8080", ":65535"])
@pytest.mark.parametrize(
    ("where", "let_in"),
    [
        ({"authority": "127.0.0.1:4433", "remote": HERE, "on_loopback": True}, True),
        ({"authority": "localhost:4433", "remote": HERE}, True),
        ({"authority": "myhost:4433", "remote": "127.0.1.1:5000"}, True),
        ({"authority": "[::1]:4433", "remote": "[::1]:5000"}, True),
        # A container's published port: the client seems to be the bridge.
        ({"authority": "127.0.0.1:4433", "remote": "172.17.0.1:5000"}, True),
        ({"authority": "192.0.2.1:4433"}, False),
        ({"authority": "relay.example.org", "certificate": OF_AUTHORITY}, False),
    ],
)
def test_local_pages_reach_a_relay_on_loopback(scheme, host, port, where, let_in):
    assert admits(f"{scheme}://{host}{port}", **where) is let_in


@pytest.mark.parametrize(
    ("origin", "authority", "let_in"),
    [
        ("https://192.0.2.1:4433", "192.0.2.1:4433", True),
        ("https://192.0.2.1", "192.0.2.1:443", True),
        ("https://192.0.2.1", "192.0.2.1", True),
        ("https://[2001:db8::1]:4433", "[2001:db8:0::1]:4433", True),
        ("https://myhost:4433", "myhost:4433", True),
        ("https://MyHost:4433", "myhost:4433", True),
        ("https://192.0.2.1:8443", "192.0.2.1:4433", False),
        ("https://192.0.2.1", "192.0.2.1:4433", False),
        ("http://192.0.2.1:4433", "192.0.2.1:4433", False),
        ("https://192.0.2.2:4433", "192.0.2.1:4433", False),
        ("https://evil.example:4433", "evil.example:4433", False),
    ],
)
def test_its_own_page_is_let_in(origin, authority, let_in):
    assert admits(origin, authority=authority) is let_in


@pytest.mark.parametrize(
    ("origin", "authority", "let_in"),
    [
        ("https://relay.example.org", "relay.example.org:4433", True),
        ("https://relay.example.org:8443", "relay.example.org:4433", True),
        ("https://example.org", "relay.example.org:4433", True),
        ("https://192.0.2.1", "relay.example.org", True),
        ("https://a.vm.example.org", "a.vm.example.org:4433", True),
        ("https://b.vm.example.org", "a.vm.example.org:4433", False),
        ("https://www.example.org", "relay.example.org", False),
        ("https://org", "relay.example.org", False),
        ("http://relay.example.org", "relay.example.org", False),
    ],
)
def test_pages_of_hosts_that_an_authority_vouches_for_are_let_in(origin, authority, let_in):
    assert admits(origin, authority=authority, certificate=OF_AUTHORITY) is let_in


def test_a_certificate_that_the_relay_made_itself_vouches_for_no_page():
    assert not admits("https://myhost", authority="myhost:4433")


@pytest.mark.parametrize(
    ("allowed", "origin", "let_in"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "https://app.example:443", True),
        ("https://app.example:443", "https://app.example", True),
        ("HTTPS://App.Example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example:8443", "https://app.example:8443", True),
        ("https://app.example", "https://app.example.evil", False),
        ("https://*.example.org", "https://a.example.org", True),
        ("https://*.example.org", "https://example.org", False),
        ("https://*.example.org", "https://a.b.example.org", False),
        ("https://*.example.org", "https://.example.org", False),
        ("https://*.example.org", "https://a.evil-example.org", False),
        ("https://*.example.org:8443", "https://a.example.org:8443", True),
        ("https://*.example.org:8443", "https://a.example.org", False),
        ("https://a.example, http://b.example:81", "http://b.example:81", True),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]", True),
        ("http://127.0.0.2", "http://127.0.0.2", True),
        ("chrome-extension://abc", "chrome-extension://abc", True),
        ("chrome-extension://abc", "chrome-extension://abd", False),
        ("null", "null", True),
        ("null", "file://", True),
        ("null", "https://evil.example", False),
        *(("*", origin, True) for origin in ELSEWHERE),
    ],
)
def test_the_setting_lets_pages_in(allowed, origin, let_in):
    assert admits(origin, allowed=allowed) is let_in


@pytest.mark.parametrize(
    "text",
    [
        "app.example",
        "https://app.example/",
        "https://app.example/path",
        "https://*",
        "https://*.org.",
        "https://*.org",
        "https://a.*.org",
        "https://a*.example.org",
        "https://*.*.example.org",
        "https://é.example",
        "*://app.example",
        "https://app.example:*",
        "https://app.example:0",
        "https://[::1",
        "**",
    ],
)
def test_what_is_no_origin_cannot_be_set(text):
    with pytest.raises(ValueError, match="is no origin; write "):
        parse_origins(text)


@pytest.mark.parametrize(
    ("origin", "flag"),
    [
        ("https://evil.example", "--allow-origin https://evil.example "),
        ("HTTPS://EVIL.example:443", "--allow-origin https://evil.example "),
        ("http://127.0.0.2:8000", "--allow-origin http://127.0.0.2:8000 "),
        ("null", "--allow-origin null "),
        ("file://", "--allow-origin null "),
    ],
)
def test_a_refusal_names_the_flag_that_lets_the_page_in(origin, flag):
    refusal = decide(origin)
    assert refusal.status == HTTPStatus.FORBIDDEN
    assert flag in refusal.reason
    assert admits(origin, allowed=flag.split()[1])


@pytest.mark.parametrize("origin", ["https://a.example;rm -rf", "https://a.example\x1b[2J", "x" * 10_000])
def test_nothing_that_is_no_origin_is_repeated(origin):
    refusal = decide(origin)
    assert refusal.status == HTTPStatus.FORBIDDEN
    assert refusal.reason == "The Origin is none."


@pytest.mark.parametrize(
    ("authority", "known"),
    [
        ("127.0.0.1:4433", True),
        ("[::1]:4433", True),
        ("192.168.1.7", True),
        ("localhost", True),
        ("LocalHost:1", True),
        ("vm.localhost", True),
        ("myhost:4433", True),
        ("MYHOST", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:4433", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("relay.example.org", False),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(("carrier", "path"), [("http", "/"), ("http", "/cert-hash"), ("websocket", "/raw")])
def test_hosts_that_may_be_anybodys_are_not_answered_for(authority, known, secure, carrier, path):
    refusal = decide(authority=authority, secure=secure, carrier=carrier, path=path)
    assert (refusal is None) is known
    assert known or refusal.status == HTTPStatus.MISDIRECTED_REQUEST


def test_target_and_host_field_are_both_looked_at():
    assert decide(authority="127.0.0.1", host="evil.example").status == HTTPStatus.MISDIRECTED_REQUEST
    assert decide(authority="evil.example", host="127.0.0.1").status == HTTPStatus.MISDIRECTED_REQUEST


def test_names_of_the_certificate_and_of_allowed_origins_are_known_hosts():
    for authority in ("relay.example.org:4433", "a.vm.example.org", "192.0.2.1"):
        assert decide(authority=authority, certificate=OF_AUTHORITY) is None
    assert decide(authority="a.b.vm.example.org", certificate=OF_AUTHORITY) is not None
    refusal = decide(authority="relay.lan:4433")
    assert "--allow-origin https://relay.lan:4433 " in refusal.reason
    assert decide(authority="relay.lan:4433", allowed="https://relay.lan:4433") is None
    assert decide(authority="relay.lan:4433", allowed="*") is None


def test_pages_that_are_no_secret_are_for_every_origin():
    assert decide("https://evil.example", carrier="http", path="/client/index.js") is None


def test_origins_have_one_spelling():
    assert str(read_origin("HTTPS://Example.ORG:443")) == "https://example.org"
    assert str(read_origin("http://[0:0::1]:8080")) == "http://[::1]:8080"
    assert str(read_origin("http://example.org:443")) == "http://example.org:443"
