"""Who is served when there is more to do than time: those who have cost little, then the others by turns.

Theory of operation
-------------------
What a client's packets cost, the actors' work and the answers included, shows only when they have a turn of
their own. As a rule they have none, for that costs more than it tells: a turn that took long, for its packets
or at all, makes the endpoint watch those who were in it. A watched connection gets turns of its own, whose
processor time is charged to it. It gets them right after the others' turn while it has taken less than
LIGHT_SHARE of a core; else it waits, and those who wait are served by turns: the addresses of clients one
after the other, and the connections of one address one after the other. So neither a connection nor an
address gets more by sending more.

While somebody has waited for SATURATED_AFTER the relay is saturated. What is then taken for ordinary is what
packets of well-behaved clients really cost, not some times that, and little is forgiven. Packets that cost
no more than that are dropped when too many wait, and who does not slow down then is closed for it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

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


GENEROUS = Allowance(packet=0.0005, frames=0.0005, frames_byte=0.0, relief=0.1)
"""As a rule: some times what any ordinary packet costs, for nobody has to wait."""
STRICT = Allowance(packet=0.00008, frames=0.0001, frames_byte=0.0000003, relief=0.002)
"""While the relay is saturated: a packet may hold twenty TCP acknowledgements, which cost 20 us each."""

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
