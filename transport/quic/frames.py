"""The QUIC frames of the datagram path: PADDING, PING, ACK, DATAGRAM (RFC 9000, section 19; RFC 9221).

``read_frames`` understands a packet only if it has nothing else in it; whatever it does not understand,
malformed frames included, is for aioquic to judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PADDING: Final = 0x00
PING: Final = 0x01
ACK: Final = 0x02
ACK_ECN: Final = 0x03
DATAGRAM: Final = 0x30
DATAGRAM_WITH_LENGTH: Final = 0x31

MAX_RANGES_READ: Final = 256
"""Ranges of an ACK frame that are looked at here; more are legal and left to aioquic."""
MAX_SIGNS_READ: Final = 8
"""ACK and PING frames and stretches of padding of one packet that are read here; usual are one or two. There
may be 2,000, and each costs microseconds: such a packet is left to aioquic, one between two looks."""
MAX_RANGES_WRITTEN: Final = 32
"""Ranges of an ACK frame that are sent, newest first: older ones were sent many times before."""


class Ack(NamedTuple):
    """An ACK frame: ``ranges`` of (lowest, highest) packet number, highest first; ``delay`` as encoded."""

    ranges: list[tuple[int, int]]
    delay: int


class Frames(NamedTuple):
    """The frames of one packet."""

    datagrams: list[bytes]
    acks: list[Ack]
    ack_eliciting: bool


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length integer (RFC 9000, section 16) and where it ends. Raises IndexError."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | data[at + 1], at + 2
    size = 4 if first < 0xC0 else 8
    end = at + size
    if end > len(data):
        raise IndexError("integer ends beyond the packet")
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * size - 2)) - 1), end


def write_varint(value: int) -> bytes:
    """Encode a variable-length integer in its shortest form."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def read_frames(plain: bytes) -> Frames | None:
    """Read a packet's payload, or return None where any of it is for aioquic."""
    datagrams: list[bytes] = []
    acks: list[Ack] = []
    ack_eliciting = False
    signs = 0
    at, end = 0, len(plain)
    try:
        while at < end:
            kind = plain[at]
            at += 1
            if kind == DATAGRAM_WITH_LENGTH:
                length, at = read_varint(plain, at)
                stop = at + length
                if stop > end:
                    return None
                datagrams.append(plain[at:stop])
                at = stop
                ack_eliciting = True
                continue
            signs += 1
            if signs > MAX_SIGNS_READ:
                return None
            if kind in (ACK, ACK_ECN):
                ack, at = _read_ack(plain, at, ecn=kind == ACK_ECN)
                if ack is None:
                    return None
                acks.append(ack)
            elif kind == DATAGRAM:
                datagrams.append(plain[at:])
                at = end
                ack_eliciting = True
            elif kind == PING:
                ack_eliciting = True
            elif kind == PADDING:
                at += padding(plain[at:])
            else:
                return None
    except IndexError:
        return None
    return Frames(datagrams, acks, ack_eliciting) if end else None


def padding(plain: bytes) -> int:
    """Return how many bytes of padding something starts with; nearly always it is nothing else."""
    return len(plain) if plain == bytes(len(plain)) else len(plain) - len(plain.lstrip(b"\0"))


def transport_parameters(data: bytes) -> dict[int, bytes]:
    """Return the values by parameter (RFC 9000, 18) of what aioquic has been through: it is whole."""
    values: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        parameter, at = read_varint(data, at)
        length, at = read_varint(data, at)
        values[parameter] = data[at : at + length]
        at += length
    return values


def _read_ack(plain: bytes, at: int, *, ecn: bool) -> tuple[Ack | None, int]:
    high, at = read_varint(plain, at)
    delay, at = read_varint(plain, at)
    count, at = read_varint(plain, at)
    span, at = read_varint(plain, at)
    if count > MAX_RANGES_READ:
        return None, at
    ranges = [(high - span, high)]
    for _ in range(count):
        gap, at = read_varint(plain, at)
        high -= span + gap + 2
        span, at = read_varint(plain, at)
        ranges.append((high - span, high))
    if ranges[-1][0] < 0:
        return None, at
    if ecn:
        # Counts of ECN marks: the relay marks nothing, so they say nothing.
        for _ in range(3):
            _, at = read_varint(plain, at)
    return Ack(ranges, delay), at


def write_ack(ranges: Sequence[range], delay: int) -> bytes:
    """Encode an ACK frame of the newest ``ranges`` (ascending, at least one), ``delay`` as on the wire."""
    newest = ranges[-1]
    start = newest.start
    older = ranges[-MAX_RANGES_WRITTEN:-1]
    ack = (
        b"\x02"
        + write_varint(newest.stop - 1)
        + write_varint(delay)
        + write_varint(len(older))
        + write_varint(newest.stop - 1 - start)
    )
    for block in reversed(older):
        ack += write_varint(start - block.stop - 1) + write_varint(block.stop - 1 - block.start)
        start = block.start
    return ack
