"""What the gateway itself answers: ARP, echo replies, ICMP errors.

scapy renders each kind once, at start; a packet then costs a copy and the fields that differ.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from ipaddress import IPv4Network
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from netstack.arp import ARP_FRAME_LENGTH
from netstack.checksum import PROTOCOL_ICMP, add_up, finish
from netstack.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, HEADER_LENGTH, format_mac, is_station
from netstack.icmp import ERROR_TYPES, IcmpError
from netstack.ipv4 import DESTINATION, FIRST_MULTICAST, MIN_HEADER_LENGTH, SOURCE, format_ipv4

if TYPE_CHECKING:
    from collections.abc import Mapping

    from netstack.arp import ArpPacket
    from netstack.icmpv6 import Icmpv6Replies

MAX_ERROR_PACKET = 576
"""Bytes of an ICMP error with its IP header (RFC 1812 section 4.3.2.3)."""

_IP = HEADER_LENGTH
_ICMP = HEADER_LENGTH + MIN_HEADER_LENGTH
_MAX_QUOTE = MAX_ERROR_PACKET - MIN_HEADER_LENGTH - 8
_FRAGMENT_OFFSET = 0x1FFF
_LOOPBACK = 127
_THIS_NETWORK = 0

_LENGTH = Struct("!H")


class _Templates(NamedTuple):
    """Frames of a gateway with what differs from one to the next left out."""

    arp_reply: bytes
    arp_request: bytes
    echo_reply: bytes
    errors: Mapping[IcmpError, bytes]


@lru_cache(maxsize=64)
def _templates(mac: bytes, ip: bytes) -> _Templates:
    """Render the frames; LANs whose gateways have the same addresses share them."""
    scapy = _Scapy()
    ether = scapy.Ether(src=format_mac(mac), dst=format_mac(bytes(6)))
    arp = {"hwsrc": format_mac(mac), "psrc": format_ipv4(ip)}
    header = {"src": format_ipv4(ip), "dst": "0.0.0.0", "flags": "DF", "id": 0, "ttl": 64}
    return _Templates(
        arp_reply=bytes(ether / scapy.ARP(op="is-at", hwdst=format_mac(bytes(6)), pdst="0.0.0.0", **arp)),
        arp_request=bytes(ether / scapy.ARP(op="who-has", hwdst=format_mac(bytes(6)), pdst="0.0.0.0", **arp)),
        echo_reply=bytes(ether / scapy.IP(**header) / scapy.ICMP(type="echo-reply"))[:_ICMP],
        # Precedence 6, as RFC 1812 section 4.3.2.5 asks of errors.
        errors={
            error: bytes(
                ether
                / scapy.IP(tos=0xC0, **header)
                / scapy.ICMP(type=error.value[0], code=error.value[1], unused=0)
            )
            for error in IcmpError
        },
    )


class GatewayReplies:
    """Replies of the gateway that has ``mac`` (6 bytes) and ``ip`` (4 bytes) in ``network``."""

    def __init__(
        self, mac: bytes, ip: bytes, network: str = "10.0.2.0/24", ipv6: Icmpv6Replies | None = None
    ) -> None:
        """``ipv6`` builds the errors about IPv6 packets."""
        self._ipv6 = ipv6
        lan = IPv4Network(network)
        self._nobody = frozenset({lan.network_address.packed, lan.broadcast_address.packed})
        templates = _templates(mac, ip)
        self._arp_reply = templates.arp_reply
        self._arp_request = templates.arp_request
        self._echo_reply = templates.echo_reply
        self._errors = templates.errors

    def arp_reply(self, request: ArpPacket) -> bytes:
        """Build the frame that tells the sender of ``request`` that the wanted address is the gateway's."""
        frame = bytearray(self._arp_reply)
        frame[0:6] = request.sender_mac
        frame[28:32] = request.target_ip
        frame[32:38] = request.sender_mac
        frame[38:42] = request.sender_ip
        return bytes(frame[:ARP_FRAME_LENGTH])

    def arp_request(self, mac: bytes, address: bytes) -> bytes:
        """Build the frame that asks one NIC whether it still has ``address`` (RFC 1122 section 2.3.2.1)."""
        frame = bytearray(self._arp_request)
        frame[0:6] = mac
        frame[38:42] = address
        return bytes(frame[:ARP_FRAME_LENGTH])

    def echo_reply(self, frame: bytes) -> bytes:
        """Answer an echo request; ``frame`` was checked (IPv4, whole, ICMP type 8). Options are dropped."""
        request_at = _IP + (frame[_IP] & 0x0F) * 4
        message = frame[request_at : _IP + _LENGTH.unpack_from(frame, _IP + 2)[0]]
        # Type and code are 0. Computed anew, since patching can give the 0 that is no valid sum of zeros.
        new_checksum = finish(add_up(message[4:]))
        header = self._address(self._echo_reply, frame, MIN_HEADER_LENGTH + len(message))
        header[SOURCE] = frame[DESTINATION]
        _seal(header)
        return bytes(header) + b"\0\0" + _LENGTH.pack(new_checksum) + message[4:]

    def icmp_error(self, frame: bytes, error: IcmpError, mtu: int = 0) -> bytes | None:
        """Report ``error`` about the guest's ``frame``; None where RFC 1122 forbids an answer.

        Quotes as much of the guest's packet as fits 576 bytes. ``mtu`` goes with FRAGMENTATION_NEEDED
        (RFC 1191 section 4).
        """
        if self._ipv6 is not None and frame[12:14] == ETHERTYPE_IPV6:
            return self._ipv6.icmp_error(frame, error, mtu)
        if not self.may_report(frame):
            return None
        quote = frame[_IP : _IP + min(_LENGTH.unpack_from(frame, _IP + 2)[0], _MAX_QUOTE)]
        reply = self._address(self._errors[error], frame, MIN_HEADER_LENGTH + 8 + len(quote))
        _seal(reply)
        _LENGTH.pack_into(reply, _ICMP + 6, mtu)
        reply[_ICMP + 2 : _ICMP + 4] = b"\0\0"
        _LENGTH.pack_into(reply, _ICMP + 2, finish(add_up(bytes(reply[_ICMP:])) + add_up(quote)))
        return bytes(reply) + quote

    def may_report(self, frame: bytes) -> bool:
        """Whether an ICMP error about ``frame`` may be sent (RFC 1122 section 3.2.2).

        Not about an ICMP error, a fragment other than the first, a broadcast or multicast on either layer,
        or a packet whose source is not a single host.
        """
        if len(frame) < _ICMP or frame[12:14] != ETHERTYPE_IPV4:
            return False
        if not is_station(frame[0:6]) or not is_station(frame[6:12]):
            return False
        if _LENGTH.unpack_from(frame, 20)[0] & _FRAGMENT_OFFSET:
            return False
        source, destination = frame[SOURCE], frame[DESTINATION]
        if source[0] in (_THIS_NETWORK, _LOOPBACK) or source[0] >= FIRST_MULTICAST:
            return False
        if destination[0] >= FIRST_MULTICAST or not self._nobody.isdisjoint((source, destination)):
            return False
        icmp_at = _IP + (frame[_IP] & 0x0F) * 4
        return frame[23] != PROTOCOL_ICMP or (len(frame) > icmp_at and frame[icmp_at] not in ERROR_TYPES)

    @staticmethod
    def _address(template: bytes, frame: bytes, total_length: int) -> bytearray:
        """Copy ``template`` with the guest that sent ``frame`` as its destination."""
        reply = bytearray(template)
        reply[0:6] = frame[6:12]
        _LENGTH.pack_into(reply, _IP + 2, total_length)
        reply[DESTINATION] = frame[SOURCE]
        return reply


def _seal(reply: bytearray) -> None:
    """Compute the IP header's checksum."""
    reply[24:26] = b"\0\0"
    _LENGTH.pack_into(reply, 24, finish(add_up(bytes(reply[_IP:_ICMP]))))


class _Scapy:
    """The few layers needed, imported at first use: importing them takes a good part of a second."""

    def __init__(self) -> None:
        # It warns of missing routes and the like, of no interest to one who only builds packets.
        logging.getLogger("scapy").setLevel(logging.ERROR)
        from scapy.layers.inet import ICMP, IP
        from scapy.layers.l2 import ARP, Ether

        self.ICMP: Any = ICMP
        self.IP: Any = IP
        self.ARP: Any = ARP
        self.Ether: Any = Ether
