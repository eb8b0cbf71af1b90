"""A non-blocking IPv4 socket of the relay host: drained in batches, its errors put into words.

ICMP errors: with ``IP_RECVERR`` Linux keeps what routers and hosts said about datagrams of this socket, each
with the destination it was about. They are kept for a while and given out when the guest writes there again;
without it (other systems) an unconnected socket never hears of them.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from actors.messages import SendResult

if TYPE_CHECKING:
    from collections.abc import Hashable

    from netstack.counters import Counters

DATAGRAMS_PER_TURN = 64
"""Datagrams that one socket may bring per turn of the loop; what is left comes in the next."""

ERRORS_PER_TURN = 64
"""ICMP errors read per turn, for the same reason."""

RECEIVE_BUFFER = 256 * 1024
"""Bytes asked of the kernel per socket: bounds what a flood can hold, takes a burst of 150 full frames."""

PENDING_ERRORS = 16
"""Destinations per socket whose ICMP error is kept; the oldest makes room."""

PENDING_LIFETIME = 10.0
"""Seconds for which an ICMP error is worth telling: a program that asks again does so within them."""

RESULTS = {
    errno.EMSGSIZE: SendResult.TOO_BIG,
    errno.ENETUNREACH: SendResult.UNREACHABLE,
    errno.EHOSTUNREACH: SendResult.UNREACHABLE,
    errno.ENETDOWN: SendResult.UNREACHABLE,
    errno.EHOSTDOWN: SendResult.UNREACHABLE,
    errno.EADDRNOTAVAIL: SendResult.UNREACHABLE,
    errno.ECONNREFUSED: SendResult.REFUSED,
    errno.EPERM: SendResult.DENIED,
    errno.EACCES: SendResult.DENIED,
}
"""What an errno of sending means; all others (full buffers above all) are DROPPED."""

DEFAULT_TTL = 64
"""Of what arrives, where the system does not tell."""

# Missing in the socket module of Python 3.11.
_IP_RECVTTL = {"linux": 12, "darwin": 24}.get(sys.platform)
_IP_RECVERR = 11 if sys.platform == "linux" else None
_TTL_TYPES = frozenset({socket.IP_TTL, _IP_RECVTTL})

_ANCILLARY_SIZE = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
_EXTENDED_ERROR = Struct("=IBBBxII")
"""struct sock_extended_err: errno, origin, ICMP type, ICMP code, info, data; then the offender's address."""
_ERROR_ANCILLARY_SIZE = 256
_FROM_ICMP = 2
_DESTINATION_UNREACHABLE = 3
_QUOTE_SIZE = 64

# One buffer for all sockets: there is one thread, and what arrived is copied out at once.
_buffer = bytearray(65536)


class Received(NamedTuple):
    """One datagram as the socket gave it; for ICMP sockets ``port`` is 0."""

    payload: bytes
    host: str
    port: int
    ttl: int


class HostSocket:
    """One socket on the running loop; subclasses say what is done with what arrives."""

    def __init__(self, kind: int, protocol: int, counters: Counters) -> None:
        """Open and bind to a port (or identifier) of the host's choice. Raises OSError."""
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._pending: dict[Hashable, tuple[SendResult, float]] = {}
        self._socket = socket.socket(socket.AF_INET, kind, protocol)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            for option in (_IP_RECVTTL, _IP_RECVERR):
                if option is not None:
                    self._socket.setsockopt(socket.IPPROTO_IP, option, 1)
            self._socket.bind(("", 0))
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Close; harmless when closed already."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def deliver(self, received: list[Received]) -> None:
        """Take what one turn brought (at least one datagram)."""
        raise NotImplementedError

    def error_key(self, address: tuple[str, int], quoted: bytes) -> Hashable:
        """Name the destination that an ICMP error is about; ``quoted`` starts what was sent there."""
        raise NotImplementedError

    def transmit(self, data: bytes, address: tuple[str, int], key: Hashable) -> SendResult:
        """Send, unless an ICMP error waits to be told under ``key``."""
        waiting = self._take_pending(key)
        if waiting is not None:
            return waiting
        try:
            self._socket.sendto(data, address)
        except BlockingIOError:
            return SendResult.DROPPED
        except OSError:
            # Perhaps an earlier datagram's ICMP error, about any destination: sort these out, then try again.
            self._read_errors()
            return self._take_pending(key) or self._send_again(data, address)
        return SendResult.SENT

    def _send_again(self, data: bytes, address: tuple[str, int]) -> SendResult:
        try:
            self._socket.sendto(data, address)
        except OSError as error:
            return RESULTS.get(error.errno or 0, SendResult.DROPPED)
        return SendResult.SENT

    def _take_pending(self, key: Hashable) -> SendResult | None:
        if not self._pending:
            return None
        result, until = self._pending.pop(key, (None, 0.0))
        return result if self._loop.time() < until else None

    def _readable(self) -> None:
        received: list[Received] = []
        receive = self._socket.recvmsg_into
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                size, ancillary, _, (host, port) = receive([_buffer], _ANCILLARY_SIZE)
            except OSError as error:
                # Nothing more to read; or an ICMP error, which was the reason to wake.
                if not received or not isinstance(error, BlockingIOError):
                    self._read_errors()
                break
            received.append(Received(bytes(_buffer[:size]), host, port, _ttl(ancillary)))
        if received:
            self.deliver(received)

    def _read_errors(self) -> None:
        """Empty the queue of ICMP errors, where the system has one."""
        if _IP_RECVERR is None:
            return
        for _ in range(ERRORS_PER_TURN):
            try:
                quoted, ancillary, _, address = self._socket.recvmsg(
                    _QUOTE_SIZE, _ERROR_ANCILLARY_SIZE, socket.MSG_ERRQUEUE
                )
            except OSError:
                return
            for level, kind, data in ancillary:
                if level == socket.IPPROTO_IP and kind == _IP_RECVERR and len(data) >= _EXTENDED_ERROR.size:
                    self._note(data, self.error_key(address, quoted))

    def _note(self, extended: bytes, key: Hashable) -> None:
        number, origin, icmp_type, _, _, _ = _EXTENDED_ERROR.unpack_from(extended)
        if origin != _FROM_ICMP:
            return
        self._counters.add("outside.icmp_errors")
        # "Time exceeded" answers one probe's TTL: it says nothing about the next datagram.
        if icmp_type != _DESTINATION_UNREACHABLE:
            return
        self._pending.pop(key, None)
        if len(self._pending) >= PENDING_ERRORS:
            del self._pending[next(iter(self._pending))]
        result = RESULTS.get(number, SendResult.UNREACHABLE)
        self._pending[key] = (result, self._loop.time() + PENDING_LIFETIME)


def _ttl(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind in _TTL_TYPES:
            return int.from_bytes(data, sys.byteorder) & 0xFF
    return DEFAULT_TTL
