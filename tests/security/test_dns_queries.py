"""Queries that are costly to read: a neighbour's pings all come back while a guest sends them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from guests import GATEWAY_MAC, Guest
from processes import Relay
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from watch import spares_the_neighbour

RECORDS = 3000


def costly_query():
    """One question and as many additional records as a datagram holds (42 KB); each cost 0.2 ms to read."""
    question = b"\3www\7example\0\0\1\0\1"
    header = b"\0\7\1\0\0\1\0\0\0\0" + RECORDS.to_bytes(2, "big")
    return header + question + RECORDS * (b"\xc0\x0c\xff\0\0\1" + bytes(4) + b"\0\2\0\0")


def processor_seconds(relay):
    """Seconds that the relay's process has computed (proc(5): utime and stime)."""
    fields = Path(f"/proc/{relay.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_queries_full_of_records():
    relay = Relay()

    async def attack():
        guest = await Guest.join(relay)
        packet = IP(src=guest.address, dst="10.0.2.2", id=7) / UDP(sport=5353, dport=53) / Raw(costly_query())
        for number in range(20):
            packet.id = number + 1
            pieces = fragment(packet, fragsize=800)
            guest.send_frames([bytes(Ether(src=guest.mac, dst=GATEWAY_MAC) / piece) for piece in pieces])
            await guest.client.wait_writable()
            await asyncio.sleep(0.05)
        guest.client.close()

    before = processor_seconds(relay)
    spares_the_neighbour(relay, attack)
    assert processor_seconds(relay) - before < 3.0, "20 queries at 0.2 s or more are above that"
    counters = relay.counters()
    assert counters["dns.refused"] > 0
    relay.stop()
    assert "Traceback" not in relay.output
