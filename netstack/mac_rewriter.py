"""Gives guests whose MAC is QEMU's default one of their own on the LAN.

Theory of operation
-------------------
QEMU's first network card is 52:54:00:12:34:56 unless it is told otherwise, the next one :57, up to :fe
(``qemu_macaddr_default_if_unset`` in its net/net.c): the same in every machine, and the first of them is the
gateway's MAC on LANs of this protocol. So each such MAC and one that is the guest's own on the LAN change
places, in frames of both directions:

- The LAN sees the guest under its own MAC. The guest goes on with the default, and sees the gateway (or
  whoever else has that MAC on the LAN) under the MAC that it does not know to be its own.
- They change places wherever protocols name them: in the Ethernet header; behind VLAN tags in ARP and RARP;
  in DHCP's chaddr and client identifiers (RFC 2131, RFC 4361) and the DUIDs of DHCPv6 (RFC 8415); in the
  link-layer options of neighbour discovery (RFC 4861).
- So do the interface identifiers that are made of them (RFC 4291 appendix A). Link-local addresses change
  places as the MACs do. Of other addresses only the guest's own are rewritten, as a NAT would: sources of
  its packets, destinations of those to it; the same identifier under another prefix may be anybody's. In
  packets that ICMPv6 errors quote likewise, for by those the guest finds its socket.
- Checksums are updated and not computed anew (RFC 1624): what was broken stays broken.

What applications say of their addresses (mDNS, FTP) stays as it is, and so do the groups in MLD reports.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from netstack import dhcp, dhcp_options, dhcpv6
from netstack.checksum import PROTOCOL_UDP, update_span
from netstack.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_RARP,
    ETHERTYPE_VLANS,
    MAC_LENGTH,
)
from netstack.icmpv6 import (
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    PROTOCOL_ICMPV6,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
)
from netstack.ipv6 import (
    IPV6_HEADER_LENGTH,
    MAX_EXTENSION_HEADERS,
    PROTOCOL_FRAGMENT,
    interface_id,
    is_link_local,
    multicast_mac,
    solicited_node,
)
from netstack.udp import UDP_HEADER_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

QEMU_DEFAULT = bytes.fromhex("525400123456")
"""MAC of QEMU's first network card, and of the gateway on LANs of this protocol."""

_DEFAULTS_START = QEMU_DEFAULT[:5]
_FIRST_DEFAULT, _LAST_DEFAULT = QEMU_DEFAULT[5:], b"\xfe"

_OWN_START = b"\x52\x54"
"""MACs made here begin as those of virtual machines do, locally administered."""

_BOOTP_PORTS = frozenset(port.to_bytes(2, "big") for port in (dhcp.SERVER_PORT, dhcp.CLIENT_PORT, 4011))
"""4011 is PXE's (its specification, section 2.2.1)."""
_DHCPV6_PORTS = frozenset(port.to_bytes(2, "big") for port in (dhcpv6.SERVER_PORT, dhcpv6.CLIENT_PORT))
_ARP_HEADER_LENGTH = 8
_UDP_CHECKSUM_AT = 6
_ETHERNET_HARDWARE = b"\x01\x06"

_EXTENSIONS = frozenset({0, 43, 60})
_CHECKSUM_AT = {6: 16, PROTOCOL_UDP: _UDP_CHECKSUM_AT, 33: 6, PROTOCOL_ICMPV6: 2, 136: 6}
"""Where TCP, UDP, DCCP, ICMPv6 and UDP-Lite keep the checksum that covers the packet's addresses."""

_LAST_ERROR = 4
_QUOTE_AT = 8
_ND_OPTIONS_AT = {
    ROUTER_SOLICITATION: 8,
    ROUTER_ADVERTISEMENT: 16,
    NEIGHBOUR_SOLICITATION: 24,
    NEIGHBOUR_ADVERTISEMENT: 24,
    REDIRECT: 40,
}
_LINK_LAYER_ADDRESSES = (b"\1\1", b"\2\1")
"""Type and length of the source's and the target's (RFC 4861 section 4.6.1)."""

_NONE: Mapping[bytes, bytes] = {}


def is_qemu_default(mac: bytes) -> bool:
    """Whether QEMU gives ``mac`` to a network card by itself."""
    return mac[:5] == _DEFAULTS_START and _FIRST_DEFAULT <= mac[5:] <= _LAST_DEFAULT


class _Way(NamedTuple):
    """The interface identifiers that are rewritten under any prefix, in one direction."""

    sources: Mapping[bytes, bytes]
    destinations: Mapping[bytes, bytes]


class MacRewriter:
    """Rewrites the frames of one network card, or of a bridge's: each default MAC gets one of its own.

    The own MACs follow from ``seed``, which should be one for this card and the same when it comes again: by
    its MAC it gets the same address. ``chosen`` is a MAC that the first guest gets instead, or, if it is a
    default itself (not the gateway's), one that stays as it is. ``on_new`` is told of each pair once: the
    guest's MAC and the LAN's.
    """

    def __init__(
        self,
        seed: bytes,
        chosen: bytes | None = None,
        on_new: Callable[[bytes, bytes], None] = lambda _guest, _lan: None,
    ) -> None:
        self._seed = seed
        self._chosen = chosen
        self._on_new = on_new
        self._own: dict[bytes, bytes] = {}
        """LAN's MACs by guests' default ones; at most as many as there are defaults."""
        if chosen is not None and is_qemu_default(chosen):
            self._chosen = None
            if chosen != QEMU_DEFAULT:
                self._own[chosen] = chosen
        self._macs: dict[bytes, bytes] = {}
        """What changes places, both ways; only of guests that were seen to use the default."""
        self._identifiers: dict[bytes, bytes] = {}
        self._out: dict[bytes, bytes] = {}
        self._in: dict[bytes, bytes] = {}
        self._to_lan = _Way(self._out, _NONE)
        self._to_guest = _Way(_NONE, self._in)

    def lan_mac(self, mac: bytes) -> bytes:
        """Tell under which MAC the LAN sees the guest ``mac``."""
        if not is_qemu_default(mac):
            return mac
        own = self._own.get(mac)
        if own is None:
            own, self._chosen = self._chosen or self._made_for(mac), None
            self._own[mac] = own
            self._on_new(mac, own)
        return own

    def _made_for(self, mac: bytes) -> bytes:
        a, *rest = blake2b(self._seed + mac, digest_size=4).digest()
        # Never 52:54:00, where the defaults are.
        return _OWN_START + bytes((a | 0x80, *rest))

    def to_lan(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Rewrite frames that guests sent."""
        macs = self._macs
        for frame in frames:
            if frame[6:11] == _DEFAULTS_START and frame[6:12] not in macs:
                self._begin(frame[6:12])
        if not macs:
            return frames
        return [self._rewrite(frame, self._to_lan) for frame in frames]

    def to_guest(self, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Rewrite frames for guests."""
        if not self._macs:
            return frames
        return [self._rewrite(frame, self._to_guest) for frame in frames]

    def _begin(self, mac: bytes) -> None:
        own = self.lan_mac(mac)
        if own == mac:
            return
        self._macs |= {mac: own, own: mac}
        guest, lan = interface_id(mac), interface_id(own)
        self._identifiers |= {guest: lan, lan: guest}
        self._out[guest] = lan
        self._in[lan] = guest

    # -- frames -----------------------------------------------------------------------------------

    def _rewrite(self, frame: bytes, way: _Way) -> bytes:
        macs = self._macs
        destination, source = frame[:6], frame[6:12]
        destination, source = macs.get(destination, destination), macs.get(source, source)
        at = 12
        while frame[at : at + 2] in ETHERTYPE_VLANS:
            at += 4
        kind = frame[at : at + 2]
        at += 2
        if kind == ETHERTYPE_IPV4:
            if not _is_bootp(frame, at):
                return destination + source + frame[12:]
            packet = bytearray(frame[at:])
            self._bootp(packet)
        elif kind == ETHERTYPE_IPV6:
            packet = bytearray(frame[at:])
            group = self._ipv6(packet, way)
            if group is not None:
                destination = multicast_mac(group)
        elif kind in (ETHERTYPE_ARP, ETHERTYPE_RARP):
            packet = bytearray(frame[at:])
            self._arp(packet)
        else:
            return destination + source + frame[12:]
        return destination + source + frame[12:at] + packet

    def _swap_at(self, data: bytearray, at: int) -> None:
        """Exchange the MAC at ``at``, if it is one of them and wholly there."""
        new = self._macs.get(bytes(data[at : at + MAC_LENGTH]))
        if new is not None:
            data[at : at + MAC_LENGTH] = new

    def _swap_within(self, data: bytearray, start: int, end: int) -> None:
        """Exchange the first of the MACs that an identifier contains, wherever it stands."""
        value = bytes(data[start:end])
        for mac, other in self._macs.items():
            if mac in value:
                data[start:end] = value.replace(mac, other, 1)
                return

    def _arp(self, packet: bytearray) -> None:
        if len(packet) < _ARP_HEADER_LENGTH or packet[4] != MAC_LENGTH:
            return
        target_at = _ARP_HEADER_LENGTH + MAC_LENGTH + packet[5]
        if len(packet) >= target_at + MAC_LENGTH + packet[5]:
            self._swap_at(packet, _ARP_HEADER_LENGTH)
            self._swap_at(packet, target_at)

    def _bootp(self, packet: bytearray) -> None:
        udp_at = (packet[0] & 0x0F) * 4
        before = bytes(packet[udp_at:])
        message_at = udp_at + UDP_HEADER_LENGTH
        if packet[message_at + 1 : message_at + 3] == _ETHERNET_HARDWARE:
            self._swap_at(packet, message_at + dhcp.CHADDR_AT)
        for start, end in dhcp_options.option_spans(bytes(packet[message_at:]), dhcp_options.Code.CLIENT_ID):
            self._swap_within(packet, message_at + start, message_at + end)
        _update_checksum(packet, udp_at, PROTOCOL_UDP, before, bytes(packet[udp_at:]))

    # -- IPv6 -------------------------------------------------------------------------------------

    def _ipv6(self, packet: bytearray, way: _Way) -> bytes | None:
        """Rewrite a packet; return its destination where that is a group other than before."""
        if len(packet) < IPV6_HEADER_LENGTH:
            return None
        before = bytes(packet[8:40])
        self._address(packet, 8, way.sources)
        self._address(packet, 24, way.destinations)
        group = None
        upper = _upper_layer(packet)
        if upper is None:
            return None
        protocol, at = upper
        before_message = after_message = b""
        if protocol == PROTOCOL_ICMPV6 or _is_dhcpv6(packet, protocol, at):
            before_message = bytes(packet[at:])
            if protocol == PROTOCOL_ICMPV6:
                group = self._icmpv6(packet, at, way)
            else:
                self._dhcpv6(packet, at + UDP_HEADER_LENGTH)
            after_message = bytes(packet[at:])
        after = bytes(packet[8:40])
        _update_checksum(packet, at, protocol, before + before_message, after + after_message)
        return group

    def _address(self, packet: bytearray, at: int, anywhere: Mapping[bytes, bytes]) -> None:
        """Rewrite the address at ``at``: a link-local one, or one whose identifier is in ``anywhere``."""
        address = bytes(packet[at : at + 16])
        table = self._identifiers if is_link_local(address) else anywhere
        new = table.get(address[8:])
        if new is not None:
            packet[at + 8 : at + 16] = new

    def _icmpv6(self, packet: bytearray, at: int, way: _Way) -> bytes | None:
        kind = packet[at]
        quote = at + _QUOTE_AT
        if kind <= _LAST_ERROR:
            if len(packet) >= quote + IPV6_HEADER_LENGTH and packet[quote] >> 4 == 6:  # noqa: PLR2004
                # What the guest is told of it sent, and what it tells of it was sent.
                self._address(packet, quote + 8, way.destinations)
                self._address(packet, quote + 24, way.sources)
            return None
        options_at = _ND_OPTIONS_AT.get(kind)
        if options_at is None or len(packet) < at + options_at:
            return None
        group = None
        target_at = at + 8
        if kind == REDIRECT:
            self._address(packet, target_at, _NONE)
            self._address(packet, target_at + 16, _NONE)
        elif kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
            # Under whichever prefix: these are addresses of this link.
            old = bytes(packet[target_at : target_at + 16])
            self._address(packet, target_at, self._identifiers)
            if packet[24:40] == solicited_node(old):
                group = solicited_node(bytes(packet[target_at : target_at + 16]))
                packet[24:40] = group
        at += options_at
        while at + 8 <= len(packet) and packet[at + 1]:
            if packet[at : at + 2] in _LINK_LAYER_ADDRESSES:
                self._swap_at(packet, at + 2)
            at += packet[at + 1] * 8
        return group

    def _dhcpv6(self, packet: bytearray, at: int) -> None:
        for start, end in dhcpv6.identifier_spans(bytes(packet[at:])):
            self._swap_within(packet, at + start, at + end)


def _is_bootp(frame: bytes, at: int) -> bool:
    """Whether the IPv4 packet at ``at`` begins a DHCP message."""
    if len(frame) < at + 28 or frame[at + 9] != PROTOCOL_UDP or frame[at] >> 4 != 4:  # noqa: PLR2004
        return False
    ports = at + (frame[at] & 0x0F) * 4
    is_first = (frame[at + 6] & 0x1F) == 0 == frame[at + 7]
    return is_first and bool(_BOOTP_PORTS & {frame[ports : ports + 2], frame[ports + 2 : ports + 4]})


def _is_dhcpv6(packet: bytearray, protocol: int, at: int) -> bool:
    return protocol == PROTOCOL_UDP and not _DHCPV6_PORTS.isdisjoint(
        (bytes(packet[at : at + 2]), bytes(packet[at + 2 : at + 4]))
    )


def _upper_layer(packet: bytearray) -> tuple[int, int] | None:
    """Protocol and place of what is behind the extension headers; None where that is not in this packet."""
    protocol, at = packet[6], IPV6_HEADER_LENGTH
    for _ in range(MAX_EXTENSION_HEADERS + 1):
        if len(packet) < at + 8:
            return None
        if protocol == PROTOCOL_FRAGMENT:
            if packet[at + 2] or packet[at + 3] & 0xF8:
                return None
            protocol, at = packet[at], at + 8
        elif protocol in _EXTENSIONS:
            protocol, at = packet[at], at + 8 + packet[at + 1] * 8
        else:
            return protocol, at
    return None


def _update_checksum(packet: bytearray, at: int, protocol: int, before: bytes, after: bytes) -> None:
    """Let the checksum of the message at ``at`` follow what it covers; both have the same length."""
    offset = _CHECKSUM_AT.get(protocol)
    if before == after or offset is None or len(packet) < at + offset + 2:
        return
    place = slice(at + offset, at + offset + 2)
    old = int.from_bytes(packet[place], "big")
    if protocol != PROTOCOL_UDP:
        packet[place] = update_span(old, before, after).to_bytes(2, "big")
    elif old:
        # 0 means that there is none, and a computed 0 is sent as 0xFFFF (RFC 768).
        packet[place] = (update_span(old, before, after) or 0xFFFF).to_bytes(2, "big")
