"""Who may use the admin API, decided by a request's head alone.

Over TCP every request shows the token. A web page of another origin cannot: it may send requests, but the
browser names its origin, lets it set no ``Authorization`` without a question that is refused, and sends
nothing by itself, for there are no cookies. A name of the attacker's that leads to this machine (DNS
rebinding) is recognised by ``Host``.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

DASHBOARD = "/dashboard/"
"""Below it are the dashboard's files: the same for everybody, they tell nothing of the relay."""

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

_WITHOUT_TOKEN = frozenset({"/", "/livez", "/readyz"})

LOOPBACK = "127.0.0.1"

LOOPBACK_HOSTS = frozenset({"localhost", LOOPBACK, "::1"})


class Guard(NamedTuple):
    """What a request has to show."""

    hosts: frozenset[str] | None
    """Names by which the API may be called; None for any, on a unix socket."""
    token: str | None
    """None on a unix socket, which only the relay's user can open."""

    def refusal(self, path: str, headers: Mapping[str, str]) -> tuple[HTTPStatus, str] | None:
        """Return with which status a request is refused and why, or None; names of headers are lower case."""
        host = headers.get("host", "")
        if self.hosts is not None and _without_port(host) not in self.hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, f"the admin API is not called {host[:80]!r}"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return HTTPStatus.FORBIDDEN, "web pages of other origins may not use the admin API"
        if self.token is not None and path not in _WITHOUT_TOKEN and not path.startswith(DASHBOARD):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return HTTPStatus.UNAUTHORIZED, "the admin API needs its token (--admin-token)"
        return None


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() else host).strip("[]").lower()
