"""How Ethernet frames travel in WebTransport datagrams: *framed* (one prefix byte) and *raw*.

Framed: ``00`` + JSON control message; ``01`` + frame; ``02`` + chunk (id u16, index u8, total u8, payload).
Raw: the frame alone. A session speaks one of them from its first datagram to its last.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import parse_qs

from netstack.checksum import PROTOCOL_UDP
from netstack.chunks import CHUNK_HEADER_LENGTH, Chunker, ChunkReassembler
from netstack.ethernet import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    HEADER_LENGTH,
    KNOWN_ETHERTYPES,
    MAX_FRAME_LENGTH,
)
from netstack.icmpv6 import PROTOCOL_ICMPV6
from netstack.ipv4 import DONT_FRAGMENT, FLAGS, MIN_IPV4_MTU, fragment
from netstack.ipv6 import NEXT_HEADER, PAYLOAD_AT, PROTOCOL_FRAGMENT, fragment6
from netstack.tcp_segment import PROTOCOL_TCP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netstack.counters import Counters

CONTROL: Final = 0x00
DATA: Final = 0x01
CHUNK: Final = 0x02

_CONTROL_START: Final = b"\x00{"
_DATA_PREFIX: Final = b"\x01"
_MIN_DATA: Final = 1 + HEADER_LENGTH
_MAX_DATA: Final = 1 + MAX_FRAME_LENGTH
MAX_QUERY_FIELDS: Final = 16
"""Fields of a session's query: of ours there are a few, and others' are passed over."""
_NO_OPTIONS: Final = 0x45
"""First byte of an IPv4 header."""
_MAY_BE_CUT: Final = frozenset({PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_FRAGMENT, PROTOCOL_ICMPV6})
"""What stands behind an IPv6 header without extensions."""


class Kind(Enum):
    """The two encapsulations; the value is what ``?encap=`` says."""

    FRAMED = "framed"
    RAW = "raw"


class Unwrapped(NamedTuple):
    """What a batch of datagrams held: Ethernet frames and JSON control messages, each in order."""

    frames: list[bytes]
    controls: list[bytes]


class Encapsulation(Protocol):
    """One session's encapsulation, with its state in both directions."""

    @property
    def kind(self) -> Kind:
        """Which of the two it is."""

    def unwrap(self, datagrams: list[bytes], now: float) -> Unwrapped:
        """Take datagrams of the client apart; what is malformed is counted and dropped."""

    def wrap(self, frames: Sequence[bytes], limit: int) -> list[bytes]:
        """Datagrams of at most ``limit`` bytes for ``frames``; what cannot be sent is counted and dropped."""


def kind_from_path(path: str) -> Kind | None:
    """Read the encapsulation that a request path names with ``?encap=``; None when it names none.

    Raises ValueError when the value is neither ``framed`` nor ``raw``, or given more than once.
    """
    query = path.partition("?")[2]
    values = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS).get("encap")
    if values is None:
        return None
    if len(values) > 1:
        raise ValueError("encap is given more than once")
    try:
        return Kind(values[0])
    except ValueError:
        raise ValueError(f"encap is {values[0][:40]!r}, must be framed or raw") from None


def kind_of_first(datagram: bytes) -> Kind | None:
    """Tell the encapsulation by a session's first datagram; None when it is empty.

    A control message starts ``00 7b``. A framed session whose Register was lost may start with a frame or a
    chunk, and a raw frame may be addressed to a MAC that starts with 00, 01 or 02: the place where a known
    ethertype stands tells these apart, and framed is what is left.
    """
    if not datagram:
        return None
    if datagram[:2] == _CONTROL_START:
        return Kind.FRAMED
    first = datagram[0]
    if first > CHUNK:
        return Kind.RAW
    frame_starts = {DATA: 1, CHUNK: 1 + CHUNK_HEADER_LENGTH}.get(first)
    if frame_starts is not None and _ethertype_known(datagram, frame_starts):
        return Kind.FRAMED
    return Kind.RAW if _ethertype_known(datagram, 0) else Kind.FRAMED


def _ethertype_known(datagram: bytes, frame_starts: int) -> bool:
    return datagram[frame_starts + 12 : frame_starts + HEADER_LENGTH] in KNOWN_ETHERTYPES


def create(kind: Kind, counters: Counters) -> Encapsulation:
    """Fresh state of the given encapsulation for one session."""
    return Framed(counters) if kind is Kind.FRAMED else Raw(counters)


class Framed:
    """Frames, chunks and control messages told apart by the first byte.

    Counts ``peer.drop.malformed_datagram`` (empty, of unknown kind, or no whole Ethernet header),
    ``peer.drop.too_big`` (towards the client) and what :mod:`netstack.chunks` counts.
    """

    kind = Kind.FRAMED

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._reassembler = ChunkReassembler(counters)
        self._chunker = Chunker()

    def unwrap(self, datagrams: list[bytes], now: float) -> Unwrapped:
        """Take datagrams of the client apart; what is malformed is counted and dropped."""
        frames = [d[1:] for d in datagrams if _MIN_DATA <= len(d) <= _MAX_DATA and d[0] == DATA]
        if len(frames) == len(datagrams):
            return Unwrapped(frames, [])
        return self._unwrap_mixed(datagrams, now)

    def _unwrap_mixed(self, datagrams: list[bytes], now: float) -> Unwrapped:
        """Go one by one, so that frames stay in order where chunks or control messages are among them."""
        frames: list[bytes] = []
        controls: list[bytes] = []
        for datagram in datagrams:
            kind = datagram[0] if datagram else None
            if kind == DATA and _MIN_DATA <= len(datagram) <= _MAX_DATA:
                frames.append(datagram[1:])
            elif kind == CHUNK:
                frame = self._reassembler.accept(datagram, now)
                if frame is not None:
                    frames.append(frame)
            elif kind == CONTROL:
                controls.append(datagram[1:])
            else:
                self._counters.add("peer.drop.malformed_datagram")
        return Unwrapped(frames, controls)

    def wrap(self, frames: Sequence[bytes], limit: int) -> list[bytes]:
        """Datagrams of at most ``limit`` bytes; only a frame that does not fit one is sent as chunks."""
        datagrams = [_DATA_PREFIX + frame for frame in frames if len(frame) < limit]
        if len(datagrams) == len(frames):
            return datagrams
        datagrams = []
        for frame in frames:
            if len(frame) < limit:
                datagrams.append(_DATA_PREFIX + frame)
            elif chunks := self._chunker.split(frame, limit):
                datagrams += chunks
            else:
                self._counters.add("peer.drop.too_big")
        return datagrams


class Raw:
    """One bare frame per datagram; there are no control messages and no chunks.

    An IP packet that is too large for a datagram is sent in fragments if it may be, as over any link that is
    narrower than the one before. Counts ``peer.drop.malformed_datagram`` (no whole Ethernet header) and
    ``peer.drop.too_big``.
    """

    kind = Kind.RAW

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def unwrap(self, datagrams: list[bytes], now: float) -> Unwrapped:  # noqa: ARG002 - same shape as Framed
        """Keep the datagrams that can be frames."""
        frames = [d for d in datagrams if HEADER_LENGTH <= len(d) <= MAX_FRAME_LENGTH]
        if len(frames) != len(datagrams):
            self._counters.add("peer.drop.malformed_datagram", len(datagrams) - len(frames))
        return Unwrapped(frames, [])

    def wrap(self, frames: Sequence[bytes], limit: int) -> list[bytes]:
        """Keep the frames that fit one datagram of ``limit`` bytes, and others in fragments, if allowed."""
        datagrams = [frame for frame in frames if len(frame) <= limit]
        if len(datagrams) == len(frames):
            return datagrams
        datagrams = []
        for frame in frames:
            if len(frame) <= limit:
                datagrams.append(frame)
            elif pieces := _fragments(frame, limit - HEADER_LENGTH):
                datagrams += pieces
            else:
                self._counters.add("peer.drop.too_big")
        return datagrams


def _fragments(frame: bytes, mtu: int) -> list[bytes]:
    """Cut the IP packet of a frame for a link that takes ``mtu`` bytes; nothing for one that stays whole.

    Over IPv6 routers leave packets as they are, but links that take less than 1,280 bytes have to cut them
    (RFC 8200 section 5).
    """
    if mtu < MIN_IPV4_MTU or len(frame) < PAYLOAD_AT:
        return []
    kind = frame[12:HEADER_LENGTH]
    if kind == ETHERTYPE_IPV4 and frame[HEADER_LENGTH] == _NO_OPTIONS:
        end = HEADER_LENGTH + int.from_bytes(frame[16:18], "big")
        if end <= len(frame) and not frame[FLAGS] & DONT_FRAGMENT:
            return fragment(frame[:end], mtu)
    elif kind == ETHERTYPE_IPV6 and frame[NEXT_HEADER] in _MAY_BE_CUT:
        end = PAYLOAD_AT + int.from_bytes(frame[18:20], "big")
        if end <= len(frame):
            return fragment6(frame[:end], mtu)
    return []
