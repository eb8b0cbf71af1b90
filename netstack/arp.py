"""ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

Frame layout: Ethernet header 0:14, hardware type 14:16, protocol type 16:18, lengths 18:20, operation
20:22, sender MAC 22:28, sender address 28:32, target MAC 32:38, target address 38:42.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from netstack.ethernet import ETHERTYPE_ARP, HEADER_LENGTH
from netstack.malformed import MalformedPacket

REQUEST = 1
REPLY = 2

ARP_FRAME_LENGTH = 42

_ETHERNET_IPV4 = b"\x00\x01\x08\x00\x06\x04"
_BODY = Struct("!6sH6s4s6s4s")


class ArpPacket(NamedTuple):
    """An ARP request or reply; MACs are 6 bytes, addresses 4."""

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes


def parse_arp(frame: bytes) -> ArpPacket:
    """Take the ARP packet out of a frame; padding is ignored. Raises MalformedPacket."""
    if len(frame) < ARP_FRAME_LENGTH:
        raise MalformedPacket("truncated")
    if frame[12:14] != ETHERTYPE_ARP:
        raise MalformedPacket("wrong_ethertype")
    kind, operation, sender_mac, sender_ip, target_mac, target_ip = _BODY.unpack_from(frame, HEADER_LENGTH)
    if kind != _ETHERNET_IPV4 or operation not in (REQUEST, REPLY):
        raise MalformedPacket("bad_arp")
    return ArpPacket(operation, sender_mac, sender_ip, target_mac, target_ip)
