"""Workers of one relay that live in one process: each has its trunk, LANs and counters; sockets are real."""

from __future__ import annotations

import asyncio
import contextlib

from lan_parts import FakeSession, mac, register
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from waiting import until

from actors.close_codes import CloseCode
from actors.messages import DatagramsFromClient, SessionClosed
from actors.runtime import current_scheduler, run_ready
from netstack.counters import Counters
from relay.lan import Lan
from relay.lan_plan import lan_plan
from relay.lease_store import LeaseStore
from relay.settings import Settings
from relay.shared import Shared
from relay.trunk import Trunk
from relay.workers.place import Place

KEY = bytes(range(32))


class Guest:
    """A guest behind a fake session."""

    def __init__(self, worker, room, hardware, host=None, path="/", **terms):
        self.worker, self.lan, self.mac = worker, worker.lan(room), hardware
        self.session = FakeSession(self.lan.next_port(), path)
        if host is not None:
            self.session.remote = f"{host}:50000"
        self.ip = None
        self.resume = ""
        self.told = []
        self.peer = self.lan.attach(self.session, **terms)
        run_ready()

    def says(self, *datagrams):
        self.session.last_heard = asyncio.get_running_loop().time()
        self.peer.tell(DatagramsFromClient(list(datagrams)))
        run_ready()

    def registers(self, **more):
        from lan_parts import control

        self.says(control(type="Register", mac=list(self.mac), **more) if more else register(self.mac))
        return self

    def look(self):
        """Read what control messages have come; whether the guest has an address."""
        for message in self.session.controls():
            self.told.append(message)
            if message["type"] == "Assigned":
                self.ip = ".".join(map(str, message["ip"]))
                self.resume = message.get("resume", "")
        return self.ip is not None

    async def joins(self, **more):
        self.registers(**more)
        await until(self.look)
        return self

    def sends(self, *packets):
        self.says(*[b"\1" + bytes(packet) for packet in packets])

    def frames(self):
        return [Ether(frame) for frame in self.session.frames()]

    def to(self, other):
        return Ether(src=self.mac.hex(":"), dst=other.mac.hex(":"))

    def asks_for(self, address):
        """Broadcast an ARP request."""
        packet = ARP(hwsrc=self.mac.hex(":"), psrc=self.ip, pdst=address)
        self.sends(Ether(src=self.mac.hex(":"), dst="ff:ff:ff:ff:ff:ff") / packet)

    async def hears(self, wanted):
        """Wait for a frame of which ``wanted(frame)`` holds; returns it."""
        return next(frame for frame in await self.hears_until(wanted) if wanted(frame))

    async def hears_until(self, wanted):
        """Wait for a frame of which ``wanted(frame)`` holds; returns all that have come."""
        heard = []

        def look():
            heard.extend(self.frames())
            return any(map(wanted, heard))

        await until(look)
        return heard

    async def pings(self, other):
        """Ping a guest as a kernel would: ask where it is, then send."""
        while not await self._asks(other):
            pass  # the other's worker may not have said yet that it is there
        self.sends(self.to(other) / IP(src=self.ip, dst=other.ip) / ICMP(id=7) / b"hello")
        request = await other.hears(lambda frame: ICMP in frame and frame[ICMP].type == 8)
        other.sends(other.to(self) / IP(src=other.ip, dst=self.ip) / ICMP(type=0, id=7) / b"hello")
        reply = await self.hears(lambda frame: ICMP in frame and frame[ICMP].type == 0)
        return request, reply

    async def _asks(self, other):
        self.asks_for(other.ip)
        with contextlib.suppress(TimeoutError):
            await until(lambda: self._resolved(other), patience=0.2)
            return True
        return False

    def _resolved(self, other):
        """Whether somebody has said where the other is; the other answers what it is asked itself."""
        for frame in other.frames():
            if ARP in frame and frame[ARP].op == 1 and frame[ARP].pdst == other.ip:
                answer = ARP(op=2, hwsrc=other.mac.hex(":"), psrc=other.ip, pdst=frame[ARP].psrc)
                answer.hwdst = frame[ARP].hwsrc
                other.sends(other.to(self) / answer)
        return any(
            ARP in frame and frame[ARP].op == 2 and frame[ARP].hwsrc == other.mac.hex(":")
            for frame in self.frames()
        )

    def refused(self):
        """Whether the guest was told that it cannot have an address."""
        return any(message["type"] == "Error" for message in self.told)

    def is_lost(self):
        """Be gone without a word: the port is kept for a while."""
        self.peer.tell(SessionClosed(0, "", lost=True))
        run_ready()

    def leaves(self):
        self.peer.tell(SessionClosed(0, ""))
        run_ready()


class Worker:
    """One worker with its LANs."""

    def __init__(self, number, count, folder, settings):
        self.number, self.settings = number, settings
        self.counters = Counters()
        place = Place(number, count, folder, KEY)
        turns = current_scheduler()
        self.trunk = Trunk(place, turns=turns, counters=self.counters, urls=settings.url)
        self.shared = Shared(
            turns,
            max_flows=1000,
            max_questions=100,
            place=place,
            first_port=1 + number,
            trunk=self.trunk,
            urls=settings.url,
        )
        self.leases = LeaseStore()
        self.trunk.remember = self.leases.learn
        self.lans = {}
        self.guests = []
        """All, as sessions live as long as somebody has them."""

    def lan(self, room="default"):
        if room not in self.lans:
            plan = lan_plan(self.settings, room)
            self.lans[room] = Lan(room, plan, self.shared, self.leases.of_room(room))
        return self.lans[room]

    def guest(self, number, room="default", host=None, path="/", **terms):
        self.guests.append(Guest(self, room, mac(number), host, path, **terms))
        return self.guests[-1]

    def total(self, name):
        return self.counters[name] + sum(lan.counters[name] for lan in self.lans.values())

    def stop(self):
        """End as after SIGTERM."""
        for lan in self.lans.values():
            lan.close_sessions(CloseCode.SHUTDOWN, "")
            lan.stop()
        self.shared.close()

    def dies(self):
        """End as after SIGKILL: nobody is told anything."""
        self.trunk._unix.close()
        self.trunk.state.take_outgoing()
        self.stop()


@contextlib.asynccontextmanager
async def workers(folder, count=2, **settings):
    """Start workers that know of each other."""
    started = [Worker(number, count, folder, Settings(**settings)) for number in range(count)]
    try:
        await until(lambda: all(len(worker.trunk.state.live()) == count for worker in started))
        yield started
    finally:
        for worker in started:
            worker.stop()
