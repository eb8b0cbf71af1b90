"""Addresses of this machine's network interfaces, asked of the C library (getifaddrs(3)).

The standard library has no call for it. The structure's first four members and the place of the address
behind it are the same on Linux, macOS and the BSDs.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys


class _Ifaddrs(ctypes.Structure):
    """The start of ``struct ifaddrs``; the rest is of no interest here."""


_Ifaddrs._fields_ = [
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]

_ADDRESS_PLACES = {int(socket.AF_INET): (4, 4), int(socket.AF_INET6): (8, 16)}
"""Per family: offset in ``struct sockaddr`` and length of the address."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.getifaddrs.argtypes = [ctypes.POINTER(ctypes.POINTER(_Ifaddrs))]
_libc.freeifaddrs.argtypes = [ctypes.POINTER(_Ifaddrs)]


def interface_addresses() -> frozenset[str]:
    """List all IPv4 and IPv6 addresses of all interfaces, as text without scopes. Raises OSError."""
    first = ctypes.POINTER(_Ifaddrs)()
    if _libc.getifaddrs(ctypes.byref(first)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    found = set()
    try:
        entry = first
        while entry:
            address = _read(entry.contents.address)
            if address is not None:
                found.add(address)
            entry = entry.contents.next
    finally:
        _libc.freeifaddrs(first)
    return frozenset(found)


def _read(sockaddr: int | None) -> str | None:
    if sockaddr is None:
        return None
    # Linux begins with a family of two bytes; the BSDs with a length byte and a family of one.
    start = ctypes.string_at(sockaddr, 2)
    family = int.from_bytes(start, sys.byteorder) if sys.platform == "linux" else start[1]
    place = _ADDRESS_PLACES.get(family)
    if place is None:
        return None
    offset, length = place
    return socket.inet_ntop(family, ctypes.string_at(sockaddr + offset, length))
