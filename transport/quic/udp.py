"""One UDP socket, drained and filled in batches.

With ``UDP_GRO`` (Linux 5.0) one ``recvmsg`` returns up to 64 KB of equal-sized packets of one sender, with
``UDP_SEGMENT`` (Linux 4.18) one ``sendmsg`` sends as many: about 1 µs a packet instead of 10. Where the
kernel has neither, every packet is a system call of its own and nothing else changes.

A socket that is bound to every address answers from the one that was written to: QUIC clients drop what
comes from another (RFC 9000, 9). That address comes with each read, and is a part of the client's. Clients
that come by IPv4 have IPv4 addresses, on an IPv6 socket too.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

from mypy_extensions import mypyc_attr

from transport.binding import EVERY, MAPPED, bound_sockets, unmapped
from transport.packet_info import IP_PKTINFO, PACKET_INFO_SPACE, tell_local_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netstack.counters import Counters

Address = tuple[Any, ...]
"""Where a client is, ``(host, port, ...)``, and from which address of this machine it is answered: two are
equal only if both are. The rest is for the socket alone that it came from."""
Run = tuple[list[bytes], Address]
"""Packets of one sender, in order, and its address: all of one size, which the last one may undercut. Where
the first is empty it is alone."""

UDP_SEGMENT: Final = 103
"""Linux, level SOL_UDP: size of the packets that one send is cut into (linux/udp.h)."""
UDP_GRO: Final = 104
"""Linux, level SOL_UDP: let one receive return several packets; their size is in a control message."""

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3
"""Linux, levels IPPROTO_IP and IPPROTO_IPV6: set DF and ignore what the kernel thinks of the path (ip(7))."""

READ_SIZE: Final = 65535
"""The largest UDP payload, and the most that GRO puts into one buffer."""
READS_PER_TURN: Final = 64
"""Reads per readiness event: bounds a turn, so that timers and other sockets get their share."""
PACKETS_PER_SEND: Final = 60
"""The kernel takes at most 64 segments per send (UDP_MAX_SEGMENTS)."""
BYTES_PER_SEND: Final = 65000
"""And no more than one IPv4 packet holds."""
SOCKET_BUFFER: Final = 4 * 1024 * 1024
"""Asked of the kernel (it grants less without privileges); bursts wait here while a turn runs, and a flood
that fills it takes everybody's packets along."""
ENOUGH_BUFFER: Final = 1 << 20
"""Bytes that a socket should be allowed to hold: 8 ms of 1 Gbit/s."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
"""Linux: the same beyond net.core.wmem_max and rmem_max, for who has CAP_NET_ADMIN (socket(7))."""

_SEGMENT_SIZE: Final = struct.Struct("H")
_CONTROL_SIZE: Final = PACKET_INFO_SPACE + (socket.CMSG_SPACE(4) if sys.platform != "win32" else 0)
_NO_INTERFACE: Final = bytes(4)
MULTICAST: Final = 0xFF
"""First byte of multicast addresses, from which nothing is sent (RFC 4291, 2.7)."""
LINK_LOCAL_FROM, LINK_LOCAL_TO = b"\xfe\x80", b"\xfe\xbf"
"""First bytes of link-local addresses (RFC 4291, 2.5.6)."""
UNSUPPORTED_OFFLOAD: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
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


Ancillary = tuple[int, int, bytes]
"""Ancillary data as sendmsg takes them: level, type, value."""


def send_run(
    opened: socket.socket,
    packets: Sequence[bytes],
    address: Address | None,
    control: Sequence[Ancillary] = (),
) -> None:
    """Send the packets of a run with one call. Raises OSError: then none of them was sent.

    ``address`` is None for a connected socket.
    """
    cut = (socket.SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(len(packets[0])))
    opened.sendmsg(packets, [*control, cut], 0, address)


def enlarge_buffers(opened: socket.socket) -> None:
    """Have a UDP socket hold SOCKET_BUFFER bytes each way, or what this process is granted."""
    for option, beyond_limits in (
        (socket.SO_RCVBUF, _SO_RCVBUFFORCE),
        (socket.SO_SNDBUF, _SO_SNDBUFFORCE),
    ):
        opened.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, beyond_limits, SOCKET_BUFFER)


def receive_buffer(opened: socket.socket) -> int:
    """Bytes that the kernel granted; it tells twice as many (socket(7))."""
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _prepare(opened: socket.socket, host: str) -> None:
    """Set what goes for every UDP socket of QUIC's; ``host`` is the address that it will be bound to."""
    enlarge_buffers(opened)
    if host in EVERY:
        tell_local_addresses(opened)
    if sys.platform == "linux":
        # What is too large is to be dropped, not fragmented, so that probes find the path's size.
        opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)


def bound_udp_sockets(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Bind as ``binding.bound_sockets`` does; ``shared`` with others that do the same. Raises OSError."""

    def prepare(opened: socket.socket, address: str) -> None:
        _prepare(opened, address)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    return bound_sockets(socket.SOCK_DGRAM, host, port, prepare)


@mypyc_attr(allow_interpreted_subclasses=True)
class BatchedUdpSocket:
    """An open, non-blocking UDP socket."""

    def __init__(
        self, opened: socket.socket, counters: Counters, on_error: Callable[[OSError], None] | None = None
    ) -> None:
        """``on_error`` is told what the network, or the host, says of the way to the other side."""
        self._socket = opened
        self._counters = counters
        self._on_error = on_error
        self._is_ipv6 = opened.family == socket.AF_INET6
        self._everywhere = opened.getsockname()[0] in EVERY
        """Whether it is bound to all addresses: clients come to any of them, and by either IP version."""
        self.receive_offload = self._has_option(UDP_GRO, 1)
        self.send_offload = self._has_option(UDP_SEGMENT, 0)

    def _has_option(self, option: int, value: int) -> bool:
        if sys.platform != "linux":
            return False
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_UDP, option, value)
            return True
        return False

    @property
    def port(self) -> int:
        """The port that the socket is bound to."""
        return int(self._socket.getsockname()[1])

    @property
    def receive_buffer(self) -> int:
        """Bytes of packets that wait to be read at most."""
        return receive_buffer(self._socket)

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
            except OSError as error:
                # Linux reports ICMP errors of earlier sends here; the connection's own timers deal with them.
                self._counters.add("udp.receive_error")
                if self._on_error is not None:
                    self._on_error(error)
                continue
            size = 0
            info = b""
            for level, _kind, value in control:
                if level == socket.SOL_UDP:
                    size = int.from_bytes(value[:4], sys.byteorder)
                else:
                    info = value
            if self._everywhere:
                address = self._client(address, info)
            if 0 < size < len(data):
                runs.append(([data[at : at + size] for at in range(0, len(data), size)], address))
            else:
                runs.append(([data], address))
        return runs

    def _client(self, address: Address, info: bytes) -> Address:
        """Name a client: host, port, scope, and the packet info that has it answered from ``info``'s address.

        Without packet info (systems other than Linux) the host's routing chooses the address.
        The interface is left out, since answers may go by another; except where an address means nothing
        without it.
        """
        if not self._is_ipv6:
            return address[0], address[1], 0, info and _NO_INTERFACE + info[4:8] + _NO_INTERFACE
        host: str = address[0]
        if not info or info[0] == MULTICAST:
            info = b""
        elif not LINK_LOCAL_FROM <= info[:2] <= LINK_LOCAL_TO:
            info = info[:16] + _NO_INTERFACE
        return unmapped(host), address[1], address[3], info

    def _way_to(self, client: Address, /) -> tuple[Address | None, list[Ancillary]]:
        """Return where to send and, as ancillary data, from where; undoes ``_client``."""
        if not self._everywhere:
            return client, []
        host, port, scope, info = client
        if not self._is_ipv6:
            return (host, port), [(socket.IPPROTO_IP, IP_PKTINFO, info)] if info else []
        destination = (host, port, 0, scope) if ":" in host else (MAPPED + host, port)
        return destination, [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)] if info else []

    def send(self, packets: Sequence[bytes], client: Address) -> None:
        """Send packets to one client, in order; what the host's buffer does not take is lost."""
        address, control = self._way_to(client)
        count = len(packets)
        if count == 1 or not self.send_offload:
            for packet in packets:
                self._send_one(packet, address, control)
            return
        start = 0
        while start < count:
            end = end_of_run(packets, start)
            if end == start + 1:
                self._send_one(packets[start], address, control)
            else:
                self._send_run(packets[start:end], address, control)
            start = end

    def _send_one(self, packet: bytes, address: Address | None, control: list[Ancillary]) -> bool:
        """Send a packet; tell whether the kernel took it."""
        try:
            if address is None:
                self._socket.send(packet)
            elif control:
                self._socket.sendmsg([packet], control, 0, address)
            else:
                self._socket.sendto(packet, address)
        except OSError as error:
            self._count_lost(error, 1)
            return False
        return True

    def _send_run(self, packets: Sequence[bytes], address: Address | None, control: list[Ancillary]) -> None:
        try:
            send_run(self._socket, packets, address, control)
        except OSError as error:
            if error.errno not in UNSUPPORTED_OFFLOAD:
                self._count_lost(error, len(packets))
                return
            # Perhaps the device behind the route cannot cut them. Or they cannot be sent at all (the address
            # that the client wrote to may be gone): then one alone cannot either.
            taken = [self._send_one(packet, address, control) for packet in packets]
            self.send_offload = not taken[0]

    def _count_lost(self, error: OSError, packets: int) -> None:
        full = error.errno in (errno.EAGAIN, errno.ENOBUFS)
        self._counters.add("udp.drop.buffer_full" if full else "udp.drop.send_error", packets)
        # A packet that is too large for the first link was a probe of the path's size.
        if self._on_error is not None and not full and error.errno != errno.EMSGSIZE:
            self._on_error(error)


class ServerUdpSocket(BatchedUdpSocket):
    """A bound socket, for a server: clients come from everywhere.

    Where a name has several addresses, it is a socket for each. A client's address then tells which one it
    came to, and is ``(host, port, number, address)`` with its address as that socket has it.
    """

    def __init__(
        self, host: str, port: int, counters: Counters, opened: Sequence[socket.socket] = ()
    ) -> None:
        """Bind as ``binding.bound_sockets`` does, or take what was ``opened`` so. Raises OSError."""
        first, *others = opened or bound_udp_sockets(host, port)
        super().__init__(first, counters)
        self._others = [BatchedUdpSocket(other, counters) for other in others]

    def filenos(self) -> list[int]:
        """File descriptors, for the event loop."""
        return [self.fileno(), *(other.fileno() for other in self._others)]

    def close(self) -> None:
        """Close the sockets."""
        super().close()
        for other in self._others:
            other.close()

    def drain(self, reads: int = READS_PER_TURN) -> list[Run]:
        """Read what has arrived, with at most ``reads`` calls for each socket."""
        runs = super().drain(reads)
        if self._others:
            runs = [(packets, (*address[:2], 0, address)) for packets, address in runs]
            for number, other in enumerate(self._others, 1):
                runs += [
                    (packets, (*address[:2], number, address)) for packets, address in other.drain(reads)
                ]
        return runs

    def send(self, packets: Sequence[bytes], client: Address) -> None:
        """Send packets to one client, in order; what the host's buffer does not take is lost."""
        if not self._others:
            super().send(packets, client)
            return
        _, _, number, address = client
        if number:
            self._others[number - 1].send(packets, address)
        else:
            super().send(packets, address)


class ConnectedUdpSocket(BatchedUdpSocket):
    """A connected socket, for a client: the kernel checks the sender and reports a refused port."""

    def __init__(
        self, family: int, address: Address, counters: Counters, on_error: Callable[[OSError], None]
    ) -> None:
        """Connect to ``address``. Raises OSError."""
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            _prepare(opened, "")
            opened.connect(address)
        except OSError:
            opened.close()
            raise
        super().__init__(opened, counters, on_error)

    def _way_to(self, _client: Address, /) -> tuple[Address | None, list[Ancillary]]:
        return None, []
