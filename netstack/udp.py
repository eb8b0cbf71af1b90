"""UDP (RFC 768) over IPv4 and IPv6 (RFC 8200 section 8.1): checked parsing from the guest, fast building."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.checksum import (
    PROTOCOL_UDP,
    add_up,
    add_up_part,
    finish,
    finish_udp,
    is_valid,
    pseudo_header,
    remainder,
)
from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LENGTH
from netstack.ipv4 import DEFAULT_TTL, MIN_HEADER_LENGTH, NOT_FRAGMENTED
from netstack.ipv6 import NEXT_HEADER, PAYLOAD_AT, PROTOCOL_FRAGMENT
from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from netstack.ipv4 import Ipv4Packet
    from netstack.ipv6 import Ipv6Packet

UDP_HEADER_LENGTH: Final = 8

MAX_PAYLOAD: Final = 65_535 - 20 - UDP_HEADER_LENGTH
"""Bytes of payload that an IPv4 packet without options can carry."""

_HEADER: Final = Struct("!HHHH")
_FRAME_HEADER: Final = Struct("!16sIIH12sI")
"""What stands side by side is packed as one number: each costs as much as a checksum of 100 bytes."""
_FRAME_HEADER6: Final = Struct("!18sI36sI")
_VERSION_AND_TOS: Final = b"\x45\x00"
_VERSION_6: Final = b"\x60\0\0\0"
_IPV6_LENGTH: Final = 16
_PLAIN: Final = ETHERTYPE_IPV4 + b"\x45"
_UDP: Final = bytes((PROTOCOL_UDP,))
_TOTAL_AT: Final = HEADER_LENGTH + 2
_UDP_AT: Final = HEADER_LENGTH + MIN_HEADER_LENGTH
_ADDRESSES_AT: Final = _UDP_AT - 8
_LENGTH_AT: Final = _UDP_AT + 4
_CHECKSUM_AT: Final = _UDP_AT + 6
_DATA_AT: Final = _UDP_AT + UDP_HEADER_LENGTH

UdpHead = tuple[bytes, bytes, bytes]
"""What a UDP frame's way depends on: MACs, type and version; flags, TTL and protocol; addresses and ports."""


class UdpDatagram(NamedTuple):
    """A UDP datagram with the addresses (4 or 16 bytes) of its packet."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    payload: bytes


def parse_udp(packet: Ipv4Packet | Ipv6Packet) -> UdpDatagram:
    """Take the datagram out of a packet with protocol 17. Raises MalformedPacket.

    Checked: length against the packet, checksum (over IPv4 0 means none), destination port not 0.
    """
    segment = packet.payload
    if len(segment) < UDP_HEADER_LENGTH:
        raise MalformedPacket("truncated")
    source_port, destination_port, length, checksum = _HEADER.unpack_from(segment)
    if not UDP_HEADER_LENGTH <= length <= len(segment):
        raise MalformedPacket("bad_udp_length")
    if length < len(segment):
        segment = segment[:length]
    if checksum:
        pseudo = pseudo_header(packet.source, packet.destination, PROTOCOL_UDP, length)
        if not is_valid(pseudo + add_up(segment)):
            raise MalformedPacket("bad_udp_checksum")
    elif len(packet.source) == _IPV6_LENGTH:
        raise MalformedPacket("bad_udp_checksum")
    if destination_port == 0:
        raise MalformedPacket("bad_udp_port")
    return UdpDatagram(
        packet.source, source_port, packet.destination, destination_port, segment[UDP_HEADER_LENGTH:]
    )


def read_udp(frame: bytes) -> UdpDatagram:
    """Read the datagram of a frame that :func:`parse_udp` accepted before; checks nothing again.

    IPv6 has no extension headers there but an atomic fragment header.
    """
    version_length = frame[HEADER_LENGTH]
    if version_length >> 4 == 4:  # noqa: PLR2004 - it is IP version 4
        start = HEADER_LENGTH + (version_length & 0x0F) * 4
        source, destination = frame[26:30], frame[30:34]
    else:
        start = PAYLOAD_AT + 8 if frame[NEXT_HEADER] == PROTOCOL_FRAGMENT else PAYLOAD_AT
        source, destination = frame[22:38], frame[38:54]
    source_port, destination_port, length, _ = _HEADER.unpack_from(frame, start)
    return UdpDatagram(
        source, source_port, destination, destination_port, frame[start + UDP_HEADER_LENGTH : start + length]
    )


def udp_head(frame: bytes) -> UdpHead | None:
    """Return what a UDP frame's way depends on; None if it is not plain UDP.

    Plain is IPv4 without options and not a fragment. Frames of one head differ in length and content only.
    """
    if frame[12:15] != _PLAIN or frame[20:22] not in NOT_FRAGMENTED or frame[23:24] != _UDP:
        return None
    return frame[:15], frame[20:24], frame[26:38]


def has_head(frame: bytes, head: UdpHead) -> bool:
    """Whether a frame has this :func:`udp_head`."""
    link, way, ends = head
    return frame[26:38] == ends and frame[20:24] == way and frame[:15] == link


def _u16(frame: bytes, at: int) -> int:
    return frame[at] << 8 | frame[at + 1]


def plain_payload(frame: bytes) -> bytes:
    """Return the payload of a checked frame that has a :func:`udp_head`."""
    return frame[_DATA_AT : _UDP_AT + _u16(frame, _LENGTH_AT)]


def count_alike(frames: list[bytes], start: int, head: UdpHead) -> int:
    """Count the frames from ``start`` on, up to the first other, that have this head and are intact."""
    at, end = start, len(frames)
    while at < end and has_head(frames[at], head) and is_intact_udp(frames[at]):
        at += 1
    return at - start


def is_intact_udp(frame: bytes) -> bool:
    """Whether :func:`parse_ipv4` and :func:`parse_udp` would accept a frame with a head that they did before.

    Looks at what the head leaves open: lengths and checksums.
    """
    if len(frame) < _DATA_AT:
        return False
    total, length = _u16(frame, _TOTAL_AT), _u16(frame, _LENGTH_AT)
    if not (
        UDP_HEADER_LENGTH <= length <= total - MIN_HEADER_LENGTH
        and HEADER_LENGTH + total <= len(frame)
        and is_valid(add_up_part(frame, HEADER_LENGTH, _UDP_AT))
    ):
        return False
    if not _u16(frame, _CHECKSUM_AT):
        return True
    # The addresses of the pseudo-header stand right before the UDP header.
    return is_valid(add_up_part(frame, _ADDRESSES_AT, _UDP_AT + length) + PROTOCOL_UDP + length)


class UdpFrameTemplate:
    """Builds the frames of one remote address towards one guest port, of either IP version.

    All that does not change between two frames is added up once; a frame costs one pack and two sums.
    """

    __slots__ = ("_addresses", "_ip_sum", "_is_ipv6", "_start", "_udp_sum")

    def __init__(
        self,
        macs: bytes,
        source: bytes,
        source_port: int,
        destination: bytes,
        destination_port: int,
    ) -> None:
        """Take destination and source MAC (``macs``, 12 bytes), addresses of 4 or 16 bytes, ports."""
        self._is_ipv6 = len(source) == _IPV6_LENGTH
        self._start = macs + (
            ETHERTYPE_IPV6 + _VERSION_6 if self._is_ipv6 else ETHERTYPE_IPV4 + _VERSION_AND_TOS
        )
        self._addresses = (
            source + destination + source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
        )
        # Small numbers, never 0: a multiple of 0xFFFF does not become it.
        self._ip_sum = remainder(add_up(_VERSION_AND_TOS) + add_up(source + destination)) + PROTOCOL_UDP
        self._udp_sum = remainder(add_up(self._addresses)) + PROTOCOL_UDP

    def build(self, payload: bytes, identification: int, ttl: int = DEFAULT_TTL) -> bytes:
        """Build the frame; ``payload`` has at most :data:`MAX_PAYLOAD` bytes.

        ``identification`` is a u16; IPv6 has one in fragments only.
        """
        length = UDP_HEADER_LENGTH + len(payload)
        # The length stands twice: in the header and in the pseudo-header.
        checksum = finish_udp(self._udp_sum + 2 * length + remainder(add_up(payload)))
        ports_on = length << 16 | checksum
        if self._is_ipv6:
            length_to_hops = length << 16 | PROTOCOL_UDP << 8 | ttl
            return _FRAME_HEADER6.pack(self._start, length_to_hops, self._addresses, ports_on) + payload
        total = MIN_HEADER_LENGTH + length
        header = _FRAME_HEADER.pack(
            self._start,
            total << 16 | identification,
            ttl << 8 | PROTOCOL_UDP,  # no flags before them
            finish(self._ip_sum + total + identification + (ttl << 8)),
            self._addresses,
            ports_on,
        )
        return header + payload
