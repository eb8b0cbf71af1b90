"""UDP (RFC 768) over IPv4 and IPv6 (RFC 8200 section 8.1): checked parsing from the guest, fast building."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.checksum import PROTOCOL_UDP, add_up, finish, finish_udp, is_valid, pseudo_header
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
_FRAME_HEADER: Final = Struct("!16sHH2sBBH12sHH")
_FRAME_HEADER6: Final = Struct("!18sHBB36sHH")
_VERSION_AND_TOS: Final = b"\x45\x00"
_VERSION_6: Final = b"\x60\0\0\0"
_IPV6_LENGTH: Final = 16
_PLAIN: Final = ETHERTYPE_IPV4 + b"\x45"
_UDP: Final = bytes((PROTOCOL_UDP,))
_TOTAL_AT: Final = HEADER_LENGTH + 2
_UDP_AT: Final = HEADER_LENGTH + MIN_HEADER_LENGTH
_ADDRESSES_AT: Final = _UDP_AT - 8
_LENGTH_AT: Final = _UDP_AT + 4
_DATA_AT: Final = _UDP_AT + UDP_HEADER_LENGTH
_U16: Final = Struct("!H")
_LENGTH_AND_CHECKSUM: Final = Struct("!HH")
_NO_FLAGS: Final = b"\0\0"


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


def udp_head(frame: bytes) -> bytes:
    """Return what a UDP frame's way depends on: MACs, TTL, flags, addresses, ports; empty if not plain UDP.

    Plain is IPv4 without options and not a fragment. Frames of one head differ in length and content only.
    """
    if frame[12:15] != _PLAIN or frame[20:22] not in NOT_FRAGMENTED or frame[23:24] != _UDP:
        return b""
    return frame[:14] + frame[20:24] + frame[26:38]


def plain_payload(frame: bytes) -> bytes:
    """Return the payload of a checked frame that has a :func:`udp_head`."""
    (length,) = _U16.unpack_from(frame, _LENGTH_AT)
    return frame[_DATA_AT : _UDP_AT + length]


def count_alike(frames: list[bytes], start: int, head: bytes) -> int:
    """Count the frames from ``start`` on, up to the first other, that have this head and are intact."""
    at, end = start, len(frames)
    while at < end and udp_head(frames[at]) == head and is_intact_udp(frames[at]):
        at += 1
    return at - start


def is_intact_udp(frame: bytes) -> bool:
    """Whether :func:`parse_ipv4` and :func:`parse_udp` would accept a frame with a head that they did before.

    Looks at what the head leaves open: lengths and checksums.
    """
    if len(frame) < _DATA_AT:
        return False
    (total,) = _U16.unpack_from(frame, _TOTAL_AT)
    length, checksum = _LENGTH_AND_CHECKSUM.unpack_from(frame, _LENGTH_AT)
    if not (
        UDP_HEADER_LENGTH <= length <= total - MIN_HEADER_LENGTH
        and HEADER_LENGTH + total <= len(frame)
        and is_valid(int.from_bytes(frame[HEADER_LENGTH:_UDP_AT], "big"))
    ):
        return False
    # The addresses of the pseudo-header stand right before the UDP header.
    return not checksum or is_valid(add_up(frame[_ADDRESSES_AT : _UDP_AT + length]) + PROTOCOL_UDP + length)


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
        self._ip_sum = add_up(_VERSION_AND_TOS) + PROTOCOL_UDP + add_up(source + destination)
        self._udp_sum = PROTOCOL_UDP + add_up(self._addresses)

    def build(self, payload: bytes, identification: int, ttl: int = DEFAULT_TTL) -> bytes:
        """Build the frame; ``payload`` has at most :data:`MAX_PAYLOAD` bytes.

        ``identification`` is a u16; IPv6 has one in fragments only.
        """
        length = UDP_HEADER_LENGTH + len(payload)
        # The length stands twice: in the header and in the pseudo-header.
        checksum = finish_udp(self._udp_sum + 2 * length + add_up(payload))
        if self._is_ipv6:
            header = _FRAME_HEADER6.pack(
                self._start, length, PROTOCOL_UDP, ttl, self._addresses, length, checksum
            )
            return header + payload
        total = MIN_HEADER_LENGTH + length
        return (
            _FRAME_HEADER.pack(
                self._start,
                total,
                identification,
                _NO_FLAGS,
                ttl,
                PROTOCOL_UDP,
                finish(self._ip_sum + total + identification + (ttl << 8)),
                self._addresses,
                length,
                checksum,
            )
            + payload
        )
