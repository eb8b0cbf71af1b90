"""The sockets of a relay that has workers: bound once, for as long as the relay lives."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from transport.binding import PORT_ATTEMPTS
from transport.quic.steering import steer
from transport.quic.udp import bound_udp_sockets
from transport.web.web_listener import listening_sockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence


class WebPortError(OSError):
    """The UDP port could be had, and the TCP port of the same number could not."""


class Ports:
    """One UDP socket of each address for each worker, and the TCP sockets that they share.

    A TCP socket that listens is one for all: whoever is free accepts, and a worker that dies takes none of
    the connections with it that wait. With a socket each, as for UDP, those would hang.
    """

    def __init__(self, host: str, port: int, count: int, *, web: bool) -> None:
        """Bind for ``count`` workers. Raises OSError, WebPortError where it is the TCP port's."""
        self._count = count
        self._groups: list[list[socket.socket]] = []
        self.tcp: tuple[socket.socket, ...] = ()
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self._bind(host, port, web=web)
            except OSError as error:
                self.close()
                if port or error.errno != errno.EADDRINUSE or attempt == PORT_ATTEMPTS:
                    raise
            else:
                return

    def _bind(self, host: str, port: int, *, web: bool) -> None:
        # With SO_REUSEPORT alone a second relay of this user would share the port, and get half the packets.
        alone = bound_udp_sockets(host, port)
        number: int = alone[0].getsockname()[1]
        for opened in alone:
            opened.close()
        for _ in range(self._count):
            self._groups.append(bound_udp_sockets(host, number, shared=True))
        self.port = number
        if web:
            try:
                self.tcp = tuple(listening_sockets(host, number))
            except OSError as error:
                raise WebPortError(error.errno, error.strerror) from None

    def of(self, worker: int) -> tuple[socket.socket, ...]:
        """Return a worker's own UDP sockets, one for each address."""
        return tuple(self._groups[worker])

    def steer(self, live: Sequence[int]) -> None:
        """Have the kernel give packets to these workers. Raises OSError."""
        for opened in self._groups[0]:
            steer(opened, self._count, live)

    def close(self) -> None:
        """Let go of the port."""
        for opened in (*(opened for group in self._groups for opened in group), *self.tcp):
            with contextlib.suppress(OSError):
                opened.close()
        self._groups.clear()
        self.tcp = ()
