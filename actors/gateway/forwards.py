"""The gateway's half of port forwards: which guest one leads to, and what comes back from it.

A guest sees the clients of a forward at the gateway's own address, or, where it is told to be transparent, at
theirs. Then their flows (TCP) or ends (UDP) are known, and nothing else opens to the guest by that. For all
others the gateway's ports from FIRST_PORT on stand: for UDP a block of CLIENTS ports for each forward, in the
order of the operator's list; for TCP any of them that no other connection of the same guest has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.flows.batch import TO_FLOWS
from actors.messages import GuestFound
from actors.runtime import tell_alive
from netstack.forward import CLIENTS, FIRST_PORT, ends_of

if TYPE_CHECKING:
    from actors.flows.batch import Batch
    from actors.gateway.guests import Guests
    from actors.messages import ClientGone, ClientShown, GuestWanted
    from actors.runtime import Mailbox
    from netstack.dns_zone import Zone
    from netstack.udp import UdpDatagram


class Place(NamedTuple):
    """Where a guest is: its port of the switch, MAC (6 bytes) and addresses (4 and 16 bytes)."""

    port: int
    mac: bytes
    ip: bytes
    ip6: bytes | None


class Forwards:
    """Port forwards of one LAN."""

    def __init__(self, guests: Guests, names: Zone) -> None:
        """Find guests among ``guests``, or by their ``names``."""
        self._guests = guests
        self._shown: dict[bytes, Mailbox] = {}
        """Forwards by the ends of what guests send to clients that they see at their own addresses."""
        self._names = names
        self._udp: dict[int, Mailbox] = {}

    def attach(self, index: int, forward: Mailbox) -> None:
        """Let the frames for a block of UDP ports go to ``forward``."""
        self._udp[index] = forward

    def locate(self, vm: bytes | str) -> Place | None:
        """Find a guest by MAC (6 bytes), address (4 bytes) or name; None while it is not there."""
        ip, mac = self._find(vm)
        port = None if mac is None else self._guests.port_of.get(mac)
        if ip is None or mac is None or port is None or not self._guests.is_forwarded_to(port):
            return None
        return Place(port, mac, ip, self._guests.ipv6.address_of(mac))

    def _find(self, vm: bytes | str) -> tuple[bytes | None, bytes | None]:
        """Find a guest's address and MAC, wherever it is."""
        pool = self._guests.pool
        ip: bytes | None = None
        if isinstance(vm, str):
            ip = self._names.address_of(vm)
        elif len(vm) == 4:  # noqa: PLR2004 - an IPv4 address
            ip = vm
        elif pool.is_elsewhere(vm):
            return None, vm
        else:
            ip = pool.address_of(vm)
        return ip, None if ip is None else pool.holder_of(ip)

    def tell_place(self, wanted: GuestWanted) -> None:
        """Answer a forward that looks for its guest."""
        place = self.locate(wanted.vm)
        _, mac = self._find(wanted.vm)
        elsewhere = mac is not None and self._guests.pool.is_elsewhere(mac)
        found = GuestFound(place and place.mac, place and place.ip, place and place.ip6, elsewhere)
        tell_alive(wanted.forward, found)

    def show(self, message: ClientShown) -> None:
        """Let answers to a client go to its forward. Each forward has a bounded number of clients."""
        self._shown[message.ends] = message.forward

    def hide(self, message: ClientGone) -> None:
        """Forget a client, unless another forward has it by now."""
        if self._shown.get(message.ends) == message.forward:
            del self._shown[message.ends]

    def to_client(self, frame: bytes, datagram: UdpDatagram, batch: Batch) -> str:
        """Pass on what a guest sends to a client that it sees at its own address; empty when it is none."""
        if not self._shown:
            return ""
        source, source_port, destination, port, _ = datagram
        forward = self._shown.get(ends_of((source, source_port), (destination, port)))
        return _pass_on(forward, frame, batch)

    def to_gateway(self, frame: bytes, datagram: UdpDatagram, batch: Batch) -> str:
        """Pass on what a guest sends to a client that it sees at the gateway; empty when it is none."""
        forward = self._udp.get((datagram.destination_port - FIRST_PORT) // CLIENTS)
        return _pass_on(forward, frame, batch)


def _pass_on(forward: Mailbox | None, frame: bytes, batch: Batch) -> str:
    if forward is None:
        return ""
    frames = batch.latest = batch.to_forwards.setdefault(forward, [])
    frames.append(frame)
    return TO_FLOWS
