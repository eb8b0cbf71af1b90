"""Downloads of one guest, all at once: real flows, TCP connections as guests, and a narrow link."""

from __future__ import annotations

from collections import deque

from lan_parts import GATEWAY_MAC, ip
from tcp_parts import GUEST_MAC, SERVER, FakeTcpSocket, Lan

from actors.messages import ConnectionMade, FramesFromGateway, FramesToGateway
from actors.runtime import run_ready
from netstack.buffer_budget import TOTAL, BufferBudget
from netstack.ethernet import ETHERTYPE_IPV4
from netstack.tcp_connection import Offer, TcpConnection
from netstack.tcp_receiver import MAX_WINDOW
from netstack.tcp_segment import TcpFrameTemplate, read_tcp

STEP = 0.001
WINDOW = 8 * 1024 * 1024
FIRST_PORT = 40_000


class Source(FakeTcpSocket):
    """A server that has ``left`` bytes to send, at once."""

    left = 10**9

    def read(self, limit):
        size = min(limit, self.left, 65_536)
        self.left -= size
        return bytes(size)


class Link:
    """In the place of switch, peer and session: frames queue here and leave at the link's rate."""

    def __init__(self):
        self.frames = deque()
        self.line = self.session = None
        self.highest = 0
        """Most bytes that were queued at a time."""

    def tell(self, message):
        if isinstance(message, FramesFromGateway):
            frames = [frame for frame in message.frames if frame[12:14] == ETHERTYPE_IPV4]
            self.frames += frames
            self.session.queued_bytes += sum(map(len, frames))
            self.highest = max(self.highest, self.session.queued_bytes)
            self.line.arrived()

    def take(self, size):
        """Let whole frames of up to ``size`` bytes leave, and give them and what is left of ``size``."""
        taken = []
        while self.frames and len(self.frames[0]) <= size:
            size -= len(self.frames[0])
            taken.append(self.frames.popleft())
        return taken, size if self.frames else 0


class Downloads:
    """``count`` connections of one guest to one server, that sends ``size`` bytes on each."""

    def __init__(
        self, loop, counters, count, *, size=10**9, rate=4_000_000, delay=0.0, total=TOTAL, **settings
    ):
        """``rate`` is the link's, in bytes per second, ``delay`` its delay from relay to guest in seconds.

        ``total`` is the memory for the buffers of all connections.
        """
        self.loop, self.per_step = loop, rate * STEP
        self.link = Link()
        self.budget = BufferBudget(total)
        self.lan = Lan(loop, counters, switch=self.link, socket=Source, buffers=self.budget, **settings)
        self._delay = delay
        self._under_way = deque()
        self.link.line, self.link.session = self.lan.line, self.lan.session
        Source.left = size
        self.allowance = 0
        macs = GATEWAY_MAC + GUEST_MAC
        self.guests = {}
        self._received = dict.fromkeys(range(FIRST_PORT, FIRST_PORT + count), 0)
        for port in range(FIRST_PORT, FIRST_PORT + count):
            template = TcpFrameTemplate(macs, ip(self.lan.ip), port, ip(SERVER), 80)
            guest = self.guests[port] = TcpConnection(
                template, port, Offer(1100, MAX_WINDOW, WINDOW), loop.time()
            )
            guest.connect(loop.time())
        self.say()
        for socket in self.lan.outside.tcp:
            socket.tell(ConnectionMade())

    @property
    def received(self):
        """Bytes by connection."""
        return list(self._received.values())

    def say(self):
        """Let the guests send what they have to say."""
        now = self.loop.time()
        frames = [frame for guest in self.guests.values() for frame in guest.dispatch(now)]
        if frames:
            self.lan.gateway.tell(FramesToGateway(1, frames))
            run_ready()

    def step(self):
        now = self.loop.time()
        frames, self.allowance = self.link.take(self.allowance + self.per_step)
        self.lan.session.leave(sum(map(len, frames)))
        self._under_way.append((now + self._delay, frames))
        while self._under_way and self._under_way[0][0] <= now:
            self._arrive(self._under_way.popleft()[1], now)
        self.say()
        self.loop.advance(STEP)

    def _arrive(self, frames, now):
        for frame in frames:
            segment = read_tcp(frame)
            port = int.from_bytes(frame[36:38], "big")
            guest = self.guests[port]
            guest.process([segment], now)
            size = sum(map(len, guest.received))
            guest.host_took(size, WINDOW)
            self._received[port] += size
