"""Networks whose every address this machine takes for its own, asked of Linux by rtnetlink(7).

Interfaces do not list them all. A prefix on the loopback interface, or one that a local route names (``ip
route add local``, AnyIP), is this machine's as a whole; and where it forwards IPv6, so is the first address
of each of its networks (the routers' anycast address, RFC 4291 section 2.6.1). What is sent to any of these
comes to the services that listen at all addresses. All are routes of the table ``local`` (ip-rule(8)).
"""

from __future__ import annotations

import os
import socket
import sys
from ipaddress import ip_network
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 1.0
"""Seconds; the kernel answers within the call."""

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_READ_SIZE = 64 * 1024
"""Bytes; the kernel sends 32 KB at most."""

# linux/netlink.h, linux/rtnetlink.h; the standard library has none of these.
_NETLINK_ROUTE = 0
_SOL_NETLINK, _GET_STRICT_CHECK = 270, 12
_ERROR, _DONE, _NEW_ROUTE, _GET_ROUTE = 2, 3, 24, 26
_REQUEST_DUMP = 0x301
_TABLE_LOCAL = 255
_LOCAL, _ANYCAST = 2, 4
_DESTINATION = 1
"""RTA_DST."""
_MESSAGE = Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_ROUTE = Struct("=BBBBBBBBI")
"""struct rtmsg: family, bits of destination and source, TOS, table, protocol, scope, type, flags."""
_ATTRIBUTE = Struct("=HH")
"""struct rtattr: length, type."""
_ERRNO = Struct("=i")


def local_routes() -> frozenset[str]:
    """List addresses and networks (CIDR) of this machine, IPv4 and IPv6. Raises OSError.

    Nothing where the system is no Linux, or older than 4.20: it would name the routes of all tables.
    """
    found: set[str] = set()
    if sys.platform == "linux":
        for family in _FAMILIES:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as kernel:
                try:
                    kernel.setsockopt(_SOL_NETLINK, _GET_STRICT_CHECK, 1)
                except OSError:
                    break
                kernel.settimeout(TIMEOUT)
                found.update(_routes(kernel, family))
    return frozenset(found)


def _routes(kernel: socket.socket, family: int) -> Iterator[str]:
    """Ask for the routes of one IP version. Raises OSError."""
    route = _ROUTE.pack(family, 0, 0, 0, _TABLE_LOCAL, 0, 0, 0, 0)
    kernel.send(_MESSAGE.pack(_MESSAGE.size + len(route), _GET_ROUTE, _REQUEST_DUMP, 1, 0) + route)
    while True:
        data = memoryview(kernel.recv(_READ_SIZE))
        while data:
            length, kind, *_ = _MESSAGE.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -_ERRNO.unpack_from(data, _MESSAGE.size)[0]
                raise OSError(number, os.strerror(number))
            if kind == _NEW_ROUTE:
                yield from _read(data[_MESSAGE.size : length])
            data = data[_aligned(length) :]


def _read(route: memoryview) -> Iterator[str]:
    """Name the destination of a route, if that is this machine."""
    family, bits, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(route)
    if kind not in {_LOCAL, _ANYCAST}:
        return
    address = bytes(4 if family == socket.AF_INET else 16)  # as it is where none is named
    attributes = route[_ROUTE.size :]
    while len(attributes) >= _ATTRIBUTE.size:
        length, name = _ATTRIBUTE.unpack_from(attributes)
        if name == _DESTINATION:
            address = bytes(attributes[_ATTRIBUTE.size : length])
        attributes = attributes[_aligned(length) :]
    network = ip_network((address, bits))
    yield str(network if network.num_addresses > 1 else network.network_address)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
