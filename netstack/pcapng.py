"""Writes captures as pcapng (draft-ietf-opsawg-pcapng), which tcpdump, tshark and Wireshark read.

Blocks are made one by one, so that a capture can be a stream: a section header, a description of each
interface before its first packet, and packets with a direction and, perhaps, a comment.
"""

from __future__ import annotations

import struct
from typing import Literal

LINKTYPE_ETHERNET = 1

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
"""Types of blocks."""

BLOCK_HEAD = struct.Struct("<II")
"""Type and length of a block; the length is repeated at its end."""

MIN_BLOCK = BLOCK_HEAD.size + 4
MAX_BLOCK = 1 << 20
"""Bytes of a block; a relay's have a frame and a comment at most."""

_NUMBER = struct.Struct("<I")
_BYTE_ORDER = 0x1A2B3C4D
_END, _COMMENT = 0, 1
_SECTION_APPLICATION = 4
_INTERFACE_NAME, _INTERFACE_DESCRIPTION, _INTERFACE_RESOLUTION = 2, 3, 9
_PACKET_FLAGS = 2
_NANOSECONDS = 9
_DIRECTIONS = {"in": 1, "out": 2}
"""Of epb_flags: inbound and outbound, seen from the relay."""

MAX_SNAP = 1 << 18
"""Bytes to which packets may be cut, as tcpdump has it."""

MAX_TEXT = 1000
"""Bytes of a name or comment."""


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _text(code: int, text: str) -> bytes:
    value = text.encode()[:MAX_TEXT]
    return _option(code, value.decode(errors="ignore").encode())


def _block(kind: int, body: bytes, *options: bytes) -> bytes:
    if options:
        body += b"".join(options) + _option(_END, b"")
    head = BLOCK_HEAD.pack(kind, MIN_BLOCK + len(body))
    return head + body + head[4:]


def section(application: str) -> bytes:
    """Begin a capture that ``application`` has made."""
    body = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
    return _block(SECTION, body, _text(_SECTION_APPLICATION, application))


def interface(name: str, description: str, snap_length: int = 0) -> bytes:
    """Describe the next interface, which is numbered from 0; packets are cut to ``snap_length`` unless 0."""
    body = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snap_length)
    resolution = _option(_INTERFACE_RESOLUTION, bytes((_NANOSECONDS,)))
    return _block(
        INTERFACE, body, _text(_INTERFACE_NAME, name), _text(_INTERFACE_DESCRIPTION, description), resolution
    )


def packet(
    number: int,
    time: float,
    frame: bytes,
    direction: Literal["in", "out"],
    *,
    comment: str = "",
    snap_length: int = 0,
) -> bytes:
    """Write a frame of interface ``number``, seen at ``time`` (unix seconds)."""
    kept = frame[:snap_length] if snap_length else frame
    stamp = int(time * 1e9)
    body = struct.pack("<IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(kept), len(frame))
    body += kept + bytes(-len(kept) % 4)
    flags = _option(_PACKET_FLAGS, struct.pack("<I", _DIRECTIONS[direction]))
    return _block(PACKET, body, *((_text(_COMMENT, comment), flags) if comment else (flags,)))


def interface_of(block: bytes) -> int:
    """Tell the number of the interface that a packet's block names."""
    number: int = _NUMBER.unpack_from(block, BLOCK_HEAD.size)[0]
    return number


def with_interface(block: bytes, number: int) -> bytes:
    """Give a packet's block the number of another interface."""
    return block[: BLOCK_HEAD.size] + _NUMBER.pack(number) + block[BLOCK_HEAD.size + _NUMBER.size :]
