"""Ports of this machine that lead to guests: what clients outside send, and the connections they open.

IPv6 ports are for IPv6 only: another of the same number may listen on IPv4.

The egress policy has no say here: a forward answers only whoever wrote to it first, and the operator named
the port. A client that opened a TCP connection waits until the guest has answered: the connection is taken,
but not read before.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from actors.messages import (
    ConnectionAccepted,
    ConnectionMade,
    DatagramFromNet,
    DatagramsFromNet,
    SendResult,
)
from transport.host_socket import DATAGRAMS_PER_TURN, RECEIVE_BUFFER
from transport.tcp_socket import TcpFlowSocket

if TYPE_CHECKING:
    from actors.messages import Mailbox
    from netstack.counters import Counters
    from transport.readiness import Readiness

BACKLOG = 128
"""Connections that wait in the kernel for their turn."""

ACCEPTS_PER_TURN = 64
"""Connections taken per turn of the loop."""

ACCEPT_PAUSE = 1.0
"""Seconds without accepting after the system had no more sockets: a readable listener would wake the loop."""

_TTL = 64
_buffer = bytearray(65536)


class UdpListener:
    """A bound UDP port; implements ``actors.ports.UdpListener``."""

    def __init__(self, owner: Mailbox, host: str, port: int, ready: Readiness) -> None:
        """Bind; raises OSError. What comes is told to ``owner`` as DatagramsFromNet."""
        self._owner = owner
        self._ready = ready
        self._socket = _bound(socket.SOCK_DGRAM, host, port)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._ready.add_reader(self._socket, self._readable)

    def answer(self, payload: bytes, client: tuple[str, int]) -> SendResult:
        """Send to a client that wrote here before."""
        host, port = client
        try:
            if ":" in host:
                bare, _, scope = host.partition("%")
                self._socket.sendto(payload, (bare, port, 0, int(scope or 0)))
            else:
                self._socket.sendto(payload, client)
        except OSError:
            return SendResult.DROPPED
        return SendResult.SENT

    def close(self) -> None:
        """Close; harmless when closed already."""
        if self._socket.fileno() >= 0:
            self._ready.remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        datagrams = []
        with contextlib.suppress(OSError):  # nothing more to read
            for _ in range(DATAGRAMS_PER_TURN):
                size, address = self._socket.recvfrom_into(_buffer)
                datagrams.append(DatagramFromNet(bytes(_buffer[:size]), _client(address), _TTL))
        if datagrams:
            self._owner.tell(DatagramsFromNet(datagrams))


class TcpListener:
    """A listening TCP port; ``owner`` is told ConnectionAccepted for each connection."""

    def __init__(self, owner: Mailbox, host: str, port: int, ready: Readiness, counters: Counters) -> None:
        """Bind and listen; raises OSError."""
        self._owner = owner
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._ready = ready
        self._resume: asyncio.TimerHandle | None = None
        self._socket = _bound(socket.SOCK_STREAM, host, port)
        try:
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self._ready.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Close; harmless when closed already."""
        if self._resume is not None:
            self._resume.cancel()
        if self._socket.fileno() >= 0:
            self._ready.remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError:
                self._counters.add("forward.accept_failures")
                self._ready.remove_reader(self._socket)
                self._resume = self._loop.call_later(ACCEPT_PAUSE, self._listen_again)
                return
            connection.setblocking(False)
            self._owner.tell(ConnectionAccepted(AcceptedConnection(connection, self._ready)))

    def _listen_again(self) -> None:
        self._resume = None
        self._ready.add_reader(self._socket, self._readable)


class AcceptedConnection:
    """A client's connection that no flow has yet; implements ``actors.ports.Accepted``."""

    def __init__(self, connection: socket.socket, ready: Readiness) -> None:
        self._connection = connection
        self._ready = ready

    def attach(self, flow: Mailbox) -> TcpFlowSocket:
        """Give it to a flow, which is told ConnectionMade."""
        attached = TcpFlowSocket(self._connection, flow, self._ready, lambda: None)
        flow.tell(ConnectionMade())
        return attached

    def refuse(self) -> None:
        """Close with a RST: nobody is there."""
        TcpFlowSocket(self._connection, _Nobody(), self._ready, lambda: None).close(abort=True)


class _Nobody:
    def tell(self, message: object, /) -> None:
        """Hear nothing."""


def _client(address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    """Shorten a socket's address to host and port; a link-local host keeps its scope, as ``fe80::1%2``."""
    if len(address) == 4 and address[3]:  # noqa: PLR2004 - host, port, flow information, scope
        return f"{address[0]}%{address[3]}", address[1]
    return address[:2]


def _bound(kind: int, host: str, port: int) -> socket.socket:
    """Take a port of ``host``, IPv4 or IPv6. Raises OSError."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        opened.setblocking(False)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:  # connections of a relay before this one may still be ending
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened
