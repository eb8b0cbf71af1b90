"""A LAN with a guest, and forwards that lead to it: the test plays the clients outside."""

from __future__ import annotations

from typing import Any

from gateway_parts import Lan, ether, packet
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from actors.flows.port_forward import PortForwardActor
from actors.messages import ClientsWaiting, ConnectionMade, DatagramFromNet, DatagramsFromNet
from actors.ports import SendResult
from actors.runtime import run_ready
from actors.settings import LanSettings
from netstack.forward import parse_forward

CLIENT = ("192.0.2.1", 40_000)


class FakeListener:
    """A port, with the clients that wait at it."""

    def __init__(self, owner):
        self.owner = owner
        self.answers = []
        self.result = SendResult.SENT
        self.open = True
        self.waiting = []
        self.is_watched = True

    def answer(self, payload, client):
        self.answers.append((payload, client))
        return self.result

    def connect(self, *connections):
        self.waiting += connections
        self._tell()
        run_ready()

    def take(self):
        return self.waiting.pop(0) if self.waiting else None

    def watch(self):
        self.is_watched = True
        self._tell()

    def _tell(self):
        if self.is_watched and self.waiting:
            self.is_watched = False
            self.owner.tell(ClientsWaiting(self))

    def close(self):
        self.open = False


class FakeListeners:
    def __init__(self):
        self.opened = []
        self.shared = []
        self.leading = []
        self.error = None

    def listen_udp(self, owner, host, port, *, shared=False):
        if self.error is not None:
            raise self.error
        self.shared.append(shared)
        self.opened.append(FakeListener(owner))
        return self.opened[-1]

    listen_tcp = listen_udp

    def lead_to_guests(self, protocol, host, port):
        self.leading.append((protocol, host, port))

    def lead_no_more(self, protocol, host, port):
        self.leading.remove((protocol, host, port))


class FakeConnection:
    """A client's connection; as a TCP socket it has nothing to say."""

    room = 65_536
    unsent = 0

    def __init__(self):
        self.attached = self.refused = False
        self.closed: Any = False
        self.kept_alive = None
        self.client = ("192.0.2.1", 40_000)
        self.local = ("198.51.100.2", 8080)
        self.to_read = b""

    def attach(self, flow, preface=b""):
        self.attached = True
        self.to_read = preface
        flow.tell(ConnectionMade())
        return self

    def refuse(self):
        self.refused = True

    def read(self, limit):
        data, self.to_read = self.to_read[:limit], self.to_read[limit:]
        return data or None

    def write(self, chunks):
        return sum(map(len, chunks))

    def wait_for_room(self):
        pass

    def keep_alive(self, seconds):
        self.kept_alive = seconds

    def close(self, *, abort=False):
        self.closed = "reset" if abort else "closed"


class Forwarded:
    """A LAN with one guest and forwards to it."""

    def __init__(self, counters, *texts, **settings):
        self.lan = Lan(counters, **settings)
        self.lan.assign(1)
        self.listeners = FakeListeners()
        self.refs = [
            PortForwardActor.start(
                parse_forward(text),
                index,
                gateway=self.lan.ref,
                switch=self.lan.switch,
                listeners=self.listeners,
                counters=counters,
                settings=LanSettings(**settings),
            )
            for index, text in enumerate(texts)
        ]
        run_ready()

    def comes(self, *datagrams, index=0, client=CLIENT):
        batch = [DatagramFromNet(payload, client, 64) for payload in datagrams]
        self.listeners.opened[index].owner.tell(DatagramsFromNet(batch))
        run_ready()
        return self.lan.received()

    def connects(self, index=0):
        connection = FakeConnection()
        self.listeners.opened[index].connect(connection)
        return connection, self.lan.received()

    def crowd(self, number, index=0):
        """Let many clients connect at once; return them, and the SYNs that the guest gets."""
        connections = [FakeConnection() for _ in range(number)]
        self.listeners.opened[index].connect(*connections)
        return connections, self.lan.received()

    def guest_uses(self, address, port=1):
        """Have the guest send something from an IPv6 address, so that it is known."""
        self.lan.sends(port, ether(port) / IPv6(src=address, dst="2606:4700::1") / UDP(sport=4009, dport=9))

    def guest_answers(self, *syns, flags="SA", port=1):
        """Have the guest answer SYNs, or refuse them; return what comes of it."""
        answers = [
            packet(port, syn[IP].src)
            / TCP(sport=syn.dport, dport=syn.sport, flags=flags, seq=7, ack=syn.seq + 1, window=9999)
            for syn in syns
        ]
        return self.lan.sends(port, *answers)

    def connections(self):
        """What the gateway keeps for each TCP forward that had a client."""
        return list(self.lan.ref._actor_weakref()._tcp_forwards._by_index.values())
