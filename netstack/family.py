"""What a flow needs to know of its IP version, so that the same flows serve both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from netstack.checksum import PROTOCOL_ICMP
from netstack.icmp import (
    DESTINATION_UNREACHABLE,
    ECHO_REPLY,
    ECHO_REQUEST,
    PARAMETER_PROBLEM,
    TIME_EXCEEDED,
    IcmpError,
    build_echo,
    build_error,
    parse_icmp,
)
from netstack.icmpv6 import (
    ECHO_REPLY6,
    ECHO_REQUEST6,
    PACKET_TOO_BIG,
    PARAMETER_PROBLEM6,
    PROTOCOL_ICMPV6,
    TIME_EXCEEDED6,
    UNREACHABLE,
    build_echo6,
    build_error6,
    build_icmpv6,
    parse_icmpv6,
    read_icmpv6,
)
from netstack.ipv4 import (
    DONT_FRAGMENT,
    FLAGS,
    MIN_IPV4_MTU,
    TTL,
    build_ipv4,
    build_whole,
    format_ipv4,
    fragment,
    one_hop_on,
    pack_ipv4,
    parse_fragment,
    parse_ipv4,
)
from netstack.ipv6 import (
    HOP_LIMIT,
    MIN_MTU,
    NEXT_HEADER,
    PROTOCOL_FRAGMENT,
    build_whole6,
    format_ipv6,
    fragment6,
    one_hop_on6,
    pack_ipv6,
    parse_fragment6,
    parse_ipv6,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from netstack.icmp import IcmpMessage
    from netstack.ipv4 import Ipv4Packet
    from netstack.ipv6 import Ipv6Packet
    from netstack.reassembly import Fragment, Whole


class Family(NamedTuple):
    """One IP version as flows use it; frames are those that the gateway checked."""

    version: int
    header_length: int
    """Bytes of a header without options or extensions."""
    ttl: int
    """Where the TTL stands in a frame."""
    dont_fragment: Callable[[bytes], bool]
    """Whether the packet in a frame may not be fragmented."""
    format: Callable[[bytes], str]
    pack: Callable[[str], bytes]
    parse: Callable[[bytes], Ipv4Packet | Ipv6Packet]
    one_hop_on: Callable[[bytes], bytes]
    """Give what a router passes on of a frame, from the Ethernet type on: one hop is taken off its TTL."""
    parse_fragment: Callable[[bytes], Fragment]
    build_whole: Callable[[Whole], bytes]
    """Build the frame of a packet that was put together."""
    fragment: Callable[..., list[bytes]]
    """Cut a frame for an MTU, which is Ethernet's unless it is given."""
    icmp: int
    """Number of the ICMP that belongs to this version."""
    parse_icmp: Callable[[Any], IcmpMessage]
    """Read the message of a packet of this version that has that protocol; raises MalformedPacket."""
    read_icmp: Callable[[bytes], IcmpMessage]
    """Read what a host socket or a checked frame brought."""
    echo_request: int
    echo_reply: int
    build_echo: Callable[[int, int, int, bytes], bytes]
    errors: frozenset[int]
    """ICMP errors of the network that guests are told of."""
    refuses: Callable[[int, int], bool]
    """Whether an ICMP error of this type and code says that a connection cannot be had."""
    path_mtu: Callable[[IcmpMessage], int]
    """The largest packet of which an ICMP error says that it passes; 0 for another message.

    It is no less than hosts should take that are on the way.
    """
    build_error: Callable[[int, int, int, bytes], bytes]
    build_icmp: Callable[[bytes, bytes, bytes, bytes, int, int], bytes]
    """Build a frame of MACs, source, destination, message, TTL and identification."""


def _path_mtu4(message: IcmpMessage) -> int:
    """RFC 1191 section 3; routers that are older than it say 0."""
    is_too_big = (message.type, message.code) == IcmpError.FRAGMENTATION_NEEDED.value
    return max(message.sequence, MIN_IPV4_MTU) if is_too_big else 0


def _path_mtu6(message: IcmpMessage) -> int:
    mtu = message.identifier << 16 | message.sequence
    return max(mtu, MIN_MTU) if message.type == PACKET_TOO_BIG else 0


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
    dont_fragment=lambda frame: frame[FLAGS] & DONT_FRAGMENT != 0,
    format=format_ipv4,
    pack=pack_ipv4,
    parse=parse_ipv4,
    one_hop_on=one_hop_on,
    parse_fragment=parse_fragment,
    build_whole=build_whole,
    fragment=fragment,
    icmp=PROTOCOL_ICMP,
    parse_icmp=lambda packet: parse_icmp(packet.payload),
    read_icmp=parse_icmp,
    echo_request=ECHO_REQUEST,
    echo_reply=ECHO_REPLY,
    build_echo=build_echo,
    errors=frozenset({DESTINATION_UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM}),
    # Whatever the code, as systems take it that wait for the answer to a SYN; only 3/4 is about its size.
    refuses=lambda kind, code: (
        kind == DESTINATION_UNREACHABLE and (kind, code) != IcmpError.FRAGMENTATION_NEEDED.value
    ),
    path_mtu=_path_mtu4,
    build_error=build_error,
    build_icmp=_build_icmpv4,
)

IPV6 = Family(
    version=6,
    header_length=40,
    ttl=HOP_LIMIT,
    dont_fragment=lambda frame: frame[NEXT_HEADER] != PROTOCOL_FRAGMENT,
    format=format_ipv6,
    pack=pack_ipv6,
    parse=parse_ipv6,
    one_hop_on=one_hop_on6,
    parse_fragment=parse_fragment6,
    build_whole=build_whole6,
    fragment=fragment6,
    icmp=PROTOCOL_ICMPV6,
    parse_icmp=parse_icmpv6,
    read_icmp=read_icmpv6,
    echo_request=ECHO_REQUEST6,
    echo_reply=ECHO_REPLY6,
    build_echo=build_echo6,
    errors=frozenset({UNREACHABLE, PACKET_TOO_BIG, TIME_EXCEEDED6, PARAMETER_PROBLEM6}),
    refuses=lambda kind, _: kind == UNREACHABLE,
    path_mtu=_path_mtu6,
    build_error=build_error6,
    build_icmp=_build_icmpv6,
)


def pack_ip(address: str) -> bytes:
    """Give an address of either version as 4 or 16 bytes. Raises ValueError for what is none."""
    return pack_ipv6(address) if ":" in address else pack_ipv4(address)


def family_of(address: bytes) -> Family:
    """Give the family of an address of 4 or 16 bytes."""
    return IPV4 if len(address) == 4 else IPV6  # noqa: PLR2004


def endpoint_text(address: str, port: int) -> str:
    """Write address and port as URLs do: IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
