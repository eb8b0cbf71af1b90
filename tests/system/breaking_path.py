"""A path to a relay that breaks when it is told to: ``breaking_path.py PORT``; names its port on stdout.

It passes on UDP and TCP to 127.0.0.1. SIGUSR1 breaks all there is: packets of UDP clients of before are
swallowed in both directions, TCP connections are reset; new ones get through. SIGUSR2 closes its UDP port for
good.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import sys
from typing import Any

HOST = "127.0.0.1"


class Upstream(asyncio.DatagramProtocol):
    """The path's socket towards the relay, for one client."""

    def __init__(self, path, client):
        self._path, self._client = path, client
        self._early = []
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        for packet in self._early:
            transport.sendto(packet)

    def send(self, packet):
        if self.transport is None:
            self._early.append(packet)
        else:
            self.transport.sendto(packet)

    def datagram_received(self, data, _):
        if self._client not in self._path.broken:
            self._path.downstream.sendto(data, self._client)


class Path(asyncio.DatagramProtocol):
    def __init__(self, port):
        self._relay = (HOST, port)
        self._upstreams = {}
        self._streams = set()
        self.broken = set()

    def connection_made(self, transport):
        self.downstream = transport

    def datagram_received(self, data, client):
        if client in self.broken:
            return
        if client not in self._upstreams:
            upstream: Any = Upstream(self, client)
            self._upstreams[client] = upstream
            opening = asyncio.get_running_loop().create_datagram_endpoint(
                lambda: upstream, remote_addr=self._relay
            )
            upstream.opening = asyncio.ensure_future(opening)
        self._upstreams[client].send(data)

    async def serve(self, reader, writer):
        to_reader, to_writer = await asyncio.open_connection(*self._relay)
        ends = {writer, to_writer}
        self._streams |= ends
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))
        self._streams -= ends

    def break_all(self):
        self.broken |= set(self._upstreams)
        for writer in self._streams:
            opened = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        print("broken", flush=True)

    def close_udp(self):
        self.downstream.close()
        print("closed", flush=True)


async def copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port):
    loop = asyncio.get_running_loop()
    path = Path(port)
    server = await asyncio.start_server(path.serve, HOST, 0)
    own = server.sockets[0].getsockname()[1]
    await loop.create_datagram_endpoint(lambda: path, local_addr=(HOST, own))
    loop.add_signal_handler(signal.SIGUSR1, path.break_all)
    loop.add_signal_handler(signal.SIGUSR2, path.close_udp)
    print(f"path on port {own}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
