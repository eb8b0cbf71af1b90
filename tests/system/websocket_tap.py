"""A TAP device on a relay's LAN by WebSocket: usage ``websocket_tap.py NAME NETNS URL``; runs until killed.

Framed, over TCP, with a kernel behind it: a guest as those of browsers that have no WebTransport.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from websockets.asyncio.client import connect

from guest.tap import Tap
from netstack.counters import Counters

CONTROL, FRAME = b"\0", b"\1"


async def to_relay(tap, socket):
    while True:
        for frame in await tap.read():
            await socket.send(FRAME + frame)


async def main(name, namespace, url):
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    tap = Tap(name, Counters(), namespace)
    tap.bring_up()
    async with connect(url, ssl=trust, proxy=None, compression=None) as socket:
        await socket.send(CONTROL + json.dumps({"type": "Register", "mac": list(tap.mac)}).encode())
        sending = None
        message: Any
        async for message in socket:
            if message[:1] == FRAME:
                tap.write([message[1:]])
            elif sending is None and (said := json.loads(message[1:]))["type"] == "Assigned":
                address, gateway = (IPv4Address(bytes(said[key])) for key in ("ip", "gateway"))
                tap.set_address(IPv4Interface(f"{address}/24"), gateway)
                print(f"attached to {url} as {tap.mac.hex(':')}, address {address}/24, gateway {gateway}")
                sys.stdout.flush()
                sending = asyncio.create_task(to_relay(tap, socket))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
