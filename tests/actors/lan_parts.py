"""Plain objects in the place of what actors are handed: sessions, mailboxes, the network outside."""

from __future__ import annotations

import json
from dataclasses import replace

from actors.descriptions import PathState
from actors.lan.peer import PeerActor
from actors.messages import AddressWanted, DatagramFromNet, DatagramsFromNet, ErrorsFromNet
from actors.ports import SendResult
from actors.runtime import current_scheduler, run_ready
from transport.quic.session import MOST_ROOM

GATEWAY_MAC = bytes.fromhex("525400123456")
GATEWAY_IP = bytes((10, 0, 2, 2))


def mac(n):
    """MACs that follow each other, and so do their addresses: these begin with the first of a pool."""
    return bytes((0x52, 0x54, 0x15, 0xEE, n >> 8, n & 0xFF))


def ip(text):
    return bytes(map(int, text.split(".")))


class Box(list):
    """A mailbox that keeps what it is told."""

    def tell(self, message):
        self.append(message)

    def take(self, kind=None):
        taken = [m for m in self if kind is None or type(m) is kind]
        self[:] = [m for m in self if m not in taken]
        return taken


class FakeSession:
    def __init__(self, number=1, path="/", limit=1160):
        self.id = number
        self.path = path
        self.remote = f"192.0.2.{number % 250}:50000"
        self.datagram_limit = limit
        self.queued_bytes = 0
        self.room = MOST_ROOM
        self.on_writable = None
        self.last_heard = current_scheduler().loop.time()
        self.sent = []
        self.closed = None

    def path_state(self):
        return PathState("webtransport", 0.02, 100, 1)

    def send(self, datagrams):
        self.sent += datagrams

    @property
    def writable(self):
        return self.queued_bytes < self.room // 2

    def leave(self, size):
        """Let bytes of the queue leave, and tell who waits for that."""
        self.queued_bytes -= size
        if self.writable and self.on_writable is not None:
            callback, self.on_writable = self.on_writable, None
            callback()

    def call_when_writable(self, callback):
        self.on_writable = callback

    def close(self, code=0, reason=""):
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def take(self):
        sent, self.sent = self.sent, []
        return sent

    def controls(self):
        """The control messages sent so far, oldest first; frames stay."""
        taken = [json.loads(d[1:]) for d in self.sent if d[:1] == b"\0"]
        self.sent = [d for d in self.sent if d[:1] != b"\0"]
        return taken

    def frames(self):
        """The Ethernet frames sent so far (framed); anything else stays."""
        taken = [d[1:] for d in self.sent if d[:1] == b"\1"]
        self.sent = [d for d in self.sent if d[:1] != b"\1"]
        return taken


class FakeUdpSocket:
    def __init__(self, flow):
        self.flow = flow
        self.sent = []
        self.result = SendResult.SENT
        self.open = True

        self.path_mtu = 0
        self.options = []
        """TTL and "don't fragment" of what was sent."""

    def send_to(self, payload, address, ttl, dont_fragment):
        assert self.open
        self.sent.append((payload, address))
        self.options.append((ttl, dont_fragment))
        return self.result

    def send_run(self, payloads, address, ttl, dont_fragment):
        """Send one after the other, as long as that works."""
        if self.result is not SendResult.SENT:
            return 0
        for payload in payloads:
            self.send_to(payload, address, ttl, dont_fragment)
        return len(payloads)

    def complain(self, *errors):
        self.flow.tell(ErrorsFromNet(list(errors)))
        run_ready()

    def reply(self, payload, address, ttl=64):
        self.flow.tell(DatagramsFromNet([DatagramFromNet(payload, address, ttl)]))
        run_ready()

    def close(self):
        assert self.open, "closed twice"
        self.open = False


class FakeEchoSocket(FakeUdpSocket):
    def send_echo(self, sequence, payload, destination, ttl, dont_fragment):
        assert self.open
        self.options.append((ttl, dont_fragment))
        self.sent.append((sequence, payload, destination, ttl))
        return self.result


class FakeOutside:
    def __init__(self):
        self.can_ping = True
        self.has_ipv6 = True
        self.has_ipv6_route = True
        self.error = None
        self.udp_ports = 28_232
        self.denied = set()
        self.udp = []
        self.echo = []

    def allows_udp(self, address):
        return self.allows_echo(address[0])

    def allows_tcp(self, address):
        return self.allows_echo(address[0])

    def allows_echo(self, address):
        return address not in self.denied

    def open_udp(self, flow, version=4):
        return self._open(FakeUdpSocket, flow, self.udp, version)

    def open_echo(self, flow, version=4):
        return self._open(FakeEchoSocket, flow, self.echo, version)

    def _open(self, kind, flow, sockets, version):
        if self.error is not None:
            raise self.error
        sockets.append(kind(flow))
        sockets[-1].version = version
        return sockets[-1]

    def open_sockets(self):
        return [s for s in self.udp + self.echo if s.open]


def control(**fields):
    return b"\0" + json.dumps(fields, separators=(",", ":")).encode()


def register(address):
    return control(type="Register", mac=list(address))


def start_peer(session, switch, counters, settings):
    ref = PeerActor.start(session, switch, counters, settings)
    run_ready()
    return ref


def nobody_is_away(switch, tell):
    """Answer for the switch where the gateway wants an address of clients that are away."""
    for wanted in switch.take(AddressWanted):
        tell(replace(wanted.registration, attempts_left=0))
