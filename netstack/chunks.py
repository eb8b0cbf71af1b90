"""Frames that do not fit one datagram, cut into chunks and put together again.

A chunk is ``02``, id (u16, big-endian), index (u8), total (u8), payload. Ids count up per sender and wrap.
Nothing acknowledges a chunk: what is incomplete after 5 s stays so, and its memory is bounded until then.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct
from typing import TYPE_CHECKING

from netstack.ethernet import HEADER_LENGTH, MAX_FRAME_LENGTH

if TYPE_CHECKING:
    from netstack.counters import Counters

MAX_CHUNK_PAYLOAD = 900
"""Bytes of frame per chunk that existing clients send and expect."""

LIFETIME = 5.0
"""Seconds after its first chunk in which a frame must be whole (what existing clients are told)."""

MAX_BYTES = 256 * 1024
"""Per session: about 280 half-sent frames, some seconds of 2 % loss at 10 Mbit/s."""

MAX_PARTIALS = 512
"""Per session: with :data:`CHUNK_COST` this bounds what empty chunks can hold in memory."""

CHUNK_COST = 64
"""Bytes charged for each stored chunk beside its payload: Python's object, its slot in a table."""

MAX_CHUNKS = 255
"""The total is one byte."""

CHUNK_HEADER_LENGTH = 4

_HEADER = Struct("!BHBB")


class Chunker:
    """Cuts frames of one session; keeps the id that counts up."""

    def __init__(self) -> None:
        self._next_id = 0

    def split(self, frame: bytes, limit: int) -> list[bytes]:
        """Chunk datagrams of at most ``limit`` bytes; empty when more than 255 would be needed."""
        size = min(MAX_CHUNK_PAYLOAD, limit - _HEADER.size)
        if size < 1:
            return []
        total = -(-len(frame) // size)
        if total > MAX_CHUNKS:
            return []
        chunk_id = self._next_id
        self._next_id = (chunk_id + 1) & 0xFFFF
        return [
            _HEADER.pack(0x02, chunk_id, index, total) + frame[index * size : (index + 1) * size]
            for index in range(total)
        ]


class _Partial:
    """Chunks of one frame so far, by index."""

    __slots__ = ("chunks", "cost", "deadline", "total")

    def __init__(self, total: int, deadline: float) -> None:
        self.total = total
        self.deadline = deadline
        self.chunks: dict[int, bytes] = {}
        self.cost = 0


class ChunkReassembler:
    """Chunks of one session in; whole frames out.

    Accepts any payload length, any order and duplicates. Counts ``peer.drop.chunk_malformed`` (datagrams),
    and by frames: ``peer.drop.chunk_expired``, ``peer.drop.chunk_overflow`` (oldest dropped for room),
    ``peer.drop.chunk_contradiction`` (two totals, or one index with two contents) and
    ``peer.drop.chunk_frame_length`` (whole, but shorter than a header or longer than any frame).
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # In order of arrival of their first chunk, hence also in order of their deadlines. A linked list:
        # in a dict, finding the first key takes time in proportion to the keys deleted before it.
        self._partials: OrderedDict[int, _Partial] = OrderedDict()
        self._cost = 0

    @property
    def pending(self) -> int:
        """Frames that are not whole yet."""
        return len(self._partials)

    @property
    def cost(self) -> int:
        """Bytes charged against :data:`MAX_BYTES` at present."""
        return self._cost

    def accept(self, datagram: bytes, now: float) -> bytes | None:
        """Take one chunk datagram (with its ``02``); the frame that it completes, or None."""
        if self._partials:
            self._expire(now)
        if len(datagram) < _HEADER.size:
            self._drop("malformed")
            return None
        _, chunk_id, index, total = _HEADER.unpack_from(datagram)
        if index >= total:
            self._drop("malformed")
            return None
        payload = datagram[_HEADER.size :]
        partial = self._partials.get(chunk_id)
        if partial is None:
            partial = self._partials[chunk_id] = _Partial(total, now + LIFETIME)
        elif partial.total != total or partial.chunks.get(index, payload) != payload:
            self._forget(chunk_id)
            self._drop("contradiction")
            return None
        if index not in partial.chunks:
            partial.chunks[index] = payload
            partial.cost += len(payload) + CHUNK_COST
            self._cost += len(payload) + CHUNK_COST
        if len(partial.chunks) == total:
            self._forget(chunk_id)
            return self._whole(partial)
        while self._cost > MAX_BYTES or len(self._partials) > MAX_PARTIALS:
            self._forget(next(iter(self._partials)))
            self._drop("overflow")
        return None

    def _whole(self, partial: _Partial) -> bytes | None:
        frame = b"".join([partial.chunks[index] for index in range(partial.total)])
        if HEADER_LENGTH <= len(frame) <= MAX_FRAME_LENGTH:
            return frame
        self._drop("frame_length")
        return None

    def _expire(self, now: float) -> None:
        while self._partials:
            oldest = next(iter(self._partials))
            if self._partials[oldest].deadline > now:
                return
            self._forget(oldest)
            self._drop("expired")

    def _forget(self, chunk_id: int) -> None:
        self._cost -= self._partials.pop(chunk_id).cost

    def _drop(self, reason: str) -> None:
        self._counters.add(f"peer.drop.chunk_{reason}")
