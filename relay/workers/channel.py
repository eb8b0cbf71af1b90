"""What the supervisor and a worker tell each other: a line of JSON for each message, over a socket pair.

A message is an object with a ``kind``. Both sides are this relay, yet perhaps of two versions of it: a kind
that is not known is left alone, and so are fields.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

MAX_MESSAGE = 8 << 20
"""Bytes of a message: settings with a thousand networks and rooms have a few hundred thousand."""

MAX_WAITING = 16 << 20
"""Bytes that wait for the other side before it counts as hung."""

Message = dict[str, Any]


class ChannelError(Exception):
    """The other side takes nothing any more, or what it says is no message."""


class Channel:
    """One side of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See :meth:`open`."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Speak over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_MESSAGE))

    def send(self, kind: str, **fields: Any) -> None:
        """Tell the other side something; never waits. Raises ChannelError."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_WAITING:
            raise ChannelError("the other side takes nothing any more")
        self._writer.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")

    async def receive(self) -> Message | None:
        """Wait for a message; None at the end. Raises ChannelError."""
        try:
            line = await self._reader.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except ConnectionError:
            return None
        except ValueError as error:
            raise ChannelError(f"no message: {error}") from None
        if message is not None and not isinstance(message, dict):
            raise ChannelError("no message: not an object")
        return message

    async def flush(self) -> None:
        """Wait until the other side, or the kernel for it, has all."""
        await self._writer.drain()

    def close(self) -> None:
        """Say and hear nothing any more; what waits for the other side is lost."""
        self._writer.transport.abort()
