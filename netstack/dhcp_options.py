"""Options of DHCPv4 messages (RFC 2132, RFC 3396): the codes, and how they are read."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Iterator

PAD, END = 0, 255
OVERLOAD_FILE, OVERLOAD_SNAME = 1, 2

OPTIONS_AT = 240
"""Where a message's options begin, behind the magic cookie."""
COOKIE = b"\x63\x82\x53\x63"


class Code(IntEnum):
    """Options that are read or written here."""

    SUBNET_MASK = 1
    ROUTER = 3
    DNS_SERVERS = 6
    HOST_NAME = 12
    DOMAIN_NAME = 15
    INTERFACE_MTU = 26
    BROADCAST_ADDRESS = 28
    NTP_SERVERS = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_LIST = 55
    MESSAGE = 56
    MAX_MESSAGE_SIZE = 57
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    VENDOR_CLASS = 60
    CLIENT_ID = 61
    TFTP_SERVER = 66
    BOOT_FILE = 67
    CLIENT_FQDN = 81
    CLIENT_ARCHITECTURE = 93
    DOMAIN_SEARCH = 119
    CLASSLESS_ROUTES = 121
    MICROSOFT_CLASSLESS_ROUTES = 249
    WPAD = 252


def option_spans(message: bytes, wanted: Code) -> Iterator[tuple[int, int]]:
    """Find where values of an option stand in a UDP payload: from, to. Ends where it makes no sense."""
    at = OPTIONS_AT
    if message[at - len(COOKIE) : at] != COOKIE:
        return
    while at + 1 < len(message) and message[at] != END:
        if message[at] == PAD:
            at += 1
            continue
        end = at + 2 + message[at + 1]
        if end > len(message):
            return
        if message[at] == wanted:
            yield at + 2, end
        at = end


def read_options(area: bytes, sname: bytes, file: bytes) -> dict[int, bytes]:
    """Join the option areas: file, then sname, where option 52 says that they hold options (RFC 3396)."""
    options = _collect(area, {})
    overload = options.get(Code.OVERLOAD, b"\0")[:1]
    where = overload[0] if overload else 0
    if where & OVERLOAD_FILE:
        _collect(file, options)
    if where & OVERLOAD_SNAME:
        _collect(sname, options)
    return options


def _collect(area: bytes, options: dict[int, bytes]) -> dict[int, bytes]:
    for code, value in _fields(area):
        options[code] = options.get(code, b"") + value
    return options


def _fields(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area) and area[at] != END:
        if area[at] == PAD:
            at += 1
            continue
        if at + 1 >= len(area) or at + 2 + area[at + 1] > len(area):
            raise MalformedPacket("bad_dhcp")
        end = at + 2 + area[at + 1]
        yield area[at], area[at + 2 : end]
        at = end
