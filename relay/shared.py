"""What the LANs of a process have in common, because the machine has it once."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING

from netstack.buffer_budget import TOTAL, BufferBudget
from netstack.dns_cache import MAX_TOTAL
from netstack.shares import Shares
from transport.host.echo_sockets import EchoIdentifiers
from transport.host.mapped_ports import MappedPorts
from transport.host.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actors.messages import FlowOpened
    from relay.trunk import Trunk
    from relay.workers.place import Place
    from transport.turns import Turns


class Shared:
    """What all LANs of a process draw from."""

    def __init__(
        self,
        turns: Turns,
        *,
        max_flows: int,
        max_questions: int,
        tcp_buffers: int = TOTAL,
        place: Place | None = None,
        first_port: int = 1,
        trunk: Trunk | None = None,
        urls: Sequence[str] = (),
    ) -> None:
        """Share sockets of flows, questions to name servers and TCP buffers (bytes); needs a running loop.

        ``place`` is this process's among the relay's workers, None where it is alone; ``first_port`` is the
        number of its first session, and ``trunk`` joins its rooms with those of the other workers.
        ``urls`` are this machine's, for clients.
        """
        self.turns = turns
        self.place = place
        self.trunk = trunk
        self._urls = urls
        self.mapped: MappedPorts | None = None
        if place is not None and place.count > 1:
            self.mapped = MappedPorts(place.folder / "udp-ports", place.number)
        self.ready = Readiness(turns)
        self.flows = Shares(max_flows)
        self.udp_flows = Shares(max_flows)
        """Of these, those that have a UDP port of the host; the gateways keep the limit."""
        self.buffers = BufferBudget(tcp_buffers)
        self.answers = BufferBudget(MAX_TOTAL)
        """That of the answers which the name servers of all rooms keep."""
        self.questions = asyncio.Semaphore(max_questions)
        """Those to name servers at a time: each has a few sockets."""
        self.identifiers = EchoIdentifiers() if place is None else EchoIdentifiers(place.number, place.count)
        self.port_numbers = count(first_port, 1 if place is None else place.count)
        """Numbers of the switches' ports: no two sessions of the relay have the same, in logs too."""
        self.last_port = 0
        self.journal: Callable[[str, FlowOpened], object] | None = None
        """Who is told of each flow of a room; to be set before there are LANs."""

    def urls(self, room: str | None = None) -> Sequence[str]:
        """Tell where clients reach the room, or any; this machine's come first, or those with most of it."""
        return self._urls if self.trunk is None else self.trunk.urls(room)

    def rooms_elsewhere(self) -> Mapping[str, str]:
        """Tell the rooms that other workers of this machine have, and by what client each was made."""
        return {} if self.trunk is None else self.trunk.rooms_elsewhere()

    async def wait_closed(self) -> None:
        """Wait until the others were told; after ``close``."""
        if self.trunk is not None:
            await self.trunk.wait_closed()

    def close(self) -> None:
        """Watch nothing any more, and leave the rooms that span workers."""
        if self.trunk is not None:
            self.trunk.close()
        if self.mapped is not None:
            self.mapped.close()
        self.ready.close()
