"""Reads what host sockets bring, in batches. Every datagram comes by here, so mypyc compiles this."""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

from actors.messages import DatagramFromNet
from netstack.ipv4 import DEFAULT_TTL
from transport.quic.udp import UDP_GRO

DATAGRAMS_PER_TURN: Final = 64
"""Reads of one socket per turn of the loop, each of a datagram or a run; what is left comes in the next."""

_ANCILLARY_SIZE: Final = 2 * socket.CMSG_SPACE(4) if sys.platform != "win32" else 0
"""Room for a TTL and for the size of the datagrams of a run."""

# One buffer for all sockets: there is one thread, and what arrived is copied out at once.
_buffer: Final = bytearray(65536)
_buffers: Final = [_buffer]
_view: Final = memoryview(_buffer)

# DatagramFromNet(...) would be a call of interpreted code, for each datagram.
_new: Final = tuple.__new__


def receive(
    opened: socket.socket, level: int, ttl_messages: frozenset[int | None], received: list[DatagramFromNet]
) -> OSError | None:
    """Add what waits to ``received``; return the error that reading ended with, None if there may be more.

    The TTL comes in ancillary data of ``level``, of one of the kinds in ``ttl_messages``. Where ICMP has no
    ports, port is 0. Datagrams of one sender that follow each other share one object as their address.
    """
    read = opened.recvmsg_into
    # Any: compiled, a tuple of known types would be taken apart here, and be made anew for each datagram.
    sender: Any = None
    address: Any = None
    told: Any = None
    ttl, step = DEFAULT_TTL, 0
    for _ in range(DATAGRAMS_PER_TURN):
        try:
            size, ancillary, _flags, found = read(_buffers, _ANCILLARY_SIZE)
        except OSError as error:
            return error
        if found != sender:
            sender = found
            address = (found[0], found[1])
        if ancillary != told:  # mostly all that one turn brings comes the same way
            told = ancillary
            ttl, step = _read(ancillary, level, ttl_messages)
        payload = bytes(_view[:size])
        if not 0 < step < size:
            received.append(_new(DatagramFromNet, (payload, address, ttl)))
            continue
        # Several datagrams of one sender, which the kernel has put together (UDP_GRO).
        received += [DatagramFromNet(payload[at : at + step], address, ttl) for at in range(0, size, step)]
    return None


def _read(
    ancillary: list[tuple[int, int, bytes]], level: int, ttl_messages: frozenset[int | None]
) -> tuple[int, int]:
    """Return the TTL and the size of the datagrams of a run, 0 for a datagram alone."""
    ttl, step = DEFAULT_TTL, 0  # where the system does not tell
    for ancillary_level, kind, data in ancillary:
        if ancillary_level == level and kind in ttl_messages:
            ttl = int.from_bytes(data, sys.byteorder) & 0xFF
        elif ancillary_level == socket.SOL_UDP and kind == UDP_GRO:
            step = int.from_bytes(data[:4], sys.byteorder)
    return ttl, step
