"""What the conformance tests share: addresses, sockets inside namespaces, and packets made by hand."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from namespaces import Namespace

PATIENCE = 8.0
"""Seconds for anything to arrive."""

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"
EXTERNAL = "10.99.0.1"
SERVERS = ("10.99.0.2", "10.99.0.3", "10.99.0.4")


class Lab(NamedTuple):
    relay: Namespace
    outside: Namespace
    outside_device: str


class Sockets:
    """Opens sockets in namespaces; all are closed when the test ends."""

    def __init__(self, stack):
        self._stack = stack

    def _open(self, place, *arguments):
        namespace = getattr(place, "namespace", place)
        opened = self._stack.enter_context(namespace.socket(*arguments))
        opened.settimeout(PATIENCE)
        return opened

    def udp(self, place, address="", port=0):
        opened = self._open(place, socket.SOCK_DGRAM)
        opened.bind((address, port))
        return opened

    def tcp(self, place, address="", port=0):
        opened = self._open(place, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        return opened

    def icmp(self, place):
        """Whole IP packets with ICMP that arrive in ``place``; what is sent is ICMP without IP header."""
        return self._open(place, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    def ip(self, place):
        """Sends whole IP packets."""
        return self._open(place, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def ethernet(self, place, device):
        namespace = getattr(place, "namespace", place)
        opened = self._stack.enter_context(
            namespace.socket(socket.SOCK_RAW, socket.htons(0x0800), family=socket.AF_PACKET)
        )
        opened.bind((device, 0x0800))
        return opened


def external_of(inside, server):
    """Let a guest's socket write to a server's; give the external (address, port) that the server sees."""
    inside.sendto(b"where am I?", server.getsockname())
    while True:
        data, external = server.recvfrom(2048)
        if data == b"where am I?":
            return external


def udp_ports(relay):
    """UDP ports that the relay's machine has bound at this moment."""
    lines = Path(f"/proc/{relay.pid}/net/udp").read_text().splitlines()[1:]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}


def until(condition, *, every=0.02):
    """Wait for what has no event: a counter, a timer inside the relay."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(every)


def refusals(receiver, count=1):
    """The next ICMP errors of ``receiver``, parsed by scapy."""
    from scapy.layers.inet import ICMP, IP

    found = []
    while len(found) < count:
        packet = IP(receiver.recv(4096))
        if ICMP in packet and packet[ICMP].type in (3, 11, 12):
            found.append(packet)
    return found
