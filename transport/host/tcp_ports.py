"""Which port of the host a guest's TCP connection leaves by.

A NAT made of sockets maps a guest's address and port to one port of the host, whatever the guest connects to
(RFC 5382 REQ-1): all its connections bind that port. The system takes that while they differ in the remote
end. Connections from outside to that port are not answered by a connected socket, which is the filtering of
REQ-3 at its strictest.

Each guest port gets a host port of its own (REQ-7) as long as there are any. The system counts as used what
is in TIME-WAIT, for a minute, so a host with few ports runs out of them. Then a connection gets, first, a
port that nobody uses any more: TCP ports may be used again at once (RFC 6888 REQ-8, exception A), and the
system sees to it that old segments do not reach the new connection (RFC 6191: TIME-WAIT with timestamps).
Second, one that others use for other destinations (RFC 7857 section 3, port overlapping): the system tells
the connections apart by both their ends.
"""

from __future__ import annotations

import errno
import os
import socket
from itertools import islice
from typing import TYPE_CHECKING

from transport.host.tcp_socket import TcpFlowSocket

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from actors.runtime import Mailbox
    from transport.host.readiness import Readiness

    Port = tuple[socket.AddressFamily, int]

RELEASED_PORTS = 1024
"""Ports remembered that nobody uses any more; a system that had more of them still has some."""

TRIES = 32
"""Ports tried of either kind, when the system has none left; each costs some 20 µs."""

TAKEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
"""Another program has this port, or there is a connection from it to the very same destination."""


class SharedPorts:
    """The host ports of guests' TCP ports. A port is that of one IP version: family and number."""

    def __init__(self) -> None:
        self._owners: dict[Hashable, tuple[Port, int]] = {}
        """Port and number of connections, by owner. As many as there are flows at most."""
        self._in_use: dict[Port, int] = {}
        """Owners of each port: one, or several where there were too few ports."""
        self._released: dict[Port, None] = {}
        """The one released first is the first."""

    def __len__(self) -> int:
        return len(self._owners)

    def of(self, owner: Hashable) -> int:
        """Tell the port of an owner that has connections; 0 for others."""
        return self._owners[owner][0][1] if owner in self._owners else 0

    def choices(self, family: socket.AddressFamily) -> Iterator[int]:
        """Name the ports to be tried for a new owner, 0 for one of the system's choice."""
        yield 0
        for ports in (self._released, self._in_use):
            yield from islice([number for version, number in ports if version is family], TRIES)

    def take(self, owner: Hashable, port: Port) -> None:
        """Note that one more connection of ``owner`` leaves by ``port``."""
        _, connections = self._owners.get(owner, (port, 0))
        self._owners[owner] = (port, connections + 1)
        if not connections:
            # Those taken last come last, so that it is not always the same ones that are shared.
            self._in_use[port] = self._in_use.pop(port, 0) + 1
            self._released.pop(port, None)

    def release(self, owner: Hashable) -> None:
        """Note that one connection has ended."""
        port, connections = self._owners[owner]
        if connections > 1:
            self._owners[owner] = (port, connections - 1)
            return
        del self._owners[owner]
        self._in_use[port] -= 1
        if not self._in_use[port]:
            del self._in_use[port]
            if len(self._released) >= RELEASED_PORTS:
                del self._released[next(iter(self._released))]
            self._released[port] = None


def open_tcp(
    flow: Mailbox, address: tuple[str, int], owner: Hashable, ports: SharedPorts, ready: Readiness
) -> TcpFlowSocket:
    """Connect to ``address`` (text, IPv4 or IPv6) for ``flow``. Raises OSError when no socket can be had."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    key = (family, owner)
    own = ports.of(key)
    refusal = errno.EADDRINUSE
    for port in [own] if own else ports.choices(family):
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            taken = _bind(opened, port)
            number = opened.connect_ex(address)
        except OSError as error:
            opened.close()
            if error.errno not in TAKEN:
                raise
            refusal = error.errno
            continue
        if number in TAKEN and port != own:  # that very connection is there already
            opened.close()
            refusal = number
            continue
        ports.take(key, (family, taken))
        connection = TcpFlowSocket(opened, flow, ready, lambda: ports.release(key))
        connection.follow(number)
        return connection
    raise OSError(refusal, os.strerror(refusal))


def _bind(opened: socket.socket, port: int) -> int:
    """Bind to ``port``, though others have it, or to one that nobody has where it is 0; return the port."""
    if port:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if opened.family == socket.AF_INET6:  # else it would take IPv4's port as well
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(("::" if opened.family == socket.AF_INET6 else "0.0.0.0", port))
    # For others, should there be too few; not before, since the system then gives ports that others have.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    number: int = opened.getsockname()[1]
    return number
