"""A switch whose peers and gateway the test plays."""

from __future__ import annotations

from lan_parts import Box

from actors.lan.switch import SwitchActor
from actors.messages import (
    AssignAddress,
    FramesFromPeer,
    FramesToGateway,
    FramesToPeer,
    GatewayAttached,
    PortOpened,
    RegisterMac,
)
from actors.runtime import run_ready
from actors.settings import LanSettings

BROADCAST = b"\xff" * 6
MULTICAST = bytes.fromhex("333300000001")


def frame(source, destination, payload=b"", ethertype=b"\x08\x00"):
    return destination + source + ethertype + payload


class Lan:
    """A switch; the test plays peers and gateway."""

    def __init__(self, counters, ports=3, settings=None):
        self.counters = counters
        self.ref = SwitchActor.start(counters, settings or LanSettings())
        self.gateway = Box()
        self.tell(GatewayAttached(self.gateway))
        self.peers = {}
        self.heard = {}
        self.hosts = {}
        for number in range(1, ports + 1):
            self.open(number)

    def tell(self, message):
        self.ref.tell(message)
        run_ready()

    def open(self, number, host="192.0.2.1", policy=None):
        self.peers[number] = Box()
        self.heard[number] = 1000.0
        self.hosts[number] = host
        self.tell(
            PortOpened(
                number,
                self.peers[number],
                lambda: self.heard[number],
                client=lambda: self.hosts[number],
                policy=policy,
            )
        )

    def sends(self, number, *frames):
        self.tell(FramesFromPeer(number, list(frames)))

    def register(self, number, address, explicit=True, resume=""):
        self.tell(RegisterMac(number, address, explicit, resume=resume))

    def assigned(self):
        """What the gateway is asked to assign."""
        return [(m.port, m.mac, m.peer) for m in self.gateway.take(AssignAddress)]

    def got(self, number):
        return [f for m in self.peers[number].take(FramesToPeer) for f in m.frames]

    def gateway_got(self):
        return [f for m in self.gateway.take(FramesToGateway) for f in m.frames]

    def drops(self):
        return {k.rpartition(".")[2]: v for k, v in self.counters.items() if k.startswith("switch.drop.")}
