"""Guests that ask the gateway's name server, by any of its ways."""

from __future__ import annotations

import asyncio

from guests import GATEWAY_MAC
from processes import PATIENCE
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

GATEWAY_IP6 = "fd76:6d72:656c:6179::2"
SEGMENT = 800


def ip6_of(guest):
    """An address that no other guest has."""
    return "fd76:6d72:656c:6179::1:" + guest.mac[9:].replace(":", "", 1)


def to_gateway(guest, version):
    """The headers of a packet to the gateway, over IPv4 or IPv6."""
    if version == 4:
        return Ether(src=guest.mac, dst=GATEWAY_MAC) / IP(src=guest.address, dst="10.0.2.2")
    return Ether(src=guest.mac, dst=GATEWAY_MAC) / IPv6(src=ip6_of(guest), dst=GATEWAY_IP6)


class Stream:
    """A guest's TCP connection to the name server, just good enough to send."""

    def __init__(self, guest, version, port):
        self._guest = guest
        self._head = to_gateway(guest, version)
        self._port = port
        self._sent = 0
        self._ack = 0

    def _send(self, flags, payload=b""):
        segment = TCP(sport=self._port, dport=53, flags=flags, seq=self._sent, ack=self._ack, window=65535)
        self._guest.send_frames([bytes(self._head / segment / Raw(payload))])
        self._sent += len(payload)

    async def open(self):
        """Shake hands."""
        self._send("S")
        async with asyncio.timeout(PATIENCE):
            while True:
                for got in map(Ether, await self._guest.next_frames()):
                    if TCP in got and got[TCP].dport == self._port and got[TCP].flags == "SA":
                        self._sent, self._ack = 1, got[TCP].seq + 1
                        self._send("A")
                        return

    async def send(self, data, size=SEGMENT):
        """Send data in segments, whether or not what came before was acknowledged."""
        for at in range(0, len(data), size):
            self._send("PA", data[at : at + size])
            await self._guest.client.wait_writable()
            if at % (16 * size) == 0:
                await asyncio.sleep(0.002)
