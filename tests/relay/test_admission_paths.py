from __future__ import annotations

from http import HTTPStatus

import pytest

from relay.admission import RelayAdmission
from transport.admission import ClientRequest, Grant, Refusal

FORBIDDEN = Refusal(HTTPStatus.FORBIDDEN, "not from there")


class Origins:
    """An origin policy with one answer."""

    def __init__(self, refusal=None):
        self.refusal = refusal

    def admit(self, _request):
        return self.refusal


class Lans:
    default = object()


def request(target, carrier):
    path, _, query = target.partition("?")
    return ClientRequest(carrier, path, query, (), "relay.example", True, "192.0.2.1:4000")


both_carriers = pytest.mark.parametrize("carrier", ["webtransport", "websocket"])


@both_carriers
@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/raw", "/?encap=raw"),
        ("/?encap=framed", "/?encap=framed"),
        ("/raw?encap=raw", "/?encap=raw"),
        ("/raw?a=1", "/?encap=raw&a=1"),
    ],
)
def test_both_carriers_lead_to_the_lan_by_the_same_paths(carrier, target, path):
    assert RelayAdmission(Origins(), Lans).admit(request(target, carrier)) == Grant(Lans.default, path)


@both_carriers
@pytest.mark.parametrize("target", ["/elsewhere", "/raw/", "//", "", "/RAW", "/raw/raw", "/cert-hash"])
def test_at_other_paths_there_is_no_lan(carrier, target):
    found = RelayAdmission(Origins(), Lans).admit(request(target, carrier))
    assert found.status == HTTPStatus.NOT_FOUND


@both_carriers
def test_an_origin_that_is_refused_learns_nothing_of_the_paths(carrier):
    admission = RelayAdmission(Origins(FORBIDDEN), Lans)
    for target in ("/", "/elsewhere"):
        assert admission.admit(request(target, carrier)) == FORBIDDEN
    assert admission.check(request("/", "http")) == FORBIDDEN
