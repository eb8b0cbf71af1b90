"""Sockets bound to what the operator named, for QUIC and for TCP alike."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

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


def bound_socket(kind: socket.SocketKind, host: str, port: int, prepare: Prepare) -> socket.socket:
    """Bind to ``host`` (a name or an address) and ``port`` (0: any), non-blocking. Raises OSError.

    ``::`` is every address of both IP versions, or of IPv4 alone where the system has no IPv6; ``0.0.0.0``
    is IPv4 alone.
    """
    try:
        return _bound(kind, host, port, prepare)
    except OSError as error:
        if host != EVERY_ADDRESS or error.errno not in NO_IPV6:
            raise
    return _bound(kind, EVERY_IPV4_ADDRESS, port, prepare)


def _bound(kind: socket.SocketKind, host: str, port: int, prepare: Prepare) -> socket.socket:
    family, _, protocol, _, address = socket.getaddrinfo(
        unmapped(host), port, type=kind, flags=socket.AI_PASSIVE
    )[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setblocking(False)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        prepare(opened, str(address[0]))
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def unmapped(host: str) -> str:
    """Return the IPv4 address within an IPv4-mapped one (RFC 4291, 2.5.5.2), and anything else as it is."""
    return host[len(MAPPED) :] if host.startswith(MAPPED) and "." in host else host
