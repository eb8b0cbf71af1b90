"""UDP over IPv6 (RFC 8200 section 8.1): what differs from IPv4."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from netstack.checksum import PROTOCOL_UDP, add_up, finish_udp
from netstack.ethernet import ETHERTYPE_IPV6
from netstack.ipv6 import (
    DEFAULT_HOP_LIMIT,
    DESTINATION6,
    NEXT_HEADER,
    PAYLOAD_AT,
    PROTOCOL_FRAGMENT,
    SOURCE6,
)
from netstack.malformed import MalformedPacket
from netstack.udp import UDP_HEADER_LENGTH, UdpDatagram, parse_udp

if TYPE_CHECKING:
    from netstack.ipv6 import Ipv6Packet

_HEADER = Struct("!HHHH")
_FRAME_HEADER = Struct("!18sHBB36sHH")
_VERSION_6 = b"\x60\0\0\0"


def parse_udp6(packet: Ipv6Packet) -> UdpDatagram:
    """Take the datagram out of a packet with protocol 17. Raises MalformedPacket.

    As :func:`netstack.udp.parse_udp`, but a checksum there must be.
    """
    if packet.payload[6:8] == b"\0\0":
        raise MalformedPacket("bad_udp_checksum")
    return parse_udp(packet)


def read_udp6(frame: bytes) -> UdpDatagram:
    """Read the datagram of a frame that was checked before: no extensions but an atomic fragment header."""
    start = PAYLOAD_AT + 8 if frame[NEXT_HEADER] == PROTOCOL_FRAGMENT else PAYLOAD_AT
    source_port, destination_port, length, _ = _HEADER.unpack_from(frame, start)
    return UdpDatagram(
        frame[SOURCE6],
        source_port,
        frame[DESTINATION6],
        destination_port,
        frame[start + UDP_HEADER_LENGTH : start + length],
    )


class UdpFrameTemplate6:
    """Builds the frames of one remote address towards one guest port, as ``UdpFrameTemplate`` does."""

    __slots__ = ("_addresses", "_start", "_udp_sum")

    def __init__(
        self, macs: bytes, source: bytes, source_port: int, destination: bytes, destination_port: int
    ) -> None:
        """Take destination and source MAC (``macs``, 12 bytes), addresses of 16 bytes, ports."""
        self._start = macs + ETHERTYPE_IPV6 + _VERSION_6
        self._addresses = (
            source + destination + source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
        )
        self._udp_sum = PROTOCOL_UDP + add_up(self._addresses)

    def build(
        self,
        payload: bytes,
        identification: int,  # noqa: ARG002 - IPv6 has it in fragments only
        ttl: int = DEFAULT_HOP_LIMIT,
    ) -> bytes:
        """Build the frame; ``payload`` has at most 65,527 bytes."""
        length = UDP_HEADER_LENGTH + len(payload)
        return (
            _FRAME_HEADER.pack(
                self._start,
                length,
                PROTOCOL_UDP,
                ttl,
                self._addresses,
                length,
                # The length stands twice: in the header and in the pseudo-header.
                finish_udp(self._udp_sum + 2 * length + add_up(payload)),
            )
            + payload
        )
