"""The receiving half of a TCP connection: what came from the guest, in order, and what it is told of that.

Bytes in order wait in ``ready`` until the host took them, and only then are they acknowledged; the edge of
the window, once told, never moves back. A guest that sends again what is held here is told that it has
arrived: it must not think that its peer is gone.

The window
----------
It is what the host socket can take, but no more than BASE_WINDOW, or what the guest fills a longer path with
(:class:`Appetite`, as Linux' dynamic right-sizing): then more is promised than the socket has room for, since
that goes on taking bytes while others are under way. A socket that takes nothing closes it.

Out of order segments are kept inside the window, joined where they meet, in at most MAX_PIECES pieces, and
reported by SACK (RFC 2018). ``limit`` bounds all that is held; what is beyond it is as if it had been lost.
So is what comes in order and is more than ``limit`` and BASE_WINDOW, while the host does not take what came
before: windows that were promised while it did stay promised, those of all connections together.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

from netstack.tcp_segment import MAX_SACK_BLOCKS

MAX_WINDOW = 256 * 1024
"""Bytes that a connection may hold of its guest's, in order or not, unless its owner says otherwise."""

BASE_WINDOW = 256 * 1024
"""Bytes of window that every guest gets, as far as the host socket has room."""

MAX_PIECES = 256
"""Separate pieces out of order."""

SMALL = 512
"""Bytes below which what came in order is joined to what came before it: an object for each byte of a window
would be forty times that."""

_start_of = attrgetter("start")


class _Piece:
    """Bytes that came beyond a gap."""

    __slots__ = ("data", "start")

    def __init__(self, start: int, data: bytes) -> None:
        self.start = start
        self.data = bytearray(data)

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class Appetite:
    """How large a window a guest can use: measured by the rate at which the host takes what it sends.

    Twice what comes in one round trip at that rate, and twice again by how much it was more than in the one
    before, so that a guest in slow start never waits for its window. What it uses no more is taken back by a
    quarter per round.
    """

    __slots__ = ("_before", "_since", "_taken", "window")

    def __init__(self, first: int, now: float) -> None:
        """Begin at position ``first``."""
        self.window = 0
        self._before = 0
        self._taken = first
        self._since = now

    def measure(self, taken: int, round_trip: float, now: float) -> None:
        """Note that the host has taken all up to position ``taken``."""
        elapsed = now - self._since
        if elapsed < round_trip:
            return
        came = int((taken - self._taken) * round_trip / elapsed) if elapsed else 0
        self._taken, self._since = taken, now
        self.window = max(2 * came + 2 * max(came - self._before, 0), self.window * 3 // 4)
        self._before = came


class Receiver:
    """Bytes from the guest. Positions are sequence numbers that do not wrap."""

    def __init__(self, first: int, room: int, most: int = MAX_WINDOW) -> None:
        """``first`` is the position after the guest's SYN, ``room`` what the host takes at the start.

        ``most`` is the largest window that there may be.
        """
        self.next = first
        """First position that has not come."""
        self.taken = first
        """First position that the host has not taken."""
        self.most = most
        self.limit = most
        """Bytes that may be held."""
        self.edge = first + min(room, BASE_WINDOW, most)
        """First position beyond the window that the guest was told."""
        self.ready: list[bytes] = []
        self.fin_at: int | None = None
        """Position of the guest's FIN, once it is known."""
        self.dropped = 0
        """Segments that came out of order and had no place."""
        self.refused = 0
        """Segments that came in order and had no place, for the host did not take what came before."""
        self._early: list[_Piece] = []
        """What came beyond a gap, by position; none touches another."""
        self._early_bytes = 0
        self._latest: list[int] = []
        """Where the pieces lie that were added to last, the latest first."""

    @property
    def finished(self) -> bool:
        """Whether everything has come, the FIN too."""
        return self.fin_at is not None and self.next > self.fin_at

    @property
    def has_gap(self) -> bool:
        """Whether something came out of order."""
        return bool(self._early)

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self.next - self.finished - self.taken + self._early_bytes

    def acceptable(self, position: int, length: int) -> bool:
        """Whether a segment touches the window (RFC 9293 section 3.10.7.4, first check)."""
        if length == 0:
            # At the edge too: that is where a guest stands which has used its window up.
            return self.next <= position <= self.edge
        return position < self.edge and position + length > self.next

    def accept(self, position: int, payload: bytes, *, fin: bool) -> bool:
        """Take an acceptable segment; return whether it was new and in order, with no gap left."""
        end = position + len(payload)
        if fin and end < self.edge + 1 and self.fin_at is None:
            self.fin_at = end
        if self.fin_at is not None and end > self.fin_at:
            payload = payload[: max(0, self.fin_at - position)]
        if position + len(payload) > self.edge:
            payload = payload[: self.edge - position]
        if position > self.next:
            self._keep(position, payload)
            return False
        fresh = payload[self.next - position :] if position < self.next else payload
        if fresh and self.next - self.taken + len(fresh) > max(self.limit, BASE_WINDOW):
            self.refused += 1
            return False
        if fresh:
            self._join(fresh)
            self.next += len(fresh)
        in_order = not self._early
        if self._early:
            self._close_gap()
        if self.next == self.fin_at:
            self.next += 1
            # It may stand at the edge, right behind all that the window took.
            self.edge = max(self.edge, self.next)
            return True
        return bool(fresh) and in_order

    def _keep(self, position: int, payload: bytes) -> None:
        """Keep what is new of a segment beyond a gap, and join it to what it touches."""
        if not payload:
            return
        early, end = self._early, position + len(payload)
        if self.held + len(payload) > self.limit:
            self.dropped += 1
            return
        # From the first piece that ends here or later, to the last that begins at the end or before.
        index = bisect_right(early, position, key=_start_of)
        if index and early[index - 1].end >= position:
            index -= 1
        elif index < len(early) and early[index].start <= end:
            piece = early[index]  # the segment begins before it: it becomes that piece's beginning
            piece.data[:0] = payload[: piece.start - position]
            self._early_bytes += piece.start - position
            piece.start = position
        elif len(early) < MAX_PIECES:
            early.insert(index, _Piece(position, b""))
        else:
            self.dropped += 1
            return
        piece = early[index]
        self._extend(piece, payload[max(0, piece.end - position) :])
        while index + 1 < len(early) and early[index + 1].start <= piece.end:
            following = early.pop(index + 1)
            self._early_bytes -= len(following.data)
            self._extend(piece, following.data[max(0, piece.end - following.start) :])
        others = [at for at in self._latest if not piece.start <= at < piece.end]
        self._latest = [position, *others[: MAX_SACK_BLOCKS - 1]]

    def _extend(self, piece: _Piece, data: bytes | bytearray) -> None:
        piece.data += data
        self._early_bytes += len(data)

    def _close_gap(self) -> None:
        early = self._early
        while early and early[0].start <= self.next:
            piece = early.pop(0)
            self._early_bytes -= len(piece.data)
            data = bytes(piece.data[self.next - piece.start :])
            if data:
                self._join(data)
                self.next += len(data)

    def _join(self, data: bytes) -> None:
        """Have data wait that may be little, in one piece with what is little before them."""
        ready = self.ready
        if ready and len(data) < SMALL and len(ready[-1]) < SMALL:
            ready[-1] += data
        else:
            ready.append(data)

    def sack_blocks(self) -> list[tuple[int, int]]:
        """Return what came beyond the gap: the blocks that were added to last, the latest first.

        So each is told several times, in case that acknowledgements are lost (RFC 2018 section 4).
        """
        early = self._early
        blocks = []
        for at in self._latest:
            index = bisect_right(early, at, key=_start_of)
            if index and at < early[index - 1].end:
                blocks.append((early[index - 1].start, early[index - 1].end))
        if len(blocks) < MAX_SACK_BLOCKS:
            first = [(piece.start, piece.end) for piece in early[:MAX_SACK_BLOCKS]]
            blocks += [block for block in first if block not in blocks]
        return blocks

    def take(self, size: int) -> None:
        """Note that the host took ``size`` bytes, and drop them from ``ready``."""
        self.taken += size
        ready = self.ready
        whole = 0
        while whole < len(ready) and size >= len(ready[whole]):
            size -= len(ready[whole])
            whole += 1
        del ready[:whole]
        if size:
            ready[0] = ready[0][size:]

    @property
    def acknowledged(self) -> int:
        """The position to acknowledge: what the host took; the FIN counts when nothing is left before it."""
        return self.next if not self.ready else self.taken

    def open_window(self, room: int, mss: int, *, wanted: int = 0) -> bool:
        """Move the edge to where the host can take ``room`` bytes more; return whether it moved.

        Or to ``wanted`` bytes, more than it can take at once, while it takes all that there is. Not by small
        steps (RFC 9293 section 3.8.6.2.2).
        """
        window = min(room, BASE_WINDOW)
        if room > 0 and not self.ready:
            window = max(window, min(wanted, self.limit))
        window = min(window, self.most)
        edge = self.acknowledged + max(0, window)
        step = edge - self.edge
        if step <= 0 or step < min(2 * mss, BASE_WINDOW // 2):
            return False
        self.edge = edge
        return True
