"""One WebTransport session as the actors see it, with its bounded queue of outgoing datagrams."""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Final, Protocol

from mypy_extensions import mypyc_attr

from transport.binding import unmapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.descriptions import PathState
    from netstack.counters import Counters

QUEUE_BYTES: Final = 256 * 1024
"""Bytes that may wait for one client: a quarter of a second at 8 Mbit/s, and little memory for 1,000."""
QUEUE_SECONDS = 1.0
"""A frame that waited longer is worth nothing to a guest: its TCP has sent it again."""
MOST_ROOM: Final = QUEUE_BYTES // 2
"""Bytes that producers which can wait (``actors.line``) keep queued at most."""
LEAST_ROOM: Final = 24 * 1024
"""And at least: two of the turns that they take."""
SLOW_ROOM_SECONDS: Final = 0.25
"""Seconds of the rate that LEAST_ROOM is not to exceed: on slow paths what waits for longer than
QUEUE_SECONDS would be dropped, and whatever waits behind it."""
SLOWEST_ROOM: Final = 2 * 1522
"""Bytes of room on the slowest path: two of the largest frames."""
ROOM_SECONDS: Final = 0.010
"""Seconds of the path's rate that they keep queued between: what a ping waits behind a download."""


def remote_text(address: tuple[str | int, ...]) -> str:
    """Write a socket address as ``host:port``, with IPv6 in brackets; IPv4-mapped addresses are IPv4."""
    host, port = unmapped(str(address[0])), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class DatagramQueue:
    """Outgoing datagrams, bounded in bytes and time: the oldest go first, and are counted."""

    __slots__ = ("_counters", "_since", "bytes", "items", "room")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.items: deque[bytes] = deque()
        self._since: deque[float] = deque()
        self.bytes = 0
        self.room = MOST_ROOM
        """Bytes that producers which can wait keep queued. They are woken once half of that has left: each
        time is worth many datagrams, and yet the queue does not run empty before they come."""

    def __len__(self) -> int:
        return len(self.items)

    def extend(self, datagrams: Sequence[bytes], now: float) -> None:
        """Append; what exceeds the bound in bytes pushes out the oldest."""
        self.items.extend(datagrams)
        self._since.extend(repeat(now, len(datagrams)))
        self.bytes += sum(map(len, datagrams))
        if self.bytes > QUEUE_BYTES:
            dropped = 0
            while self.bytes > QUEUE_BYTES:
                self.pop()
                dropped += 1
            self._counters.add("session.drop.queue_full", dropped)

    def fit_room(self, rate: float) -> None:
        """Have producers fill no more than a path of ``rate`` bytes per second delivers in a moment."""
        least = min(max(rate * SLOW_ROOM_SECONDS, SLOWEST_ROOM), LEAST_ROOM)
        self.room = int(min(max(rate * ROOM_SECONDS, least), MOST_ROOM))

    def pop(self) -> bytes:
        """Take the oldest datagram. Raises IndexError when there is none."""
        datagram = self.items.popleft()
        self._since.popleft()
        self.bytes -= len(datagram)
        return datagram

    def take_all(self) -> list[bytes]:
        """Take everything at once."""
        datagrams = list(self.items)
        self.clear()
        return datagrams

    def take(self, budget: int, overhead: int) -> list[bytes]:
        """Take the oldest datagrams that fit ``budget`` bytes, each with ``overhead`` bytes around it."""
        datagrams = []
        while self.items:
            budget -= len(self.items[0]) + overhead
            if budget < 0:
                break
            datagrams.append(self.pop())
        return datagrams

    def clear(self) -> None:
        """Forget everything."""
        self.items.clear()
        self._since.clear()
        self.bytes = 0

    def drop_stale(self, now: float) -> list[tuple[bytes, float]]:
        """Drop what has waited longer than the bound in time; return it, with the times since when it did."""
        oldest_allowed = now - QUEUE_SECONDS
        dropped: list[tuple[bytes, float]] = []
        while self._since and self._since[0] < oldest_allowed:
            since = self._since[0]
            dropped.append((self.pop(), since))
        if dropped:
            self._counters.add("session.drop.stale", len(dropped))
        return dropped


class SessionCarrier(Protocol):
    """The connection underneath, as far as a session needs it."""

    @property
    def remote(self) -> str:
        """The client's present address as text."""

    @property
    def datagram_limit(self) -> int:
        """Bytes that fit one datagram at present."""

    @property
    def last_heard(self) -> float:
        """Monotonic time of the client's last packet."""

    def path_state(self) -> PathState:
        """Tell what carries the session, and how its packets fare."""

    def want_flush(self) -> None:
        """Have the session's queue sent at the end of this turn of the event loop."""

    def close_session(self, code: int, reason: str) -> None:
        """Close the session and the connection that carries it."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class WebTransportSession:
    """Implements ``actors.ports.Session``; lives as long as its connection carries the session."""

    __slots__ = ("_carrier", "_clock", "_on_writable", "id", "path", "queue")

    def __init__(
        self, number: int, path: str, carrier: SessionCarrier, clock: Callable[[], float], counters: Counters
    ) -> None:
        self.id = number
        self.path = path
        self.queue = DatagramQueue(counters)
        self._carrier = carrier
        self._clock = clock
        self._on_writable: Callable[[], object] | None = None

    @property
    def remote(self) -> str:
        """The client's present address, ``host:port``; it changes when the client migrates."""
        return self._carrier.remote

    @property
    def datagram_limit(self) -> int:
        """Bytes that one datagram may carry at present."""
        return self._carrier.datagram_limit

    @property
    def last_heard(self) -> float:
        """Monotonic time of the client's last packet of any kind."""
        return self._carrier.last_heard

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        return self.queue.bytes

    @property
    def room(self) -> int:
        """Bytes that producers which can wait should have queued at most."""
        return self.queue.room

    @property
    def writable(self) -> bool:
        """Whether a producer should go on reading from its source."""
        return self.queue.bytes < self.queue.room // 2

    def path_state(self) -> PathState:
        """Tell what carries the session, and how its packets fare."""
        return self._carrier.path_state()

    def call_when_writable(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, once, when producers may go on; it takes the place of an earlier one."""
        self._on_writable = callback

    def sent(self) -> None:
        """Note that the queue has become shorter: perhaps somebody waits for that."""
        if self._on_writable is not None and self.writable:
            callback, self._on_writable = self._on_writable, None
            callback()

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Queue datagrams for the end of this turn."""
        self.queue.extend(datagrams, self._clock())
        self._carrier.want_flush()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the session; the client is told ``code`` and ``reason``.

        What UTF-8 cannot say of the reason (half a surrogate pair, from somebody's JSON) becomes ``?``.
        """
        self._carrier.close_session(code, reason.encode("utf-8", "replace").decode())
