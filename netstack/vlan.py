"""What may stand between a frame's addresses and its protocol: tags (IEEE 802.1Q), LLC and SNAP (RFC 1042).

A tag with VLAN 0 carries a priority only, and receivers take such a frame as one without: so the switch takes
those tags off before it looks at anything. A frame of a VLAN is for the guests in it, and passes with its
tags; what it holds is looked at as if it had none, since some receivers ignore the VLAN's number.
"""

from __future__ import annotations

from typing import Final

from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN

TAGS: Final = frozenset({ETHERTYPE_VLAN, b"\x88\xa8", b"\x91\x00", b"\x92\x00"})
"""Customer and service tags, and the numbers that service tags had before 802.1ad."""

MAX_TAGS: Final = 4
"""Two are in use anywhere; a frame with more hides something."""

_ADDRESSES: Final = 12
_TAG: Final = 4
_LLC: Final = 14
_VLAN_ID: Final = 0x0FFF
_FIRST_TYPE: Final = 0x0600
"""What is below is a length, and LLC follows: of 1500 at most, but kernels draw the line here."""
_SNAP: Final = 0xAA
_GROUP: Final = 0x01
"""Bit of an access point's address (IEEE 802.2) that receivers may leave out of account."""
_GUARDED: Final = TAGS | {ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6}
_IP_AND_ARP: Final = frozenset({0x06, 0x98})
"""Access points of their own (RFC 948; Assigned Numbers, RFC 1700)."""


def without_priority_tags(frame: bytes) -> bytes:
    """Take the tags of VLAN 0 off that stand before all others."""
    at = _ADDRESSES
    while frame[at : at + 2] in TAGS and not int.from_bytes(frame[at + 2 : at + 4], "big") & _VLAN_ID:
        at += _TAG
    return frame if at == _ADDRESSES else frame[:_ADDRESSES] + frame[at:]


def without_tags(frame: bytes) -> bytes | None:
    """Give the frame as it is inside its tags; None when there are too many of them."""
    at = _ADDRESSES
    for _ in range(MAX_TAGS + 1):
        if frame[at : at + 2] not in TAGS:
            return frame[:_ADDRESSES] + frame[at:]
        at += _TAG
    return None


def hides_protocol(frame: bytes) -> bool:
    """Whether IP, ARP or a tag is wrapped in LLC: on Ethernet nobody needs that (RFC 1122 section 2.3.3).

    With SNAP behind it whatever the organisation: 00-00-00 (RFC 1042) and 00-00-f8 (802.1H) are followed by
    an Ethernet type, but not all receivers look at it, nor at the rest of the header.
    """
    if int.from_bytes(frame[12:14], "big") >= _FIRST_TYPE or len(frame) <= _LLC:
        return False
    access_point = frame[14] & ~_GROUP
    return (access_point == _SNAP and frame[20:22] in _GUARDED) or access_point in _IP_AND_ARP
