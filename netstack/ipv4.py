"""IPv4 packets in Ethernet frames (RFC 791): checked parsing, building, fragmenting towards the guest.

Frame layout: Ethernet header 0:14, IPv4 header from 14 (version and header length 14, total length 16:18,
id 18:20, flags and fragment offset 20:22, TTL 22, protocol 23, checksum 24:26, source 26:30, destination
30:34, options), then the payload.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address
from struct import Struct
from typing import Final, NamedTuple

from netstack.checksum import add_up, add_up_part, finish, is_valid, update
from netstack.ethernet import ETHERTYPE_IPV4, HEADER_LENGTH, LAN_MTU
from netstack.malformed import MalformedPacket
from netstack.reassembly import Fragment, Whole

IPV4_LENGTH: Final = 4
"""Bytes of an address."""

MIN_IPV4_MTU: Final = 576
"""Bytes of a packet that every host takes (RFC 791 section 3.1)."""

MIN_HEADER_LENGTH: Final = 20
MAX_TOTAL_LENGTH: Final = 65_535
DEFAULT_TTL: Final = 64

FIRST_MULTICAST: Final = 224
"""First byte from which on addresses are multicast, reserved or broadcast (RFC 1112 section 4)."""

SOURCE = slice(26, 30)
DESTINATION = slice(30, 34)
"""Where the addresses stand in a frame."""

FLAGS: Final = 20
TTL: Final = 22
"""Where these bytes stand in a frame."""

DONT_FRAGMENT: Final = 0x40
"""Bit of the byte at :data:`FLAGS`."""

NOT_FRAGMENTED: Final = frozenset({b"", b"\0\0", b"\x40\0"})
"""What stands in the two bytes at :data:`FLAGS` of a whole packet (or of none)."""

_PAYLOAD_AT: Final = HEADER_LENGTH + MIN_HEADER_LENGTH
_VERSION_4_NO_OPTIONS: Final = 0x45
_MORE_FRAGMENTS: Final = 0x2000
_OFFSET: Final = 0x1FFF

_HEADER: Final = Struct("!BxHHHBBH4s4s")
_WHOLE_HEADER: Final = Struct("!12s2sBBHHHBBH4s4s")


class Ipv4Packet(NamedTuple):
    """A whole, intact IPv4 packet; addresses are 4 bytes."""

    source: bytes
    destination: bytes
    protocol: int
    ttl: int
    dont_fragment: bool
    payload: bytes


@lru_cache(maxsize=4096)
def format_ipv4(address: bytes) -> str:
    """Write 4 bytes as ``10.0.2.15``."""
    return f"{address[0]}.{address[1]}.{address[2]}.{address[3]}"


@lru_cache(maxsize=4096)
def pack_ipv4(text: str) -> bytes:
    """Read ``10.0.2.15`` as 4 bytes. Raises ValueError for anything but four decimal numbers."""
    return IPv4Address(text).packed


def parse_ipv4(frame: bytes) -> Ipv4Packet:
    """Take the IPv4 packet out of a frame; Ethernet padding is cut off. Raises MalformedPacket.

    Checked: ethertype, version, both lengths against the frame, header checksum. Fragments are refused.
    """
    if len(frame) < _PAYLOAD_AT:
        raise MalformedPacket("truncated")
    if frame[12:14] != ETHERTYPE_IPV4:
        raise MalformedPacket("wrong_ethertype")
    version_length, total, _, fragment, ttl, protocol, _, source, destination = _HEADER.unpack_from(
        frame, HEADER_LENGTH
    )
    payload_at = _PAYLOAD_AT
    if version_length != _VERSION_4_NO_OPTIONS:
        payload_at = HEADER_LENGTH + _header_length(version_length)
    end = HEADER_LENGTH + total
    if end < payload_at:
        raise MalformedPacket("bad_ip_total_length")
    if end > len(frame):
        raise MalformedPacket("truncated")
    if not is_valid(add_up_part(frame, HEADER_LENGTH, payload_at)):
        raise MalformedPacket("bad_ip_checksum")
    if fragment & (_MORE_FRAGMENTS | _OFFSET):
        raise MalformedPacket("fragment")
    return Ipv4Packet(
        source, destination, protocol, ttl, fragment >> 8 & DONT_FRAGMENT != 0, frame[payload_at:end]
    )


def parse_fragment(frame: bytes) -> Fragment:
    """Take the fragment out of a frame, checked as :func:`parse_ipv4` does. Raises MalformedPacket."""
    if len(frame) < _PAYLOAD_AT:
        raise MalformedPacket("truncated")
    word = int.from_bytes(frame[20:22], "big")
    cleared = update(int.from_bytes(frame[24:26], "big"), word, 0)
    packet = parse_ipv4(frame[:20] + b"\0\0" + frame[22:24] + cleared.to_bytes(2, "big") + frame[26:])
    # RFC 791: identification, protocol and both addresses; and whose packet it is.
    key = frame[6:12] + frame[18:20] + frame[23:24] + frame[26:34]
    offset = (word & _OFFSET) * 8
    return Fragment(key, offset, word & _MORE_FRAGMENTS != 0, frame[:_PAYLOAD_AT], packet.payload)


def build_whole(whole: Whole) -> bytes:
    """Build the frame of a packet that was put together; its options, if it had any, are gone."""
    head, data = whole
    total = MIN_HEADER_LENGTH + len(data)
    if total > MAX_TOTAL_LENGTH:
        raise MalformedPacket("bad_fragment")
    header = bytearray(head[HEADER_LENGTH:])
    header[0] = _VERSION_4_NO_OPTIONS
    header[2:4] = total.to_bytes(2, "big")
    header[6:8] = header[10:12] = b"\0\0"
    header[10:12] = finish(add_up(bytes(header))).to_bytes(2, "big")
    return head[:HEADER_LENGTH] + bytes(header) + data


def one_hop_on(frame: bytes) -> bytes:
    """Give what a router passes on of a frame, from the Ethernet type on: one hop is taken off its TTL."""
    ttl_and_protocol = int.from_bytes(frame[TTL : TTL + 2], "big")
    less = ttl_and_protocol - 0x100
    checksum = update(int.from_bytes(frame[24:26], "big"), ttl_and_protocol, less)
    return frame[12:TTL] + less.to_bytes(2, "big") + checksum.to_bytes(2, "big") + frame[26:]


def _header_length(version_length: int) -> int:
    if version_length >> 4 != 4:  # noqa: PLR2004 - it is IP version 4
        raise MalformedPacket("bad_ip_version")
    length = (version_length & 0x0F) * 4
    if length < MIN_HEADER_LENGTH:
        raise MalformedPacket("bad_ip_header_length")
    return length


def build_ipv4(
    macs: bytes,
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = DEFAULT_TTL,
    identification: int = 0,
) -> bytes:
    """Build a frame: ``macs`` is destination and source MAC (12 bytes), addresses are 4 bytes each."""
    total = MIN_HEADER_LENGTH + len(payload)
    words = (
        (_VERSION_4_NO_OPTIONS << 8)
        + total
        + identification
        + (ttl << 8)
        + protocol
        + int.from_bytes(source + destination, "big")
    )
    header = _WHOLE_HEADER.pack(
        macs,
        ETHERTYPE_IPV4,
        _VERSION_4_NO_OPTIONS,
        0,
        total,
        identification,
        0,
        ttl,
        protocol,
        finish(words),
        source,
        destination,
    )
    return header + payload


def fragment(frame: bytes, mtu: int = LAN_MTU) -> list[bytes]:
    """Cut a frame without options or padding into frames whose packets have at most ``mtu`` bytes.

    The guest's NIC takes no more, and its kernel puts the pieces together (RFC 791 section 3.2). The frame
    may have a fragment itself.
    """
    if len(frame) <= HEADER_LENGTH + mtu:
        return [frame]
    size = (mtu - MIN_HEADER_LENGTH) // 8 * 8
    payload = frame[_PAYLOAD_AT:]
    word = int.from_bytes(frame[FLAGS : FLAGS + 2], "big")
    first, more_behind = word & _OFFSET, word & _MORE_FRAGMENTS
    frames = []
    for start in range(0, len(payload), size):
        piece = payload[start : start + size]
        more = _MORE_FRAGMENTS if start + size < len(payload) else more_behind
        header = bytearray(frame[HEADER_LENGTH:_PAYLOAD_AT])
        header[2:4] = (MIN_HEADER_LENGTH + len(piece)).to_bytes(2, "big")
        header[6:8] = (more | first + start // 8).to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = finish(add_up(bytes(header))).to_bytes(2, "big")
        frames.append(frame[:HEADER_LENGTH] + header + piece)
    return frames
