"""ICMPv6 (RFC 4443): checked parsing, echo messages, and the errors that the gateway reports."""

from __future__ import annotations

from struct import Struct

from netstack.checksum import add_up, finish, is_valid, pseudo_header
from netstack.ethernet import ETHERTYPE_IPV6, HEADER_LENGTH, is_station
from netstack.icmp import ICMP_HEADER_LENGTH, IcmpError, IcmpMessage
from netstack.ipv6 import (
    DESTINATION6,
    IPV6_HEADER_LENGTH,
    MIN_MTU,
    PAYLOAD_AT,
    SOURCE6,
    UNSPECIFIED,
    Ipv6Packet,
    build_ipv6,
    is_link_local,
    is_multicast,
    parse_ipv6,
    protocol_at,
)
from netstack.malformed import MalformedPacket

PROTOCOL_ICMPV6 = 58

UNREACHABLE = 1
PACKET_TOO_BIG = 2
TIME_EXCEEDED6 = 3
PARAMETER_PROBLEM6 = 4
ECHO_REQUEST6 = 128
ECHO_REPLY6 = 129
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOUR_SOLICITATION = 135
NEIGHBOUR_ADVERTISEMENT = 136
REDIRECT = 137

FIRST_INFORMATIONAL = 128
"""Types below are errors; nothing answers them with an error."""

ERRORS = {
    IcmpError.NETWORK_UNREACHABLE: (UNREACHABLE, 0),
    IcmpError.PROHIBITED: (UNREACHABLE, 1),
    IcmpError.HOST_UNREACHABLE: (UNREACHABLE, 3),
    IcmpError.PORT_UNREACHABLE: (UNREACHABLE, 4),
    IcmpError.FRAGMENTATION_NEEDED: (PACKET_TOO_BIG, 0),
    IcmpError.TTL_EXCEEDED: (TIME_EXCEEDED6, 0),
    IcmpError.PROTOCOL_UNREACHABLE: (PARAMETER_PROBLEM6, 1),
}
"""What the errors of ICMPv4 are in ICMPv6 (RFC 7915 section 4.2)."""

_HEADER = Struct("!BBHHH")
_ERROR_HEADER = Struct("!BBHI")
_MAX_QUOTE = MIN_MTU - IPV6_HEADER_LENGTH - ICMP_HEADER_LENGTH


def parse_icmpv6(packet: Ipv6Packet) -> IcmpMessage:
    """Read the payload of a packet with protocol 58. Raises MalformedPacket."""
    message = packet.payload
    if len(message) < ICMP_HEADER_LENGTH:
        raise MalformedPacket("truncated")
    pseudo = pseudo_header(packet.source, packet.destination, PROTOCOL_ICMPV6, len(message))
    if not is_valid(pseudo + add_up(message)):
        raise MalformedPacket("bad_icmp_checksum")
    return read_icmpv6(message)


def read_icmpv6(message: bytes) -> IcmpMessage:
    """Read a message whose checksum somebody else has checked. Raises MalformedPacket."""
    if len(message) < ICMP_HEADER_LENGTH:
        raise MalformedPacket("truncated")
    kind, code, _, identifier, sequence = _HEADER.unpack_from(message)
    return IcmpMessage(kind, code, identifier, sequence, message[ICMP_HEADER_LENGTH:])


def seal(source: bytes, destination: bytes, message: bytes) -> bytes:
    """Put the checksum into a message; the addresses are of the packet that carries it."""
    pseudo = pseudo_header(source, destination, PROTOCOL_ICMPV6, len(message))
    checksum = finish(pseudo + add_up(message[:2] + b"\0\0" + message[4:]))
    return message[:2] + checksum.to_bytes(2, "big") + message[4:]


def build_icmpv6(macs: bytes, source: bytes, destination: bytes, message: bytes, *, ttl: int = 64) -> bytes:
    """Build the frame of a message, whose checksum is computed here."""
    sealed = seal(source, destination, message)
    return build_ipv6(macs, source, destination, PROTOCOL_ICMPV6, sealed, ttl=ttl)


def build_echo6(kind: int, identifier: int, sequence: int, data: bytes) -> bytes:
    """Build an echo request or reply, with no checksum yet."""
    return _HEADER.pack(kind, 0, 0, identifier, sequence) + data


def build_error6(kind: int, code: int, rest: int, quote: bytes) -> bytes:
    """Build an error about the packet that begins with ``quote``, with no checksum yet.

    ``rest`` is the 32 bits behind it: an MTU, or where the problem is (RFC 4443, sections 3.2 and 3.4).
    """
    return _ERROR_HEADER.pack(kind, code, 0, rest) + quote


class Icmpv6Replies:
    """The errors of the gateway that has ``mac`` and both addresses (16 bytes)."""

    def __init__(self, mac: bytes, link_local: bytes, address: bytes) -> None:
        self._mac = mac
        self._link_local = link_local
        self._address = address

    def icmp_error(self, frame: bytes, error: IcmpError, mtu: int = 0) -> bytes | None:
        """Report ``error`` about the guest's ``frame``; None where RFC 4443 section 2.4 forbids an answer."""
        if not may_report6(frame):
            return None
        source = self._link_local if is_link_local(frame[SOURCE6]) else self._address
        kind, code = ERRORS[error]
        # A parameter problem points at what was not understood: the field that names the protocol.
        value = protocol_at(frame) - HEADER_LENGTH if error is IcmpError.PROTOCOL_UNREACHABLE else mtu
        end = PAYLOAD_AT + int.from_bytes(frame[18:20], "big")
        quote = frame[HEADER_LENGTH : min(end, HEADER_LENGTH + _MAX_QUOTE)]
        message = build_error6(kind, code, value, quote)
        return build_icmpv6(frame[6:12] + self._mac, source, frame[SOURCE6], message)


def may_report6(frame: bytes) -> bool:
    """Whether an ICMPv6 error about ``frame`` may be sent (RFC 4443 section 2.4)."""
    if len(frame) < PAYLOAD_AT or frame[12:14] != ETHERTYPE_IPV6:
        return False
    if not is_station(frame[0:6]) or not is_station(frame[6:12]):
        return False
    source = frame[SOURCE6]
    if source == UNSPECIFIED or is_multicast(source) or is_multicast(frame[DESTINATION6]):
        return False
    try:
        packet = parse_ipv6(frame)
    except MalformedPacket:
        return False
    if packet.protocol != PROTOCOL_ICMPV6:
        return True
    kind = packet.payload[0] if packet.payload else 0
    return kind >= FIRST_INFORMATIONAL and kind != REDIRECT
