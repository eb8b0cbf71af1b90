"""The gateway's half of port forwards: which guest one leads to, and what comes back from it.

A guest sees all clients of a forward at the gateway's own address. Towards guests the gateway's ports from
FIRST_PORT on stand for these clients: for UDP a block of CLIENTS ports for each forward, in the order of the
operator's list; for TCP any of them that no other connection of the same guest has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.batch import TO_FLOWS
from actors.messages import FramesToFlow, GuestFound
from actors.runtime import tell_alive
from netstack.udp import parse_udp

if TYPE_CHECKING:
    from actors.messages import GuestWanted, Mailbox
    from actors.services import LanServices
    from netstack.address_pool import AddressPool
    from netstack.ipv4 import Ipv4Packet

FIRST_PORT = 49_152
"""Of the dynamic ports (RFC 6335 section 6), where none of the gateway's services is."""

CLIENTS = 256
"""UDP clients of one forward at a time; MAX_FORWARDS such blocks fit above FIRST_PORT."""

LAST_PORT = 65_535


class Place(NamedTuple):
    """Where a guest is: its session's port, MAC (6 bytes) and address (4 bytes)."""

    number: int
    mac: bytes
    ip: bytes


class Forwards:
    """Port forwards of one LAN."""

    def __init__(self, pool: AddressPool, services: LanServices, port_of: dict[bytes, int]) -> None:
        """Share the gateway's tables: addresses, names, and the session of each MAC."""
        self._pool = pool
        self._names = services.names
        self._port_of = port_of
        self._udp: dict[int, Mailbox] = {}

    def attach(self, index: int, forward: Mailbox) -> None:
        """Let the frames for a block of UDP ports go to ``forward``."""
        self._udp[index] = forward

    def locate(self, vm: bytes | str) -> Place | None:
        """Find a guest by MAC (6 bytes), address (4 bytes) or name; None while it is not there."""
        ip: bytes | None = None
        if isinstance(vm, str):
            ip = self._names.address_of(vm)
        elif len(vm) == 4:  # noqa: PLR2004 - an IPv4 address
            ip = vm
        else:
            ip = self._pool.address_of(vm)
        mac = None if ip is None else self._pool.holder_of(ip)
        number = None if mac is None else self._port_of.get(mac)
        if ip is None or mac is None or number is None:
            return None
        return Place(number, mac, ip)

    def tell_place(self, wanted: GuestWanted) -> None:
        """Answer a forward that looks for its guest."""
        place = self.locate(wanted.vm)
        tell_alive(wanted.forward, GuestFound(place and place.mac, place and place.ip))

    def udp(self, frame: bytes, packet: Ipv4Packet) -> str:
        """Pass on what a guest sends to a client of a forward; empty when the port is no client's."""
        index = (int.from_bytes(packet.payload[2:4], "big") - FIRST_PORT) // CLIENTS
        forward = self._udp.get(index)
        if forward is None:
            return ""
        parse_udp(packet)
        return TO_FLOWS if tell_alive(forward, FramesToFlow([frame])) else ""
