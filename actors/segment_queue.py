"""TCP segments of several senders that wait for a rate, served fairly: deficit round robin.

Each sender, by its MAC, has a queue; they have turns of QUANTUM bytes, and what a segment needs more is saved
for (M. Shreedhar, G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995). A queue takes its
part of the room, and a segment in any case, so who sends more than others loses more, and nobody is kept out.
"""

from __future__ import annotations

from collections import deque

QUANTUM = 1522
"""Bytes of a turn: the largest frame as a rule."""


class _Sender:
    __slots__ = ("credit", "segments", "size")

    def __init__(self) -> None:
        self.segments: deque[bytes] = deque()
        self.size = 0
        self.credit = 0


class SegmentQueue:
    """Segments by their senders; how much there may be says who puts them in."""

    __slots__ = ("_count", "_senders", "_size")

    def __init__(self) -> None:
        self._senders: dict[bytes, _Sender] = {}
        """Those that have segments here; whose turn it is comes first."""
        self._size = self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, segment: bytes, most_bytes: float, most: int) -> bool:
        """Have a segment wait; False where its sender has its part of ``most_bytes`` already.

        All together never have more than twice that, and ``most`` segments.
        """
        mac = segment[6:12]
        sender = self._senders.get(mac)
        size = len(segment)
        if self._count >= most or self._size + size > 2 * most_bytes:
            return False
        if sender is None:
            sender = self._senders[mac] = _Sender()
        elif sender.size + size > most_bytes / len(self._senders):
            return False
        sender.segments.append(segment)
        sender.size += size
        self._size += size
        self._count += 1
        return True

    def next_size(self) -> int:
        """Tell the size of the segment that is next; there must be one."""
        return len(self._next().segments[0])

    def take(self) -> bytes:
        """Take the segment that is next; there must be one."""
        sender = self._next()
        segment = sender.segments.popleft()
        size = len(segment)
        sender.size -= size
        sender.credit -= size
        self._size -= size
        self._count -= 1
        if not sender.segments:
            del self._senders[segment[6:12]]
        return segment

    def take_all(self) -> list[bytes]:
        """Take all segments."""
        return [self.take() for _ in range(self._count)]

    def _next(self) -> _Sender:
        """Find the sender whose turn it is; those before it save for their next one."""
        while True:
            mac, sender = next(iter(self._senders.items()))
            if sender.credit >= len(sender.segments[0]):
                return sender
            del self._senders[mac]
            self._senders[mac] = sender
            sender.credit += QUANTUM
