"""The workers that share a port, as one of them sees the others.

The kernel steers packets by their connection IDs (``transport.quic.steering``), and is wrong now and then:
the receive offload (``UDP_GRO``) may put packets of two connections of one client into one read, and packets
are under way while a worker leaves or comes back. And who leaves takes no new connections, though the kernel,
which cannot tell them from others, still gives it their first packets. Such packets go to the worker that
they are for, over a unix datagram socket in the relay's run directory, with the client's address; the answer
leaves by the other worker's own socket, which is bound to the same place. A packet is passed on once.

Nothing waits: what the other's socket does not take at once is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any

from transport.quic.aioquic_internals import CONNECTION_ID_LENGTH
from transport.quic.steering import first_byte, owner

if TYPE_CHECKING:
    from pathlib import Path

    from netstack.counters import Counters
    from transport.quic.udp import Address, Run

LARGEST_MESSAGE = 65535 + 512
"""Bytes: the largest packet, and its client's address."""
READS_PER_TURN = 64

_PACKET_INFO = 3
"""Where a client's address has the packet info, which alone is bytes (``transport.quic.udp``)."""


class Siblings:
    """Issues connection IDs that lead here, and passes on what is for other workers."""

    def __init__(self, number: int, count: int, folder: Path, counters: Counters) -> None:
        """Take a place among ``count`` workers, which have their sockets in ``folder``. Raises OSError."""
        self.live: tuple[int, ...] = tuple(range(count))
        """Those that the kernel steers packets to."""
        self.accepting: tuple[int, ...] = self.live
        """Of these, those that take new connections."""
        self._number = number
        self._count = count
        self._folder = folder
        self._counters = counters
        self._path = self._path_of(number)
        self._path.unlink(missing_ok=True)  # of this worker's former life
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind(str(self._path))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """File descriptor, for the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Take nothing any more."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def new_connection_id(self) -> bytes:
        """Return a connection ID whose packets come to this worker."""
        first = self._number + self._count * secrets.randbelow(256 // self._count)
        return bytes((first,)) + os.urandom(CONNECTION_ID_LENGTH - 1)

    def pass_on(self, packet: bytes, client: Address, *, is_new: bool) -> bool:
        """Give a packet of no connection here to the worker that it is for; whether that is another one.

        ``is_new`` tells that it begins a connection, unless one knows its ID.
        """
        first = first_byte(packet)
        target = owner(first, self._count, self.live)
        if is_new and target not in self.accepting and self.accepting:
            target = self.accepting[first // self._count % len(self.accepting)]
        if target == self._number:
            return False
        try:
            self._socket.sendto(_message(packet, client), str(self._path_of(target)))
        except BlockingIOError:
            self._counters.add("endpoint.drop.sibling_busy")
        except OSError:  # it is gone, and this worker has not been told yet
            self._counters.add("endpoint.sibling_gone")
            return False
        else:
            self._counters.add("endpoint.passed_on")
        return True

    def drain(self) -> list[Run]:
        """Read what others have passed on."""
        runs: list[Run] = []
        for _ in range(READS_PER_TURN):
            try:
                message = self._socket.recv(LARGEST_MESSAGE)
            except (BlockingIOError, InterruptedError):
                break
            with contextlib.suppress(ValueError):
                runs.append(_read(message))
        return runs

    def _path_of(self, number: int) -> Path:
        return self._folder / f"packets-{number}"


def _message(packet: bytes, client: Address) -> bytes:
    return json.dumps(client, default=bytes.hex).encode() + b"\n" + packet


def _read(message: bytes) -> Run:
    """Undo :func:`_message`. Raises ValueError."""
    told, _, packet = message.partition(b"\n")
    return [packet], _address(json.loads(told))


def _address(told: list[Any]) -> Address:
    parts: list[Any] = [_address(part) if isinstance(part, list) else part for part in told]
    if len(parts) > _PACKET_INFO and isinstance(parts[_PACKET_INFO], str):
        parts[_PACKET_INFO] = bytes.fromhex(parts[_PACKET_INFO])
    return tuple(parts)
