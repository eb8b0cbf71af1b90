"""A LAN with one guest, whose TCP connections meet recorder sockets."""

from __future__ import annotations

from lan_parts import GATEWAY_MAC, Box, FakeOutside, FakeSession, mac
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import Ether

from actors.gateway.gateway import GatewayActor
from actors.line import Line
from actors.messages import (
    AssignAddress,
    ConnectionFailed,
    ConnectionMade,
    FramesFromGateway,
    FramesToGateway,
)
from actors.runtime import run_ready
from actors.settings import LanSettings

GUEST_MAC = mac(1)
SERVER = "192.0.2.80"


class FakeTcpSocket:
    local_port, far_end = 40_000, None

    def __init__(self, flow, address, owner):
        self.flow, self.address, self.owner = flow, address, owner
        self.room = 256 * 1024
        self.to_read = []
        self.written = b""
        self.error = self.write_error = None
        self.closed = None
        self.was_shut_down = False
        self.waiting = False
        self.unsent = 0
        self.kept_alive = None

    def keep_alive(self, seconds):
        self.kept_alive = seconds

    def tell(self, message):
        self.flow.tell(message)
        run_ready()

    def read(self, limit):
        if self.error:
            raise self.error
        if not self.to_read:
            return None
        data = self.to_read.pop(0)
        if isinstance(data, OSError):
            raise data
        if data is None:
            return None
        if len(data) > limit:
            self.to_read.insert(0, data[limit:])
        return data[:limit]

    def write(self, chunks):
        if self.error or self.write_error:
            raise self.error or self.write_error
        taken = b"".join(chunks)[: self.room]
        self.written += taken
        return len(taken)

    def wait_for_room(self):
        self.waiting = True

    def shut_down(self):
        assert not self.was_shut_down
        self.was_shut_down = True

    def close(self, *, abort=False):
        if self.closed is None:
            self.closed = "abort" if abort else "close"


class TcpOutside(FakeOutside):
    def __init__(self, socket=FakeTcpSocket):
        super().__init__()
        self.socket = socket
        self.tcp = []
        self.fails_at_once = None

    def open_tcp(self, flow, address, owner):
        if self.error is not None:
            raise self.error
        self.tcp.append(self.socket(flow, address, owner))
        if self.fails_at_once is not None:
            flow.tell(ConnectionFailed(self.fails_at_once))
        return self.tcp[-1]


class Lan:
    """A gateway with one guest on port 1, of both IP versions; frames to it are read with scapy."""

    def __init__(self, loop, counters, *, switch=None, socket=FakeTcpSocket, buffers=None, **settings):
        self.loop, self.counters = loop, counters
        self.outside = TcpOutside(socket)
        self.switch = Box() if switch is None else switch
        self.session = FakeSession()
        self.gateway = GatewayActor.start(
            self.switch, self.outside, counters, LanSettings(**settings), buffers=buffers
        )
        peer = Box()
        self.line = Line(self.session)
        self.gateway.tell(AssignAddress(1, GUEST_MAC, peer, link_mtu=lambda: 1140, line=self.line))
        run_ready()
        self.ip6 = "fd76:6d72:656c:6179::1:1"
        self.ip = ".".join(map(str, peer[0].ip))
        if switch is None:
            self.switch.clear()

    def send(self, payload=b"", *, destination=SERVER, sport=40000, dport=80, **fields):
        is_ipv6 = ":" in destination
        header = IPv6(src=self.ip6, dst=destination) if is_ipv6 else IP(src=self.ip, dst=destination)
        packet = header / TCP(sport=sport, dport=dport, **fields)
        frame = Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / packet / payload
        self.gateway.tell(FramesToGateway(1, [bytes(frame)]))
        run_ready()

    def received(self):
        """Packets to the guest, without the gateway's router advertisements."""
        frames = [Ether(f) for message in self.switch.take(FramesFromGateway) for f in message.frames]
        return [frame for frame in frames if ICMPv6ND_RA not in frame]

    def one(self):
        (packet,) = self.received()
        return packet

    def syn(self, **fields):
        self.send(flags="S", seq=100, options=[("MSS", 1460)], **fields)
        return self.outside.tcp[-1]

    def connect(self, **fields):
        socket = self.syn(**fields)
        socket.tell(ConnectionMade())
        self.answer = self.one()[TCP]
        assert self.answer.flags == "SA"
        self.send(flags="A", seq=101, ack=self.answer.seq + 1, **fields)
        assert self.received() == []
        return socket

    def ack(self, count=0, **fields):
        self.send(ack=(self.answer.seq + 1 + count) % 2**32, **({"flags": "A", "seq": 101} | fields))
