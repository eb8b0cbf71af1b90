"""A TFTP server for tests (RFC 1350, options of RFC 2347 to 2349): usage ``tftp_server.py ADDRESS FOLDER``.

Each file is sent from a port of its own, as TFTP servers do: what comes back to a client comes from another
port than the one that it wrote to.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from pathlib import Path

RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
PORT = 69
REPEAT_AFTER, TRIES = 1.0, 10


class Port(asyncio.DatagramProtocol):
    """A UDP port whose datagrams are awaited."""

    def __init__(self):
        self.arrived = asyncio.Queue()

    def datagram_received(self, data, address):
        self.arrived.put_nowait((data, address))


async def open_port(address, number=0):
    return await asyncio.get_running_loop().create_datagram_endpoint(Port, (address, number))


async def ask(transport, port, client, packet, number):
    """Send until block ``number`` is acknowledged; whether it was."""
    for _ in range(TRIES):
        transport.sendto(packet, client)
        try:
            async with asyncio.timeout(REPEAT_AFTER):
                while True:
                    data, address = await port.arrived.get()
                    if data[:2] == struct.pack("!H", ERROR):
                        return False
                    if address == client and data[:4] == struct.pack("!HH", ACK, number):
                        return True
        except TimeoutError:
            continue
    return False


async def send(local, folder, request, client):
    words = request[2:].decode("latin-1").split("\0")
    options = dict(zip(words[2:-1:2], words[3::2], strict=False))
    transport, port = await open_port(local)
    try:
        path = folder / words[0].lstrip("/")
        if not path.is_file():
            transport.sendto(struct.pack("!HH", ERROR, 1) + b"no such file\0", client)
            return
        content, size = path.read_bytes(), int(options.get("blksize", 512))
        taken = {"blksize": str(size), "tsize": str(len(content))}
        said = "".join(f"{name}\0{value}\0" for name, value in taken.items() if name in options)
        if said and not await ask(transport, port, client, struct.pack("!H", OACK) + said.encode(), 0):
            return
        for at in range(0, len(content) + 1, size):
            number = (at // size + 1) & 0xFFFF
            block = struct.pack("!HH", DATA, number) + content[at : at + size]
            if not await ask(transport, port, client, block, number):
                return
        print(f"sent {words[0]} from port {transport.get_extra_info('sockname')[1]}", flush=True)
    finally:
        transport.close()


async def main(local, folder):
    _, port = await open_port(local, PORT)
    print("serving", flush=True)
    async with asyncio.TaskGroup() as tasks:
        while True:
            request, client = await port.arrived.get()
            if request[:2] == struct.pack("!H", RRQ):
                tasks.create_task(send(local, folder, request, client))


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
