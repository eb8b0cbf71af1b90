"""Which MAC is behind which switch port, and who may say so.

Two kinds of entries. *Bound* ones come from a registration: they never age and only an explicit
registration moves them. *Learned* ones come from source addresses: they age after 300 s without a frame,
and while they live no other port's frames move them (a guest cannot draw a neighbour's frames to itself).
The exception are the MACs of virtual routers, which are made to move (VRRP, RFC 9568 section 7.3; CARP too).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.ethernet import is_station

if TYPE_CHECKING:
    from collections.abc import Mapping

AGEING_TIME: Final = 300.0
"""Seconds without a frame after which a learned MAC is forgotten (IEEE 802.1Q default)."""

MAX_MACS_PER_PORT: Final = 8
"""A VM, or a bridge with a few behind it; a CAM flood ends here."""

MAX_MACS: Final = 8192
"""All ports together: 1,000 sessions with eight MACs each, about 2 MB."""

_VIRTUAL_ROUTERS: Final = (b"\x00\x00\x5e\x00\x01", b"\x00\x00\x5e\x00\x02")
"""How the MACs of virtual routers begin, for IPv4 (and CARP) and for IPv6."""

_SWEEP_INTERVAL: Final = 1.0
"""Seconds between walks over a full table, so that a flood of new MACs does not pay for one each."""


class Verdict(Enum):
    """What became of a frame's source MAC, or of a registration."""

    KNOWN = "known"
    LEARNED = "learned"
    REGISTERED = "registered"
    OWNED_ELSEWHERE = "owned_elsewhere"
    """It belongs to another port: the frame is spoofed, the registration refused."""
    FORBIDDEN = "forbidden"
    """Not one of those that the port may have; told by whoever knows which these are."""
    INVALID = "invalid"
    """Not a station's address, or the gateway's own."""
    PORT_FULL = "port_full"
    TABLE_FULL = "table_full"

    @property
    def accepted(self) -> bool:
        """Whether the MAC may use the port."""
        return self in _ACCEPTED


_ACCEPTED: Final = frozenset({Verdict.KNOWN, Verdict.LEARNED, Verdict.REGISTERED})


class Registration(NamedTuple):
    """Outcome of :meth:`MacTable.register`; ``displaced`` is the port whose bound MAC was taken over."""

    verdict: Verdict
    displaced: int | None = None


class _Entry:
    __slots__ = ("bound", "port", "seen")

    def __init__(self, port: int, seen: float, *, bound: bool) -> None:
        self.port = port
        self.seen = seen
        self.bound = bound

    def is_live(self, now: float) -> bool:
        return self.bound or now - self.seen < AGEING_TIME


def may_move(mac: bytes) -> bool:
    """Whether frames may move a MAC from port to port: those of virtual routers."""
    return mac.startswith(_VIRTUAL_ROUTERS)


class MacTable:
    """MAC (6 bytes) to port; times are monotonic seconds."""

    def __init__(self, reserved: Mapping[bytes, int] | None = None, max_macs: int = MAX_MACS) -> None:
        """``reserved`` are MACs with the ports to which they belong for ever; they do not count."""
        self._reserved = dict(reserved or {})
        self._blocked: frozenset[bytes] = frozenset()
        self._max_macs = max_macs + len(self._reserved)
        self._entries: dict[bytes, _Entry] = {}
        self._by_port: dict[int, set[bytes]] = {}
        for mac, port in self._reserved.items():
            self._insert(mac, port, 0.0, bound=True)
        self._next_sweep = 0.0
        self._aged_out: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._entries) - len(self._reserved)

    def block(self, macs: frozenset[bytes]) -> list[tuple[int, bytes]]:
        """Let no port have these MACs, or the reserved ones; return (port, MAC) of those that were known."""
        self._blocked = macs
        known = self._entries.keys() - self._reserved.keys()
        found = [(self._entries[mac].port, mac) for mac in macs if mac in known]
        for _, mac in found:
            self._remove(mac)
        return found

    def entries(self, now: float) -> list[tuple[bytes, int, float | None]]:
        """List MAC, port, and seconds since its last frame, which is None for bound ones."""
        return [
            (mac, entry.port, None if entry.bound else now - entry.seen)
            for mac, entry in self._entries.items()
            if entry.is_live(now)
        ]

    def learn(self, mac: bytes, port: int, now: float, *, limit: int = MAX_MACS_PER_PORT) -> Verdict:
        """Note a frame's source address; one look-up when it is known. ``limit`` is that of the port."""
        entry = self._entries.get(mac)
        if entry is not None:
            if entry.port == port:
                entry.seen = now
                return Verdict.KNOWN
            if entry.is_live(now) and (entry.bound or not mac.startswith(_VIRTUAL_ROUTERS)):
                return Verdict.OWNED_ELSEWHERE
            self._remove(mac)
        refusal = self._refusal(mac, port, now, limit)
        if refusal is not None:
            return refusal
        self._insert(mac, port, now, bound=False)
        return Verdict.LEARNED

    def lookup(self, mac: bytes, now: float) -> int | None:
        """Port behind which ``mac`` is, or None when that is unknown."""
        entry = self._entries.get(mac)
        if entry is None or not entry.is_live(now):
            return None
        return entry.port

    def last_port_of(self, mac: bytes) -> int | None:
        """Port behind which ``mac`` is or was heard last, until another MAC took its place."""
        entry = self._entries.get(mac)
        return None if entry is None else entry.port

    def register(
        self,
        mac: bytes,
        port: int,
        now: float,
        *,
        explicit: bool,
        binds: bool = True,
        limit: int = MAX_MACS_PER_PORT,
    ) -> Registration:
        """Bind ``mac`` to ``port``. Only an ``explicit`` registration takes it over from another port.

        One that does not bind is as good as a frame from there.
        """
        entry = self._entries.get(mac)
        displaced: int | None = None
        if entry is not None:
            if entry.port == port:
                entry.bound = entry.bound or binds
                entry.seen = now
                return Registration(Verdict.REGISTERED)
            if not explicit and entry.is_live(now) and (binds or entry.bound):
                return Registration(Verdict.OWNED_ELSEWHERE)
            displaced = entry.port if entry.bound else None
        refusal = self._refusal(mac, port, now, limit, moves=entry is not None)
        if refusal is not None:
            return Registration(refusal)
        if mac in self._entries:
            self._remove(mac)
        self._insert(mac, port, now, bound=binds)
        return Registration(Verdict.REGISTERED, displaced)

    def forget(self, mac: bytes, port: int) -> None:
        """Remove a MAC if it is behind this port."""
        entry = self._entries.get(mac)
        if entry is not None and entry.port == port:
            self._remove(mac)

    def take_aged_out(self) -> list[tuple[int, bytes]]:
        """Return the MACs that made room since the last call, each behind its port."""
        aged_out, self._aged_out = self._aged_out, []
        return aged_out

    def macs_of(self, port: int) -> frozenset[bytes]:
        """MACs behind ``port``, learned ones that aged out but were not swept yet included."""
        return frozenset(self._by_port.get(port, ()))

    def forget_port(self, port: int) -> frozenset[bytes]:
        """Remove every MAC of a port that is gone; returns them."""
        macs = frozenset(self._by_port.pop(port, ()))
        for mac in macs:
            del self._entries[mac]
        return macs

    def expire(self, now: float) -> int:
        """Remove learned MACs that aged out, from all ports; returns how many."""
        old = [mac for mac, entry in self._entries.items() if not entry.is_live(now)]
        for mac in old:
            self._age_out(mac)
        return len(old)

    def _refusal(
        self, mac: bytes, port: int, now: float, limit: int, *, moves: bool = False
    ) -> Verdict | None:
        """Why ``port`` cannot have one MAC more, if so; ``moves`` when the table as a whole does not grow."""
        if not is_station(mac) or mac in self._reserved or mac in self._blocked:
            return Verdict.INVALID
        macs = self._by_port.get(port, set())
        if len(macs) >= limit:
            for old in [other for other in macs if not self._entries[other].is_live(now)]:
                self._age_out(old)
            if len(self._by_port.get(port, ())) >= limit:
                return Verdict.PORT_FULL
        if not moves and len(self._entries) >= self._max_macs:
            if now >= self._next_sweep:
                self._next_sweep = now + _SWEEP_INTERVAL
                self.expire(now)
            if len(self._entries) >= self._max_macs:
                return Verdict.TABLE_FULL
        return None

    def _insert(self, mac: bytes, port: int, now: float, *, bound: bool) -> None:
        self._entries[mac] = _Entry(port, now, bound=bound)
        self._by_port.setdefault(port, set()).add(mac)

    def _age_out(self, mac: bytes) -> None:
        self._aged_out.append((self._entries[mac].port, mac))
        self._remove(mac)

    def _remove(self, mac: bytes) -> None:
        port = self._entries.pop(mac).port
        macs = self._by_port[port]
        macs.remove(mac)
        if not macs:
            del self._by_port[port]
