"""What the kernel tells of TUN and TAP devices that exist: of which kind one is, how many queues are taken.

To be asked inside the device's network namespace. Sources: linux/ethtool.h, linux/if_link.h, rtnetlink(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 3
_DRIVER_INFO_SIZE = 196
_BUS_INFO = slice(100, 132)
"""In struct ethtool_drvinfo; the driver of both kinds is called "tun", and its bus is the kind."""

_RTM_GETLINK = 18
_NLM_F_REQUEST = 1
_NETLINK_HEADER = struct.Struct("=LHHLL")
_IFINFOMSG = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_TYPE = 0x3FFF
_IFLA_IFNAME = 3
_IFLA_LINKINFO = 18
_IFLA_INFO_DATA = 2
_IFLA_TUN_NUM_QUEUES = 8
_IFLA_TUN_NUM_DISABLED_QUEUES = 9
_REPLY_SIZE = 1 << 16


def kind_of(name: str) -> str:
    """Return "tun" or "tap"; empty for a device that is neither, or not there."""
    info = ctypes.create_string_buffer(struct.pack("=I", _ETHTOOL_GDRVINFO), _DRIVER_INFO_SIZE)
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(info))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError:
            return ""
    kind = info.raw[_BUS_INFO].partition(b"\0")[0].decode("ascii", "replace")
    return kind if kind in ("tun", "tap") else ""


def queues_of(name: str) -> int:
    """Return how many queues of a multi-queue device are attached, by whatever process. Raises OSError."""
    attribute = name.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(attribute), _IFLA_IFNAME) + attribute
    attribute += bytes(-len(attribute) % 4)
    body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute
    header = _NETLINK_HEADER.pack(_NETLINK_HEADER.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(header + body, (0, 0))
        reply = netlink.recv(_REPLY_SIZE)
    link = dict(_attributes(reply[_NETLINK_HEADER.size + _IFINFOMSG.size :]))
    data = dict(_attributes(dict(_attributes(link.get(_IFLA_LINKINFO, b""))).get(_IFLA_INFO_DATA, b"")))
    counts = (data.get(kind, b"") for kind in (_IFLA_TUN_NUM_QUEUES, _IFLA_TUN_NUM_DISABLED_QUEUES))
    return sum(int.from_bytes(count, sys.byteorder) for count in counts)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)
