"""Sockets bound to what the operator named, for QUIC and for TCP alike."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Prepare = Callable[[socket.socket, str], None]
    """Sets options of a socket before it is bound to an address, which is given as text."""

EVERY_ADDRESS = "::"
"""All addresses of this machine, of both IP versions."""
EVERY_IPV4_ADDRESS = "0.0.0.0"
EVERY = frozenset({EVERY_ADDRESS, EVERY_IPV4_ADDRESS})
"""Addresses that stand for all."""
NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""What a system without IPv6 answers."""

MAPPED = "::ffff:"
"""Before an IPv4 address: how a socket of both IP versions has it (RFC 4291, 2.5.5.2)."""


MAX_SOCKETS = 8
"""Addresses of one name that are listened on."""

PORT_ATTEMPTS = 10
"""How often a port of the system's choice is tried, which may be taken at another address, or for TCP."""

_Place = tuple[socket.AddressFamily, int, tuple[Any, ...]]
"""Family, protocol and address, whose second part is the port."""


def bound_sockets(kind: socket.SocketKind, host: str, port: int, prepare: Prepare) -> list[socket.socket]:
    """Bind to ``host`` (a name or an address) and ``port`` (0: any), non-blocking. Raises OSError.

    ``::`` is every address of both IP versions, or of IPv4 alone where the system has no IPv6; ``0.0.0.0``
    is IPv4 alone. A name is all of its addresses that the system has, with a socket and the same port each:
    clients try any of them.
    """
    places = _places(kind, host, port)
    if host == EVERY_ADDRESS:
        places += _places(kind, EVERY_IPV4_ADDRESS, port)
        return [_first(kind, places, port, prepare)]
    for _ in range(PORT_ATTEMPTS if port == 0 else 1):
        try:
            return _all(kind, places[:MAX_SOCKETS], port, prepare)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            failure = error
    raise failure


def is_address(text: str) -> bool:
    """Whether a host is named by an address, of either IP version and without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _places(kind: socket.SocketKind, host: str, port: int) -> list[_Place]:
    found = socket.getaddrinfo(unmapped(host), port, type=kind, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, protocol, address) for family, _, protocol, _, address in found))


def _all(kind: socket.SocketKind, places: list[_Place], port: int, prepare: Prepare) -> list[socket.socket]:
    """Bind to all places that the system has; raises what it says of the last where it has none."""
    opened: list[socket.socket] = []
    missing = None
    for place in places:
        try:
            opened.append(_bound(kind, place, opened[0].getsockname()[1] if opened else port, prepare))
        except OSError as error:
            if error.errno not in NO_IPV6:
                for other in opened:
                    other.close()
                raise
            missing = error
    if missing is not None and not opened:
        raise missing
    return opened


def _first(kind: socket.SocketKind, places: list[_Place], port: int, prepare: Prepare) -> socket.socket:
    """Bind to the first place that the system has."""
    *others, last = places
    for place in others:
        try:
            return _bound(kind, place, port, prepare)
        except OSError as error:
            if error.errno not in NO_IPV6:
                raise
    return _bound(kind, last, port, prepare)


def _bound(kind: socket.SocketKind, place: _Place, port: int, prepare: Prepare) -> socket.socket:
    family, protocol, (host, _, *rest) = place
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setblocking(False)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        prepare(opened, str(host))
        opened.bind((host, port, *rest))
    except OSError:
        opened.close()
        raise
    return opened


def unmapped(host: str) -> str:
    """Return the IPv4 address within an IPv4-mapped one (RFC 4291, 2.5.5.2), and anything else as it is."""
    return host[len(MAPPED) :] if host.startswith(MAPPED) and "." in host else host
