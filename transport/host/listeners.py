"""Ports of this machine that lead to guests: what clients outside send, and the connections they open.

IPv6 ports are for IPv6 only: another of the same number may listen on IPv4.

The egress policy has no say here: a forward answers only whoever wrote to it first, and the operator named
the port. A client that opened a TCP connection waits in the kernel until the owner takes it, and until the
guest has answered: the connection is not read before.

A UDP port on every address of this machine (0.0.0.0 or ::) answers a client from the one that it wrote to,
since a connected client hears no other. The listener remembers nothing for it: that address is part of the
name by which the owner knows the client, ``203.0.113.9>198.51.100.1``. So whoever writes to two of them is
two clients, and who bounds its clients bounds this too. Only Linux tells the address; elsewhere the host's
routing chooses one, and it is in no name.

A port that is ``shared`` may be open in two processes of this relay while one takes it over from the other:
what is new goes to who has opened it last. Other users' programs cannot have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from actors.messages import ClientsWaiting, ConnectionMade, DatagramFromNet, DatagramsFromNet
from actors.ports import SendResult
from netstack.ipv4 import DEFAULT_TTL
from transport.binding import EVERY
from transport.host.host_socket import RECEIVE_BUFFER
from transport.host.receiving import DATAGRAMS_PER_TURN
from transport.host.tcp_socket import TcpFlowSocket, reset_at_close
from transport.packet_info import (
    IN6_PKTINFO,
    IN_PKTINFO,
    IP_PKTINFO,
    PACKET_INFO_SPACE,
    tell_local_addresses,
)
from transport.port_group import prefer_second

if TYPE_CHECKING:
    from actors.runtime import Mailbox
    from netstack.counters import Counters
    from transport.host.readiness import Readiness

    SocketAddress = tuple[str, int] | tuple[str, int, int, int]

BACKLOG = 1024
"""Clients that wait in the kernel for their turn (the system may allow fewer); further ones try again."""

ACCEPT_PAUSE = 1.0
"""Seconds without accepting after the system had no more sockets: a readable listener would wake the loop."""

_buffer = bytearray(65536)


class UdpListener:
    """A bound UDP port; implements ``actors.ports.UdpListener``."""

    def __init__(
        self, owner: Mailbox, host: str, port: int, ready: Readiness, *, shared: bool = False
    ) -> None:
        """Bind; raises OSError. What comes is told to ``owner`` as DatagramsFromNet."""
        self._owner = owner
        self._ready = ready
        self._socket = _bound(socket.SOCK_DGRAM, host, port, shared=shared)
        if shared:
            _prefer_last(self._socket)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._ready.add_reader(self._socket, self._readable)

    def answer(self, payload: bytes, client: tuple[str, int]) -> SendResult:
        """Send to a client that wrote here before, from the address that it wrote to."""
        host, _, local = client[0].partition(">")
        try:
            self._socket.sendmsg([payload], _leaving_from(local), 0, _socket_address(host, client[1]))
        except OSError:  # that address may be gone, too: from another the client would not hear it
            return SendResult.DROPPED
        return SendResult.SENT

    def close(self) -> None:
        """Close; harmless when closed already."""
        if self._socket.fileno() >= 0:
            self._ready.remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        datagrams = []
        receive = self._socket.recvmsg_into
        with contextlib.suppress(OSError):  # nothing more to read
            for _ in range(DATAGRAMS_PER_TURN):
                size, ancillary, _, address = receive([_buffer], PACKET_INFO_SPACE)
                client = _client(address, ancillary[0][2] if ancillary else b"")
                datagrams.append(DatagramFromNet(bytes(_buffer[:size]), client, DEFAULT_TTL))
        if datagrams:
            self._owner.tell(DatagramsFromNet(datagrams))


class TcpListener:
    """A listening TCP port; implements ``actors.ports.WaitingClients``.

    Clients stay in the kernel's accept queue until they are taken. ``owner`` is told ClientsWaiting when
    there are some, and then not again before :meth:`watch`.
    """

    def __init__(
        self,
        owner: Mailbox,
        host: str,
        port: int,
        ready: Readiness,
        counters: Counters,
        *,
        shared: bool = False,
    ) -> None:
        """Bind and listen; raises OSError."""
        self._owner = owner
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._ready = ready
        self._resume: asyncio.TimerHandle | None = None
        """Runs while nothing is taken, after the system had no more sockets."""
        self._socket = _bound(socket.SOCK_STREAM, host, port, shared=shared)
        try:
            self._socket.listen(BACKLOG)
        except OSError:
            self._socket.close()
            raise
        if shared:
            _prefer_last(self._socket)
        self.watch()

    def close(self) -> None:
        """Close; harmless when closed already. Clients that still wait are reset by the system."""
        if self._resume is not None:
            self._resume.cancel()
        if self._socket.fileno() >= 0:
            self._ready.remove_reader(self._socket)
            self._socket.close()

    def take(self) -> AcceptedConnection | None:
        """Take the client that waits longest; None when there is none, or no socket for it at present."""
        while self._resume is None and self._socket.fileno() >= 0:
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                break
            except ConnectionError:  # this one is gone already
                continue
            except OSError:
                self._counters.add("forward.accept_failures")
                self._resume = self._loop.call_later(ACCEPT_PAUSE, self._go_on)
                break
            connection.setblocking(False)
            return AcceptedConnection(connection, address, self._ready)
        return None

    def watch(self) -> None:
        """Have the owner told when there is a client to take."""
        if self._resume is None and self._socket.fileno() >= 0:
            self._ready.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        self._ready.remove_reader(self._socket)
        self._owner.tell(ClientsWaiting(self))

    def _go_on(self) -> None:
        self._resume = None
        self.watch()


class AcceptedConnection:
    """A client's connection that no flow has yet; implements ``actors.ports.Accepted``."""

    def __init__(self, connection: socket.socket, address: SocketAddress, ready: Readiness) -> None:
        self._connection = connection
        self._ready = ready
        self.client = _end(address)

    @property
    def local(self) -> tuple[str, int]:
        """The address and port that the client connected to."""
        return _end(self._connection.getsockname())

    def attach(self, flow: Mailbox, preface: bytes = b"") -> TcpFlowSocket:
        """Give it to a flow, which is told ConnectionMade and reads ``preface`` first. Raises OSError."""
        attached = _PrefacedSocket(self._connection, flow, self._ready, preface)
        flow.tell(ConnectionMade())
        return attached

    def refuse(self) -> None:
        """Close with a RST: nobody is there."""
        reset_at_close(self._connection)
        self._connection.close()


class _PrefacedSocket(TcpFlowSocket):
    """A connection from which some bytes are read that the client has not sent."""

    def __init__(self, opened: socket.socket, flow: Mailbox, ready: Readiness, preface: bytes) -> None:
        super().__init__(opened, flow, ready, lambda: None)
        self._preface = preface

    def read(self, limit: int) -> bytes | None:
        """As of :class:`TcpFlowSocket`."""
        if not self._preface:
            return super().read(limit)
        data, self._preface = self._preface[:limit], self._preface[limit:]
        return data


def _end(address: SocketAddress) -> tuple[str, int]:
    """Give address and port, without the scope that Python puts behind link-local addresses."""
    return address[0].partition("%")[0], address[1]


def _client(address: SocketAddress, packet_info: bytes) -> tuple[str, int]:
    """Name a client: its host and port, the host with the local address it wrote to where that is known.

    ``packet_info`` is in_pktinfo, in6_pktinfo or empty. Link-local addresses have their scope, as in
    ``fe80::1%2>fe80::2%2``.
    """
    host = address[0]
    if len(address) == 4 and address[3]:  # noqa: PLR2004 - host, port, flow information, scope
        host = f"{host}%{address[3]}"
    local = _local_address(packet_info)
    return (f"{host}>{local}" if local else host), address[1]


def _local_address(packet_info: bytes) -> str:
    """Tell where a datagram came to, of this machine's; empty when unknown, or none that answers may have."""
    if len(packet_info) == IN_PKTINFO.size:
        return socket.inet_ntop(socket.AF_INET, packet_info[4:8])
    if len(packet_info) != IN6_PKTINFO.size:
        return ""
    address, interface = IN6_PKTINFO.unpack(packet_info)
    if address[0] == 0xFF:  # noqa: PLR2004 - multicast (RFC 4291 section 2.7)
        return ""
    text = socket.inet_ntop(socket.AF_INET6, address)
    # The interface only where the address means nothing without: answers to others go by any.
    return f"{text}%{interface}" if address[0] == 0xFE and address[1] & 0xC0 == 0x80 else text  # noqa: PLR2004


def _leaving_from(local: str) -> list[tuple[int, int, bytes]]:
    """Build what sendmsg takes to send from this address; empty for the one that the routing chooses."""
    if not local:
        return []
    if ":" not in local:
        info = IN_PKTINFO.pack(0, socket.inet_pton(socket.AF_INET, local), bytes(4))
        return [(socket.IPPROTO_IP, IP_PKTINFO, info)]
    bare, _, scope = local.partition("%")
    info = IN6_PKTINFO.pack(socket.inet_pton(socket.AF_INET6, bare), int(scope or 0))
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)]


def _socket_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Undo what :func:`_client` makes of a client's own address."""
    if ":" not in host:
        return host, port
    bare, _, scope = host.partition("%")
    return bare, port, 0, int(scope or 0)


def try_to_listen(protocol: str, host: str, port: int) -> socket.socket:
    """See whether a UDP or TCP port can be had: it is until what is returned is closed. Raises OSError."""
    tried = _bound(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM, host, port)
    if protocol == "tcp":
        try:
            tried.listen()  # until then another may bind the port, too
        except OSError:
            tried.close()
            raise
    return tried


def _prefer_last(opened: socket.socket) -> None:
    """Have what is new come to this socket. Raises OSError."""
    try:
        prefer_second(opened)
    except OSError:
        opened.close()
        raise


def _bound(kind: int, host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Take a port of ``host``, IPv4 or IPv6. Raises OSError."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        opened.setblocking(False)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:  # connections of a relay before this one may still be ending
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited: a client's urgent bytes may come before its connection is taken.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_DGRAM and host in EVERY:  # before any datagram can come
            tell_local_addresses(opened)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened
