"""Packets of guests through the NAT, and LANs for them."""

from __future__ import annotations

from gateway_parts import Lan, packet
from scapy.layers.inet import ICMP, UDP
from scapy.packet import Raw
from test_ipv6_router import packet as packet6

from actors.settings import LanSettings

SERVER = ("192.0.2.1", 7000)


def lan_of_three(counters):
    """A LAN with guests at ports 1 to 3."""
    lan = Lan(counters)
    for port in (1, 2, 3):
        lan.assign(port)
    return lan


def lan_of_both(counters):
    """A LAN with both IP versions and one guest, at port 1."""
    lan = Lan(counters, ipv6_prefix=LanSettings().ipv6_prefix)
    lan.assign(1)
    return lan


def udp(port, sport=4000, *, dst="192.0.2.1", dport=7000, data=b"question", ttl=64):
    return packet(port, dst, ttl=ttl) / UDP(sport=sport, dport=dport) / Raw(data)


def udp6(port, sport=4000, *, dst="2606:4700::1111", dport=7000, data=b"question"):
    return packet6(port, dst) / UDP(sport=sport, dport=dport) / Raw(data)


def ping(port, identifier=7, seq=1, *, dst="192.0.2.1", data=b"payload", ttl=64):
    return packet(port, dst, ttl=ttl) / ICMP(id=identifier, seq=seq) / Raw(data)


def echo_reply(identifier, seq, data):
    return bytes(ICMP(type=0, id=identifier, seq=seq) / Raw(data))
