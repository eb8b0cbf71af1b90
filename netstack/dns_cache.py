"""Answers of name servers, kept for as long as they may be (RFC 1035 section 7.4, RFC 2308).

Bounded in entries and bytes; what was not asked for longest makes room. Of the memory that the caches of
several LANs share, each may hold as much as is left (``buffer_budget``). Times are seconds, monotonic.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from netstack.buffer_budget import BufferBudget

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_ENTRIES = 4096
"""A busy desktop asks for some thousand names in a day."""

MAX_BYTES = 4 << 20
"""All answers together: 1 KB for each entry, though one may have 64 KB."""

MAX_TOTAL = 32 << 20
"""All answers of all LANs: clients of one address may make several, and there may be hundreds."""

MAX_LIFETIME = 86_400
"""Seconds: longer TTLs are cut to a day (RFC 8767 section 4 cuts at a week)."""

ENTRY_OVERHEAD = 256
"""Bytes that an entry costs beside its answer, about."""


class CachedAnswer(NamedTuple):
    """An answer as it was put, and the seconds that its TTLs have to be lowered by."""

    wire: bytes
    age: int


class _Entry(NamedTuple):
    wire: bytes
    stored: float
    expires: float


class DnsCache:
    """Answers by question."""

    def __init__(
        self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES, memory: BufferBudget | None = None
    ) -> None:
        """Share ``memory`` with other caches; None for a cache alone."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._memory = BufferBudget(MAX_TOTAL) if memory is None else memory
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.size = 0
        """Bytes held, with the overhead."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Hashable, now: float) -> CachedAnswer | None:
        """Give the answer unless it has expired."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if now >= entry.expires:
            self._remove(question)
            return None
        self._entries.move_to_end(question)
        return CachedAnswer(entry.wire, int(now - entry.stored))

    def put(self, question: Hashable, wire: bytes, lifetime: int, now: float) -> int:
        """Keep ``wire`` for ``lifetime`` seconds; return how many others had to go for it."""
        if question in self._entries:
            self._remove(question)
        size = len(wire) + ENTRY_OVERHEAD
        most = self._memory.limit(self._max_bytes)
        if lifetime <= 0 or size > most:
            return 0
        evicted = 0
        while len(self._entries) >= self._max_entries or self.size + size > most:
            self._remove(next(iter(self._entries)))
            evicted += 1
        self._entries[question] = _Entry(wire, now, now + min(lifetime, MAX_LIFETIME))
        self._grow(size)
        return evicted

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._grow(-self.size)

    def _remove(self, question: Hashable) -> None:
        self._grow(-len(self._entries.pop(question).wire) - ENTRY_OVERHEAD)

    def _grow(self, size: int) -> None:
        self.size += size
        self._memory.add(size)
