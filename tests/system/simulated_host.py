"""As much of a system behind a NIC as answers ARP requests and pings, and sends them."""

from __future__ import annotations

import asyncio
import itertools

from waiting import until

from netstack.arp import parse_arp
from netstack.checksum import PROTOCOL_ICMP
from netstack.ethernet import BROADCAST, ETHERTYPE_ARP
from netstack.icmp import ECHO_REPLY, ECHO_REQUEST, build_echo, parse_icmp
from netstack.ipv4 import build_ipv4, parse_ipv4
from netstack.malformed import MalformedPacket

REQUEST, REPLY = b"\0\1", b"\0\2"


class Host:
    """As much of a system as answers ARP requests and pings, and sends them."""

    def __init__(self, nic):
        self.nic = nic
        self.ip = nic.assigned.ip.packed
        self.neighbours = {}
        self.pongs = set()
        self._numbers = itertools.count(1)
        self._task = asyncio.create_task(self._run())

    def stop(self):
        self._task.cancel()

    async def _run(self):
        while True:
            for frame in await self.nic.recv_batch():
                self._take(frame)

    def _take(self, frame):
        if frame[12:14] == ETHERTYPE_ARP:
            asked = parse_arp(frame)
            if asked.operation == 2:
                self.neighbours[asked.sender_ip] = asked.sender_mac
            elif asked.target_ip == self.ip:
                self._arp(asked.sender_mac, REPLY, asked.sender_mac, asked.sender_ip)
            return
        try:
            packet = parse_ipv4(frame)
            message = parse_icmp(packet.payload)
        except MalformedPacket:
            return
        if packet.destination != self.ip:
            return
        if message.type == ECHO_REQUEST:
            self._echo(frame[6:12], packet.source, ECHO_REPLY, message.sequence)
        elif message.type == ECHO_REPLY:
            self.pongs.add((packet.source, message.sequence))

    def _arp(self, to, operation, target_mac, target):
        body = b"\0\1\x08\0\6\4" + operation + self.nic.mac + self.ip + target_mac + target
        self.nic.send([to + self.nic.mac + ETHERTYPE_ARP + body])

    def _echo(self, mac, destination, kind, number):
        echo = build_echo(kind, 7, number, b"hello")
        self.nic.send([build_ipv4(mac + self.nic.mac, self.ip, destination, PROTOCOL_ICMP, echo)])

    async def ping(self, other):
        """Find a host, and ping it until it has answered once."""
        number = next(self._numbers)

        def answered():
            mac = self.neighbours.get(other.ip)
            if mac is None:
                self._arp(BROADCAST, REQUEST, bytes(6), other.ip)
            else:
                self._echo(mac, other.ip, ECHO_REQUEST, number)
            return (other.ip, number) in self.pongs

        await until(answered, every=0.05)
        assert self.neighbours[other.ip] == other.nic.mac
