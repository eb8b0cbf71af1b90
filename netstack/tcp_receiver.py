"""The receiving half of a TCP connection: what came from the guest, in order, and what it is told of that.

The window is what the host socket can take. Bytes in order wait in ``ready`` until the host took them, and
only then are they acknowledged; the edge of the window, once told, never moves back. A guest that sends
again what is held here is told that it has arrived: it must not think that its peer is gone.

Out of order segments are kept inside the window, at most MAX_PIECES of them, and reported by SACK (RFC 2018).
"""

from __future__ import annotations

MAX_WINDOW = 256 * 1024
"""Bytes that a connection may hold of its guest's, in order or not."""

MAX_PIECES = 256
"""Separate pieces out of order: bounds the overhead of tiny segments."""


class Receiver:
    """Bytes from the guest. Positions are sequence numbers that do not wrap."""

    def __init__(self, first: int, room: int) -> None:
        """``first`` is the position after the guest's SYN, ``room`` what the host takes at the start."""
        self.next = first
        """First position that has not come."""
        self.taken = first
        """First position that the host has not taken."""
        self.edge = first + min(room, MAX_WINDOW)
        """First position beyond the window that the guest was told."""
        self.ready: list[bytes] = []
        self.fin_at: int | None = None
        """Position of the guest's FIN, once it is known."""
        self._early: dict[int, bytes] = {}
        """Pieces beyond a gap by position; none overlaps another."""
        self._latest: int | None = None

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
        return sum(map(len, self.ready)) + sum(map(len, self._early.values()))

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
        if fresh:
            self.ready.append(fresh)
            self.next += len(fresh)
        in_order = not self._early
        if self._early:
            self._close_gap()
        if self.next == self.fin_at:
            self.next += 1
            return True
        return bool(fresh) and in_order

    def _keep(self, position: int, payload: bytes) -> None:
        """Keep the parts of a piece that are new."""
        for start in sorted(self._early):
            stop = start + len(self._early[start])
            if stop <= position:
                continue
            if start >= position + len(payload):
                break
            if start > position:
                self._store(position, payload[: start - position])
            payload = payload[max(0, stop - position) :]
            position = stop
        self._store(position, payload)

    def _store(self, position: int, payload: bytes) -> None:
        if payload and len(self._early) < MAX_PIECES:
            self._early[position] = payload
            self._latest = position

    def _close_gap(self) -> None:
        for start in sorted(self._early):
            if start > self.next:
                break
            piece = self._early.pop(start)[self.next - start :]
            if piece:
                self.ready.append(piece)
                self.next += len(piece)

    def sack_blocks(self) -> list[tuple[int, int]]:
        """Return what came beyond the gap: the block of the latest piece first (RFC 2018 section 4)."""
        blocks: list[tuple[int, int]] = []
        for start in sorted(self._early):
            stop = start + len(self._early[start])
            if blocks and blocks[-1][1] == start:
                blocks[-1] = (blocks[-1][0], stop)
            else:
                blocks.append((start, stop))
        latest = self._latest
        if latest is not None:
            blocks.sort(key=lambda block: not block[0] <= latest < block[1])
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

    def open_window(self, room: int, mss: int, *, now: bool = False) -> bool:
        """Move the edge to where the host can take ``room`` bytes more; return whether it moved.

        By small steps only with ``now`` (RFC 9293 section 3.8.6.2.2).
        """
        edge = self.acknowledged + max(0, min(room, MAX_WINDOW))
        step = edge - self.edge
        if step <= 0 or (step < min(2 * mss, MAX_WINDOW // 2) and not now):
            return False
        self.edge = edge
        return True
