"""What a flow needs to know of its IP version, so that the same flows serve both."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netstack.checksum import PROTOCOL_ICMP
from netstack.icmp import (
    DESTINATION_UNREACHABLE,
    ECHO_REPLY,
    TIME_EXCEEDED,
    build_echo,
    build_error,
    parse_icmp,
)
from netstack.icmpv6 import (
    ECHO_REPLY6,
    PACKET_TOO_BIG,
    TIME_EXCEEDED6,
    UNREACHABLE,
    build_echo6,
    build_error6,
    build_icmpv6,
    read_icmpv6,
)
from netstack.ipv4 import DONT_FRAGMENT, FLAGS, TTL, build_ipv4, format_ipv4, fragment, pack_ipv4, parse_ipv4
from netstack.ipv6 import (
    HOP_LIMIT,
    NEXT_HEADER,
    PROTOCOL_FRAGMENT,
    format_ipv6,
    fragment6,
    pack_ipv6,
    parse_ipv6,
)
from netstack.udp import UdpFrameTemplate, read_udp
from netstack.udp6 import UdpFrameTemplate6, read_udp6

if TYPE_CHECKING:
    from collections.abc import Callable

    from netstack.icmp import IcmpMessage
    from netstack.ipv4 import Ipv4Packet
    from netstack.ipv6 import Ipv6Packet
    from netstack.udp import UdpDatagram


class Family(NamedTuple):
    """One IP version as flows use it; frames are those that the gateway checked."""

    version: int
    header_length: int
    """Bytes of a header without options or extensions."""
    ttl: int
    """Where the TTL stands in a frame."""
    is_whole: Callable[[bytes], bool]
    """Whether the packet in a frame may not be fragmented."""
    format: Callable[[bytes], str]
    pack: Callable[[str], bytes]
    parse: Callable[[bytes], Ipv4Packet | Ipv6Packet]
    read_udp: Callable[[bytes], UdpDatagram]
    udp_template: type[UdpFrameTemplate | UdpFrameTemplate6]
    fragment: Callable[[bytes], list[bytes]]
    read_icmp: Callable[[bytes], IcmpMessage]
    """Read what a host socket or a checked frame brought."""
    echo_reply: int
    build_echo: Callable[[int, int, int, bytes], bytes]
    errors: frozenset[int]
    """ICMP errors of the network that guests are told of."""
    build_error: Callable[[int, int, int, bytes], bytes]
    build_icmp: Callable[[bytes, bytes, bytes, bytes, int, int], bytes]
    """Build a frame of MACs, source, destination, message, TTL and identification."""


def _build_icmpv4(  # noqa: PLR0917 - called through the table only
    macs: bytes, source: bytes, destination: bytes, message: bytes, ttl: int, identification: int
) -> bytes:
    return build_ipv4(
        macs, source, destination, PROTOCOL_ICMP, message, ttl=ttl, identification=identification
    )


def _build_icmpv6(macs: bytes, source: bytes, destination: bytes, message: bytes, ttl: int, _: int) -> bytes:
    return build_icmpv6(macs, source, destination, message, ttl=ttl)


IPV4 = Family(
    version=4,
    header_length=20,
    ttl=TTL,
    is_whole=lambda frame: frame[FLAGS] & DONT_FRAGMENT != 0,
    format=format_ipv4,
    pack=pack_ipv4,
    parse=parse_ipv4,
    read_udp=read_udp,
    udp_template=UdpFrameTemplate,
    fragment=fragment,
    read_icmp=parse_icmp,
    echo_reply=ECHO_REPLY,
    build_echo=build_echo,
    errors=frozenset({DESTINATION_UNREACHABLE, TIME_EXCEEDED}),
    build_error=build_error,
    build_icmp=_build_icmpv4,
)

IPV6 = Family(
    version=6,
    header_length=40,
    ttl=HOP_LIMIT,
    is_whole=lambda frame: frame[NEXT_HEADER] != PROTOCOL_FRAGMENT,
    format=format_ipv6,
    pack=pack_ipv6,
    parse=parse_ipv6,
    read_udp=read_udp6,
    udp_template=UdpFrameTemplate6,
    fragment=fragment6,
    read_icmp=read_icmpv6,
    echo_reply=ECHO_REPLY6,
    build_echo=build_echo6,
    errors=frozenset({UNREACHABLE, PACKET_TOO_BIG, TIME_EXCEEDED6}),
    build_error=build_error6,
    build_icmp=_build_icmpv6,
)


def pack_ip(address: str) -> bytes:
    """Give an address of either version as 4 or 16 bytes. Raises ValueError for what is none."""
    return pack_ipv6(address) if ":" in address else pack_ipv4(address)


def family_of(address: bytes) -> Family:
    """Give the family of an address of 4 or 16 bytes."""
    return IPV4 if len(address) == 4 else IPV6  # noqa: PLR2004
