"""One UDP socket, drained and filled in batches.

With ``UDP_GRO`` (Linux 5.0) one ``recvmsg`` returns up to 64 KB of equal-sized packets of one sender, with
``UDP_SEGMENT`` (Linux 4.18) one ``sendmsg`` sends as many: about 1 µs a packet instead of 10. Where the
kernel has neither, every packet is a system call of its own and nothing else changes.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netstack.counters import Counters

Address = tuple[Any, ...]
"""A socket address as Python gives it: (host, port) or (host, port, flow, scope)."""
Run = tuple[list[bytes], Address]
"""Packets of one sender, in order, and its address."""

UDP_SEGMENT = 103
"""Linux, level SOL_UDP: size of the packets that one send is cut into (linux/udp.h)."""
UDP_GRO = 104
"""Linux, level SOL_UDP: let one receive return several packets; their size is in a control message."""

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3
"""Linux, levels IPPROTO_IP and IPPROTO_IPV6: set DF and ignore what the kernel thinks of the path (ip(7))."""

READ_SIZE = 65535
"""The largest UDP payload, and the most that GRO puts into one buffer."""
READS_PER_TURN = 64
"""Reads per readiness event: bounds a turn, so that timers and other sockets get their share."""
PACKETS_PER_SEND = 60
"""The kernel takes at most 64 segments per send (UDP_MAX_SEGMENTS)."""
BYTES_PER_SEND = 65000
"""And no more than one IPv4 packet holds."""
SOCKET_BUFFER = 4 * 1024 * 1024
"""Asked of the kernel (it grants less without privileges); bursts wait here while a turn runs."""

_SEGMENT_SIZE = struct.Struct("H")
_CONTROL_SIZE = socket.CMSG_SPACE(4) if sys.platform != "win32" else 0
UNSUPPORTED_OFFLOAD = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
"""What sending a run fails with where the device behind the route cannot cut it."""


def end_of_run(packets: Sequence[bytes], start: int) -> int:
    """Return where the run ends that begins at ``start`` and that one call may send.

    Its packets have one size, which only the last of them may undercut; an empty one would get lost.
    """
    size = len(packets[start])
    last = min(len(packets), start + min(PACKETS_PER_SEND, BYTES_PER_SEND // size if size else 1))
    end = start + 1
    while end < last and 0 < len(packets[end]) <= size:
        end += 1
        if len(packets[end - 1]) < size:
            break
    return end


def send_run(opened: socket.socket, packets: Sequence[bytes], address: Address) -> None:
    """Send the packets of a run with one call. Raises OSError: then none of them was sent."""
    control = [(socket.SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(len(packets[0])))]
    opened.sendmsg(packets, control, 0, address)


class UdpSocket:
    """A bound, non-blocking UDP socket. IPv6 wildcards also take IPv4 clients."""

    def __init__(self, host: str, port: int, counters: Counters) -> None:
        """Bind to ``host`` (a name or an address) and ``port`` (0: any). Raises OSError."""
        self._counters = counters
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setblocking(False)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
            self._set_dont_fragment(family)
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        self.receive_offload = self._has_option(UDP_GRO, 1)
        self.send_offload = self._has_option(UDP_SEGMENT, 0)

    def _has_option(self, option: int, value: int) -> bool:
        if sys.platform != "linux":
            return False
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_UDP, option, value)
            return True
        return False

    def _set_dont_fragment(self, family: int) -> None:
        """Have packets that are too large dropped, not fragmented, so that probes find the path's size."""
        if sys.platform != "linux":
            return
        self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)

    @property
    def port(self) -> int:
        """The port that the socket is bound to."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """File descriptor, for the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def drain(self, reads: int = READS_PER_TURN) -> list[Run]:
        """Read what has arrived, with at most ``reads`` calls."""
        runs: list[Run] = []
        recvmsg = self._socket.recvmsg
        for _ in range(reads):
            try:
                data, control, _flags, address = recvmsg(READ_SIZE, _CONTROL_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # Linux reports ICMP errors of earlier sends here; the connection's own timers deal with them.
                self._counters.add("udp.receive_error")
                continue
            if control:
                size = int.from_bytes(control[0][2][:4], sys.byteorder)
                if 0 < size < len(data):
                    runs.append(([data[at : at + size] for at in range(0, len(data), size)], address))
                    continue
            runs.append(([data], address))
        return runs

    def send(self, packets: Sequence[bytes], address: Address) -> None:
        """Send packets to one address, in order; what the host's buffer does not take is lost."""
        count = len(packets)
        if count == 1 or not self.send_offload:
            for packet in packets:
                self._send_one(packet, address)
            return
        start = 0
        while start < count:
            end = end_of_run(packets, start)
            if end == start + 1:
                self._send_one(packets[start], address)
            else:
                self._send_run(packets[start:end], address)
            start = end

    def _send_one(self, packet: bytes, address: Address) -> None:
        try:
            self._socket.sendto(packet, address)
        except OSError as error:
            self._count_lost(error, 1)

    def _send_run(self, packets: Sequence[bytes], address: Address) -> None:
        try:
            send_run(self._socket, packets, address)
        except OSError as error:
            if error.errno in UNSUPPORTED_OFFLOAD:
                # The option is there but the device behind the route cannot do it: never try again.
                self.send_offload = False
                for packet in packets:
                    self._send_one(packet, address)
                return
            self._count_lost(error, len(packets))

    def _count_lost(self, error: OSError, packets: int) -> None:
        full = error.errno in (errno.EAGAIN, errno.ENOBUFS)
        self._counters.add("udp.drop.buffer_full" if full else "udp.drop.send_error", packets)
