"""Ethernet frames as they travel here: destination MAC first, no preamble, no FCS, no padding needed.

Layout (IEEE 802.3): destination 0:6, source 6:12, ethertype 12:14, payload from 14.
"""

from __future__ import annotations

import re
from typing import Final

HEADER_LENGTH: Final = 14
MAC_LENGTH: Final = 6

MAX_FRAME_LENGTH: Final = HEADER_LENGTH + 65_535
"""The longest frame that can hold an IP packet; anything longer is garbage."""

LAN_MTU: Final = 1500
"""Bytes of IP packet that every guest's NIC takes."""

ETHERTYPE_IPV4: Final = b"\x08\x00"
ETHERTYPE_ARP: Final = b"\x08\x06"
ETHERTYPE_RARP: Final = b"\x80\x35"
ETHERTYPE_VLAN: Final = b"\x81\x00"
ETHERTYPE_SERVICE_VLAN: Final = b"\x88\xa8"
ETHERTYPE_IPV6: Final = b"\x86\xdd"
ETHERTYPE_LLDP: Final = b"\x88\xcc"

ETHERTYPE_VLANS: Final = frozenset({ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN})
"""Behind these stand 2 bytes of tag and the next ethertype (IEEE 802.1Q)."""

KNOWN_ETHERTYPES: Final = frozenset(
    {
        ETHERTYPE_IPV4,
        ETHERTYPE_ARP,
        ETHERTYPE_VLAN,
        ETHERTYPE_IPV6,
        ETHERTYPE_LLDP,
        ETHERTYPE_SERVICE_VLAN,
        b"\x88\x8e",
    }
)
"""What a guest plausibly sends; used to tell encapsulations apart, never to filter."""

BROADCAST: Final = b"\xff" * MAC_LENGTH
ZERO_MAC: Final = bytes(MAC_LENGTH)

_LINK_CONTROL: Final = bytes.fromhex("0180c20000")
_LAST_LINK_CONTROL: Final = 0x0F

_MAC_TEXT: Final = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", re.ASCII)


def format_mac(mac: bytes) -> str:
    """Write 6 bytes as ``52:54:00:a1:b2:c3``."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Read ``52:54:00:a1:b2:c3`` (or with dashes) as 6 bytes. Raises ValueError for anything else."""
    if not _MAC_TEXT.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address such as 52:54:00:a1:b2:c3")
    return bytes.fromhex(text.replace(":", "").replace("-", ""))


def is_link_control(mac: bytes) -> bool:
    """Whether ``mac`` is of 01:80:c2:00:00:00 to 0f: PAUSE, LACP, STP, LLDP, 802.1X.

    They are for the other end of one cable, and bridges do not forward them (IEEE 802.1Q table 8-1).
    """
    return mac[:5] == _LINK_CONTROL and mac[5] <= _LAST_LINK_CONTROL


def is_station(mac: bytes) -> bool:
    """Whether ``mac`` can be one NIC's address: 6 bytes, not multicast or broadcast, not all zero."""
    return len(mac) == MAC_LENGTH and mac[0] & 1 == 0 and mac != ZERO_MAC
