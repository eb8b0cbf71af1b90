"""What the conformance tests share: addresses, sockets inside namespaces, and packets made by hand."""

from __future__ import annotations

import itertools
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from namespaces import reset_at_close

if TYPE_CHECKING:
    from namespaces import Namespace

PATIENCE = 8.0
"""Seconds for anything to arrive."""

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"
EXTERNAL = "10.99.0.1"
SERVERS = ("10.99.0.2", "10.99.0.3", "10.99.0.4")


_questions = itertools.count()


class Lab(NamedTuple):
    relay: Namespace
    outside: Namespace


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
        """A connection that is there still when the test ends is aborted: later tests hear nothing of it."""
        opened = self._open(place, socket.SOCK_STREAM)
        self._stack.callback(reset_at_close, opened)
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
    question = b"where am I? %d" % next(_questions)
    inside.sendto(question, server.getsockname())
    while True:
        data, external = server.recvfrom(2048)
        if data == question:
            return external


def udp_ports(relay):
    """UDP ports that a relay has bound at this moment, those of the other relays of its machine left out."""
    sockets = set()
    for descriptor in Path(f"/proc/{relay.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                sockets.add(found[1])
    lines = [line.split() for line in Path(f"/proc/{relay.pid}/net/udp").read_text().splitlines()[1:]]
    return {int(line[1].rpartition(":")[2], 16) for line in lines if line[9] in sockets}


def refusal(ears, *, to, of=None):
    """The next ICMP error about what was sent to ``to`` (address and port), from the port ``of`` where given.

    ``ears`` is a raw socket, which hears all that is said to its machine: others' errors are passed over.
    """
    from scapy.layers.inet import ICMP, IP

    while True:
        packet = IP(ears.recv(4096))
        if ICMP not in packet or packet[ICMP].type not in (3, 11, 12):
            continue
        quoted = packet[ICMP].payload
        ports = getattr(quoted, "sport", None), getattr(quoted, "dport", None)
        if (quoted.dst, ports[1]) == to and of in (None, ports[0]):
            return packet


def port_of(opened):
    return opened.getsockname()[1]


def echo_request(ears, payload):
    """The next ping with this payload that reaches a raw socket, as an IP packet."""
    from scapy.layers.inet import ICMP, IP

    while True:
        packet = IP(ears.recv(4096))
        if ICMP in packet and packet[ICMP].type == 8 and bytes(packet[ICMP].payload) == payload:
            return packet
