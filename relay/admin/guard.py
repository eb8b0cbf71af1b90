"""Who may use the admin API, decided by a request's head alone.

Over TCP every request shows the operator's token, or a client's with the right ``admin``, which may be for
one room only (``relay.admin.confinement``). A web page of another origin cannot: it may send requests, but
the browser names its origin, lets it set no ``Authorization`` without a question that is refused, and sends
nothing by itself, for there are no cookies. A name of the attacker's that leads to this machine (DNS
rebinding) is recognised by ``Host``.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from transport.binding import is_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DASHBOARD = "/dashboard/"
"""Below it are the dashboard's files: the same for everybody, they tell nothing of the relay."""

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

_WITHOUT_TOKEN = frozenset({"/", "/livez", "/readyz"})

LOOPBACK = "127.0.0.1"

LOOPBACK_HOSTS = frozenset({"localhost", LOOPBACK, "::1"})


class Refused(NamedTuple):
    """A request is refused: the status, and why."""

    status: HTTPStatus
    reason: str


def _for_ever() -> bool:
    return True


class Caller(NamedTuple):
    """Who asks."""

    token: str | None = None
    """The id of a client's token; None for the operator, and for whoever has asked for what is for all."""
    room: str | None = None
    """The one room that it is about; None for the whole relay."""
    still_may: Callable[[], bool] = _for_ever
    """Whether the token holds at this moment."""


ANYBODY = Caller()


class Guard(NamedTuple):
    """What a request has to show."""

    hosts: frozenset[str] | None
    """Names by which the API may be called; None for any, on a unix socket."""
    token: str | None
    """The operator's; None where there is none."""
    read_token: Callable[[str], Caller | Refused] | None = None
    """Reads a client's token; None where none is taken."""
    everywhere: bool = False
    """Whether it listens at all addresses of the machine, and so may be called by any; they are no names."""

    def admit(self, path: str, headers: Mapping[str, str]) -> Caller | Refused:
        """Tell who asks, or why that is refused; names of headers are lower case."""
        host = headers.get("host", "")
        if self.hosts is not None and not self._is_own(_without_port(host), self.hosts):
            return Refused(HTTPStatus.MISDIRECTED_REQUEST, f"the admin API is not called {host[:80]!r}")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return Refused(HTTPStatus.FORBIDDEN, "web pages of other origins may not use the admin API")
        # On a unix socket, which only the relay's user can open, none is needed.
        if self.hosts is None or path in _WITHOUT_TOKEN or path.startswith(DASHBOARD):
            return ANYBODY
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return self._check(token.strip() if scheme.lower() == "bearer" else "")

    def refusal(self, path: str, headers: Mapping[str, str]) -> Refused | None:
        """Return with which status a request is refused and why, or None."""
        found = self.admit(path, headers)
        return found if isinstance(found, Refused) else None

    def _is_own(self, name: str, hosts: frozenset[str]) -> bool:
        return name in hosts or (self.everywhere and is_address(name))

    def _check(self, token: str) -> Caller | Refused:
        if self.token is not None and hmac.compare_digest(token.encode(), self.token.encode()):
            return ANYBODY
        if self.read_token is None:
            return Refused(HTTPStatus.UNAUTHORIZED, "the admin API needs its token (--admin-token)")
        if not token:
            wanted = "a token with the right admin"
            wanted += ", or its own (--admin-token)" if self.token is not None else ""
            return Refused(HTTPStatus.UNAUTHORIZED, f"the admin API needs {wanted}")
        return self.read_token(token)


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() else host).strip("[]").lower()
