"""``recvmmsg(2)``, which Python does not have: what waits at a UDP socket, with one call.

Linux only. In a run of ten a datagram costs half as much, and the look that finds nothing more is spared: a
call that brings less than it asked for has emptied the socket. What the system has to report after the first
datagram it keeps for the next call, so no error gets lost (recvmmsg(2), BUGS).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import threading
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

DATAGRAMS: Final = 16
"""What one call brings at most, each a datagram or a run of them (``UDP_GRO``)."""

_LARGEST: Final = 65_536
_STRIDE: Final = _LARGEST + 4096 + 64
"""Bytes from one buffer to the next; not a power of two, or all would share a few lines of the cache."""
_NAME_SIZE: Final = 32
"""Room for a ``sockaddr_in6``."""
_CONTROL_SIZE: Final = 128
"""Room for a TTL, the size of a run's datagrams and an ``in6_pktinfo``."""

_VECTOR: Final = Struct("@PN")
_HEADER: Final = Struct("@PIPNPNi0PI0P")
"""``struct mmsghdr``: name, its length, vectors, their number, control, its length, flags; then the length of
the datagram."""
_HEADER_SIZE: Final = 64
"""Of that, where pointers have 64 bits; elsewhere nothing of this is used."""
_LENGTHS: Final = Struct("=40xQ8xI4x")
"""Of that, what a call has written: the lengths of control and datagram."""
_CONTROL_HEADER: Final = Struct("@Nii")
"""``struct cmsghdr``: length with this header, level, type."""
_ALIGNMENT: Final = 8
_NO_NAMES: Final = bytes(DATAGRAMS * _NAME_SIZE)
_FAMILY: Final = Struct("@H")


class Filled(NamedTuple):
    """A datagram, or a run, as it lies in a reader's buffers, with its sender and its ancillary data."""

    start: int
    end: int
    name: bytes
    """A ``sockaddr``, see :func:`address_of`."""
    control: bytes
    """See :func:`ancillary_of`."""


def _find() -> Any:
    """Return the C library's function if there is one and the system lets it be called, else None."""
    if sys.platform != "linux" or _HEADER.size != _HEADER_SIZE:
        return None
    # A call that never blocks need not let other threads run: PyDLL keeps the interpreter's lock.
    function: Any = getattr(ctypes.PyDLL(None, use_errno=True), "recvmmsg", None)
    if function is not None:
        function(-1, None, 0, 0, None)
    return function if ctypes.get_errno() == errno.EBADF else None


_recvmmsg: Final = _find()
is_available = _recvmmsg is not None
"""Whether there is such a call."""


class DatagramReader:
    """Buffers of a thread for any of its sockets: what is in them is to be copied before the next read."""

    def __init__(self) -> None:
        data = bytearray(DATAGRAMS * _STRIDE)
        self.view = memoryview(data)
        """Where the datagrams of the latest read are."""
        self._names = bytearray(DATAGRAMS * _NAME_SIZE)
        self._controls = bytearray(DATAGRAMS * _CONTROL_SIZE)
        self._vectors = bytearray(DATAGRAMS * _VECTOR.size)
        self._headers = bytearray(DATAGRAMS * _HEADER.size)
        self._headers_view = memoryview(self._headers)
        self._headers_at = ctypes.c_void_p(_address(self._headers))
        names, controls, vectors = map(_address, (self._names, self._controls, self._vectors))
        empty = b""
        for index in range(DATAGRAMS):
            vector = index * _VECTOR.size
            _VECTOR.pack_into(self._vectors, vector, _address(data) + index * _STRIDE, _LARGEST)
            name, control = names + index * _NAME_SIZE, controls + index * _CONTROL_SIZE
            empty += _HEADER.pack(name, _NAME_SIZE, vectors + vector, 1, control, _CONTROL_SIZE, 0, 0)
        self._empty_headers = empty
        """The headers of a call, which overwrites them."""

    def read(self, descriptor: int) -> list[Filled]:
        """Read up to DATAGRAMS of what waits; where less comes, nothing more waits.

        Raises OSError, chiefly for an ICMP error about what was sent earlier.
        """
        self._names[:] = _NO_NAMES
        self._headers[:] = self._empty_headers
        count: int = _recvmmsg(descriptor, self._headers_at, DATAGRAMS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                return []
            raise OSError(number, os.strerror(number))
        names, controls = bytes(self._names), bytes(self._controls)
        filled: list[Filled] = []
        # What a named tuple's own constructor does, without calling a function of Python's for each datagram.
        new: Any = tuple.__new__
        start = name = control = 0
        for control_size, size in _LENGTHS.iter_unpack(self._headers_view[: count * _HEADER_SIZE]):
            sender = names[name : name + _NAME_SIZE]
            filled.append(
                new(Filled, (start, start + size, sender, controls[control : control + control_size]))
            )
            start += _STRIDE
            name += _NAME_SIZE
            control += _CONTROL_SIZE
        return filled


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


_of_thread: Final = threading.local()


def reader_of_thread() -> DatagramReader:
    """Return the reader of the thread that calls."""
    reader: DatagramReader | None = getattr(_of_thread, "reader", None)
    if reader is None:
        reader = _of_thread.reader = DatagramReader()
    return reader


@lru_cache(4096)
def address_of(name: bytes) -> tuple[str, int]:
    """Return the address and the port of an IPv4 or IPv6 sender."""
    (family,) = _FAMILY.unpack_from(name)
    address = name[4:8] if family == socket.AF_INET else name[8:24]
    return socket.inet_ntop(family, address), int.from_bytes(name[2:4], "big")


@lru_cache(1024)
def ancillary_of(control: bytes) -> tuple[tuple[int, int, bytes], ...]:
    """Return ancillary data as ``recvmsg`` does: level, type and value of each."""
    found: list[tuple[int, int, bytes]] = []
    at = 0
    while at + _CONTROL_HEADER.size <= len(control):
        length, level, kind = _CONTROL_HEADER.unpack_from(control, at)
        if length < _CONTROL_HEADER.size:
            break
        found.append((level, kind, control[at + _CONTROL_HEADER.size : at + length]))
        at += -(-length // _ALIGNMENT) * _ALIGNMENT
    return tuple(found)
