"""Data that come out of order, put in order: no more bytes are kept than came, in so many pieces at most.

aioquic fills the gap before what comes early with zeros, and looks through a list of ranges as long as the
other side cares to make it. RFC 9000, 21.6 asks for limits here.
"""

from __future__ import annotations

MAX_PIECES = 32
"""Pieces between gaps. A ClientHello that a browser cuts up comes in some ten, a request in fewer."""


class TooFragmentedError(Exception):
    """More pieces with gaps between them than are kept."""


class Reassembly:
    """Pieces of a stream that wait for what comes before them; ``start`` is what has been handed on."""

    __slots__ = ("_pieces", "start")

    def __init__(self) -> None:
        self.start = 0
        self._pieces: list[tuple[int, bytearray]] = []
        """By offset; no two of them overlap or touch."""

    @property
    def waiting(self) -> int:
        """Bytes that are kept."""
        return sum(len(piece) for _, piece in self._pieces)

    def add(self, offset: int, data: bytes) -> bytes:
        """Take data at ``offset``; return what is now in order. Raises TooFragmentedError."""
        if offset > self.start:
            if data:
                self._keep(offset, data)
            return b""
        data = data[self.start - offset :]
        self.start += len(data)
        if not self._pieces or self._pieces[0][0] > self.start:
            return data
        joined = [data]
        while self._pieces and self._pieces[0][0] <= self.start:
            first, piece = self._pieces.pop(0)
            joined.append(bytes(piece[self.start - first :]))
            self.start = max(self.start, first + len(piece))
        return b"".join(joined)

    def clear(self) -> None:
        """Forget what waits."""
        self._pieces.clear()

    def _keep(self, start: int, data: bytes) -> None:
        pieces, end = self._pieces, start + len(data)
        low = high = 0
        for first, piece in pieces:
            low += first + len(piece) < start
            high += first <= end
        if low == high:
            if len(pieces) >= MAX_PIECES:
                raise TooFragmentedError
            pieces.insert(low, (start, bytearray(data)))
            return
        # It touches those from low to high: one piece of them all, grown in place where it can be.
        parts = pieces[low:high]
        if start < parts[0][0]:
            parts.insert(0, (start, bytearray(data)))
        else:
            parts.insert(1, (start, bytearray(data)))
        first, merged = parts[0]
        for at, part in parts[1:]:
            merged += part[first + len(merged) - at :]
        pieces[low:high] = [(first, merged)]
