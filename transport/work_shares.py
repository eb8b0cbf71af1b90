"""Who is served when there is more to do than time: those who have cost little, then the others by turns.

Theory of operation
-------------------
What a client's packets cost, the actors' work and the answers included, shows only when they have a turn of
their own. WebSockets always have (``transport.slices``), and PACKET_BYTES of their streams count as a packet.
QUIC connections have none as a rule, for that costs more than it tells: a turn that took long, for its
packets or at all, makes the endpoint watch those who were in it, who get turns of their own then. Processor
time of such turns is charged to the client's ``WorkAccount``. It is served right after the others while it
has taken less than LIGHT_SHARE of a core; else it waits in ``LastTurns``, and those who wait are served by
turns, whatever carries them: the addresses of clients one after the other, and the connections of one address
one after the other. So neither a connection nor an address gets more by sending more. For whom there was no
time though it has taken little waits apart from the others, for at most one of their turns before its own.

While somebody has waited for SATURATED_AFTER the relay is saturated. What is then taken for ordinary is what
packets of well-behaved clients really cost, not some times that, and little is forgiven. QUIC packets that
cost no more than that are dropped when too many wait, and who does not slow down then is closed for it; a
WebSocket that waits is not read, and TCP slows its client down.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from mypy_extensions import mypyc_attr

from transport.turns import after_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_TURN = 0.008
"""Seconds of a turn after which its connections are watched, whatever they brought."""
SLOW_TURN = 0.002
"""Seconds of a turn after which they are watched if its packets cost more than USUAL_COST each."""
USUAL_COST = 0.0001
"""Seconds that a packet costs at most as a rule, from the socket to the socket."""
WATCH = 1.0
"""Seconds for which a connection is watched."""
OWN_SHARE = 0.001
"""Seconds of a turn of its own for a connection's packets: their answers are yet to be made and sent."""
LIGHT_SHARE = 0.05
"""Part of a core that a connection may take and still be served before those who wait."""
LIGHT_BURST = 0.005
"""Seconds of processor time that it may take at once."""
MOST_USED = 0.1
"""Seconds of use that are remembered: whoever falls silent is light again after two seconds."""
SATURATED_AFTER = 0.25
"""Seconds for which somebody has been waiting without a break that make the relay saturated."""

TOLERATED_EXCESS = 0.005
"""Seconds of work beyond the ordinary with which a client is still served with the others."""
MOST_EXCESS = 0.25
"""Seconds of work beyond the ordinary after which a client is closed."""
MOST_AT_ONCE = 0.010
"""Seconds that are charged for one slice at most: the machine may have halted just then."""
EXCESSIVE = "packets cost more than their share"
"""What a client is told that is closed for it."""

BEHIND_SHARE = 0.003
"""Seconds between two looks at the sockets that those get together who wait."""
BEHIND_SHARE_OF_SMALL = 0.0015
"""The same where the QUIC socket's buffer is small: what kernels grant holds 190 packets, which a flood of
32,000 packets/s fills in 6 ms, and then everybody's are lost. Each look costs some microseconds."""
MOST_BEHIND = 32768
"""QUIC packets that wait, of all connections together; each may have its part of them."""
FEWEST_PARTS = 8

OVERRUN_PERIOD = 1.0
"""Seconds that are judged at a time: whether of a connection's packets a third had to be dropped."""
MOST_OVERRUNS = 5
"""Such periods in a row after which it is closed. To a sender with congestion control, which QUIC demands
(RFC 9002, section 7), so many losses do not happen for so long."""


class Allowance(NamedTuple):
    """What a connection's packets may cost before it is charged, in seconds of processor time."""

    packet: float
    """For a packet, in the transport."""
    frames: float
    """For a packet's frames, in the actors and on their way out, and for each of its bytes."""
    frames_byte: float
    relief: float
    """What is forgiven per second."""
    turn: float = 0.0
    """For a turn of its own, whatever is in it: that it has one is the relay's doing."""


GENEROUS = Allowance(packet=0.0005, frames=0.0005, frames_byte=0.0, relief=0.1)
"""As a rule: some times what any ordinary packet costs, for nobody has to wait."""
STRICT = Allowance(packet=0.00008, frames=0.0001, frames_byte=0.0000003, relief=0.002, turn=0.0005)
"""While the relay is saturated: a packet may hold twenty TCP acknowledgements, which cost 20 us each. Most of
what a turn with one ping takes, 0.35 ms without the accelerator, it would take without the ping too."""

PACKET_BYTES = 1200
"""Bytes of a stream that may cost what a packet may."""


@mypyc_attr(allow_interpreted_subclasses=True, serializable=True)
class WorkAccount:
    """What one client's work has cost of late: in all, and beyond what is ordinary."""

    def __init__(self, now: float) -> None:
        self.excess = 0.0
        """Seconds beyond what is ordinary; what is forgiven is taken off when something is charged."""
        self._relief = GENEROUS.relief
        self._charged_at = now
        self._charged = 0.0
        """Seconds of this turn that were charged where they were spent."""
        self._free = 0.0
        """Seconds that this turn may cost yet beyond what its packets may."""
        self._used = 0.0
        """Seconds of processor time of late, beyond the light share."""
        self._used_at = now

    @property
    def is_excessive(self) -> bool:
        """Whether the client is to be closed."""
        return self.excess > MOST_EXCESS

    def is_heavy(self, now: float) -> bool:
        """Whether the client costs more than its share: it waits until the others were served."""
        return (
            self.excess > TOLERATED_EXCESS or self._used - (now - self._used_at) * LIGHT_SHARE > LIGHT_BURST
        )

    def charge(self, spent: float, ordinary: float, now: float) -> None:
        """Note seconds of work, and how many would be ordinary."""
        relief = (now - self._charged_at) * self._relief
        self._charged_at = now
        self._charged += spent
        beyond = min(spent - ordinary, MOST_AT_ONCE)
        if beyond > 0.0 and self._free > 0.0:
            free = min(self._free, beyond)
            self._free -= free
            beyond -= free
        self.excess = max(0.0, self.excess - relief + beyond)

    def begin_turn(self, allowance: Allowance) -> None:
        """Begin a turn that is the client's own."""
        self._relief = allowance.relief
        self._charged = 0.0
        self._free = allowance.turn

    def end_turn(self, spent: float, ordinary: float, now: float) -> None:
        """Charge what was not charged yet of the ``spent`` seconds, of which so many would be ordinary."""
        leaked = (now - self._used_at) * LIGHT_SHARE
        self._used = min(max(0.0, self._used - leaked) + spent, MOST_USED)
        self._used_at = now
        beyond = spent - self._charged - ordinary
        if beyond > 0.0:
            self.charge(beyond, 0.0, now)
        self._relief, self._free = GENEROUS.relief, 0.0


_Client = TypeVar("_Client")


class WaitingClients(Generic[_Client]):
    """Those who wait for turns of their own, by address."""

    def __init__(self) -> None:
        self._by_address: dict[str, deque[_Client]] = {}
        self._addresses: dict[_Client, str] = {}
        self._since = math.inf

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[_Client]:
        return iter(self._addresses)

    def __contains__(self, client: object) -> bool:
        return client in self._addresses

    def add(self, client: _Client, address: str, now: float) -> None:
        """Have a client wait behind the others of its address; one that waits keeps its place."""
        if client in self._addresses:
            return
        self._since = min(self._since, now)
        self._addresses[client] = address
        self._by_address.setdefault(address, deque()).append(client)

    def take(self) -> _Client:
        """Take the next one; its address is behind all others then. Raises StopIteration when none waits."""
        address = next(iter(self._by_address))
        clients = self._by_address.pop(address)
        client = clients.popleft()
        if clients:
            self._by_address[address] = clients
        del self._addresses[client]
        return client

    def discard(self, client: _Client) -> None:
        """Forget a client, if it waits."""
        address = self._addresses.pop(client, None)
        if address is not None:
            clients = self._by_address[address]
            clients.remove(client)
            if not clients:
                del self._by_address[address]

    def end_round(self) -> None:
        """Note whether all who waited have been served."""
        if not self._addresses:
            self._since = math.inf

    def allowance(self, now: float) -> Allowance:
        """Return what packets may cost at present."""
        return STRICT if now - self._since > SATURATED_AFTER else GENEROUS


class WaitingClient(Protocol):
    """Who is served last; it has an account."""

    def serve_last(self) -> None:
        """Have a turn of its own; who needs more waits again. Raises nothing."""

    def keep_waiting(self, packets: int) -> None:
        """Keep no more than so many packets waiting, where they cannot be left with the client."""


class LastTurns:
    """Serves those who need more than their share, each in a turn of its own, while there is time.

    Every second turn is of those who were only behind others when that was used up, as long as there are any.
    """

    def __init__(self) -> None:
        self._heavy: WaitingClients[WaitingClient] = WaitingClients()
        self._light: WaitingClients[WaitingClient] = WaitingClients()
        self._is_light_next = True
        self._is_scheduled = False
        self.share = BEHIND_SHARE
        """Seconds that they get between two looks at the sockets."""

    def __len__(self) -> int:
        return len(self._heavy) + len(self._light)

    def allowance(self, now: float) -> Allowance:
        """Return what packets may cost at present."""
        allowance = self._heavy.allowance(now)
        return self._light.allowance(now) if allowance is GENEROUS else allowance

    def add(self, client: WaitingClient, address: str, now: float, *, is_light: bool = False) -> None:
        """Have a client served after all others; ``is_light``: it has not had its share."""
        if is_light and client not in self._heavy:
            self._light.add(client, address, now)
        elif client not in self._light:
            self._heavy.add(client, address, now)
        client.keep_waiting(self._room)
        self._schedule()

    def discard(self, client: WaitingClient) -> None:
        """Forget a client that has ended."""
        self._heavy.discard(client)
        self._light.discard(client)

    @property
    def _room(self) -> int:
        return MOST_BEHIND // max(FEWEST_PARTS, len(self))

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            after_sockets(asyncio.get_running_loop(), self._serve)

    def _serve(self) -> None:
        self._is_scheduled = False
        stop = perf_counter() + self.share
        while len(self) and perf_counter() < stop:
            is_light = len(self._heavy) == 0 or (self._is_light_next and len(self._light) > 0)
            # A round goes on where the last one ended, which may have had time for one client only.
            self._is_light_next = not is_light
            (self._light if is_light else self._heavy).take().serve_last()
        # What came meanwhile is not more than they may have waiting.
        room = self._room
        for queue in (self._heavy, self._light):
            queue.end_round()
            for client in queue:
                client.keep_waiting(room)
        if len(self):
            self._schedule()
