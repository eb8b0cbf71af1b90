"""Guests that ask the gateway's name server, by any of its ways."""

from __future__ import annotations

import asyncio
import struct
from ipaddress import ip_address

from guests import GATEWAY_MAC
from processes import PATIENCE
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from netstack.checksum import add_up, finish, pseudo_header
from netstack.ipv4 import build_ipv4
from netstack.ipv6 import build_ipv6
from netstack.tcp_segment import PROTOCOL_TCP

GATEWAY_IP6 = "fd76:6d72:656c:6179::2"
SEGMENT = 800
TCP_HEADER = struct.Struct("!HHIIBBHHH")
SYN, PSH, ACK = 0x02, 0x08, 0x10


def ip6_of(guest):
    """An address that no other guest has."""
    return "fd76:6d72:656c:6179::1:" + guest.mac[9:].replace(":", "", 1)


class Stream:
    """A guest's TCP connection to the name server, just good enough to send."""

    def __init__(self, guest, version, port):
        ends = (guest.address, "10.0.2.2") if version == 4 else (ip6_of(guest), GATEWAY_IP6)
        self._source, self._destination = (ip_address(end).packed for end in ends)
        self._macs = bytes.fromhex((GATEWAY_MAC + guest.mac).replace(":", ""))
        self._build = build_ipv4 if version == 4 else build_ipv6
        self._guest = guest
        self._port = port
        self._sent = 0
        self._ack = 0

    def _send(self, flags, payload=b""):
        # Not by scapy, which takes a millisecond for each: the attack would be on this process.
        numbers = (self._port, 53, self._sent, self._ack, 5 << 4, flags, 65535)
        length = TCP_HEADER.size + len(payload)
        total = pseudo_header(self._source, self._destination, PROTOCOL_TCP, length)
        total += add_up(TCP_HEADER.pack(*numbers, 0, 0) + payload)
        segment = TCP_HEADER.pack(*numbers, finish(total), 0) + payload
        frame = self._build(self._macs, self._source, self._destination, PROTOCOL_TCP, segment)
        self._guest.send_frames([frame])
        self._sent += len(payload)

    async def open(self):
        """Shake hands."""
        self._send(SYN)
        async with asyncio.timeout(PATIENCE):
            while True:
                for got in map(Ether, await self._guest.next_frames()):
                    if TCP in got and got[TCP].dport == self._port and got[TCP].flags == "SA":
                        self._sent, self._ack = 1, got[TCP].seq + 1
                        self._send(ACK)
                        return

    async def send(self, data, size=SEGMENT):
        """Send data in segments, whether or not what came before was acknowledged."""
        for at in range(0, len(data), size):
            self._send(PSH | ACK, data[at : at + size])
            await self._guest.client.wait_writable()
            if at % (16 * size) == 0:
                await asyncio.sleep(0.002)
