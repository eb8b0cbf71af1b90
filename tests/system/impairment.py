"""A bad network on loopback: a UDP proxy that loses, repeats, delays, reorders and damages packets.

Everything by chance comes from one seed per direction. Which packet meets which fate still depends on when
packets are sent, so two runs are alike, not equal.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Conditions:
    """Shares of packets from 0 to 1, times in seconds; the default harms nothing."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    """Packets that are held back by ``hold`` and so are overtaken by others."""
    hold: float = 0.02
    delay: float = 0.0
    jitter: float = 0.0
    rebind_every: float = 0.0
    """Time after which a client appears under another port, as when a NAT forgets it; 0: never."""


CALM = Conditions()


class Direction:
    """What the packets of one direction go through; ``packets`` counts them."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.packets = 0
        self.lost = 0
        self.damaged = 0

    def carry(self, packet, conditions, deliver):
        """Give ``deliver`` the packet once, twice or never, now or later, whole or not."""
        self.packets += 1
        chance = self._random.random
        if chance() < conditions.loss:
            self.lost += 1
            return
        carried = packet
        if packet and chance() < conditions.corrupt:
            self.damaged += 1
            at = self._random.randrange(len(packet))
            carried = packet[:at] + bytes((packet[at] ^ 1 << self._random.randrange(8),)) + packet[at + 1 :]
        for _ in range(2 if chance() < conditions.duplicate else 1):
            delay = conditions.delay + conditions.jitter * chance()
            if chance() < conditions.reorder:
                delay += conditions.hold
            if delay:
                asyncio.get_running_loop().call_later(delay, deliver, carried)
            else:
                deliver(carried)


class Upstream(asyncio.DatagramProtocol):
    """The proxy's socket towards the relay for one client, until it is bound anew."""

    def __init__(self, proxy, client):
        self._proxy = proxy
        self._client = client
        self.born = asyncio.get_running_loop().time()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        proxy = self._proxy
        proxy.to_client.carry(data, proxy.conditions, partial(proxy.send_to_client, address=self._client))

    def error_received(self, error):
        pass

    def send(self, packet):
        if not self.transport.is_closing():
            self.transport.sendto(packet)


class ImpairmentProxy(asyncio.DatagramProtocol):
    """Listens on a port of loopback; each client gets a socket of its own towards the relay."""

    def __init__(self, relay, conditions, seed=1):
        self.conditions = conditions
        self.to_relay = Direction(seed)
        self.to_client = Direction(seed + 1)
        self.rebinds = 0
        self._relay = relay
        self._upstreams = {}
        self._arrivals = asyncio.Queue()

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self._forwarding = asyncio.create_task(self._forward())
        return self

    async def __aexit__(self, *error):
        self._forwarding.cancel()
        await asyncio.gather(self._forwarding, return_exceptions=True)
        for upstream in self._upstreams.values():
            upstream.transport.close()
        self.transport.close()
        await asyncio.sleep(0)

    @property
    def url(self):
        return f"https://127.0.0.1:{self.transport.get_extra_info('sockname')[1]}/"

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self._arrivals.put_nowait((data, address))

    def error_received(self, error):
        pass

    def send_to_client(self, packet, address):
        if not self.transport.is_closing():
            self.transport.sendto(packet, address)

    async def _forward(self):
        while True:
            packet, client = await self._arrivals.get()
            upstream = await self._upstream(client)
            self.to_relay.carry(packet, self.conditions, upstream.send)

    async def _upstream(self, client):
        loop = asyncio.get_running_loop()
        upstream = self._upstreams.get(client)
        every = self.conditions.rebind_every
        if upstream is not None and every and loop.time() - upstream.born > every:
            # What the relay still sends to the old port is lost, as behind a NAT that has forgotten it.
            upstream.transport.close()
            upstream = None
            self.rebinds += 1
        if upstream is None:
            _, upstream = await loop.create_datagram_endpoint(
                lambda: Upstream(self, client), remote_addr=self._relay
            )
            self._upstreams[client] = upstream
        return upstream
