"""The gateway's half of port forwards: which guest one leads to, and what comes back from it.

A guest sees the clients of a forward at the gateway's own address, or, where it is told to be transparent, at
theirs. Then their flows (TCP) or ends (UDP) are known, and nothing else opens to the guest by that. For all
others the gateway's ports from FIRST_PORT on stand: for UDP a block of CLIENTS ports for each forward, in the
order of the operator's list; for TCP any of them that no other connection of the same guest has.

A guest that nobody has heard of is asked for by ARP, at the address that it had last: one that only answers
says nothing by itself, and behind a raw session it is known by its first frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actors.flows.batch import TO_FLOWS
from actors.messages import FramesFromGateway, GuestFound
from actors.runtime import tell_alive
from netstack.ethernet import BROADCAST
from netstack.forward import CLIENTS, FIRST_PORT, MAX_FORWARDS, ends_of
from netstack.ipv4 import IPV4_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.flows.batch import Batch
    from actors.flows.flow import FlowContext
    from actors.gateway.guests import Guests
    from actors.gateway.leases import Leases
    from actors.messages import ClientGone, ClientShown, GuestWanted
    from actors.runtime import Mailbox
    from netstack.dns_zone import Zone
    from netstack.udp import UdpDatagram

ASKED_AFTER, ASKED_EVERY = 1.0, 8.0
"""Seconds until a guest that does not answer is asked for again, at first and at most: it doubles."""


class Place(NamedTuple):
    """Where a guest is: its port of the switch, MAC (6 bytes) and addresses (4 and 16 bytes)."""

    port: int
    mac: bytes
    ip: bytes
    ip6: bytes | None


class Forwards:
    """Port forwards of one LAN."""

    def __init__(
        self, context: FlowContext, guests: Guests, names: Zone, leases: Leases, now: Callable[[], float]
    ) -> None:
        """Find guests among ``guests``, or by their ``names``; ``leases`` know those that were here."""
        self._context = context
        self._guests = guests
        self._leases = leases
        self._now = now
        self._asked: dict[bytes | str, tuple[float, float]] = {}
        """Guests that were asked for and are not there: when they are again, and for how long not."""
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
        if mac is None:
            self._ask_for(vm, ip)
        else:
            self._asked.pop(vm, None)
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
        elif len(vm) == IPV4_LENGTH:
            ip = vm
        elif pool.is_elsewhere(vm):
            return None, vm
        else:
            ip = pool.address_of(vm)
        return ip, None if ip is None else pool.holder_of(ip)

    def _ask_for(self, vm: bytes | str, ip: bytes | None) -> None:
        """Have a guest answer for its address, if it is there without our knowledge."""
        now = self._now()
        again, delay = self._asked.get(vm, (now, ASKED_AFTER))
        if now < again:
            return
        if len(self._asked) >= MAX_FORWARDS:  # of guests of former forwards
            self._asked.clear()
        self._asked[vm] = now + delay, min(2 * delay, ASKED_EVERY)
        address = self._leases.former_address(ip or vm)
        if address is not None and self._guests.pool.holder_of(address) is None:
            question = self._context.replies.arp_request(BROADCAST, address)
            tell_alive(self._context.switch, FramesFromGateway([question]))

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
