"""What every version of QUIC has in common (RFC 8999): how a packet of one that is not spoken here begins.

Its connection IDs may be longer than version 1 allows, and its other bits mean whatever that version says.
"""

from __future__ import annotations

from typing import NamedTuple

NEGOTIATION = 0
"""Stands in place of a version in the packets that say which ones are spoken."""

_VERSION = slice(1, 5)
_IDS_AT = 5


class ConnectionIds(NamedTuple):
    """Those of a packet with a long header: of whom it is for, and of who sent it. 0 to 255 bytes each."""

    destination: bytes
    source: bytes


def version_of(packet: bytes) -> int:
    """Return the version in a long header; of one that is cut off, some number."""
    return int.from_bytes(packet[_VERSION], "big")


def connection_ids_of(packet: bytes) -> ConnectionIds | None:
    """Return the connection IDs in a long header; None where it is cut off."""
    ids = []
    at = _IDS_AT
    for _ in range(2):
        if at >= len(packet):
            return None
        start, at = at + 1, at + 1 + packet[at]
        ids.append(packet[start:at])
    return ConnectionIds(*ids) if at <= len(packet) else None
