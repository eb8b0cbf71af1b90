"""IPv6 packets in Ethernet frames (RFC 8200): checked parsing, building, fragmenting towards the guest.

Frame layout: Ethernet header 0:14, version and classes 14:18, payload length 18:20, next header 20, hop limit
21, source 22:38, destination 38:54, extension headers, payload. A packet that came in fragments is handed on
as one with an "atomic" fragment header (RFC 6946): it may be fragmented again, others may not.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from ipaddress import IPv6Address
from struct import Struct
from typing import NamedTuple

from netstack.ethernet import ETHERTYPE_IPV6, HEADER_LENGTH, LAN_MTU
from netstack.malformed import MalformedPacket
from netstack.reassembly import Fragment, Whole

IPV6_HEADER_LENGTH = 40
PAYLOAD_AT = HEADER_LENGTH + IPV6_HEADER_LENGTH
NEXT_HEADER = 20
HOP_LIMIT = 21
SOURCE6 = slice(22, 38)
DESTINATION6 = slice(38, 54)
"""Where these stand in a frame."""

MIN_MTU = 1280
DEFAULT_HOP_LIMIT = 64
UNSPECIFIED = bytes(16)
PROTOCOL_FRAGMENT = 44

MAX_EXTENSION_HEADERS = 8
"""More than any packet of use has; a chain of empty ones costs time only."""

_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS = 0, 43, 60
_OPTIONS = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS})
_FRAGMENT_HEADER = Struct("!BxHI")
_VERSION_6 = b"\x60\0\0\0"
_HEADER = Struct("!12s2s4sHBB16s16s")
_MORE = 1


class Ipv6Packet(NamedTuple):
    """A whole IPv6 packet; addresses are 16 bytes. ``protocol`` and ``payload`` are behind all extensions."""

    source: bytes
    destination: bytes
    protocol: int
    ttl: int
    payload: bytes
    extended: bool
    """Whether it has extension headers."""
    dont_fragment: bool


@lru_cache(maxsize=4096)
def format_ipv6(address: bytes) -> str:
    """Write 16 bytes as ``fd00::2``."""
    return str(IPv6Address(address))


@lru_cache(maxsize=4096)
def pack_ipv6(text: str) -> bytes:
    """Read ``fd00::2`` as 16 bytes. Raises ValueError for anything else."""
    return IPv6Address(text).packed


def is_multicast(address: bytes) -> bool:
    """Whether a 16-byte address is in ff00::/8."""
    return address[0] == 0xFF  # noqa: PLR2004


def is_link_local(address: bytes) -> bool:
    """Whether a 16-byte address is in fe80::/10."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80  # noqa: PLR2004


def interface_id(mac: bytes) -> bytes:
    """Give the last 8 bytes of addresses that are made of ``mac`` (RFC 4291 appendix A)."""
    return bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


def link_local_of(mac: bytes) -> bytes:
    """Give the link-local address with the interface identifier of ``mac``."""
    return b"\xfe\x80" + bytes(6) + interface_id(mac)


def solicited_node(address: bytes) -> bytes:
    """Give the multicast address at which neighbours ask for ``address`` (RFC 4291 section 2.7.1)."""
    return bytes.fromhex("ff0200000000000000000001ff") + address[13:]


def multicast_mac(group: bytes) -> bytes:
    """Give the MAC to which frames for a group go (RFC 2464 section 7)."""
    return b"\x33\x33" + group[12:]


def parse_ipv6(frame: bytes) -> Ipv6Packet:
    """Take the IPv6 packet out of a frame; Ethernet padding is cut off. Raises MalformedPacket.

    Extension headers are passed over; fragments (other than atomic ones) are refused, those within a packet
    that is whole as bad ones, and so are routing headers with hops left (RFC 5095).
    """
    end = _check(frame)
    protocol, at = frame[NEXT_HEADER], PAYLOAD_AT
    whole = True
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol == PROTOCOL_FRAGMENT:
            if end < at + 8:
                raise MalformedPacket("truncated")
            following, offset, _ = _FRAGMENT_HEADER.unpack_from(frame, at)
            if offset & 0xFFF9:
                # Behind an atomic one, which says that the packet is whole, nobody has use for it. What is
                # put together gets such a header, and would be another fragment again and again.
                raise MalformedPacket("fragment" if whole else "bad_fragment")
            protocol, at, whole = following, at + 8, False
        elif protocol in _OPTIONS:
            protocol, at = _pass_over(frame, protocol, at, end)
        else:
            return Ipv6Packet(
                frame[SOURCE6],
                frame[DESTINATION6],
                protocol,
                frame[HOP_LIMIT],
                frame[at:end],
                at != PAYLOAD_AT,
                whole,
            )
    raise MalformedPacket("bad_extension_header")


def protocol_at(frame: bytes) -> int:
    """Tell where in a frame that :func:`parse_ipv6` accepts the protocol's number stands."""
    at, behind = NEXT_HEADER, PAYLOAD_AT
    while (kind := frame[at]) == PROTOCOL_FRAGMENT or kind in _OPTIONS:
        at = behind
        behind += 8 if kind == PROTOCOL_FRAGMENT else 8 + frame[at + 1] * 8
    return at


def parse_fragment6(frame: bytes) -> Fragment:
    """Take the fragment out of a frame; raises MalformedPacket, also for a frame that holds none."""
    end = _check(frame)
    protocol, at = frame[NEXT_HEADER], PAYLOAD_AT
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol == PROTOCOL_FRAGMENT:
            break
        if protocol not in _OPTIONS:
            raise MalformedPacket("bad_fragment")
        protocol, at = _pass_over(frame, protocol, at, end)
    if protocol != PROTOCOL_FRAGMENT or end < at + 8:
        raise MalformedPacket("truncated")
    following, offset, identification = _FRAGMENT_HEADER.unpack_from(frame, at)
    key = frame[6:12] + identification.to_bytes(4, "big") + frame[22:54]
    head = frame[:PAYLOAD_AT] + bytes((following,))
    return Fragment(key, offset & 0xFFF8, offset & _MORE != 0, head, frame[at + 8 : end])


def build_whole6(whole: Whole) -> bytes:
    """Build the frame of a packet that was put together, with an atomic fragment header."""
    head, data = whole
    length = len(data) + 8
    if length > 0xFFFF:  # noqa: PLR2004 - the field's size
        raise MalformedPacket("bad_fragment")
    atomic = _FRAGMENT_HEADER.pack(head[PAYLOAD_AT], 0, 0)
    start = head[:18] + length.to_bytes(2, "big") + bytes((PROTOCOL_FRAGMENT,)) + head[HOP_LIMIT:PAYLOAD_AT]
    return start + atomic + data


def one_hop_on6(frame: bytes) -> bytes:
    """Give what a router passes on of a frame, from the Ethernet type on: one hop is taken off its limit."""
    return frame[12:HOP_LIMIT] + bytes((frame[HOP_LIMIT] - 1,)) + frame[HOP_LIMIT + 1 :]


def plain(frame: bytes, packet: Ipv6Packet) -> bytes:
    """Give ``frame`` without extension headers, but for the atomic fragment header."""
    protocol, extension = packet.protocol, b""
    if not packet.dont_fragment:
        protocol, extension = PROTOCOL_FRAGMENT, _FRAGMENT_HEADER.pack(packet.protocol, 0, 0)
    length = len(extension) + len(packet.payload)
    start = frame[:18] + length.to_bytes(2, "big") + bytes((protocol,)) + frame[HOP_LIMIT:PAYLOAD_AT]
    return start + extension + packet.payload


def _offset_and_more(frame: bytes) -> int:
    """Give what an atomic fragment header has none of, of the one behind the IPv6 header."""
    return int.from_bytes(frame[PAYLOAD_AT + 2 : PAYLOAD_AT + 4], "big") & 0xFFF9


def _without_atomic(frame: bytes) -> bytes:
    """Take out an atomic fragment header, such as :func:`build_whole6` puts in."""
    length = int.from_bytes(frame[18:20], "big") - 8
    start = frame[:18] + length.to_bytes(2, "big") + frame[PAYLOAD_AT : PAYLOAD_AT + 1]
    return start + frame[HOP_LIMIT:PAYLOAD_AT] + frame[PAYLOAD_AT + 8 :]


def _check(frame: bytes) -> int:
    """Check what all packets share; return where the packet ends."""
    if len(frame) < PAYLOAD_AT:
        raise MalformedPacket("truncated")
    if frame[12:14] != ETHERTYPE_IPV6:
        raise MalformedPacket("wrong_ethertype")
    if frame[HEADER_LENGTH] >> 4 != 6:  # noqa: PLR2004 - it is IP version 6
        raise MalformedPacket("bad_ip_version")
    end = PAYLOAD_AT + int.from_bytes(frame[18:20], "big")
    if end > len(frame):
        raise MalformedPacket("truncated")
    return end


def _pass_over(frame: bytes, protocol: int, at: int, end: int) -> tuple[int, int]:
    if end < at + 8:
        raise MalformedPacket("truncated")
    if protocol == _HOP_BY_HOP and at != PAYLOAD_AT:
        raise MalformedPacket("bad_extension_header")
    if protocol == _ROUTING and frame[at + 3]:
        raise MalformedPacket("bad_extension_header")
    following = at + 8 + frame[at + 1] * 8
    if following > end:
        raise MalformedPacket("truncated")
    return frame[at], following


def build_ipv6(
    macs: bytes,
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = DEFAULT_HOP_LIMIT,
    identification: int = 0,  # noqa: ARG001 - as of build_ipv4; here fragments have their own
) -> bytes:
    """Build a frame: ``macs`` is destination and source MAC (12 bytes), addresses are 16 bytes each."""
    return (
        _HEADER.pack(macs, ETHERTYPE_IPV6, _VERSION_6, len(payload), protocol, ttl, source, destination)
        + payload
    )


def fragment6(frame: bytes, mtu: int = LAN_MTU) -> list[bytes]:
    """Cut a frame without padding into frames whose packets have at most ``mtu`` bytes.

    It has no extension headers but perhaps atomic fragment headers, in whose place each piece has its own, or
    one of a fragment.
    """
    if len(frame) <= HEADER_LENGTH + mtu:
        return [frame]
    while frame[NEXT_HEADER] == PROTOCOL_FRAGMENT and not _offset_and_more(frame):
        frame = _without_atomic(frame)
    if len(frame) <= HEADER_LENGTH + mtu:
        return [frame]
    size = (mtu - IPV6_HEADER_LENGTH - 8) // 8 * 8
    following, first, more_behind, data_at = frame[NEXT_HEADER], 0, 0, PAYLOAD_AT
    identification = secrets.randbits(32)  # RFC 7739
    if following == PROTOCOL_FRAGMENT:
        following, word, identification = _FRAGMENT_HEADER.unpack_from(frame, PAYLOAD_AT)
        first, more_behind, data_at = word & 0xFFF8, word & _MORE, PAYLOAD_AT + 8
    payload = frame[data_at:]
    frames = []
    for start in range(0, len(payload), size):
        piece = payload[start : start + size]
        offset = first + start | (_MORE if start + size < len(payload) else more_behind)
        header = _FRAGMENT_HEADER.pack(following, offset, identification)
        length = (8 + len(piece)).to_bytes(2, "big")
        fixed = frame[:18] + length + bytes((PROTOCOL_FRAGMENT,)) + frame[HOP_LIMIT:PAYLOAD_AT]
        frames.append(fixed + header + piece)
    return frames
