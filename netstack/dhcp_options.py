"""Options of DHCPv4 messages (RFC 2132, RFC 3396): the codes, how they are read, written and made to fit."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PAD, END = 0, 255
OVERLOAD_FILE, OVERLOAD_SNAME = 1, 2

OPTIONS_AT = 240
"""Where a message's options begin, behind the magic cookie."""
COOKIE = b"\x63\x82\x53\x63"

FILE_LENGTH, SNAME_LENGTH = 128, 64
MAX_VALUE = 255
"""Bytes of an option; a longer value is in several of the same code (RFC 3396)."""

MAX_FIELDS = 128
"""Options of one area that are read, parts of long ones included: clients have some twenty."""

_OVERLOAD_OPTION = 3
_LABEL_POINTER = 0xC000
_MAX_POINTED = 0x3FFF


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
    USER_CLASS = 77
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
    at, left = 0, MAX_FIELDS
    while at < len(area) and area[at] != END:
        if area[at] == PAD:
            at += 1
            continue
        left -= 1
        if left < 0 or at + 1 >= len(area) or at + 2 + area[at + 1] > len(area):
            raise MalformedPacket("bad_dhcp")
        end = at + 2 + area[at + 1]
        yield area[at], area[at + 2 : end]
        at = end


class Route(NamedTuple):
    """A network (4 bytes, and the length of its prefix) and the address of the router to it."""

    network: bytes
    prefix_length: int
    router: bytes


def encode_routes(routes: Iterable[Route], default_router: bytes) -> bytes:
    """Write option 121 (RFC 3442), with a default route: who understands it ignores the router option."""
    routes = list(routes)
    if all(route.prefix_length for route in routes):
        routes.append(Route(bytes(4), 0, default_router))
    return b"".join(
        bytes((length,)) + network[: (length + 7) // 8] + router for network, length, router in routes
    )


def encode_domain_search(domains: Iterable[tuple[bytes, ...]]) -> bytes:
    """Write option 119 (RFC 3397): names as in DNS, compressed by pointers into the value itself.

    Each name is its labels, the root's at the end: ``(b"corp", b"example", b"")``.
    """
    value = bytearray()
    known: dict[tuple[bytes, ...], int] = {}
    for labels in domains:
        for at in range(len(labels)):
            rest = labels[at:]
            if rest in known:
                value += (_LABEL_POINTER | known[rest]).to_bytes(2, "big")
                break
            if rest[0] and len(value) <= _MAX_POINTED:
                known[rest] = len(value)
            value += bytes((len(rest[0]),)) + rest[0]
    return bytes(value)


class Areas(NamedTuple):
    """The areas of a message that have options; ``file`` and ``sname`` are empty where they have none."""

    options: bytes
    file: bytes
    sname: bytes


def arrange(fields: Mapping[Code, bytes], room: int, *, file: bool, sname: bool) -> Areas:
    """Write options, the most important first, into ``room`` bytes.

    What does not fit goes to the header's fields ``file`` and ``sname`` where these are free (option 52, RFC
    2132 section 9.3), and what fits nowhere is left out. An option stays in one area.
    """
    written = [_written(code, value) for code, value in fields.items()]
    everything = b"".join(written)
    if len(everything) < room:
        return Areas(everything + bytes((END,)), b"", b"")
    free = [
        room - 1 - _OVERLOAD_OPTION * (file or sname),
        (FILE_LENGTH - 1) * file,
        (SNAME_LENGTH - 1) * sname,
    ]
    areas = [b"", b"", b""]
    for field in written:
        at = next((at for at, left in enumerate(free) if len(field) <= left), None)
        if at is not None:
            areas[at] += field
            free[at] -= len(field)
    first, *others = areas
    where = OVERLOAD_FILE * bool(others[0]) | OVERLOAD_SNAME * bool(others[1])
    if where:
        first += bytes((Code.OVERLOAD, 1, where))
    return Areas(first + bytes((END,)), *(area and area + bytes((END,)) for area in others))


def _written(code: Code, value: bytes) -> bytes:
    pieces = [value[at : at + MAX_VALUE] for at in range(0, len(value), MAX_VALUE)]
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)
