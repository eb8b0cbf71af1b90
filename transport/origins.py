"""Which web pages may use the relay: a decision without I/O, asked before either edge answers 200 or 101.

Browsers let a page of any site open WebSockets and WebTransport sessions to any address that the visitor's
machine reaches, loopback and private networks included, and say in ``Origin`` whose page it is (RFC 6454;
RFC 6455, section 10.2). Let in without a setting are

- clients that send no ``Origin``: they are no browsers;
- the relay's own page, under a name that is known to be the relay's;
- pages of localhost, 127.0.0.1 and [::1], any port, where the relay listens on loopback or is reached there;
- pages of the hosts that a certificate of an authority names.

A page of a foreign domain may have that domain lead to the relay (DNS rebinding): on the TCP port, where
pages are read, the host that was asked for has to be an address, localhost, or a name that is known.
"""

from __future__ import annotations

import ipaddress
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from netstack.forward import MAX_PORT
from transport.admission import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transport.admission import ClientRequest
    from transport.certificates import CertificateStore

ANY = "*"
"""Setting: pages of every origin."""
OPAQUE = "null"
"""Origin of files, sandboxed frames and ``data:`` URLs, whosever they are."""
ADMISSION_PAGES = "/admission/"
"""Before a session's path and query: tells why it would be refused, which browsers keep to themselves."""
WHERE_PAGE = re.compile(r"(/room/[a-z0-9-]{1,63})/where")
"""Behind a room's path: tells at which machines it is."""
GUARDED_PAGES = ("/cert-hash", ADMISSION_PAGES)
"""How other paths begin of what is told to pages of those origins only that may connect."""
LOCAL_PAGES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Hosts of pages that come from the visitor's own machine."""
MAX_ALLOWED = 256
"""Entries of the setting."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_][a-z0-9._-]*)(?::([0-9]{1,5}))?")
_PATTERN = re.compile(r"([a-z][a-z0-9+.-]*://)\*\.(?=[a-z0-9_-]+\.[a-z0-9_-])")
_MAX_ORIGIN = 300
"""Characters: a domain has 253 at most."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_guarded(path: str) -> bool:
    """Whether what is told there is not for pages of all origins."""
    return path.startswith(GUARDED_PAGES) or WHERE_PAGE.fullmatch(path) is not None


class Origin(NamedTuple):
    """Scheme, host (IPv6 in brackets) and port, all in their one spelling."""

    scheme: str
    host: str
    port: int | None
    """None where it is the scheme's own."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port is None else f":{self.port}")

    @property
    def pattern(self) -> str:
        """The setting with a wildcard that covers it."""
        return str(self._replace(host=f"*.{self.host.partition('.')[2]}"))


def read_origin(text: str) -> Origin | None:
    """Read ``scheme://host[:port]``; None for anything else, ``null`` included."""
    found = _ORIGIN.fullmatch(text.lower()) if len(text) <= _MAX_ORIGIN else None
    if found is None:
        return None
    scheme, host, port = found[1], found[2], int(found[3]) if found[3] else None
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    if port is not None and not 0 < port <= MAX_PORT:
        return None
    return Origin(scheme, host, None if port == _DEFAULT_PORTS.get(scheme) else port)


def parse_origins(text: str) -> tuple[str, ...]:
    """Read the setting, a comma list. Raises ValueError that says what is expected."""
    return tuple(_parse(item) for item in filter(None, (part.strip() for part in text.split(","))))


def _parse(item: str) -> str:
    if item in {ANY, OPAQUE}:
        return item
    # A wildcard stands for the first label: with one in its place the rest has to be an origin.
    wildcard = _PATTERN.match(item.lower())
    origin = read_origin(_PATTERN.sub(r"\1wildcard.", item.lower()))
    if origin is None:
        raise ValueError(
            f"{item[:80]!r} is no origin; write https://example.org, http://localhost:8080, "
            "https://*.example.org for any one label, or * for all"
        )
    return origin.pattern if wildcard else str(origin)


class OriginPolicy:
    """Decides by what the operator has set, and by the certificate of the moment."""

    def __init__(
        self,
        allowed: Iterable[str],
        certificates: CertificateStore,
        *,
        on_loopback: bool,
        names: Iterable[str] = (),
    ) -> None:
        """Take ``allowed`` as ``parse_origins`` gives it; ``on_loopback``: the relay listens nowhere else.

        ``names`` are the relay's own whatever the certificate says: one that was kept may have older ones.
        """
        self._names = frozenset(map(str.lower, names))
        self._certificates = certificates
        self._on_loopback = on_loopback
        self.allow(allowed)

    def allow(self, allowed: Iterable[str]) -> None:
        """Allow these origins from now on, and no others."""
        self._allowed = frozenset(allowed)
        self._allowed_hosts = frozenset(
            origin.host for text in self._allowed if (origin := read_origin(text)) is not None
        )

    def admit(self, request: ClientRequest) -> Refusal | None:
        """Return why a request is refused, None when it is granted."""
        refusal = None if request.carrier == "webtransport" else self._check_host(request)
        return refusal or self.admit_page(request)

    def admit_page(self, request: ClientRequest) -> Refusal | None:
        """Return why the page that asks is refused, None when it may connect, or there is none.

        For policies that are narrower than the relay's, which knows what hosts are its own.
        """
        if request.carrier == "http" and not is_guarded(request.path):
            return None
        return self._check_origin(request)

    def _check_host(self, request: ClientRequest) -> Refusal | None:
        for authority in filter(None, (request.authority, *request.values("host"))):
            host = _host(authority)
            if not self._is_known(host):
                scheme = "https" if request.secure else "http"
                origin = read_origin(f"{scheme}://{authority}")
                advice = "" if origin is None else f"; --allow-origin {origin} makes it one"
                return Refusal(
                    HTTPStatus.MISDIRECTED_REQUEST,
                    f"{host[:100]} is neither an address, nor localhost, nor a name of the relay's "
                    f"certificate{advice}.",
                )
        return None

    def _check_origin(self, request: ClientRequest) -> Refusal | None:
        said = request.values("origin")
        if not said or ANY in self._allowed:
            return None
        text = OPAQUE if said[0] == "file://" else said[0]
        origin = read_origin(text) if len(said) == 1 else None
        if origin is None:
            if text != OPAQUE or len(said) > 1:
                return Refusal(HTTPStatus.FORBIDDEN, "The Origin is none.")
            if OPAQUE in self._allowed:
                return None
        elif self._is_allowed(origin, request):
            return None
        name = origin or OPAQUE
        return Refusal(
            HTTPStatus.FORBIDDEN,
            f"Pages of the origin {name} may not connect to this relay; --allow-origin {name} lets them.",
        )

    def _is_allowed(self, origin: Origin, request: ClientRequest) -> bool:
        if str(origin) in self._allowed or origin.pattern in self._allowed:
            return True
        if origin.scheme not in _DEFAULT_PORTS:
            return False
        if origin.host in LOCAL_PAGES and (self._on_loopback or _is_reached_at_loopback(request)):
            return True
        host = _host(request.authority)
        own = read_origin(f"{'https' if request.secure else 'http'}://{request.authority}")
        if origin == own and self._is_known(host):
            return True
        certificate = self._certificates.current
        if certificate.is_self_signed or origin.scheme != "https":
            return False
        names = certificate.names
        return origin.host.strip("[]") in names or (origin.host == host and _covers(names, host))

    def _is_known(self, host: str) -> bool:
        """Whether the host is the relay's own, and cannot be led here by somebody else's name server."""
        return (
            _address(host) is not None
            or _is_localhost(host)
            or ANY in self._allowed
            or host in self._allowed_hosts
            or host in self._names
            or _covers(self._certificates.current.names, host)
        )


def _host(authority: str) -> str:
    """Return the host of an authority in lower case, without its port."""
    return re.sub(r":[0-9]*$", "", authority.lower())


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _is_localhost(host: str) -> bool:
    """Whether resolvers keep the name to this machine (RFC 6761, section 6.3)."""
    return host == "localhost" or host.endswith(".localhost")


def _is_reached_at_loopback(request: ClientRequest) -> bool:
    """By the name that was asked for, which holds behind a container's published port, or by the address."""
    hosts = (_host(request.authority), _host(request.remote))
    return any(
        _is_localhost(host) or ((address := _address(host)) is not None and address.is_loopback)
        for host in hosts
    )


def _covers(names: frozenset[str], host: str) -> bool:
    """Whether a certificate's names cover a host (RFC 9525, section 6.3: a wildcard is one label)."""
    return host in names or f"*.{host.partition('.')[2]}" in names
