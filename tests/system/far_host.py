"""A host whose TCP is the test's own: it hears and says one segment after the other, through a TUN device.

The device is a cable that ends in the test. What a kernel would never do in a test's stead (SYNs that cross)
can be done here at the right moment, and every number is known.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

DEVICE = "far0"
FIRST = 1_000_000_000
"""The sequence number of this host's SYN."""

PATIENCE = 8.0
"""Seconds for a segment to come, repetitions of others notwithstanding."""

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x1, 0x1000


class FarHost:
    """A host at ``address`` with TCP on ``port``; ``namespace`` reaches it from its own address ``peer``."""

    def __init__(self, namespace, address, peer, port):
        self.address, self.peer, self.port = address, peer, port
        self.peer_port = 0
        self.sequence = FIRST
        """Number of what is said next."""
        self.expected = None
        """Number of what has to come next; None before the peer's SYN."""
        with namespace.entered():
            self._device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(
                self._device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
            )
        namespace.run("ip", "link", "set", DEVICE, "up")
        namespace.run("ip", "route", "add", f"{address}/32", "dev", DEVICE, "src", peer)

    def close(self):
        """Pull the cable, with which the device and its route go too."""
        os.close(self._device)

    def hear(self, flags, *, size=0):
        """The next segment with these flags (PSH aside) and ``size`` bytes that acknowledges all said so far.

        Others are passed over (they are repetitions), but a RST is never right. What is said to other ports
        belongs to connections of others.
        """
        deadline, passed = time.monotonic() + PATIENCE, []
        while True:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self._device], [], [], left)[0], f"{flags} never came, but {passed}"
            packet = IP(os.read(self._device, 65_536))
            if packet.version != 4 or TCP not in packet or packet.dst != self.address:
                continue
            segment = packet[TCP]
            if segment.dport != self.port or self.peer_port not in (0, segment.sport):
                continue
            assert "R" not in segment.flags, "the connection was reset"
            heard = str(segment.flags).replace("P", "")
            up_to_date = not segment.flags.A or segment.ack == self.sequence
            if (heard, len(segment.payload)) == (flags, size) and up_to_date:
                self._note(segment, size)
                return segment
            passed.append(segment.summary())

    def say(self, flags, data=b"", *, sequence=None):
        """Send one segment, with the next ``sequence`` number where none is given."""
        segment = TCP(
            sport=self.port,
            dport=self.peer_port,
            flags=flags,
            seq=self.sequence if sequence is None else sequence,
            ack=self.expected if "A" in flags else 0,
        )
        os.write(self._device, bytes(IP(src=self.address, dst=self.peer) / segment / Raw(data)))
        if sequence is None:
            self.sequence += len(data) + ("S" in flags) + ("F" in flags)

    def _note(self, segment, size):
        self.peer_port = segment.sport
        if self.expected is None or "S" not in segment.flags:
            assert self.expected in (None, segment.seq)
            self.expected = segment.seq + size + ("S" in segment.flags) + ("F" in segment.flags)
