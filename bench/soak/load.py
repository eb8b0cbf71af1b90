"""What guests do to a relay all day, each kind over and over: they join, talk, and leave well or badly.

A kind is a coroutine function that does one round and raises when something did not come out as it should.
Frames at high rates come from relaybench; what it does not speak is said here, with scapy.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from scapy.contrib.igmp import IGMP
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import WebSocketException

from guest.client import ConnectError, SessionEndedError
from guest.vm_client import VirtualNic, vm_client

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Awaitable, Callable

GATEWAY = "10.0.2.2"
GATEWAY_MAC = "52:54:00:12:34:56"
BROADCAST = "ff:ff:ff:ff:ff:ff"
CONTROL, FRAME = b"\0", b"\1"
PATIENCE = 20.0
"""Seconds for an answer to come; the machine may be busy with other things."""
QUESTIONS = 20
ABANDONED = 20
"""First pieces of packets of which no other follows, in a round."""

UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE

_numbers = itertools.count(1)


class LoadError(Exception):
    """A round did not come out as it should."""


class Place(NamedTuple):
    """Where the relay is, what is behind it, and what drives it."""

    port: int
    servers_port: int
    """UDP echo, and above it TCP source, sink and echo."""
    relaybench: str

    @property
    def url(self) -> str:
        """Of the relay."""
        return f"https://127.0.0.1:{self.port}/"

    @property
    def servers(self) -> dict[str, str]:
        """What is behind it, by name, as ``127.0.0.1:7000``."""
        names = ("udp", "source", "sink", "echo")
        return {name: f"127.0.0.1:{self.servers_port + n}" for n, name in enumerate(names)}


# -- by relaybench --------------------------------------------------------------------------------


async def _relaybench(place: Place, words: str, *, kill_after: float | None = None) -> None:
    process = await asyncio.create_subprocess_exec(
        *(place.relaybench, "--url", place.url, *words.format(**place.servers).split()),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(kill_after):
            _, said = await process.communicate()
        if process.returncode:
            raise LoadError(said.decode(errors="replace").strip().rpartition("\n")[2] or "relaybench failed")
    except TimeoutError:
        if kill_after is None:
            raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def by_relaybench(words: str) -> Callable[[Place], Awaitable[None]]:
    """Return a kind that runs relaybench to its end."""
    return lambda place: _relaybench(place, words)


def killed(words: str) -> Callable[[Place], Awaitable[None]]:
    """Return a kind whose guests vanish without a word in the middle of what they do."""
    return lambda place: _relaybench(place, words, kill_after=3)


# -- by scapy -------------------------------------------------------------------------------------


def _join(place: Place, name: str = "") -> contextlib.AbstractAsyncContextManager[VirtualNic]:
    return vm_client(place.url, insecure=True, rewriter=False, name=name)


def _ether(nic: VirtualNic, to: str = GATEWAY_MAC) -> Ether:
    return Ether(src=nic.mac.hex(":"), dst=to)


def _ip(nic: VirtualNic, to: str = GATEWAY, **fields: object) -> IP:
    assert nic.assigned is not None
    return IP(src=str(nic.assigned.ip), dst=to, **fields)


async def _hear(nic: VirtualNic, wanted: Callable[[Ether], bool], count: int = 1) -> Ether:
    """Wait for ``count`` frames that are wanted; give the last."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for frame in await nic.recv_batch():
                if wanted(packet := Ether(frame)):
                    count -= 1
                    if not count:
                        return packet


async def names(place: Place) -> None:
    """Ask the gateway for names that are new and old, of the outside and of the LAN."""
    number = next(_numbers)
    async with _join(place, f"soak-{number}") as nic:
        asked = [f"{number}-{n}.example.org" for n in range(QUESTIONS // 2)]
        asked += [f"{n}.example.net" for n in range(QUESTIONS // 2 - 1)] + [f"soak-{number}.vm.internal"]
        for query, name in enumerate(asked):
            question = DNS(id=query, rd=1, qd=DNSQR(qname=name))
            nic.send([bytes(_ether(nic) / _ip(nic) / UDP(sport=5300 + query, dport=53) / question)])
        await _hear(nic, lambda p: DNS in p and p[DNS].ancount > 0, len(asked))


async def leases(place: Place) -> None:
    """Get a lease by DHCP as the kernel behind a NIC does, and give it back."""
    async with _join(place) as nic:
        assert nic.assigned is not None
        address, hardware, xid = str(nic.assigned.ip), nic.mac, next(_numbers)
        asker = Ether(src=hardware.hex(":"), dst=BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255")
        asker = asker / UDP(sport=68, dport=67) / BOOTP(xid=xid, chaddr=hardware)
        for kind, answer in (("discover", 2), ("request", 5)):
            options = [("message-type", kind), ("server_id", GATEWAY), ("requested_addr", address), "end"]
            nic.send([bytes(asker / DHCP(options=options))])
            await _hear(nic, lambda p, a=answer: DHCP in p and ("message-type", a) in p[DHCP].options)
        release = BOOTP(xid=xid, chaddr=hardware, ciaddr=address) / DHCP(
            options=[("message-type", "release"), ("server_id", GATEWAY), "end"]
        )
        nic.send([bytes(_ether(nic) / _ip(nic) / UDP(sport=68, dport=67) / release)])


async def pieces(place: Place) -> None:
    """Ping with packets in pieces, and leave others unfinished."""
    async with _join(place) as nic:
        for number in range(5):
            whole = _ip(nic, id=number) / ICMP(id=7, seq=number) / Raw(os.urandom(3000))
            nic.send([bytes(_ether(nic) / piece) for piece in fragment(whole, 1400)])
            await _hear(nic, lambda p: IP in p and p[IP].src == GATEWAY and p[IP].frag > 0)
        for number in range(ABANDONED):
            piece = _ip(nic, id=1000 + number, flags="MF", proto=17) / Raw(os.urandom(1200))
            nic.send([bytes(_ether(nic) / piece)])


async def groups(place: Place) -> None:
    """Join a multicast group, hear what is said to it, and leave it."""
    number = next(_numbers)
    group = f"239.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}.{number & 0xFF}"
    hardware = f"01:00:5e:{number >> 16 & 0x7F:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"
    async with _join(place) as listener, _join(place) as speaker:
        for kind, to in ((0x16, group), (0x17, "224.0.0.2")):
            if kind == 0x17:
                words = [
                    bytes(_ether(speaker, hardware) / _ip(speaker, group) / UDP(dport=5000) / b"all")
                ] * 20
                speaker.send(words)
                await _hear(listener, lambda p: IP in p and p[IP].dst == group, len(words))
            report = IGMP(type=kind, gaddr=group)
            listener.send([bytes(_ether(listener, hardware) / _ip(listener, to, ttl=1) / report)])


async def ipv6(place: Place) -> None:
    """Solicit the router, as a kernel does whose link comes up."""
    async with _join(place) as nic:
        tail = struct.unpack("!HHHH", bytes((nic.mac[0] ^ 2, *nic.mac[1:3], 0xFF, 0xFE, *nic.mac[3:])))
        source = "fe80::" + ":".join(f"{word:x}" for word in tail)
        solicitation = ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=nic.mac.hex(":"))
        nic.send(
            [
                bytes(
                    _ether(nic, "33:33:00:00:00:02")
                    / IPv6(src=source, dst="ff02::2", hlim=255)
                    / solicitation
                )
            ]
        )
        await _hear(nic, lambda p: ICMPv6ND_RA in p)


async def websockets(place: Place) -> None:
    """Join by WebSocket, framed and raw, ping the gateway, and leave: every other one without a goodbye."""
    number = next(_numbers)
    hardware = b"\x52\x54\x01" + number.to_bytes(3, "big")
    for path in ("", "raw"):
        prefix = b"" if path else FRAME
        async with (
            asyncio.timeout(PATIENCE),
            websocket(f"wss://127.0.0.1:{place.port}/{path}", proxy=None, ssl=UNVERIFIED) as client,
        ):
            address = "10.0.2.250"
            if not path:
                await client.send(CONTROL + json.dumps({"type": "Register", "mac": list(hardware)}).encode())
                while (said := await client.recv())[:1] != CONTROL or b"Assigned" not in said:
                    pass
                address = ".".join(map(str, json.loads(said[1:])["ip"]))
                request = IP(src=address, dst=GATEWAY) / ICMP(seq=number & 0xFFFF)
                expected = ICMP
            else:
                request, expected = ARP(hwsrc=hardware.hex(":"), psrc="0.0.0.0", pdst=GATEWAY), ARP
            to = BROADCAST if path else GATEWAY_MAC
            await client.send(prefix + bytes(Ether(src=hardware.hex(":"), dst=to) / request))
            while expected not in Ether((await client.recv())[len(prefix) :]):
                pass
            if number % 2:
                client.transport.abort()


async def garbage(place: Place) -> None:
    """Send what nobody understands, and see that the session is alive."""
    async with _join(place) as nic:
        nic.send([bytes(_ether(nic)) + os.urandom(n) for n in range(1, 120)])
        nic.send([bytes(_ether(nic) / _ip(nic) / ICMP(seq=1) / b"alive")])
        await _hear(nic, lambda p: ICMP in p and p[ICMP].type == 0)


# -- all of it ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Kind:
    """A kind of load, and how it went so far."""

    name: str
    round: Callable[[Place], Awaitable[None]]
    pause: float
    """Seconds between two rounds."""
    done: int = 0
    failed: int = 0
    problem: str = ""
    """What was wrong with the last round that failed."""

    async def repeat(self, place: Place) -> None:
        """Go on until cancelled."""
        while True:
            try:
                async with asyncio.timeout(4 * PATIENCE):
                    await self.round(place)
            except (
                OSError,
                TimeoutError,
                ConnectError,
                SessionEndedError,
                WebSocketException,
                LoadError,
            ) as error:
                self.failed += 1
                self.problem = f"{type(error).__name__}: {error}"
            else:
                self.done += 1
            await asyncio.sleep(self.pause)


def kinds() -> list[Kind]:
    """Return all kinds of load, none of which has begun."""
    return [
        Kind("l2 pairs", by_relaybench("l2 --pairs 2 --window 16 --rate 300 --secs 8"), 1),
        Kind("l2 raw pair", by_relaybench("--raw l2 --pairs 1 --window 8 --size 300 --rate 200 --secs 5"), 4),
        Kind("broadcast", by_relaybench("broadcast --peers 6 --rate 20 --secs 5"), 3),
        Kind("TCP download", by_relaybench("tcp --dst {source} --bytes 20000000 --mtu 1100"), 6),
        Kind("TCP upload", by_relaybench("tcp --dst {sink} --direction upload --bytes 20000000"), 6),
        Kind("TCP, four streams", by_relaybench("tcp --dst {source} --bytes 8000000 --streams 4"), 8),
        Kind("TCP connections", by_relaybench("tcp-connect --dst {echo} --count 60"), 2),
        Kind("UDP flows", by_relaybench("udp --dst {udp} --flows 50 --window 2 --secs 2"), 6),
        Kind("pings outside", by_relaybench("ping --dst 127.0.0.1 --count 100 --interval-ms 20"), 1),
        Kind("sessions join and leave", by_relaybench("setup --count 20 --concurrency 4"), 3),
        Kind("guests vanish", killed("l2 --pairs 2 --rate 100 --secs 30"), 20),
        Kind("guests vanish amid TCP", killed("tcp --dst {source} --bytes 1000000000"), 20),
        Kind("names (DNS)", names, 1),
        Kind("leases (DHCP)", leases, 2),
        Kind("fragments", pieces, 2),
        Kind("multicast groups", groups, 2),
        Kind("router advertisements", ipv6, 2),
        Kind("WebSockets", websockets, 1),
        Kind("garbage", garbage, 2),
    ]
