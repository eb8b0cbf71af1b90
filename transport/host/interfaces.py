"""Addresses of this machine's network interfaces, asked of the C library (getifaddrs(3)), and their MTUs.

The standard library has no call for it. The structure's first four members and the place of the address
behind it are the same on Linux, macOS and the BSDs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
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

_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_REQUEST = struct.Struct("16si20x")
"""``struct ifreq`` with a number in it (netdevice(7))."""

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


def interface_mtus() -> dict[str, int]:
    """Tell the MTU of each interface that is up, loopback aside; of none but on Linux. Raises OSError."""
    if sys.platform != "linux":
        return {}
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:

        def ask(request: int, name: str) -> int:
            answer = fcntl.ioctl(probe, request, _REQUEST.pack(name.encode(), 0))
            return int(_REQUEST.unpack(answer)[1])

        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has gone meanwhile
                flags = ask(_SIOCGIFFLAGS, name)
                if flags & _IFF_UP and not flags & _IFF_LOOPBACK:
                    found[name] = ask(_SIOCGIFMTU, name)
    return found


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
