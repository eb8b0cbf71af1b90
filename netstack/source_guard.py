"""Whose address a guest's frame names as its sender's: source address validation at the switch (RFC 7039).

An address belongs to the guest that holds it in the LAN's tables: the one to whom it was given, or who was
the first to use it. What names another's address, the gateway's or one that is not of this LAN goes nowhere.
The tables are the gateway's, which moves an address whose holder does not answer (``netstack.contests``).

Looked at are the source of IPv4 and IPv6 packets, the sender in ARP, and the target of a neighbour
advertisement. Guests without an address yet (0.0.0.0, ``::``), and IPv4 link-local ones (RFC 3927), pass,
but not their probes for an address that another is just about to take (``netstack.address_probes``): they are
told that it is taken, and that one is not troubled. From a network behind a guest packets come through the
one only that the operator named as its router (RFC 2827).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from netstack.address_pool import Claim
from netstack.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6
from netstack.icmpv6 import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, PROTOCOL_ICMPV6
from netstack.ipv4 import FIRST_MULTICAST
from netstack.ipv6 import NEXT_HEADER, PAYLOAD_AT, UNSPECIFIED, is_link_local, is_multicast
from netstack.neighbour_proxy import answer_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netstack.address_pool import AddressPool
    from netstack.dhcp_options import Route
    from netstack.neighbour import AddressBindings

_IPV4_LENGTH, _IPV6_LENGTH = 4, 16
_ARP_TARGET, _ARP_END = 38, 42
_NOBODY: Final = bytes(4)
_LINK_LOCAL4: Final = bytes((169, 254))
_NO_STATIONS: Final = frozenset({0, 127})
"""First bytes of what is no packet's source, as is all from FIRST_MULTICAST on (RFC 1812 section 5.3.7)."""


class Suspicion(NamedTuple):
    """What is not in order with a frame: why it goes nowhere, or an address (4 or 16 bytes) to be claimed."""

    drop: str
    address: bytes = b""
    answer: bytes = b""
    """A frame that the sender is to be told."""


_ARP_SENDER: Final = Suspicion("arp_sender")
_FOREIGN: Final = Suspicion("foreign_source")


def _nobody(_address: bytes) -> bytes:
    return b""


def _anywhere(_mac: bytes, _port: int) -> bool:
    return True


class SourceGuard:
    """Looks at frames without tags; ``prefix`` is the LAN's /64 (8 bytes), None where it has no IPv6."""

    def __init__(
        self,
        pool: AddressPool,
        bindings: AddressBindings,
        prefix: bytes | None,
        locate: Callable[[bytes, int], bool] = _anywhere,
        prober_of: Callable[[bytes], bytes] = _nobody,
        *,
        routes: Sequence[Route] = (),
    ) -> None:
        """``locate`` notes behind which port a MAC is, for its share of addresses; False if that is full.

        ``prober_of`` tells the MAC that is about to take an address at this moment; empty for none.
        ``routes`` are the networks behind guests: who has the address of the router to one sends from there.
        """
        self._locate = locate
        self._prober_of = prober_of
        self._pool = pool
        self._bindings = bindings
        self._prefix = prefix
        self._routed = [
            (int.from_bytes(network, "big"), 32 - length, router) for network, length, router in routes
        ]
        """The networks behind guests, the bits that their hosts have, and the routers' addresses."""

    def look(self, frame: bytes) -> Suspicion | None:
        """Say what is not in order; None when all that the frame names is its sender's already."""
        ethertype, mac = frame[12:14], frame[6:12]
        if ethertype == ETHERTYPE_IPV4:
            suspicion = self._ipv4(mac, frame[26:30])
            routed = suspicion is not None and self._is_routed(mac, suspicion.address)
            return None if routed else suspicion
        if ethertype == ETHERTYPE_ARP:
            if frame[22:28] != mac:
                return _ARP_SENDER
            if frame[28:32] == _NOBODY:
                return self._probe(mac, frame, frame[_ARP_TARGET:_ARP_END])
            return self._ipv4(mac, frame[28:32])
        if ethertype == ETHERTYPE_IPV6:
            return self._ipv6(mac, frame)
        return None

    def claim(self, mac: bytes, address: bytes, port: int = 0) -> Claim:
        """Let ``mac``, behind ``port``, have an address that a frame of its names, if nobody else does."""
        if not self._locate(mac, port):
            return Claim.OVER_SHARE
        if self._is_being_taken(mac, address):
            return Claim.TAKEN
        if len(address) == _IPV4_LENGTH:
            return self._pool.claim(mac, address)
        return Claim.GRANTED if self._bindings.claim(mac, address) else Claim.TAKEN

    def _ipv4(self, mac: bytes, address: bytes) -> Suspicion | None:
        if self._pool.uses(mac, address):
            return None
        if len(address) < _IPV4_LENGTH or address == _NOBODY or address.startswith(_LINK_LOCAL4):
            return None
        return Suspicion("", address)

    def _is_routed(self, mac: bytes, address: bytes) -> bool:
        """Whether an address is of a network behind this guest, and of no host of the LAN's."""
        if not self._routed or address[0] >= FIRST_MULTICAST or address[0] in _NO_STATIONS:
            return False
        number = int.from_bytes(address, "big")
        for network, host_bits, router in self._routed:
            if (number ^ network) >> host_bits == 0 and self._pool.holder_of(router) == mac:
                return not self._pool.is_of_lan(address)
        return False

    def _ipv6(self, mac: bytes, frame: bytes) -> Suspicion | None:
        suspicion = self._ipv6_address(mac, frame[22:38])
        if suspicion is not None or len(frame) <= PAYLOAD_AT:
            return suspicion
        if frame[NEXT_HEADER] != PROTOCOL_ICMPV6:
            return None
        if frame[PAYLOAD_AT] == NEIGHBOUR_ADVERTISEMENT:
            return self._ipv6_address(mac, frame[PAYLOAD_AT + 8 : PAYLOAD_AT + 24])
        if frame[PAYLOAD_AT] == NEIGHBOUR_SOLICITATION and frame[22:38] == UNSPECIFIED:
            return self._probe(mac, frame, frame[PAYLOAD_AT + 8 : PAYLOAD_AT + 24])
        return None

    def _probe(self, mac: bytes, frame: bytes, target: bytes) -> Suspicion | None:
        """Say whether a guest asks for an address that another is just about to take."""
        if len(target) not in (_IPV4_LENGTH, _IPV6_LENGTH) or not self._is_being_taken(mac, target):
            return None
        return Suspicion("probed_address", answer=answer_for(self._prober_of(target), frame))

    def _is_being_taken(self, mac: bytes, address: bytes) -> bool:
        """Whether another guest is about to take an address that is not this one's."""
        if self._prober_of(address) in (b"", mac):
            return False
        table = self._pool if len(address) == _IPV4_LENGTH else self._bindings
        return table.holder_of(address) != mac

    def _ipv6_address(self, mac: bytes, address: bytes) -> Suspicion | None:
        if self._bindings.uses(mac, address) or len(address) < _IPV6_LENGTH or address == UNSPECIFIED:
            return None
        on_link = is_link_local(address) or self._prefix is None or address[:8] == self._prefix
        return _FOREIGN if is_multicast(address) or not on_link else Suspicion("", address)
