"""TCP servers in one program, for tests: usage ``tcp_server.py ADDRESS``; names its ports on stdout.

source: sends the number of bytes that the first line names, then ends; the bytes are the test's pattern.
sink: reads to the end, then answers with the SHA-256 of what came. echo: sends back what comes.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys

BLOCK = bytes(range(251)) * 261


async def source(reader, writer):
    left = int(await reader.readline())
    while left > 0:
        writer.write(BLOCK[:left])
        left -= len(BLOCK[:left])
        await writer.drain()


async def sink(reader, writer):
    digest = hashlib.sha256()
    while data := await reader.read(1 << 16):
        digest.update(data)
    writer.write(digest.hexdigest().encode())


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


def closing(serve):
    async def handle(reader, writer):
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return handle


async def main(address):
    for serve in (source, sink, echo):
        server = await asyncio.start_server(closing(serve), address, 0, backlog=512)
        print(f"{serve.__name__} on port {server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
