"""Fragments of guests' IP packets, put together again (RFC 791 section 3.2, RFC 8200 section 4.5).

In any order, within bounds: bytes per session and in total, pieces per packet, and a time. Fragments that
overlap end their packet (RFC 5722): nobody sends such but to get past a check. A packet that is not whole in
time is gone. Where room is short, a session loses its own oldest packets, or whoever holds most does.

The work for a piece does not grow with what is held, of its packet or of others: neighbours are found by
bisection, and all tables in order of age are linked lists (in a ``dict``, finding the first key takes time in
proportion to the keys deleted before it).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from operator import attrgetter
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
"""All sessions together. Above it, one of those that hold most gives way."""

MAX_PIECES = 1366
"""Per packet: the largest one over links with the smallest MTU of IPv4, 68 bytes, 48 of them data."""

MAX_EXPIRED = 8
"""Packets taken away per piece for their age: one piece begins one packet at most, so these go faster."""

FRAGMENT_COST = 128
"""Bytes charged for each fragment beside its data: Python's objects, slots in tables."""

PACKET_COST = 384
"""The same for each packet."""

MAX_PACKET = 65_535

_UNIT = 8
_OFFSET = attrgetter("offset")


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
    """A packet so far. Its pieces, in order of their offsets, do not overlap."""

    __slots__ = ("cost", "deadline", "end", "pieces", "received")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.pieces: list[Fragment] = []
        self.cost = 0
        self.received = 0
        self.end: int | None = None

    def has(self, fragment: Fragment, at: int) -> bool:
        """Whether the piece number ``at`` is the very same."""
        if at == len(self.pieces):
            return False
        known = self.pieces[at]
        return (known.offset, known.more, known.data) == (fragment.offset, fragment.more, fragment.data)

    def contradicts(self, fragment: Fragment, at: int) -> bool:
        """Whether a fragment, which would be the piece number ``at``, overlaps or disagrees about the end."""
        start, end = fragment.offset, fragment.offset + len(fragment.data)
        if self.end is not None and (end > self.end or not fragment.more):
            return True
        pieces = self.pieces
        if at and pieces[at - 1].offset + len(pieces[at - 1].data) > start:
            return True
        # Pieces behind the one that says that it is the last, or the next one begins too early.
        return at < len(pieces) and (not fragment.more or pieces[at].offset < end)

    def add(self, fragment: Fragment, at: int) -> None:
        self.pieces.insert(at, fragment)
        self.received += len(fragment.data)
        if not fragment.more:
            self.end = fragment.offset + len(fragment.data)


class _Owner:
    """What one session holds, the oldest packet first."""

    __slots__ = ("cost", "partials")

    def __init__(self) -> None:
        self.partials: OrderedDict[Hashable, _Partial] = OrderedDict()
        self.cost = 0


class Reassembler:
    """Pieces in, whole packets out.

    Counts packets that never became whole: ``gateway.reassembly.expired``, ``.overflow`` (the oldest, for
    room), ``.pieces`` (more than :data:`MAX_PIECES`) and ``.overlap`` (also two ends, or data behind it).
    """

    def __init__(
        self, counters: Counters, max_bytes: int = MAX_BYTES, max_bytes_per_owner: int = MAX_BYTES_PER_OWNER
    ) -> None:
        self._counters = counters
        self._max_bytes = max_bytes
        self._max_bytes_per_owner = max_bytes_per_owner
        self._owners: dict[int, _Owner] = {}
        self._names: OrderedDict[tuple[int, Hashable], None] = OrderedDict()
        """Of all packets, in order of arrival of their first fragments, hence also of their deadlines."""
        self._by_size: list[OrderedDict[int, None]] = [
            OrderedDict() for _ in range(max_bytes_per_owner.bit_length() + 2)
        ]
        """Owners by the bit length of what they hold: one of those that hold most is found at once."""
        self._total = 0

    @property
    def cost(self) -> int:
        """Bytes charged at present."""
        return self._total

    def accept(self, owner: int, fragment: Fragment, now: float) -> Whole | None:
        """Take a fragment that session ``owner`` sent; the packet that it completes, or None.

        Raises MalformedPacket for a fragment that can be of no packet.
        """
        key, offset, more, _, data = fragment
        if not data or (more and len(data) % _UNIT) or offset + len(data) > MAX_PACKET:
            raise MalformedPacket("bad_fragment")
        self._expire(now)
        partial = self._partial(owner, key, now)
        at = bisect_left(partial.pieces, offset, key=_OFFSET)
        if partial.has(fragment, at):
            return None  # a duplicate
        if partial.contradicts(fragment, at):
            self._drop(owner, key, "overlap")
            return None
        if len(partial.pieces) == MAX_PIECES:
            self._drop(owner, key, "pieces")
            return None
        partial.add(fragment, at)
        self._charge(owner, partial, len(fragment.head) + len(data) + FRAGMENT_COST)
        if partial.received == partial.end:
            self._forget(owner, key)
            return Whole(partial.pieces[0].head, b"".join([piece.data for piece in partial.pieces]))
        self._make_room(owner)
        return None

    def forget(self, owner: int) -> None:
        """Drop what a session that ended has sent."""
        if owner in self._owners:
            for key in list(self._owners[owner].partials):
                self._forget(owner, key)

    def _partial(self, owner: int, key: Hashable, now: float) -> _Partial:
        """Find the packet that a piece belongs to, or begin it."""
        held = self._owners.get(owner)
        if held is None:
            held = self._owners[owner] = _Owner()
            self._by_size[0][owner] = None
        partial = held.partials.get(key)
        if partial is not None and now >= partial.deadline:
            self._drop(owner, key, "expired")
            return self._partial(owner, key, now)
        if partial is None:
            partial = held.partials[key] = _Partial(now + LIFETIME)
            self._names[owner, key] = None
            self._charge(owner, partial, PACKET_COST)
        return partial

    def _charge(self, owner: int, partial: _Partial, cost: int) -> None:
        partial.cost += cost
        self._add(owner, cost)

    def _add(self, owner: int, cost: int) -> None:
        held = self._owners[owner]
        before = held.cost.bit_length()
        held.cost += cost
        self._total += cost
        if held.cost.bit_length() != before:
            del self._by_size[before][owner]
            self._by_size[held.cost.bit_length()][owner] = None

    def _make_room(self, owner: int) -> None:
        while owner in self._owners and self._owners[owner].cost > self._max_bytes_per_owner:
            self._drop_oldest(owner)
        while self._total > self._max_bytes:
            self._drop_oldest(next(next(iter(owners)) for owners in reversed(self._by_size) if owners))

    def _drop_oldest(self, owner: int) -> None:
        self._drop(owner, next(iter(self._owners[owner].partials)), "overflow")

    def _expire(self, now: float) -> None:
        for _ in range(min(MAX_EXPIRED, len(self._names))):
            owner, key = next(iter(self._names))
            if now < self._owners[owner].partials[key].deadline:
                return
            self._drop(owner, key, "expired")

    def _drop(self, owner: int, key: Hashable, reason: str) -> None:
        self._counters.add(f"gateway.reassembly.{reason}")
        self._forget(owner, key)

    def _forget(self, owner: int, key: Hashable) -> None:
        held = self._owners[owner]
        del self._names[owner, key]
        self._add(owner, -held.partials.pop(key).cost)
        if not held.partials:
            del self._owners[owner], self._by_size[0][owner]
