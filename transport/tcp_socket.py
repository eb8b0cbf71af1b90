"""Host TCP connections of flows: non-blocking, read and written in batches as far as the flow's guest allows.

What nobody asked for stays in the kernel: a flow reads when it has room and is told once when there is
something after nothing was. The kernel's own buffers keep their automatic sizes, which long paths need; it
bounds them all together (``net.ipv4.tcp_mem``).

A NAT made of sockets maps a guest's address and port to one port of the host, whatever the guest connects to
(RFC 5382 REQ-1): all its connections bind that port. The system takes that while they differ in the remote
end, and no other flow gets the port meanwhile (REQ-7). Connections from outside to that port are not
answered by a connected socket, which is the filtering of REQ-3 at its strictest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import sys
import termios
from struct import Struct
from typing import TYPE_CHECKING

from actors.messages import ConnectionFailed, ConnectionMade, SendResult, SocketReadable, SocketWritable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from actors.messages import Mailbox
    from transport.readiness import Readiness

READ_SIZE = 64 * 1024
"""Bytes per call: as good as any larger number, and one flow cannot hold the loop for long."""

CHUNKS_PER_WRITE = 512
"""Pieces that one call may gather; the systems' own limit is 1024."""

GUESSED_ROOM = 256 * 1024
"""Bytes that a socket takes where the system does not tell how full it is."""

RESULTS = {
    errno.ECONNREFUSED: SendResult.REFUSED,
    errno.EHOSTUNREACH: SendResult.UNREACHABLE,
    errno.EHOSTDOWN: SendResult.UNREACHABLE,
    errno.ENETUNREACH: SendResult.NO_ROUTE,
    errno.ENETDOWN: SendResult.NO_ROUTE,
    errno.EADDRNOTAVAIL: SendResult.UNREACHABLE,
    errno.EPERM: SendResult.DENIED,
    errno.EACCES: SendResult.DENIED,
}
"""Why a connection was not made; all others (above all a time-out) are DROPPED, about which nobody speaks."""

_IN_PROGRESS = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK})
_ABORT = Struct("ii").pack(1, 0)
_LINUX = sys.platform == "linux"


class SharedPorts:
    """The host ports of guests' TCP ports, shared by the connections of each."""

    def __init__(self) -> None:
        self._used: dict[Hashable, tuple[int, int]] = {}
        """Port and number of connections, by owner. As many as there are flows at most."""

    def bind(self, opened: socket.socket, owner: Hashable, host: str) -> None:
        """Bind to the owner's port, or to a new one of the system's choice. Raises OSError."""
        port, users = self._used.get(owner, (0, 0))
        if port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        # Set after binding, so that the system chose a port that nobody else has.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._used[owner] = (opened.getsockname()[1], users + 1)

    def release(self, owner: Hashable) -> None:
        """Note that one connection has ended."""
        port, users = self._used[owner]
        if users > 1:
            self._used[owner] = (port, users - 1)
        else:
            del self._used[owner]

    def __len__(self) -> int:
        return len(self._used)


class TcpFlowSocket:
    """A host TCP connection that belongs to one flow; implements ``actors.ports.TcpSocket``."""

    def __init__(
        self, opened: socket.socket, flow: Mailbox, ready: Readiness, on_close: Callable[[], None]
    ) -> None:
        """Take a non-blocking socket; ``on_close`` is called once when it is closed."""
        self._ready = ready
        self._socket = opened
        self._flow = flow
        self._on_close = on_close
        self._waits_to_read = False
        self._waits_to_write = False
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self, address: tuple[str, int]) -> None:
        """Begin to connect; the flow is told ConnectionMade or ConnectionFailed, later."""
        number = self._socket.connect_ex(address)
        if number == 0:
            self._flow.tell(ConnectionMade())
        elif number in _IN_PROGRESS:
            self._ready.add_writer(self._socket, self._connected)
        else:
            self._flow.tell(ConnectionFailed(RESULTS.get(number, SendResult.DROPPED)))

    def _connected(self) -> None:
        self._ready.remove_writer(self._socket)
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._flow.tell(ConnectionFailed(RESULTS.get(number, SendResult.DROPPED)))
        else:
            self._flow.tell(ConnectionMade())

    @property
    def room(self) -> int:
        """Bytes that the system takes at present, about."""
        if not _LINUX:
            return GUESSED_ROOM
        size = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        queued = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return max(0, size - int.from_bytes(queued, sys.byteorder))

    def read(self, limit: int) -> bytes | None:
        """Read up to ``limit`` bytes; none at the end; None when there is nothing now.

        After None the flow is told SocketReadable when there is. Raises OSError when the connection failed.
        """
        if self._waits_to_read:
            return None
        try:
            return self._socket.recv(min(limit, READ_SIZE))
        except BlockingIOError:
            self._waits_to_read = True
            self._ready.add_reader(self._socket, self._readable)
            return None

    def _readable(self) -> None:
        self._waits_to_read = False
        self._ready.remove_reader(self._socket)
        self._flow.tell(SocketReadable())

    def write(self, chunks: Sequence[bytes]) -> int:
        """Write as much as the system takes; return the number of bytes. Raises OSError on failure."""
        if self._waits_to_write:
            return 0
        try:
            if len(chunks) == 1:
                return self._socket.send(chunks[0])
            return self._socket.sendmsg(chunks[:CHUNKS_PER_WRITE])
        except BlockingIOError:
            return 0

    def wait_for_room(self) -> None:
        """Have the flow told SocketWritable once there is room again."""
        if not self._waits_to_write:
            self._waits_to_write = True
            self._ready.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        self._waits_to_write = False
        self._ready.remove_writer(self._socket)
        self._flow.tell(SocketWritable())

    def shut_down(self) -> None:
        """End the direction to the host, after all that was written. Raises OSError on failure."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, abort: bool = False) -> None:
        """Close, with a RST if ``abort``; harmless when closed already. The flow is told nothing any more."""
        if self._socket.fileno() < 0:
            return
        self._ready.remove_reader(self._socket)
        self._ready.remove_writer(self._socket)
        if abort:
            reset_at_close(self._socket)
        self._socket.close()
        self._on_close()


def reset_at_close(opened: socket.socket) -> None:
    """Have the remote end told by a RST when the socket is closed."""
    with contextlib.suppress(OSError):  # reset already, on some systems
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


class DeniedTcpSocket:
    """Stands for a connection that the egress policy forbids: no socket was opened."""

    room = 0

    def __init__(self, flow: Mailbox) -> None:
        flow.tell(ConnectionFailed(SendResult.DENIED))

    def read(self, limit: int) -> bytes | None:  # noqa: ARG002 - nothing ever comes
        """Nothing."""
        return None

    def write(self, chunks: Sequence[bytes]) -> int:  # noqa: ARG002 - nothing is ever taken
        """Take nothing."""
        return 0

    def wait_for_room(self) -> None:
        """Wait for what never comes."""

    def shut_down(self) -> None:
        """Nothing to end."""

    def close(self, *, abort: bool = False) -> None:
        """Nothing to close."""


def open_tcp(
    flow: Mailbox, address: tuple[str, int], owner: Hashable, ports: SharedPorts, ready: Readiness
) -> TcpFlowSocket:
    """Connect to ``address`` (text, IPv4 or IPv6) for ``flow``. Raises OSError when no socket can be had."""
    family, host = (socket.AF_INET6, "::") if ":" in address[0] else (socket.AF_INET, "0.0.0.0")
    key = (family, owner)
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        ports.bind(opened, key, host)
    except OSError:
        opened.close()
        raise
    connection = TcpFlowSocket(opened, flow, ready, lambda: ports.release(key))
    connection.connect(address)
    return connection
