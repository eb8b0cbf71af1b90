"""A guest that comes back: a NIC that reconnects soon, and pings the gateway ten times a second.

python steady_guest.py URL HASH        says when it is attached, detached, and each ping that returns
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import sys

from guest.client import SessionEndedError
from guest.nic_changes import Attached, Resized
from guest.vm_client import vm_client
from netstack.icmp import build_echo, parse_icmp
from netstack.ipv4 import build_ipv4, pack_ipv4, parse_ipv4
from netstack.malformed import MalformedPacket

GATEWAY_MAC, GATEWAY = bytes.fromhex("525400123456"), pack_ipv4("10.0.2.2")
KEEP_ALIVE, IDLE_TIMEOUT = 0.5, 3.0
"""Seconds; by default they are 10 and 30."""
_NUMBER = struct.Struct("!I")


def tell(change):
    if isinstance(change, Resized):
        return
    attached = isinstance(change, Attached)
    print(f"attached as {change.assigned.ip}" if attached else f"detached: {change.reason}", flush=True)


async def ping(nic):
    for number in itertools.count(1):
        if nic.attached:
            echo = build_echo(8, 1, number & 0xFFFF, _NUMBER.pack(number))
            nic.send([build_ipv4(GATEWAY_MAC + nic.mac, nic.assigned.ip.packed, GATEWAY, 1, echo)])
        await asyncio.sleep(0.1)


async def main(url, certificate_hash):
    async with vm_client(
        url,
        cert_hash=certificate_hash,
        reconnect=True,
        on_change=tell,
        keep_alive=KEEP_ALIVE,
        idle_timeout=IDLE_TIMEOUT,
    ) as nic:
        pinging = asyncio.create_task(ping(nic))
        with contextlib.suppress(SessionEndedError):
            while True:
                for frame in await nic.recv_batch():
                    with contextlib.suppress(MalformedPacket):
                        message = parse_icmp(parse_ipv4(frame).payload)
                        if message.type == 0:
                            print("pong", *_NUMBER.unpack(message.data), flush=True)
        pinging.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
