"""Frames that cost the relay more than they bring, by kind: what a session's datagrams may hold.

A kind is a function that gives the datagrams for a packet of about 1,100 bytes; ``number`` makes them differ.
"""

from __future__ import annotations

from guests import BROADCAST, CHUNK, FRAME, GATEWAY_MAC
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

ATTACKER_MAC = "52:54:00:66:66:66"
ROOM = 1100
"""Bytes of a QUIC packet for such datagrams, with their headers of three bytes each."""


def tiny_datagrams(_number):
    return [CHUNK + b"\0\0\0\1"] * 120


def unknown_encapsulations(_number):
    return [b"\xff"] * 200


def fragments_of_frames(number):
    return [CHUNK + number.to_bytes(2, "big") + bytes((piece, 60)) + b"x" for piece in range(60)]


def frames(frame):
    """As many of a kind of Ethernet frame as a packet holds."""
    datagram = FRAME + bytes(frame)
    return [datagram] * (ROOM // (len(datagram) + 3))


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
