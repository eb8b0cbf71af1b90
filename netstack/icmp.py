"""ICMPv4 messages (RFC 792): checked parsing, and the echo messages of flows."""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import NamedTuple

from netstack.checksum import add_up, finish, is_valid
from netstack.malformed import MalformedPacket

ECHO_REPLY = 0
DESTINATION_UNREACHABLE = 3
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12

ERROR_TYPES = frozenset({DESTINATION_UNREACHABLE, 4, 5, TIME_EXCEEDED, PARAMETER_PROBLEM})
"""Messages about another packet; nothing answers them with an error (RFC 1122 section 3.2.2)."""

ICMP_HEADER_LENGTH = 8

_HEADER = Struct("!BBHHH")
_ERROR_HEADER = Struct("!BBHI")


class IcmpError(Enum):
    """Errors that the gateway reports: (type, code) of RFC 792 and RFC 1812 section 5.2.7."""

    NETWORK_UNREACHABLE = (DESTINATION_UNREACHABLE, 0)
    HOST_UNREACHABLE = (DESTINATION_UNREACHABLE, 1)
    PROTOCOL_UNREACHABLE = (DESTINATION_UNREACHABLE, 2)
    PORT_UNREACHABLE = (DESTINATION_UNREACHABLE, 3)
    FRAGMENTATION_NEEDED = (DESTINATION_UNREACHABLE, 4)
    PROHIBITED = (DESTINATION_UNREACHABLE, 13)
    TTL_EXCEEDED = (TIME_EXCEEDED, 0)


class IcmpMessage(NamedTuple):
    """An intact ICMP message; ``identifier`` and ``sequence`` have that meaning in echo messages only."""

    type: int
    code: int
    identifier: int
    sequence: int
    data: bytes


def parse_icmp(message: bytes) -> IcmpMessage:
    """Read the payload of an IPv4 packet with protocol 1. Raises MalformedPacket."""
    if len(message) < ICMP_HEADER_LENGTH:
        raise MalformedPacket("truncated")
    if not is_valid(add_up(message)):
        raise MalformedPacket("bad_icmp_checksum")
    kind, code, _, identifier, sequence = _HEADER.unpack_from(message)
    return IcmpMessage(kind, code, identifier, sequence, message[ICMP_HEADER_LENGTH:])


def build_echo(kind: int, identifier: int, sequence: int, data: bytes) -> bytes:
    """Build an echo request (8) or reply (0) with its checksum."""
    total = (kind << 8) + identifier + sequence + add_up(data)
    return _HEADER.pack(kind, 0, finish(total), identifier, sequence) + data


def build_error(kind: int, code: int, rest: int, quote: bytes) -> bytes:
    """Build an error about the packet that begins with ``quote``.

    ``rest`` is the 32 bits behind the checksum: of 3/4 an MTU (RFC 1191), of 12 a pointer in the highest 8.
    """
    total = (kind << 8) + code + rest + add_up(quote)
    return _ERROR_HEADER.pack(kind, code, finish(total), rest) + quote
