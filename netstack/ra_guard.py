"""What guests may not say in IPv6: that they are the LAN's router, its DHCPv6 server, or the gateway.

RA-Guard (RFC 6105) at the switch. Extension headers are walked (RFC 7113), for a router advertisement behind
one is as good as any; a first fragment that hides its upper layer is refused (RFC 7112), later ones pass.
What a frame has behind its packet is padding, and shows nothing. Neighbour discovery stands right behind the
IPv6 header, in one piece (RFC 6980), and names no other MAC than its own.
"""

from __future__ import annotations

from netstack.dhcpv6 import CLIENT_PORT
from netstack.icmpv6 import (
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    PROTOCOL_ICMPV6,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
)
from netstack.ipv6 import MAX_EXTENSION_HEADERS, NEXT_HEADER, PAYLOAD_AT, PROTOCOL_FRAGMENT, SOURCE6

_HOP_BY_HOP, _AUTHENTICATION = 0, 51
_EXTENSIONS = frozenset({_HOP_BY_HOP, 43, 60, _AUTHENTICATION, 135, 139, 140})
"""Hop-by-hop, routing and destination options, authentication, mobility, HIP, shim6 (IANA's registry)."""
_TCP, _UDP = 6, 17
_DHCPV6_CLIENT = CLIENT_PORT.to_bytes(2, "big")
"""The destination port of what clients listen to; they do not look at the source port."""
_TARGET = slice(8, 24)
_OPTIONS_AT = {ROUTER_SOLICITATION: 8, NEIGHBOUR_SOLICITATION: 24, NEIGHBOUR_ADVERTISEMENT: 24}
"""Where the options begin in messages that guests may send (RFC 4861 section 4)."""
_LINK_LAYER_ADDRESSES = frozenset({1, 2})
"""Source and target link-layer address; both name the sender's."""
_FRAGMENT_OFFSET = 0xFFF8


def refusal(frame: bytes, gateway_addresses: frozenset[bytes]) -> str | None:
    """Say why a guest's IPv6 frame must not reach others (a word for a counter), or None."""
    if frame[SOURCE6] in gateway_addresses:
        return "gateway_ipv6"
    protocol, at = frame[NEXT_HEADER] if len(frame) > NEXT_HEADER else _TCP, PAYLOAD_AT
    length = int.from_bytes(frame[18:20], "big")
    # The length of a jumbogram stands in an option (RFC 2675).
    if len(frame) > PAYLOAD_AT + length and (length or protocol != _HOP_BY_HOP):
        frame = frame[: PAYLOAD_AT + length]
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol == PROTOCOL_FRAGMENT:
            if int.from_bytes(frame[at + 2 : at + 4], "big") & _FRAGMENT_OFFSET:
                return None
            length = 8
        elif protocol in _EXTENSIONS:
            units = frame[at + 1] if len(frame) > at + 1 else 0
            length = 8 + units * 4 if protocol == _AUTHENTICATION else 8 + units * 8
        else:
            return _upper_layer(protocol, frame, at, gateway_addresses)
        if len(frame) < at + 8:
            return "hidden_ipv6"
        protocol, at = frame[at], at + length
    return "hidden_ipv6"


def _upper_layer(protocol: int, frame: bytes, at: int, gateway_addresses: frozenset[bytes]) -> str | None:
    if protocol == PROTOCOL_ICMPV6:
        kind = frame[at] if len(frame) > at else -1
        if kind in (ROUTER_ADVERTISEMENT, REDIRECT):
            return "rogue_router"
        if kind in _OPTIONS_AT:
            return _discovery(kind, frame, at, gateway_addresses)
        return "hidden_ipv6" if kind < 0 else None
    if protocol != _UDP:
        return None
    port = frame[at + 2 : at + 4]
    if len(port) < len(_DHCPV6_CLIENT):
        return "hidden_ipv6"
    return "rogue_dhcpv6" if port == _DHCPV6_CLIENT else None


def _discovery(kind: int, frame: bytes, at: int, gateway_addresses: frozenset[bytes]) -> str | None:
    if at != PAYLOAD_AT:
        return "hidden_ipv6"
    payload, mac = frame[at:], frame[6:12]
    if kind == NEIGHBOUR_ADVERTISEMENT and payload[_TARGET] in gateway_addresses:
        return "gateway_ipv6"
    option = _OPTIONS_AT[kind]
    while option + 1 < len(payload) and payload[option + 1]:
        if payload[option] in _LINK_LAYER_ADDRESSES and payload[option + 2 : option + 8] != mac:
            return "spoofed_neighbour"
        option += payload[option + 1] * 8
    return None
