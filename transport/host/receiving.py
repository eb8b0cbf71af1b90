"""Reads what host sockets bring, in batches. Every datagram comes by here, so mypyc compiles this."""

from __future__ import annotations

import errno
import socket
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from actors.messages import DatagramFromNet
from netstack.ipv4 import DEFAULT_TTL
from transport.host import recvmmsg
from transport.quic.udp import UDP_GRO

if TYPE_CHECKING:
    from collections.abc import Sequence

DATAGRAMS_PER_TURN: Final = 64
"""Reads of one socket per turn of the loop, each of a datagram or a run; what is left comes in the next."""

_ANCILLARY_SIZE: Final = 2 * socket.CMSG_SPACE(4) if sys.platform != "win32" else 0
"""Room for a TTL and for the size of the datagrams of a run."""

# One buffer for all sockets: there is one thread, and what arrived is copied out at once.
_buffer: Final = bytearray(65536)
_buffers: Final = [_buffer]
_view: Final = memoryview(_buffer)


def receive(
    opened: socket.socket, level: int, ttl_messages: frozenset[int | None], received: list[DatagramFromNet]
) -> int:
    """Add what waits to ``received``; return the errno that reading ended with, 0 if there may be more.

    EAGAIN: nothing more waits. The TTL comes in ancillary data of ``level``, of one of the kinds in
    ``ttl_messages``. Where ICMP has no ports, port is 0. Datagrams of one sender that follow each other share
    one object as their address.
    """
    if not recvmmsg.is_available:
        return _receive_singly(opened, level, ttl_messages, received)
    descriptor = opened.fileno()
    reader = recvmmsg.reader_of_thread()
    view = reader.view
    sender = control = b""
    # Any: compiled, a tuple of known types would be taken apart here, and be made anew for each datagram.
    address: Any = None
    # What a named tuple's own constructor does, without calling a function of Python's for each datagram.
    new: Any = tuple.__new__
    ttl, step = DEFAULT_TTL, 0
    for _ in range(DATAGRAMS_PER_TURN // recvmmsg.DATAGRAMS):
        try:
            filled = reader.read(descriptor)
        except OSError as error:
            return error.errno or errno.EIO
        for start, end, name, ancillary in filled:
            if name != sender:
                sender = name
                address = recvmmsg.address_of(name)
            if ancillary != control:
                control = ancillary
                ttl, step = _told(ancillary, level, ttl_messages)
            payload = bytes(view[start:end])
            if not 0 < step < end - start:
                received.append(new(DatagramFromNet, (payload, address, ttl)))
                continue
            _take_apart(payload, step, address, ttl, received)
        if len(filled) < recvmmsg.DATAGRAMS:
            return errno.EAGAIN
    return 0


def _receive_singly(
    opened: socket.socket, level: int, ttl_messages: frozenset[int | None], received: list[DatagramFromNet]
) -> int:
    """Do the same with a call for each datagram, where the system has no other."""
    read = opened.recvmsg_into
    sender: object = None
    address: Any = None
    for _ in range(DATAGRAMS_PER_TURN):
        try:
            size, ancillary, _flags, found = read(_buffers, _ANCILLARY_SIZE)
        except OSError as error:
            return error.errno or errno.EIO
        if found != sender:
            sender = found
            address = (found[0], found[1])
        ttl, step = _say(ancillary, level, ttl_messages)
        payload = bytes(_view[:size])
        if 0 < step < size:
            _take_apart(payload, step, address, ttl, received)
        else:
            received.append(DatagramFromNet(payload, address, ttl))
    return 0


def _take_apart(
    payload: bytes, step: int, address: tuple[str, int], ttl: int, received: list[DatagramFromNet]
) -> None:
    """Add the datagrams of one sender that the kernel has put together (UDP_GRO)."""
    received += [
        DatagramFromNet(payload[at : at + step], address, ttl) for at in range(0, len(payload), step)
    ]


@lru_cache(1024)
def _told(control: bytes, level: int, ttl_messages: frozenset[int | None]) -> tuple[int, int]:
    return _say(recvmmsg.ancillary_of(control), level, ttl_messages)


def _say(
    ancillary: Sequence[tuple[int, int, bytes]], level: int, ttl_messages: frozenset[int | None]
) -> tuple[int, int]:
    """Return the TTL that ancillary data tell, and the size of a run's datagrams; 0 if it is none."""
    ttl, step = DEFAULT_TTL, 0  # where the system does not tell
    for ancillary_level, kind, data in ancillary:
        if ancillary_level == level and kind in ttl_messages:
            ttl = int.from_bytes(data, sys.byteorder) & 0xFF
        elif ancillary_level == socket.SOL_UDP and kind == UDP_GRO:
            step = int.from_bytes(data[:4], sys.byteorder)
    return ttl, step
