"""What guests may not say in IPv6: that they are the LAN's router, its DHCPv6 server, or the gateway.

RA-Guard (RFC 6105) at the switch. Extension headers are walked (RFC 7113), for a router advertisement behind
one is as good as any; a first fragment that hides its upper layer is refused, later fragments pass.
"""

from __future__ import annotations

from netstack.dhcpv6 import CLIENT_PORT
from netstack.icmpv6 import NEIGHBOUR_ADVERTISEMENT, PROTOCOL_ICMPV6, REDIRECT, ROUTER_ADVERTISEMENT
from netstack.ipv6 import MAX_EXTENSION_HEADERS, NEXT_HEADER, PAYLOAD_AT, PROTOCOL_FRAGMENT, SOURCE6

_AUTHENTICATION = 51
_EXTENSIONS = frozenset({0, 43, 60, _AUTHENTICATION, 135, 139, 140})
"""Hop-by-hop, routing and destination options, authentication, mobility, HIP, shim6 (IANA's registry)."""
_TCP, _UDP = 6, 17
_DHCPV6_CLIENT = CLIENT_PORT.to_bytes(2, "big")
"""The destination port of what clients listen to; they do not look at the source port."""
_TARGET = slice(8, 24)
_FRAGMENT_OFFSET = 0xFFF8


def refusal(frame: bytes, gateway_addresses: frozenset[bytes]) -> str | None:
    """Say why a guest's IPv6 frame must not reach others (a word for a counter), or None."""
    if frame[SOURCE6] in gateway_addresses:
        return "gateway_ipv6"
    protocol, at = frame[NEXT_HEADER] if len(frame) > NEXT_HEADER else _TCP, PAYLOAD_AT
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol == PROTOCOL_FRAGMENT:
            if int.from_bytes(frame[at + 2 : at + 4], "big") & _FRAGMENT_OFFSET:
                return None
            length = 8
        elif protocol in _EXTENSIONS:
            units = frame[at + 1] if len(frame) > at + 1 else 0
            length = 8 + units * 4 if protocol == _AUTHENTICATION else 8 + units * 8
        else:
            return _upper_layer(protocol, frame[at:], gateway_addresses)
        if len(frame) < at + 8:
            return "hidden_ipv6"
        protocol, at = frame[at], at + length
    return "hidden_ipv6"


def _upper_layer(protocol: int, payload: bytes, gateway_addresses: frozenset[bytes]) -> str | None:
    if protocol == PROTOCOL_ICMPV6:
        kind = payload[0] if payload else -1
        if kind in (ROUTER_ADVERTISEMENT, REDIRECT):
            return "rogue_router"
        if kind == NEIGHBOUR_ADVERTISEMENT and payload[_TARGET] in gateway_addresses:
            return "gateway_ipv6"
        return "hidden_ipv6" if kind < 0 else None
    if protocol == _UDP and payload[2:4] == _DHCPV6_CLIENT:
        return "rogue_dhcpv6"
    return None
