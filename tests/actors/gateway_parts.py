"""A gateway with its flows, and packets for it, for tests."""

from __future__ import annotations

from lan_parts import GATEWAY_MAC, Box, FakeOutside, mac, nobody_is_away
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

from actors.gateway.gateway import GatewayActor
from actors.messages import AssignAddress, FramesFromGateway, FramesToGateway
from actors.runtime import run_ready
from actors.settings import LanSettings

GRE = 47
"""A protocol that the NAT does not carry."""


class Lan:
    """A gateway with its flows; the test plays the switch and the network outside."""

    def __init__(self, counters, *, has_ipv6=True, memory=None, dns=None, told_dns=None, **settings):
        """``dns`` is the gateway's name server; guests are told of ``told_dns``, where that is another."""
        if told_dns is not None:
            settings["dns"] = told_dns
        self.counters = counters
        self.switch = Box()
        self.outside = FakeOutside()
        self.outside.has_ipv6 = self.outside.has_ipv6_route = has_ipv6
        self.ref = GatewayActor.start(
            self.switch,
            self.outside,
            counters,
            LanSettings(**{"ipv6_prefix": None} | settings),
            dns,
            memory=memory,
        )
        run_ready()

    def tell(self, message):
        self.ref.tell(message)
        run_ready()

    def assign(self, port, hardware=None, **more):
        peer = Box()
        self.tell(AssignAddress(port, hardware or mac(port), peer, **more))
        nobody_is_away(self.switch, self.tell)
        return peer[0]

    def settle(self, *ports, **more):
        """Register guests that have used their addresses for a while."""
        for port in ports:
            address = self.assign(port, **more).ip
            self.ref._actor_weakref()._guests.pool.claim(mac(port), address)

    def sends(self, port, *packets):
        """Send frames from a port; return what the gateway sends to the LAN, as scapy sees it."""
        self.tell(FramesToGateway(port, [bytes(p) for p in packets]))
        return self.received()

    def received(self):
        run_ready()
        return [Ether(f) for m in self.switch.take(FramesFromGateway) for f in m.frames]

    def drops(self):
        return {k.rpartition(".")[2]: v for k, v in self.counters.items() if k.startswith("gateway.drop.")}


def ether(port, dst=GATEWAY_MAC):
    return Ether(src=mac(port).hex(":"), dst=dst.hex(":"))


def guest_ip(port):
    return f"10.0.2.{9 + port}"


def who_asks(frame):
    """The address about which the gateway asks a guest by ARP; None for other frames."""
    return frame[ARP].pdst if ARP in frame and frame[ARP].op == 1 else None


def echoes(frames):
    return [frame for frame in frames if ICMP in frame and frame[ICMP].type == 0]


def packet(port, dst="192.0.2.1", **fields):
    return ether(port) / IP(**{"src": guest_ip(port), "dst": dst, **fields})


def assert_intact(frame):
    """Every length and checksum of a frame is what scapy computes."""
    again = frame.copy()
    for layer in (IP, UDP, ICMP):
        if layer in again:
            for field in ("len", "chksum"):
                if field in again[layer].fields:
                    del again[layer].fields[field]
    assert bytes(again) == bytes(frame)
