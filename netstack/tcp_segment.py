"""TCP segments (RFC 9293 section 3.1) in Ethernet frames: checked parsing, fast building.

A segment's place in a frame follows from the IP header: version 4 with its header length, or version 6
without extension headers. Sequence numbers here are as on the wire, 32 bits.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from netstack.checksum import add_up, is_valid, pseudo_header, remainder
from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LENGTH
from netstack.malformed import MalformedPacket

PROTOCOL_TCP = 6
TCP_HEADER_LENGTH = 20

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32

DEFAULT_MSS = 536
"""What a guest takes that names no MSS (RFC 9293 section 3.7.1)."""

MAX_WINDOW_SHIFT = 14
"""RFC 7323 section 2.3."""

MAX_SACK_BLOCKS = 4
"""As many as fit the options (RFC 2018 section 3)."""

_CACHED_HEADERS = 64
"""Lengths whose headers a template keeps: full segments, bare ACKs and a few others."""

_IPV4_TTL = 64
_VERSION_6 = 6
_IPV6_HEADER_LENGTH = 40
_EXTRA = FIN | SYN
_HEADER = Struct("!HHIIHHHH")
_TAIL = Struct("!IIHHHH")
_IPV4_HEADER = Struct("!BBHHHBBH")
_DONT_FRAGMENT = 0x4000
_BLOCK = Struct("!II")
_QUOTED = Struct("!HHI")

# Option kinds (RFC 9293 section 3.2, RFC 7323, RFC 2018).
_END, _NOP, _MSS, _WINDOW_SCALE, _SACK_PERMITTED, _SACK = 0, 1, 2, 3, 4, 5


class TcpHead(NamedTuple):
    """What routing a segment needs."""

    source_port: int
    destination_port: int
    flags: int


class Segment(NamedTuple):
    """A segment as the guest sent it."""

    sequence: int
    acknowledgment: int
    flags: int
    window: int
    options: bytes
    payload: bytes


class Quoted(NamedTuple):
    """What an ICMP error tells of the segment that it is about; addresses are 4 or 16 bytes."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    sequence: int


class SynOptions(NamedTuple):
    """What a SYN offers; ``window_shift`` is None where the guest does not scale windows."""

    mss: int = DEFAULT_MSS
    window_shift: int | None = None
    sack: bool = False


def parse_tcp(source: bytes, destination: bytes, segment: bytes) -> TcpHead:
    """Check a segment between two addresses (4 or 16 bytes each). Raises MalformedPacket.

    Checked: header length, checksum, ports that are not 0.
    """
    length = len(segment)
    if length < TCP_HEADER_LENGTH:
        raise MalformedPacket("truncated")
    source_port, destination_port, _, _, offset_flags, _, _, _ = _HEADER.unpack_from(segment)
    if not TCP_HEADER_LENGTH <= offset_flags >> 12 << 2 <= length:
        raise MalformedPacket("bad_tcp_header_length")
    if not is_valid(pseudo_header(source, destination, PROTOCOL_TCP, length) + add_up(segment)):
        raise MalformedPacket("bad_tcp_checksum")
    if source_port == 0 or destination_port == 0:
        raise MalformedPacket("bad_tcp_port")
    return TcpHead(source_port, destination_port, offset_flags & 0x3F)


def read_tcp(frame: bytes) -> Segment:
    """Read the segment of a frame that :func:`parse_tcp` accepted before; checks nothing again."""
    start, end = _bounds(frame)
    _, _, sequence, acknowledgment, offset_flags, window, _, _ = _HEADER.unpack_from(frame, start)
    payload_at = start + (offset_flags >> 12 << 2)
    return Segment(
        sequence,
        acknowledgment,
        offset_flags & 0x3F,
        window,
        frame[start + TCP_HEADER_LENGTH : payload_at],
        frame[payload_at:end],
    )


def _bounds(frame: bytes) -> tuple[int, int]:
    """Tell where in a frame its segment starts and ends."""
    version_length = frame[HEADER_LENGTH]
    if version_length >> 4 == _VERSION_6:
        start = HEADER_LENGTH + _IPV6_HEADER_LENGTH
        return start, start + int.from_bytes(frame[18:20], "big")
    return (
        HEADER_LENGTH + (version_length & 0x0F) * 4,
        HEADER_LENGTH + int.from_bytes(frame[16:18], "big"),
    )


def parse_syn_options(options: bytes) -> SynOptions:
    """Read the options of a SYN; what is malformed ends the reading, as if no more options came."""
    mss, shift, sack = DEFAULT_MSS, None, False
    for kind, value in _walk(options):
        if kind == _MSS and len(value) == 2:  # noqa: PLR2004 - two bytes
            mss = int.from_bytes(value, "big") or DEFAULT_MSS
        elif kind == _WINDOW_SCALE and len(value) == 1:
            shift = min(value[0], MAX_WINDOW_SHIFT)
        elif kind == _SACK_PERMITTED and not value:
            sack = True
    return SynOptions(mss, shift, sack)


def parse_sack(options: bytes) -> list[tuple[int, int]]:
    """Read the blocks (first sequence number, one past the last) of a SACK option; none is an empty list."""
    for kind, value in _walk(options):
        if kind == _SACK and len(value) % _BLOCK.size == 0:
            return list(_BLOCK.iter_unpack(value))
    return []


def _walk(options: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _NOP:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):  # noqa: PLR2004 - kind and length
            break
        found.append((options[at], options[at + 2 : at + length]))
        at += length
    return found


def encode_syn_options(offer: SynOptions) -> bytes:
    """Write a SYN's options, padded to whole 32-bit words."""
    options = bytes((_MSS, 4)) + offer.mss.to_bytes(2, "big")
    if offer.sack:
        options += bytes((_NOP, _NOP, _SACK_PERMITTED, 2))
    if offer.window_shift is not None:
        options += bytes((_NOP, _WINDOW_SCALE, 3, offer.window_shift))
    return options


def encode_sack(blocks: list[tuple[int, int]]) -> bytes:
    """Write a SACK option of up to :data:`MAX_SACK_BLOCKS` blocks; nothing for none."""
    if not blocks:
        return b""
    packed = b"".join(_BLOCK.pack(*block) for block in blocks[:MAX_SACK_BLOCKS])
    return bytes((_NOP, _NOP, _SACK, 2 + len(packed))) + packed


_SOURCES = {b"\x08\x00\x45": (23, 26, 38), b"\x86\xdd\x60": (20, 22, 58)}
"""By Ethernet type and first byte of an IP header without options: where the protocol stands, where the
addresses begin, where the ports end."""


def trace(frame: bytes) -> tuple[bytes, int] | None:
    """Tell what a frame of TcpFrameTemplate's shape belongs to; None for any other.

    That is addresses and ports as they stand in it, source and destination (``TcpFrameTemplate.ends``), and
    its sequence number.
    """
    places = _SOURCES.get(frame[12:15])
    if places is None:
        return None
    protocol, start, end = places
    if len(frame) < end + TCP_HEADER_LENGTH - 4 or frame[protocol] != PROTOCOL_TCP:
        return None
    return frame[start:end], int.from_bytes(frame[end : end + 4], "big")


def read_quote(packet: bytes) -> Quoted | None:
    """Read the segment in the packet that an ICMP error quotes; None where there is none.

    It begins with an IP header without options or extensions, as :class:`TcpFrameTemplate` builds them; of
    the segment there may be no more than its first 8 bytes (RFC 792).
    """
    if packet[:1] == b"\x45":
        protocol, start, end = 9, 12, 20
    elif packet[:1] and packet[0] >> 4 == _VERSION_6:
        protocol, start, end = 6, 8, _IPV6_HEADER_LENGTH
    else:
        return None
    if len(packet) < end + _QUOTED.size or packet[protocol] != PROTOCOL_TCP:
        return None
    source_port, destination_port, sequence = _QUOTED.unpack_from(packet, end)
    half = (start + end) // 2
    return Quoted(packet[start:half], source_port, packet[half:end], destination_port, sequence)


class TcpFrameTemplate:
    """Builds the frames of one connection towards the guest, over IPv4 or IPv6 as its addresses are.

    All that does not change is added up once; for each length the headers in front of the sequence number
    are kept whole. IPv4 packets say "don't fragment" and have identification 0, as RFC 6864 allows.
    """

    __slots__ = ("_addresses", "_ethernet", "_headers", "_ports", "_sum")

    def __init__(
        self, macs: bytes, source: bytes, source_port: int, destination: bytes, destination_port: int
    ) -> None:
        """Take destination and source MAC (``macs``, 12 bytes), addresses of 4 or 16 bytes, ports."""
        self._addresses = source + destination
        self._ethernet = macs + (ETHERTYPE_IPV4 if len(source) == 4 else ETHERTYPE_IPV6)  # noqa: PLR2004
        self._ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
        self._sum = add_up(self._addresses) + PROTOCOL_TCP + add_up(self._ports)
        self._headers: dict[int, bytes] = {}

    def build(
        self,
        sequence: int,
        acknowledgment: int,
        flags: int,
        window: int,
        payload: bytes = b"",
        *,
        options: bytes = b"",
    ) -> bytes:
        """Build a frame. ``options`` has whole 32-bit words; numbers are as on the wire."""
        size = len(payload)
        length = TCP_HEADER_LENGTH + len(options) + size
        words = (length - size << 10) + flags
        # Numbers of 32 bits may be added as they are: 2**16 is congruent to 1.
        total = self._sum + length + sequence + acknowledgment + words + window
        if options:
            total += int.from_bytes(options, "big")
        if size:
            total += remainder(add_up(payload))
        header = self._headers.get(length) or self._header(length)
        tail = _TAIL.pack(sequence, acknowledgment, words, window, -total % 0xFFFF, 0)
        return b"".join((header, tail, options, payload))

    def _header(self, length: int) -> bytes:
        """Ethernet and IP headers and the ports, for a segment of ``length`` bytes."""
        if len(self._headers) >= _CACHED_HEADERS:
            self._headers.clear()
        addresses = self._addresses
        if len(addresses) == 8:  # noqa: PLR2004 - two IPv4 addresses
            fields = (0x45, 0, 20 + length, 0, _DONT_FRAGMENT, _IPV4_TTL, PROTOCOL_TCP)
            total = add_up(_IPV4_HEADER.pack(*fields, 0)) + add_up(addresses)
            ip = _IPV4_HEADER.pack(*fields, -total % 0xFFFF)
        else:
            ip = bytes((0x60, 0, 0, 0)) + length.to_bytes(2, "big") + bytes((PROTOCOL_TCP, _IPV4_TTL))
        header = self._headers[length] = self._ethernet + ip + addresses + self._ports
        return header


def reset_for(frame: bytes) -> bytes | None:
    """Build the RST that answers a segment for which there is no connection; None for another RST.

    The segment's frame was checked. RFC 9293 section 3.10.7.1.
    """
    start, _ = _bounds(frame)
    segment = read_tcp(frame)
    if segment.flags & RST:
        return None
    addresses = frame[26:34] if frame[12:14] == ETHERTYPE_IPV4 else frame[22:54]
    half = len(addresses) // 2
    template = TcpFrameTemplate(
        frame[6:12] + frame[0:6],
        addresses[half:],
        int.from_bytes(frame[start + 2 : start + 4], "big"),
        addresses[:half],
        int.from_bytes(frame[start : start + 2], "big"),
    )
    if segment.flags & ACK:
        return template.build(segment.acknowledgment, 0, RST, 0)
    return template.build(0, segment.sequence + sequence_length(segment) & 0xFFFFFFFF, RST | ACK, 0)


def sequence_length(segment: Segment) -> int:
    """Count the sequence numbers that a segment takes: its bytes, and one each for SYN and FIN."""
    return len(segment.payload) + (segment.flags & _EXTRA).bit_count()
