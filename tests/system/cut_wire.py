"""A TCP wire that can be cut: what is on it then stays where it is, and nobody is told."""

from __future__ import annotations

import asyncio
import contextlib


class CutWire:
    """Passes connections to a port of this machine on; part of the running loop."""

    def __init__(self, port):
        self._to = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks = set()
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def cut(self):
        self._whole.clear()

    def mend(self):
        self._whole.set()

    async def _connected(self, reader, writer):
        self._writers.append(writer)
        await self._whole.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers.append(far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
        sink.close()
