"""A PeerActor between a client and a switch, which the test plays."""

from __future__ import annotations

from lan_parts import GATEWAY_IP, GATEWAY_MAC, Box, FakeSession, ip, mac, register
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RS, IPv6
from scapy.layers.l2 import Ether

from actors.lan.peer import PeerActor
from actors.messages import (
    AddressAssigned,
    DatagramsFromClient,
    PortOpened,
)
from actors.runtime import run_ready
from actors.settings import LanSettings

MAC = mac(1)
IP_FRAME = bytes(Ether(src=MAC.hex(":"), dst=GATEWAY_MAC.hex(":")) / IP(src="10.0.2.10") / UDP() / b"hello")
ROUTER_SOLICITATION = bytes(Ether(src=MAC.hex(":"), dst="33:33:00:00:00:02") / IPv6() / ICMPv6ND_RS())


class Peer:
    """A session and its actor; the test plays client and switch."""

    def __init__(self, counters, path="/", settings=None, token=None, **session):
        self.session = FakeSession(7, path, **session)
        self.switch = Box()
        self.counters = counters
        self.ref = PeerActor.start(
            self.session, self.switch, counters, settings or LanSettings(), **(token or {})
        )
        run_ready()
        self.opened = self.switch.take(PortOpened)

    def tell(self, message):
        self.ref.tell(message)
        run_ready()

    def hears(self, *datagrams):
        self.tell(DatagramsFromClient(list(datagrams)))

    def assign(self, address="10.0.2.10", hardware=MAC, **more):
        addresses = (ip(address), GATEWAY_IP, ip("255.255.255.0"), ip("8.8.8.8"))
        self.tell(AddressAssigned(hardware, *addresses, **more))

    def registered(self):
        self.hears(register(MAC))
        self.switch.clear()
        self.assign()
        self.session.take()
        return self

    def to_switch(self):
        return self.switch.take()
