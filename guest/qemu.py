"""The other end of a QEMU network card: unix sockets of ``-netdev stream`` and ``dgram``, without root.

A stream carries each frame behind its length (4 bytes, big-endian), a datagram socket one bare frame per
datagram (QEMU's net/stream.c and net/dgram.c). A guest that goes away may come back, as often as it likes:

- listen: QEMU connects (``server=off``); its 7.2 does not try again, so its connection is kept as long as it
  lasts. One guest is served at a time; another one waits in the socket's queue until the first is gone.
- connect: QEMU listens (``server=on``) and is tried until it is there, again after every loss.
- dgram: either side may restart at any time; the guest's own path is that of its latest datagram. vfkit,
  krunkit and libkrun come this way too (``unixgram``): with a connected socket, and perhaps with the four
  bytes ``VFKT`` ahead of their frames. A connected socket takes datagrams of the one that it is connected to
  and of no other, so those guests are answered from ``path`` itself (unix(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from abc import ABC, abstractmethod
from collections import deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from netstack.ethernet import HEADER_LENGTH, MAX_FRAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netstack.counters import Counters

MAX_PATH = 107
"""Bytes of a socket's path: sun_path of unix(7) less the terminating zero."""
LENGTH_BYTES = 4
READ_SIZE = 1 << 17
"""Bytes read from a stream at once: more than any frame, and less than a session's queue has room for."""
READS_PER_TURN = 64
"""Datagrams read per turn, so that the event loop gets to everything else in between."""
SEND_QUEUE = 1024
"""Frames that wait for a guest which does not read, about 1.5 MB; over it the newest are dropped, counted."""
ITEMS_PER_SEND = 64
"""Frames that one call writes to a stream."""
HELLO = b"VFKT"
"""What vfkit sends first, so that the other end learns its address before the guest speaks."""
FULL_RETRY = 0.001
"""Seconds after which a socket is tried again that cannot tell when its guest has room."""
RETRY = 0.5
"""Seconds between attempts to connect: trying costs next to nothing on one machine."""


class QemuError(Exception):
    """The socket cannot be had, and why, in one line."""


class QemuSocket(Protocol):
    """Frames to and from one QEMU network card."""

    path: str

    async def read(self) -> list[bytes]:
        """Return frames of the guest, at least one; waits for QEMU as long as it takes."""

    def write(self, frames: Sequence[bytes]) -> None:
        """Hand frames to the guest. Never blocks or raises: what is dropped is counted."""

    def close(self) -> None:
        """Close the sockets, and remove the file that was made."""


def open_socket(path: str, mode: str, counters: Counters, tell: Callable[[str], None]) -> QemuSocket:
    """Open a socket of one of the ``MODES``; ``tell`` gets a line per change. Raises QemuError."""
    if not path or "\0" in path or len(os.fsencode(path)) > MAX_PATH:
        raise QemuError(f"{path[:80]!r} is not a path for a socket: 1 to {MAX_PATH} bytes")
    return MODES[mode](path, counters, tell)


class StreamDecoder:
    """Takes frames out of a stream. ``broken`` is the length that cannot be one, once there was such."""

    def __init__(self, counters: Counters) -> None:
        self.broken: int | None = None
        self._counters = counters
        self._rest = b""
        """What came of a frame that is not complete; less than its length and the largest frame."""

    @property
    def partial(self) -> bool:
        """Whether a frame has begun that is not complete."""
        return bool(self._rest)

    def take(self, data: bytes) -> list[bytes]:
        """Return the frames that ``data`` completes; nothing more after a length that is a lie."""
        frames: list[bytes] = []
        if self._rest:
            data = self._rest + data
        at = 0
        while self.broken is None and len(data) - at >= LENGTH_BYTES:
            length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            end = at + LENGTH_BYTES + length
            if length > MAX_FRAME_LENGTH:
                # Where the next frame begins is anybody's guess.
                self.broken = length
                self._counters.add("qemu.drop.bad_length")
            elif end > len(data):
                break
            elif length < HEADER_LENGTH:
                self._counters.add("qemu.drop.runt")
                at = end
            else:
                frames.append(data[at + LENGTH_BYTES : end])
                at = end
        self._rest = data[at:] if self.broken is None else b""
        return frames


class _Outbox:
    """Sends to one guest; what its socket does not take at once waits, within bounds.

    The socket is connected to the guest and closed with this; or, with ``guest``, it is one that others use
    too and stays open. Such a one is writable while the guest is not, so it is tried again after a moment.
    """

    def __init__(
        self,
        to: socket.socket,
        counters: Counters,
        on_error: Callable[[OSError, list[bytes]], None],
        guest: str | bytes | None = None,
    ) -> None:
        self._socket = to
        self._counters = counters
        self._on_error = on_error
        self._guest = guest
        self._items: deque[bytes] = deque()
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def put(self, items: Sequence[bytes]) -> None:
        room = SEND_QUEUE - len(self._items)
        if len(items) > room:
            self._counters.add("qemu.drop.send_queue", len(items) - room)
        self._items.extend(islice(items, room))
        if not self._waiting:
            self._flush()

    def _flush(self) -> None:
        items = self._items
        try:
            while items:
                self._send_some(items)
        except (BlockingIOError, InterruptedError):
            self._wait(True)
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # what BSDs say where Linux says EAGAIN
                self._wait(True)
                return
            self._wait(False)
            left = list(items)
            items.clear()
            self._on_error(error, left)
        else:
            self._wait(False)

    def _send_some(self, items: deque[bytes]) -> None:
        """Send the oldest item, and take it off. Raises OSError."""
        if self._guest is None:
            self._socket.send(items[0])
        else:
            self._socket.sendto(items[0], self._guest)
        items.popleft()

    def _wait(self, wanted: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._guest is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(FULL_RETRY, self._flush) if wanted else None
        elif wanted is not self._waiting:
            if wanted:
                loop.add_writer(self._socket, self._flush)
            else:
                loop.remove_writer(self._socket)
        self._waiting = wanted

    def close(self) -> None:
        if self._items:
            self._counters.add("qemu.drop.no_guest", len(self._items))
        self._wait(False)
        if self._guest is None:
            self._socket.close()


class _StreamOutbox(_Outbox):
    """Sends many items with one call, and perhaps a part of the last."""

    def _send_some(self, items: deque[bytes]) -> None:
        sent = self._socket.sendmsg(list(islice(items, ITEMS_PER_SEND)))
        while sent:
            if sent < len(items[0]):
                items[0] = items[0][sent:]
                return
            sent -= len(items.popleft())


class _Stream(ABC):
    """What both ways of having a stream share."""

    def __init__(self, path: str, counters: Counters, tell: Callable[[str], None]) -> None:
        self.path = path
        self._counters = counters
        self._tell = tell
        self._connection: socket.socket | None = None
        self._outbox: _Outbox | None = None
        self._decoder = StreamDecoder(counters)

    @abstractmethod
    async def _connected(self) -> socket.socket: ...

    async def read(self) -> list[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            if self._connection is None:
                self._connection = await self._connected()
                self._outbox = _StreamOutbox(self._connection, self._counters, self._on_send_error)
                self._decoder = StreamDecoder(self._counters)
                self._tell("QEMU is connected")
            try:
                data = await loop.sock_recv(self._connection, READ_SIZE)
            except OSError:
                data = b""
            frames = self._decoder.take(data)
            if self._decoder.broken is not None:
                self._disconnect(f"sent a frame length of {self._decoder.broken}, which cannot be")
            elif not data:
                self._disconnect("has gone")
            if frames:
                return frames
            # A guest that sends nothing but nonsense leaves the event loop to others all the same.
            await asyncio.sleep(0)

    def write(self, frames: Sequence[bytes]) -> None:
        if self._outbox is None:
            self._counters.add("qemu.drop.no_guest", len(frames))
        else:
            self._outbox.put([len(frame).to_bytes(LENGTH_BYTES, "big") + frame for frame in frames])

    def _on_send_error(self, _: OSError, items: list[bytes]) -> None:
        """Count them; that the connection has ended is what the reader sees and says."""
        self._counters.add("qemu.drop.no_guest", len(items))

    def _disconnect(self, why: str) -> None:
        if self._decoder.partial:
            self._counters.add("qemu.drop.truncated")
        self._let_go()
        self._tell(f"QEMU {why}; waiting for it to connect again")

    def _let_go(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = self._connection = None

    def close(self) -> None:
        self._let_go()


class ListeningStream(_Stream):
    """For ``-netdev stream,server=off``."""

    def __init__(self, path: str, counters: Counters, tell: Callable[[str], None]) -> None:
        super().__init__(path, counters, tell)
        self._listener = _bind(path, socket.SOCK_STREAM)
        self._listener.listen()
        tell("waiting for QEMU to connect")

    async def _connected(self) -> socket.socket:
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        return connection

    def close(self) -> None:
        """Close the connection and the listening socket, and remove its file."""
        super().close()
        self._listener.close()
        Path(self.path).unlink(missing_ok=True)


class ConnectingStream(_Stream):
    """For ``-netdev stream,server=on``."""

    _tried = False

    async def _connected(self) -> socket.socket:
        while True:
            # Not at once after a loss: what listens there may do so only to hang up.
            if self._tried:
                await asyncio.sleep(RETRY)
            self._tried = True
            connection = _socket(socket.SOCK_STREAM)
            try:
                connection.connect(self.path)
            except OSError as error:
                connection.close()
                self._tell(f"no QEMU: {error.strerror}; trying again")
            else:
                return connection


class DatagramSocket:
    """For ``-netdev dgram`` and ``unixgram``: ``path`` is the guest's remote path, where its frames go."""

    def __init__(self, path: str, counters: Counters, tell: Callable[[str], None]) -> None:
        self.path = path
        self._counters = counters
        self._tell = tell
        self._socket = _bind(path, socket.SOCK_DGRAM)
        # Frames leave by a socket of their own: connected, so that it tells when there is room again. This
        # one must not be: it would take datagrams of its peer only, which a restarted QEMU no longer is.
        self._outbox: _Outbox | None = None
        self._guest: str | bytes | None = None
        tell("waiting for QEMU to send")

    async def read(self) -> list[bytes]:
        """Return frames of the guest, at least one."""
        loop = asyncio.get_running_loop()
        while True:
            datagrams = [await loop.sock_recvfrom(self._socket, MAX_FRAME_LENGTH + 1)]
            with contextlib.suppress(BlockingIOError, InterruptedError):
                while len(datagrams) < READS_PER_TURN:
                    datagrams += (self._socket.recvfrom(MAX_FRAME_LENGTH + 1),)
            frames = [frame for frame, _ in datagrams if frame != HELLO]
            sender = datagrams[-1][1]
            # One that says hello has begun anew, perhaps at the path of one that is gone.
            if sender and (sender != self._guest or len(frames) < len(datagrams)):
                self._turn_to(sender)
            frames = [frame for frame in frames if self._fits(frame)]
            if frames:
                return frames
            await asyncio.sleep(0)

    def _fits(self, frame: bytes) -> bool:
        if HEADER_LENGTH <= len(frame) <= MAX_FRAME_LENGTH:
            return True
        self._counters.add("qemu.drop.runt" if len(frame) < HEADER_LENGTH else "qemu.drop.bad_length")
        return False

    def _turn_to(self, guest: str | bytes) -> None:
        self._let_go()
        sender = _socket(socket.SOCK_DGRAM)
        try:
            sender.connect(guest)
        except ConnectionRefusedError:
            sender.close()
            return
        except OSError as error:
            sender.close()
            if error.errno != errno.EPERM:
                self._tell(f"no way to send to {os.fsdecode(guest)}: {error.strerror}")
                return
            # It is connected to this end, and takes datagrams from nobody else.
            self._outbox = _Outbox(self._socket, self._counters, self._on_send_error, guest)
        else:
            self._outbox = _Outbox(sender, self._counters, self._on_send_error)
        self._guest = guest
        self._tell(f"QEMU is at {os.fsdecode(guest)}")

    def write(self, frames: Sequence[bytes]) -> None:
        """Hand frames to the guest; without one they are counted and dropped."""
        if self._outbox is None:
            self._counters.add("qemu.drop.no_guest", len(frames))
        else:
            self._outbox.put(frames)

    def _on_send_error(self, error: OSError, frames: list[bytes]) -> None:
        """Turn to the QEMU that may have taken the place of the one which is gone."""
        guest = self._guest
        self._let_go()
        if guest is not None and isinstance(error, ConnectionError):
            self._turn_to(guest)
        if self._outbox is None:
            self._tell("QEMU has gone; waiting for it to send again")
        self.write(frames)

    def _let_go(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = self._guest = None

    def close(self) -> None:
        """Close the sockets and remove the file."""
        self._let_go()
        self._socket.close()
        Path(self.path).unlink(missing_ok=True)


MODES: dict[str, Callable[[str, Counters, Callable[[str], None]], QemuSocket]] = {
    "listen": ListeningStream,
    "connect": ConnectingStream,
    "dgram": DatagramSocket,
}


def _socket(kind: socket.SocketKind) -> socket.socket:
    """Make a socket that never blocks; SOCK_NONBLOCK is Linux's, and vfkit and krunkit run on macOS."""
    made = socket.socket(socket.AF_UNIX, kind)
    made.setblocking(False)
    return made


def _bind(path: str, kind: socket.SocketKind) -> socket.socket:
    """Make a socket at ``path``, also where a process that is gone left one. Raises QemuError.

    Who may connect is decided by the umask and the directory, as for any file.
    """
    bound = _socket(kind)
    try:
        if _abandoned(path, kind):
            Path(path).unlink(missing_ok=True)
        bound.bind(path)
    except OSError as error:
        bound.close()
        raise QemuError(f"{path}: {error.strerror or error}") from None
    return bound


def _abandoned(path: str, kind: socket.SocketKind) -> bool:
    """Tell whether ``path`` is a socket that nobody serves."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with _socket(kind) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
