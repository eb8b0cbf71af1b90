"""Which address of this machine a datagram came to, and has to be answered from (ip(7), RFC 3542 section 6).

A socket that is bound to every address leaves the choice of an answer's source to the host's routing, and a
client that wrote to another address does not take the answer for its own. Only Linux is asked here.
"""

from __future__ import annotations

import socket
import sys
from struct import Struct

LINUX = sys.platform == "linux"
IP_PKTINFO = 8
"""Linux's; the socket module of Python 3.11 has no name for it."""
IN_PKTINFO = Struct("@I4s4s")
"""struct in_pktinfo: interface, local address, destination in the header (a broadcast address, perhaps)."""
IN6_PKTINFO = Struct("@16sI")
"""struct in6_pktinfo: destination, interface."""
PACKET_INFO_SPACE = socket.CMSG_SPACE(IN6_PKTINFO.size) if LINUX else 0
"""Room that either takes among a datagram's ancillary data."""


def tell_local_addresses(opened: socket.socket) -> None:
    """Let each datagram come with the address of this machine that it was sent to, where the system can.

    An IPv6 socket that takes IPv4 too tells, and is told, IPv4 addresses as IPv4-mapped ones.
    """
    if not LINUX:
        return
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
