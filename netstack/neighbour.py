"""Neighbour discovery (RFC 4861) for the gateway's addresses, and which guest uses which address."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from netstack.icmp import IcmpMessage  # noqa: TC001 - a parameter's type
from netstack.icmpv6 import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, build_icmpv6
from netstack.ipv6 import UNSPECIFIED, is_multicast
from netstack.malformed import MalformedPacket

if TYPE_CHECKING:
    from collections.abc import Callable

HOP_LIMIT_ON_LINK = 255
"""Neighbour discovery with another hop limit came through a router: it is ignored."""

MAX_ADDRESSES_PER_MAC = 16
"""A link-local address, one by SLAAC, one by hand, and privacy addresses of a week (RFC 8981)."""

ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_MAC = bytes.fromhex("333300000001")

_ROUTER, _SOLICITED, _OVERRIDE = 0x80, 0x40, 0x20
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_TARGET = slice(0, 16)
"""Of a solicitation's or an advertisement's data: the address that it is about."""
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
"""What the groups begin with in which those are who may have an address (RFC 4291 section 2.7.1)."""


def solicited_node_of(address: bytes) -> bytes:
    """Tell the group in which whoever has an address is (RFC 4291 section 2.7.1)."""
    return _SOLICITED_NODE + address[len(_SOLICITED_NODE) :]


class Solicitation(NamedTuple):
    """Who has ``target``? ``source_mac`` is empty where the option is missing."""

    target: bytes
    source_mac: bytes


def parse_solicitation(message: IcmpMessage, source: bytes, destination: bytes) -> Solicitation:
    """Read a neighbour solicitation between two addresses.

    Raises MalformedPacket for what is to be discarded (RFC 4861 section 7.1.1).
    """
    target = _target(message)
    source_mac = link_layer_address(message.data[_TARGET.stop :])
    if source == UNSPECIFIED and (source_mac or not destination.startswith(_SOLICITED_NODE)):
        raise MalformedPacket("bad_neighbour")
    return Solicitation(target, source_mac)


def parse_advertisement(message: IcmpMessage, destination: bytes) -> bytes:
    """Tell whose address a neighbour advertisement is about.

    Raises MalformedPacket for what is to be discarded (RFC 4861 section 7.1.2).
    """
    target = _target(message)
    link_layer_address(message.data[_TARGET.stop :])
    if is_multicast(destination) and message.identifier >> 8 & _SOLICITED:
        raise MalformedPacket("bad_neighbour")
    return target


def check_router_solicitation(message: IcmpMessage, source: bytes) -> None:
    """Raise MalformedPacket for a router solicitation to be discarded (RFC 4861 section 6.1.1)."""
    if message.code or (link_layer_address(message.data) and source == UNSPECIFIED):
        raise MalformedPacket("bad_neighbour")


def _target(message: IcmpMessage) -> bytes:
    target = message.data[_TARGET]
    if len(target) < _TARGET.stop or is_multicast(target) or message.code:
        raise MalformedPacket("bad_neighbour")
    return target


def link_layer_address(options: bytes) -> bytes:
    """Find the source link-layer address among options; empty when missing. Raises MalformedPacket."""
    found = b""
    while options:
        length = options[1] * 8 if len(options) > 1 else 0
        if not 0 < length <= len(options):
            raise MalformedPacket("bad_neighbour")
        if options[0] == _SOURCE_LINK_LAYER:
            found = options[2:8]
        options = options[length:]
    return found


def advertisement(gateway_mac: bytes, target: bytes, guest_mac: bytes, source: bytes) -> bytes:
    """Build the frame that tells a guest that ``target`` is the gateway's.

    A guest that asks from the unspecified address is about to take ``target`` itself: all are told.
    """
    flags = _ROUTER | _OVERRIDE
    if source == UNSPECIFIED:
        guest_mac, source = ALL_NODES_MAC, ALL_NODES
    else:
        flags |= _SOLICITED
    option = bytes((_TARGET_LINK_LAYER, 1)) + gateway_mac
    message = bytes((NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0)) + target + option
    return build_icmpv6(guest_mac + gateway_mac, target, source, message, ttl=HOP_LIMIT_ON_LINK)


def guest_advertisement(mac: bytes, target: bytes, asker_mac: bytes, asker: bytes) -> bytes:
    """Build the frame by which a guest would tell who asks that ``target`` is its own.

    Who asks from the unspecified address is about to take it: it is told as all would be.
    """
    flags = _OVERRIDE
    if asker == UNSPECIFIED:
        asker = ALL_NODES
    else:
        flags |= _SOLICITED
    option = bytes((_TARGET_LINK_LAYER, 1)) + mac
    message = bytes((NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0)) + target + option
    return build_icmpv6(asker_mac + mac, target, asker, message, ttl=HOP_LIMIT_ON_LINK)


def solicitation(router_mac: bytes, source: bytes, target: bytes, guest_mac: bytes) -> bytes:
    """Build the frame that asks one NIC whether it still has ``target`` (RFC 4861 section 7.3.1)."""
    option = bytes((_SOURCE_LINK_LAYER, 1)) + router_mac
    message = bytes((NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0)) + target + option
    return build_icmpv6(guest_mac + router_mac, source, target, message, ttl=HOP_LIMIT_ON_LINK)


def _unnoted(_mac: bytes) -> None:
    pass


class AddressBindings:
    """IPv6 addresses that guests chose, first come first served: nobody uses another's while that is here."""

    def __init__(self, max_per_mac: int = MAX_ADDRESSES_PER_MAC) -> None:
        self._max_per_mac = max_per_mac
        self.changed: Callable[[bytes], None] = _unnoted
        """Told each MAC that has other addresses than before."""
        self._holders: dict[bytes, bytes] = {}
        # Per MAC the one unused for longest first: it makes room for a new one.
        self._addresses: dict[bytes, dict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def uses(self, mac: bytes, address: bytes) -> bool:
        """Whether ``mac`` holds ``address``, which it uses at this moment."""
        if self._holders.get(address) != mac:
            return False
        own = self._addresses[mac]
        del own[address]
        own[address] = None
        return True

    def claim(self, mac: bytes, address: bytes) -> bool:
        """Note that ``mac`` uses ``address``; False when it is another's."""
        if self.uses(mac, address):
            return True
        if address in self._holders:
            return False
        own = self._addresses.setdefault(mac, {})
        if len(own) >= self._max_per_mac:
            oldest = next(iter(own))
            del own[oldest], self._holders[oldest]
        own[address] = None
        self._holders[address] = mac
        self.changed(mac)
        return True

    def move(self, address: bytes, mac: bytes) -> None:
        """Give ``address`` to ``mac``: whoever used it does not answer for it any more."""
        holder = self._holders.pop(address, None)
        if holder is not None:
            del self._addresses[holder][address]
            self.changed(holder)
            self.claim(mac, address)

    def give_up(self, mac: bytes, address: bytes) -> bool:
        """Take an address from a guest here: another worker's has the right to it. True, as none is fixed."""
        if self._holders.get(address) == mac:
            del self._holders[address], self._addresses[mac][address]
            self.changed(mac)
        return True

    def hold_elsewhere(self, mac: bytes, addresses: tuple[bytes, ...]) -> None:
        """Note what a guest of another worker uses; what is another's here is left out."""
        for address in self._addresses.pop(mac, {}):
            del self._holders[address]
        own = {address: None for address in addresses if address not in self._holders}
        if own:
            self._addresses[mac] = own
            self._holders.update(dict.fromkeys(own, mac))

    def holder_of(self, address: bytes) -> bytes | None:
        """Tell which MAC uses ``address``, if any."""
        return self._holders.get(address)

    def addresses_of(self, mac: bytes) -> tuple[bytes, ...]:
        """Tell the addresses of ``mac``, the one used last at the end."""
        return tuple(self._addresses.get(mac, ()))

    def release(self, mac: bytes) -> None:
        """Forget all addresses of ``mac``."""
        for address in self._addresses.pop(mac, {}):
            del self._holders[address]
