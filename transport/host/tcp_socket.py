"""Host TCP connections of flows: non-blocking, read and written in batches as far as the flow's guest allows.

What nobody asked for stays in the kernel: a flow reads when it has room and is told once when there is
something after nothing was. The kernel's own buffers keep their automatic sizes, which long paths need; it
bounds them all together (``net.ipv4.tcp_mem``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
import termios
from struct import Struct
from typing import TYPE_CHECKING

from actors.messages import ConnectionFailed, ConnectionMade, SocketReadable, SocketWritable
from actors.ports import SendResult
from transport.host.errors import result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.runtime import Mailbox
    from transport.host.readiness import Readiness

READ_SIZE = 64 * 1024
"""Bytes per call: as good as any larger number, and one flow cannot hold the loop for long."""

CHUNKS_PER_WRITE = 512
"""Pieces that one call may gather; the systems' own limit is 1024."""

GUESSED_ROOM = 256 * 1024
"""Bytes that a socket takes where the system does not tell how full it is."""

KEEP_ALIVE_PROBES = 4
"""Probes without an answer after which the other end is gone: one or two may get lost."""

KEEP_ALIVE_INTERVAL = 60
"""Seconds between probes at most."""

_IN_PROGRESS = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK})
_RESET_AFTER_CONNECTING = frozenset({errno.ECONNRESET, errno.EPIPE})
"""The other end had accepted, and has reset the connection since; EPIPE behind its end. A SYN that a RST
answers is ECONNREFUSED."""
_ABORT = Struct("ii").pack(1, 0)
_TCP_CLOSE = 7
"""State of a socket whose connection failed (tcp(7), TCP_INFO)."""
_LINUX = sys.platform == "linux"
_TCP_KEEPIDLE: int | None = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
"""macOS calls it TCP_KEEPALIVE."""


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
        self._failure = 0
        """What the connection failed with before the flow knew of it; 0 for nothing."""
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Urgent bytes are read where they stand in the stream (RFC 6093), and not lost.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    @property
    def local_port(self) -> int | None:
        """The port of this machine; None where the system does not say."""
        with contextlib.suppress(OSError):
            number: int = self._socket.getsockname()[1]
            return number
        return None

    @property
    def far_end(self) -> tuple[str, int] | None:
        """Address and port outside; None before there is a connection."""
        with contextlib.suppress(OSError):
            host, port = self._socket.getpeername()[:2]
            return str(host).removeprefix("::ffff:"), port
        return None

    def follow(self, number: int) -> None:
        """Tell the flow ConnectionMade or ConnectionFailed, later; ``number`` is what connect_ex returned."""
        if number == 0:
            self._flow.tell(ConnectionMade())
        elif number in _IN_PROGRESS:
            self._ready.add_writer(self._socket, self._connected)
        else:
            self._flow.tell(ConnectionFailed(result_of(number)))

    def _connected(self) -> None:
        self._ready.remove_writer(self._socket)
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number in _RESET_AFTER_CONNECTING:
            # The system has told of it for the only time, and what came before it can still be read.
            self._failure, number = number, 0
        if number:
            self._flow.tell(ConnectionFailed(result_of(number)))
        else:
            self._flow.tell(ConnectionMade())

    @property
    def room(self) -> int:
        """Bytes that the system takes at present, about."""
        if not _LINUX:
            return GUESSED_ROOM
        size = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return max(0, size - self._queued())

    @property
    def unsent(self) -> int:
        """Bytes written that the other end has not acknowledged and still may.

        0 where the system does not tell, and when the connection failed.
        """
        if not _LINUX or self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            return 0
        return self._queued()

    def _queued(self) -> int:
        queued = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(queued, sys.byteorder)

    def keep_alive(self, seconds: float) -> None:
        """Have the other end probed after ``seconds`` of silence; never for 0.

        It is taken as gone, and the connection fails, when KEEP_ALIVE_PROBES of them in a row, at a quarter
        of the time but at most KEEP_ALIVE_INTERVAL apart, have no answer.
        """
        if not seconds:
            return
        opened = self._socket
        interval = max(1, min(int(seconds / 4), KEEP_ALIVE_INTERVAL))
        options = (
            (_TCP_KEEPIDLE, max(1, int(seconds))),
            (getattr(socket, "TCP_KEEPINTVL", None), interval),
            (getattr(socket, "TCP_KEEPCNT", None), KEEP_ALIVE_PROBES),
        )
        with contextlib.suppress(OSError):  # reset already, on some systems
            for option, value in options:
                if option is not None:
                    opened.setsockopt(socket.IPPROTO_TCP, option, value)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def read(self, limit: int) -> bytes | None:
        """Read up to ``limit`` bytes; none at the end; None when there is nothing now.

        After None the flow is told SocketReadable when there is. Raises OSError when the connection failed.
        """
        if self._waits_to_read:
            return None
        try:
            data = self._socket.recv(min(limit, READ_SIZE))
        except BlockingIOError:
            self._waits_to_read = True
            self._ready.add_reader(self._socket, self._readable)
            return None
        if not data and self._failure:
            raise OSError(self._failure, os.strerror(self._failure))
        return data

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

    room = unsent = 0
    local_port = far_end = None

    def __init__(self, flow: Mailbox) -> None:
        flow.tell(ConnectionFailed(SendResult.DENIED))

    def keep_alive(self, seconds: float) -> None:
        """Nobody is there to be probed."""

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
