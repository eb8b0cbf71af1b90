"""The actors together: clients on fake sessions, a fake network outside, everything between them real."""

from __future__ import annotations

from lan_parts import FakeOutside, FakeSession, mac, register
from scapy.layers.l2 import Ether

from actors.gateway.dns import DnsActor
from actors.gateway.gateway import GatewayActor
from actors.lan.peer import PeerActor
from actors.lan.switch import SwitchActor
from actors.messages import DatagramsFromClient, SessionClosed
from actors.runtime import run_ready
from actors.settings import LanSettings


class Client:
    """A client with a guest behind it."""

    def __init__(self, lan, number, hardware, path="/", policy=None):
        self.lan = lan
        self.mac = hardware
        self.raw = "raw" in path
        self.session = FakeSession(number, path)
        self.ref = PeerActor.start(self.session, lan.switch, lan.counters, lan.settings, policy=policy)
        run_ready()

    def hears(self, *datagrams):
        self.session.last_heard = self.lan.loop.time()
        self.ref.tell(DatagramsFromClient(list(datagrams)))
        run_ready()

    def sends(self, *packets):
        self.hears(*[(b"" if self.raw else b"\1") + bytes(p) for p in packets])

    def leaves(self):
        self.ref.tell(SessionClosed(0, ""))
        run_ready()

    def frames(self):
        return [Ether(f) for f in (self.session.take() if self.raw else self.session.frames())]

    @property
    def alive(self):
        return self.ref.is_alive()

    def to(self, destination):
        return Ether(src=self.mac.hex(":"), dst=destination.hex(":"))


class Lan:
    def __init__(self, loop, counters, *, outside=None, names=None, **settings):
        self.loop, self.counters = loop, counters
        self.settings = LanSettings(**{"ipv6_prefix": None} | settings)
        self.outside = outside or FakeOutside()
        self.switch = SwitchActor.start(counters, self.settings)
        self.dns = names and DnsActor.start(names, counters, self.settings)
        self.gateway = GatewayActor.start(self.switch, self.outside, counters, self.settings, self.dns)
        run_ready()
        self.number = 0

    def connect(self, hardware, path="/", policy=None):
        self.number += 1
        return Client(self, self.number, hardware, path, policy)

    def join(self, n):
        """Connect and register; return the client and its address."""
        client = self.connect(mac(n))
        client.hears(register(mac(n)))
        (assigned,) = client.session.controls()
        return client, ".".join(map(str, assigned["ip"]))

    def state(self):
        """All that the LAN remembers of its guests."""
        switch, gateway = self.switch._actor_weakref(), self.gateway._actor_weakref()
        return (
            switch._forwarding.sessions + len(switch._table),
            len(gateway._flows.ports) + len(gateway._guests.port_of) + len(gateway._guests.pool.held()),
            len(self.outside.open_sockets()),
        )
