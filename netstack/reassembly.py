"""Fragments of guests' IP packets, put together again (RFC 791 section 3.2, RFC 8200 section 4.5).

In any order, within bounds: bytes per session and in total, and a time. Fragments that overlap end their
packet (RFC 5722): nobody sends such but to get past a check. A packet that is not whole in time is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Hashable

    from netstack.counters import Counters

LIFETIME = 30.0
"""Seconds after its first fragment in which a packet must be whole. RFC 1122 allows 60 to 120 s; fragments
of one packet come within one, and identifications of busy guests wrap within 30."""

MAX_BYTES_PER_OWNER = 256 * 1024
"""Per session: four packets of the largest size under way."""

MAX_BYTES = 8 * 1024 * 1024
"""All sessions together; 32 floods at their limits leave no room for others, but the memory of the host."""

FRAGMENT_COST = 128
"""Bytes charged for each fragment beside its data: Python's objects, slots in tables."""

MAX_PACKET = 65_535

_UNIT = 8


class Fragment(NamedTuple):
    """One piece; ``key`` tells the packets of one session apart, ``head`` is what stands before the data."""

    key: Hashable
    offset: int
    more: bool
    head: bytes
    data: bytes


class Whole(NamedTuple):
    """A whole packet: the head of its first fragment, and all data."""

    head: bytes
    data: bytes


class _Partial:
    __slots__ = ("cost", "deadline", "end", "pieces", "received")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.pieces: dict[int, Fragment] = {}
        self.cost = 0
        self.received = 0
        self.end: int | None = None


class Reassembler:
    """Pieces in, whole packets out.

    Counts packets that never became whole: ``gateway.reassembly.expired``, ``.overflow`` (the oldest, for
    room) and ``.overlap`` (also two ends, or data behind the end).
    """

    def __init__(
        self, counters: Counters, max_bytes: int = MAX_BYTES, max_bytes_per_owner: int = MAX_BYTES_PER_OWNER
    ) -> None:
        self._counters = counters
        self._max_bytes = max_bytes
        self._max_bytes_per_owner = max_bytes_per_owner
        # In order of arrival of their first fragments, hence also in order of their deadlines.
        self._partials: dict[tuple[int, Hashable], _Partial] = {}
        self._cost: dict[int, int] = {}
        self._total = 0

    @property
    def cost(self) -> int:
        """Bytes charged at present."""
        return self._total

    def accept(self, owner: int, fragment: Fragment, now: float) -> Whole | None:
        """Take a fragment that session ``owner`` sent; the packet that it completes, or None.

        Raises MalformedPacket for a fragment that can be of no packet.
        """
        _, offset, more, _, data = fragment
        if not data or (more and len(data) % _UNIT) or offset + len(data) > MAX_PACKET:
            raise MalformedPacket("bad_fragment")
        self._expire(now)
        name = (owner, fragment.key)
        partial = self._partials.get(name)
        if partial is None:
            partial = self._partials[name] = _Partial(now + LIFETIME)
        known = partial.pieces.get(offset)
        if known is not None and known.data == data and known.more == more:
            return None  # a duplicate
        if _contradicts(partial, fragment):
            self._drop(name, "overlap")
            return None
        partial.pieces[offset] = fragment
        partial.received += len(data)
        if not more:
            partial.end = offset + len(data)
        self._charge(owner, partial, len(fragment.head) + len(data) + FRAGMENT_COST)
        if partial.received == partial.end:
            self._forget(name)
            return Whole(
                partial.pieces[0].head, b"".join(partial.pieces[at].data for at in sorted(partial.pieces))
            )
        self._make_room(owner)
        return None

    def forget(self, owner: int) -> None:
        """Drop what a session that ended has sent."""
        for name in [name for name in self._partials if name[0] == owner]:
            self._forget(name)

    def _charge(self, owner: int, partial: _Partial, cost: int) -> None:
        partial.cost += cost
        self._cost[owner] = self._cost.get(owner, 0) + cost
        self._total += cost

    def _make_room(self, owner: int) -> None:
        while self._cost.get(owner, 0) > self._max_bytes_per_owner:
            self._drop(next(name for name in self._partials if name[0] == owner), "overflow")
        while self._total > self._max_bytes:
            self._drop(next(iter(self._partials)), "overflow")

    def _expire(self, now: float) -> None:
        while self._partials:
            name, partial = next(iter(self._partials.items()))
            if now < partial.deadline:
                return
            self._drop(name, "expired")

    def _drop(self, name: tuple[int, Hashable], reason: str) -> None:
        self._counters.add(f"gateway.reassembly.{reason}")
        self._forget(name)

    def _forget(self, name: tuple[int, Hashable]) -> None:
        cost = self._partials.pop(name).cost
        owner = name[0]
        self._total -= cost
        self._cost[owner] = self._cost.get(owner, 0) - cost
        if self._cost[owner] <= 0:
            del self._cost[owner]


def _contradicts(partial: _Partial, fragment: Fragment) -> bool:
    """Whether a fragment overlaps another, or disagrees about where the packet ends."""
    start, end = fragment.offset, fragment.offset + len(fragment.data)
    if partial.end is not None and (end > partial.end or not fragment.more):
        return True
    for at, piece in partial.pieces.items():
        piece_end = at + len(piece.data)
        if start < piece_end and at < end:
            return True
        if not fragment.more and piece_end > end:
            return True
    return False
