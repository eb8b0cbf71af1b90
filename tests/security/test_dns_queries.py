"""Queries that are costly to read: a neighbour's pings all come back while a guest sends them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from dns_guests import Stream
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


def small_query(name=b"\3www\3lan\0"):
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"


def framed(*queries):
    """As they are sent over TCP (RFC 1035, section 4.2.2)."""
    return b"".join(len(query).to_bytes(2, "big") + query for query in queries)


def query_full_of_options():
    """EDNS options without data, as many as a query may be long for; each cost 6 us or more to parse."""
    head = b"\0\7\1\0\0\1\0\0\0\0\0\1" + small_query()[12:]
    return head + b"\0\0\x29\x10\0\0\0\0\0" + (4 * 1000).to_bytes(2, "big") + b"\xfd\xe9\0\0" * 1000


STREAMS = {
    "full of records": (framed(costly_query()), 800),
    "one after the other": (framed(*[small_query()] * 1000), 800),
    "many labels": (framed(*[small_query(b"\1a" * 126 + b"\0")] * 200), 800),
    "full of options": (framed(*[query_full_of_options()] * 20), 800),
    "byte by byte": (framed(*[small_query()] * 20), 1),
    "empty": (bytes(2 * 8000), 800),
    "names that point at themselves": (framed(*[small_query(b"\xc0\x0c")] * 1000), 800),
    "a length and no more": (b"\xff\xff" + bytes(30000), 800),
}


@pytest.mark.parametrize("case", STREAMS)
@pytest.mark.parametrize("version", [4, 6])
def test_streams_full_of_queries(relay, case, version):
    data, size = STREAMS[case]

    async def one():
        guest = await Guest.join(relay)
        for number in range(3):
            stream = Stream(guest, version, 2000 + number)
            await stream.open()
            await stream.send(data, size)
        guest.client.close()

    async def attack():
        await asyncio.gather(*(one() for _ in range(8)))

    spares_the_neighbour(relay, attack)
    assert relay.counters()["dns.drop.internal_error"] == 0
