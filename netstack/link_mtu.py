"""The MTU that a guest's NIC should have, so that its frames travel whole, one per datagram.

The session's datagrams grow as the path to the client is explored, so the figure is asked for when it is
needed. Framed sessions can cut a frame in chunks. Raw ones cannot, and nobody knows how large a datagram the
client may send: their figure is what fits the packets that every client may send.
"""

from __future__ import annotations

from netstack.encapsulation import Kind
from netstack.ethernet import HEADER_LENGTH, LAN_MTU
from netstack.ipv4 import MIN_IPV4_MTU

MIN_IPV6_MTU = 1280
"""Below it kernels switch IPv6 off (RFC 8200 section 5); a framed session rather sends two chunks."""

MAX_RAW_MTU = 1141
"""What a QUIC packet of 1200 bytes (RFC 9000 section 14) leaves of a datagram, without Ethernet's header."""

_FRAMED_OVERHEAD = HEADER_LENGTH + 1


def link_mtu(kind: Kind, datagram_limit: int) -> int:
    """Bytes of IP packet for a guest whose session takes datagrams of ``datagram_limit`` bytes."""
    if kind is Kind.RAW:
        return min(MAX_RAW_MTU, max(MIN_IPV4_MTU, datagram_limit - HEADER_LENGTH))
    return min(LAN_MTU, max(MIN_IPV6_MTU, datagram_limit - _FRAMED_OVERHEAD))


def packet_limit(kind: Kind, datagram_limit: int) -> int:
    """Bytes of IP packet that travel in one datagram: for what need not be as large as the MTU allows.

    Of a frame that travels in chunks nobody tells that it was lost, and it is lost twice as often.
    """
    if kind is Kind.RAW:
        return link_mtu(kind, datagram_limit)
    return min(LAN_MTU, max(MIN_IPV4_MTU, datagram_limit - _FRAMED_OVERHEAD))
