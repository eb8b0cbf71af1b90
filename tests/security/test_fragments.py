"""Fragments that are never whole, from many sessions: a neighbour's pings all come back meanwhile."""

from __future__ import annotations

import asyncio
import struct

import pytest
from guests import GATEWAY_MAC, Guest
from processes import Relay
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from watch import spares_the_neighbour

from netstack.checksum import checksum

SESSIONS = 31
PACKETS = 600
"""Of each session: more than it may hold."""
PIECES = 64


def packets(guest, version):
    """Headers of packets that differ in their identification, as a function of that and of an offset."""
    link_local = "fe80::" + ":".join(
        guest.mac.replace(":", "")[at : at + 4] for at in (0, 4, 8)
    )  # the guest's own, as it used none before

    def build(identification, units):
        if version == 4:
            ip = IP(src=guest.address, dst="192.0.2.1", id=identification, flags="MF", frag=units, proto=17)
        else:
            ip = IPv6(src=link_local, dst="fd76:6d72:656c:6179::2") / IPv6ExtHdrFragment(
                id=identification, m=1, offset=units, nh=17
            )
        return bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / ip / Raw(bytes(8)))

    sample = build(1, 0)

    def patched(identification, units):
        """Give what ``build`` does, which takes a millisecond."""
        frame = bytearray(sample)
        if version == 4:
            frame[18:22] = struct.pack("!HH", identification, 0x2000 | units)
            frame[24:26] = bytes(2)
            frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
        else:
            frame[56:62] = struct.pack("!HI", units << 3 | 1, identification)
        return bytes(frame)

    assert patched(7, 9) == build(7, 9)
    return patched


async def send(guest, frames):
    for start in range(0, len(frames), 64):
        guest.send_frames(frames[start : start + 64])
        await guest.client.wait_writable()
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("version", [4, 6])
def test_pieces_of_packets_that_are_never_whole(version):
    relay = Relay()

    async def attack():
        guests = [await Guest.join(relay) for _ in range(SESSIONS)]
        builds = [packets(guest, version) for guest in guests]
        for build, guest in zip(builds, guests, strict=True):
            await send(guest, [build(number + 1, 0) for number in range(PACKETS)])
        for build, guest in zip(builds, guests, strict=True):
            await send(guest, [build(9_999, number * 2) for number in range(PIECES)])
        for guest in guests:
            guest.client.close()

    spares_the_neighbour(relay, attack)
    counters = relay.counters()
    assert counters["gateway.reassembly.overflow"] > SESSIONS
    assert counters["gateway.fragments"] > SESSIONS * PACKETS * 0.9
    relay.stop()
    assert "Traceback" not in relay.output
