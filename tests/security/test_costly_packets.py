"""Packets that cost more than they bring: their sender is served after the others, and never before them."""

from __future__ import annotations

import asyncio
import time

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode
from guests import BROADCAST, CHUNK, FRAME, GATEWAY_MAC, Guest
from processes import Relay
from quic_attacker import attacker, send_slowly
from quic_parts import datagram_frame
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from stream_frames import stream_frame
from watch import spares_the_neighbour

SECONDS = 2.0
"""How long each attack lasts; who is closed for it stops earlier."""
ENDED_WITHIN = 30.0
"""Seconds after which who goes on has been closed."""
REASONS = {
    "packets cost more than their share",
    "it goes on sending more packets than there is time for",
}
ATTACKER_MAC = "52:54:00:66:66:66"


@pytest.fixture
def relay():
    relay = Relay()
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


def empty_stream_frames(_number):
    return stream_frame(2, 0, b"") * 230


def acknowledgements_in_ranges(_number):
    ranges = 250
    return b"\x02" + encode_uint_var(2 * ranges) + b"\0" + encode_uint_var(ranges) + b"\0" + b"\0\0" * ranges


def path_challenges(number):
    return b"".join(b"\x1a" + number.to_bytes(8, "big") for _ in range(120))


def stream_limits(_number):
    return b"\x10\x01" * 250


def pings_before_something_slow(_number):
    return b"\x01" * 200 + b"\x10\x01"


def tiny_datagrams(_number):
    return datagram_frame(CHUNK + b"\0\0\0\1") * 120


def unknown_encapsulations(_number):
    return datagram_frame(b"\xff") * 200


def fragments_of_frames(number):
    pieces = [CHUNK + number.to_bytes(2, "big") + bytes((piece, 60)) + b"x" for piece in range(60)]
    return b"".join(map(datagram_frame, pieces))


def frames(frame):
    """As many of a kind of Ethernet frame as a packet holds."""
    datagram = datagram_frame(FRAME + bytes(frame))
    return datagram * (1100 // len(datagram))


def from_attacker(destination=GATEWAY_MAC):
    return Ether(src=ATTACKER_MAC, dst=destination)


def arp_requests(_number):
    return frames(from_attacker(BROADCAST) / ARP(hwsrc=ATTACKER_MAC, psrc="10.0.2.99", pdst="10.0.2.2"))


def neighbour_solicitations(_number):
    solicitation = ICMPv6ND_NS(tgt="fe80::2") / ICMPv6NDOptSrcLLAddr(lladdr=ATTACKER_MAC)
    return frames(
        from_attacker("33:33:ff:00:00:02") / IPv6(src="fe80::99", dst="ff02::1:ff00:2") / solicitation
    )


def dhcp_discovers(number):
    discover = BOOTP(chaddr=bytes.fromhex(ATTACKER_MAC.replace(":", "")), xid=number) / DHCP(
        options=[("message-type", "discover"), "end"]
    )
    packet = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / discover
    return frames(from_attacker(BROADCAST) / packet)


def dns_questions(number):
    question = UDP(sport=5353, dport=53) / DNS(id=number & 0xFFFF, rd=1, qd=DNSQR(qname="a.lan"))
    return frames(from_attacker() / IP(src="10.0.2.99", dst="10.0.2.2") / question)


def echo_requests(number):
    return frames(from_attacker() / IP(src="10.0.2.99", dst="10.0.2.2") / ICMP(id=1, seq=number & 0xFFFF))


def ip_fragments(number):
    packet = IP(src="10.0.2.99", dst="10.0.2.2", id=number & 0xFFFF, flags="MF", frag=number & 0xFF)
    return frames(from_attacker() / packet / Raw(b"12345678"))


def tagged_frames(_number):
    return frames(from_attacker(BROADCAST) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / ARP(psrc="10.0.2.2"))


def sacks(number):
    options = [("SAck", tuple(range(number, number + 6)))]
    segment = TCP(sport=1 + number % 60000, dport=9, flags="A", options=options)
    return frames(from_attacker() / IP(src="10.0.2.99", dst="10.0.2.2") / segment)


KINDS = [
    empty_stream_frames,
    acknowledgements_in_ranges,
    path_challenges,
    stream_limits,
    pings_before_something_slow,
    tiny_datagrams,
    unknown_encapsulations,
    fragments_of_frames,
    arp_requests,
    neighbour_solicitations,
    dhcp_discovers,
    dns_questions,
    echo_requests,
    ip_fragments,
    tagged_frames,
    sacks,
]


async def flood(relay, payload, *, sessions, seconds, pause=None):
    """Have sessions send packets of a kind; return with what the relay has closed each of them."""

    async def one():
        async with attacker(relay) as (client, forge):
            stop = time.monotonic() + seconds
            packets = [payload(number) for number in range(16)]
            while not client.ended.done() and time.monotonic() < stop:
                burst = [forge.packet(packet) for packet in packets]
                await send_slowly(client.send, burst, pause=pause or max(0.01, 0.0025 * sessions))
            return client.ended.result() if client.ended.done() else None

    return await asyncio.gather(*(one() for _ in range(sessions)))


@pytest.mark.parametrize("payload", KINDS)
@pytest.mark.parametrize("sessions", [1, 8])
def test_packets_full_of_work(relay, payload, sessions):
    spares_the_neighbour(relay, lambda: flood(relay, payload, sessions=sessions, seconds=SECONDS))


def test_eight_sessions_that_go_on_are_closed(relay):
    async def attack():
        return await flood(relay, stream_limits, sessions=8, seconds=ENDED_WITHIN, pause=0.004)

    for end in spares_the_neighbour(relay, attack):
        assert end is not None
        assert end[0] == ErrorCode.H3_EXCESSIVE_LOAD
        assert end[1] in REASONS


def test_a_packet_of_more_frames_than_anybody_needs_closes_the_connection(relay):
    async def attack():
        async with attacker(relay) as (client, forge):
            client.send(forge.packet(b"\x10\x01" * 400))
            async with asyncio.timeout(20):
                assert (await client.end())[1] == "too many frames in a packet"

    spares_the_neighbour(relay, attack)


def test_a_busy_guest_is_not_closed(relay):
    async def load():
        guest = await Guest.join(relay)
        stop = time.monotonic() + SECONDS
        while time.monotonic() < stop:
            guest.send_frames([guest.echo_request(1, bytes(900))] * 32)
            await guest.client.wait_writable()
            await asyncio.sleep(0.005)
        guest.client.close()

    asyncio.run(load())
    assert relay.counters()["connection.excessive_work"] == 0
