"""Two rooms of fifty guests each in one relay: whatever they say, none of it shows in the other room.

Half of the guests have the same MACs, names and addresses in both; the others have MACs that tell their room.
Every frame that a guest makes up has its room's tag. A third room is there to see nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
from collections import Counter
from functools import partial
from typing import Any

import pytest
from processes import PATIENCE, Relay, free_port
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from waiting import until

from guest.client import SessionEndedError
from guest.vm_client import vm_client

GUESTS, TWINS = 50, 25
ROOMS = ("left", "right")
TAG = {room: f"[made in {room}]".encode() for room in ROOMS}
GATEWAY_MAC, GATEWAY = "52:54:00:12:34:56", "10.0.2.2"
BROADCAST = "ff:ff:ff:ff:ff:ff"
VAULT = "10.0.2.200"
EXPERIMENTAL = 0x88B5


def mac(room, number):
    return f"52:54:{0 if number < TWINS else 1 + ROOMS.index(room):02x}:00:00:{number:02x}"


OWN_MACS = {
    room: [bytes.fromhex(mac(room, number).replace(":", "")) for number in range(TWINS, GUESTS)]
    for room in ROOMS
}


def leaks(room, frame):
    """Whether a frame that came in ``room`` was made in the other one, or tells of it.

    As a destination there are MACs of the other room: guests of this one write to them.
    """
    [other] = set(ROOMS) - {room}
    return TAG[other] in frame or any(hardware in frame[6:] for hardware in OWN_MACS[other])


class Guest:
    """A simulated guest, which keeps what comes."""

    def __init__(self, nic, room, number):
        self.nic, self.room, self.number = nic, room, number
        self.mac = mac(room, number)
        self.frames = []
        self.heard = Counter()
        """How many frames of each kind of noise have come."""
        self._reads = asyncio.create_task(self._read())

    @property
    def address(self):
        return str(self.nic.assigned.ip)

    async def _read(self):
        with contextlib.suppress(SessionEndedError):
            while True:
                frames = await self.nic.recv_batch()
                self.frames += frames
                self.heard.update(what for frame in frames for what in NOISES if what in frame)

    def says(self, *packets):
        self.nic.send([bytes(packet) for packet in packets])

    def ether(self, destination, **fields):
        return Ether(src=self.mac, dst=destination, **fields)

    def by_gateway(self, destination, payload):
        return self.ether(GATEWAY_MAC) / IP(src=self.address, dst=destination) / payload

    def got(self, what):
        return sum(what in frame for frame in self.frames)

    def has_heard(self, speakers):
        """Whether all came that was said when the first so many guests of the room have spoken."""
        others = speakers - (self.number < speakers)
        neighbour_spoke = (self.number - 1) % GUESTS < speakers
        return {self.heard[what] for what in FLOODED} == {others} and self.heard[
            b"unicast"
        ] == neighbour_spoke

    async def waits_for(self, found):
        """Wait until a frame is one of those that are looked for; give what was found in it."""

        def first():
            return next(filter(None, (found(Ether(frame)) for frame in self.frames)), None)

        await until(first, every=0.02, patience=PATIENCE)
        return first()

    async def looks_up(self, name, number):
        """Ask the gateway's name server: the addresses."""
        question = DNS(id=number, rd=1, qd=DNSQR(qname=name))
        self.says(self.by_gateway(GATEWAY, UDP(sport=5000, dport=53) / question))
        answer = await self.waits_for(
            lambda packet: packet[DNS] if DNS in packet and packet[DNS].id == number else None
        )
        return [answer.an[index].rdata for index in range(answer.ancount)]


def noise(guest, others, stranger):
    """What a guest makes up for its room, and for a MAC that only the other room has."""
    tag = TAG[guest.room]
    return [
        guest.ether(BROADCAST, type=EXPERIMENTAL) / Raw(b"broadcast" + tag),
        guest.ether("01:00:5e:00:00:fb")
        / IP(src=guest.address, dst="224.0.0.251")
        / UDP(dport=5353)
        / Raw(b"mdns" + tag),
        guest.ether("33:33:00:00:00:01")
        / IPv6(src="::", dst="ff02::1")
        / UDP(dport=9)
        / Raw(b"multicast6" + tag),
        guest.ether(stranger, type=EXPERIMENTAL) / Raw(b"unknown" + tag),
        guest.ether(BROADCAST)
        / ARP(op=1, hwsrc=guest.mac, psrc=guest.address, pdst=VAULT)
        / Raw(b"arp" + tag),
        guest.ether(BROADCAST) / ARP(op=2, hwsrc=guest.mac, psrc=guest.address, pdst=guest.address),
        guest.ether(others[(guest.number + 1) % GUESTS].mac, type=EXPERIMENTAL) / Raw(b"unicast" + tag),
    ]


FLOODED = (b"broadcast", b"mdns", b"multicast6", b"unknown", b"arp")
NOISES = (*FLOODED, b"unicast")
NOISE = len(NOISES) + 1


@pytest.fixture
def relay(tmp_path):
    port = free_port()
    tables = tmp_path / "relay.toml"
    tables.write_text(f"""
[room.left]
forward = ["udp:127.0.0.1:{port}:web:9"]
[room.right]
static-lease = ["{mac("right", GUESTS - 1)}={VAULT}=vault"]
[room.silent]
""")
    relay: Any = Relay("--config", tables, "--log-level", "debug")
    relay.forwarded = port
    yield relay
    relay.stop()
    assert "Traceback" not in relay.output


async def enter(stack, relay, room, number):
    name = "web" if number == 0 else f"{'twin' if number < TWINS else room}{number}"
    door = relay.room(room)
    nic = await stack.enter_async_context(
        vm_client(door.url, mac=mac(room, number), name=name, cert_hash=door.hash, rewriter=False)
    )
    return Guest(nic, room, number)


@pytest.mark.parametrize(
    ("frame", "is_leak"),
    [
        (bytes(14) + b"broadcast" + TAG["right"], True),
        (bytes(14) + b"broadcast" + TAG["left"], False),
        (bytes(6) + OWN_MACS["right"][0] + bytes(2), True),
        (OWN_MACS["right"][0] + bytes(8), False),
        (bytes(Ether() / ARP(hwdst=mac("right", TWINS))), True),
        (bytes(Ether() / ARP(hwdst=mac("left", TWINS), hwsrc=mac("right", 0))), False),
    ],
)
def test_a_leak_would_be_seen(frame, is_leak):
    assert leaks("left", frame) == is_leak


def counters_of(relay, room):
    line = relay.wait_for(rf'"message": "counters of room {room}:"').string
    return Counter(json.loads(line)["fields"])


def test_two_rooms_of_fifty_guests_see_nothing_of_each_other(relay):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(
                vm_client(relay.room("silent").url, insecure=True, mac="52:54:09:00:00:01")
            )
            seen = Guest(watcher, "left", 0)
            guests = {room: [] for room in ROOMS}
            for number in range(GUESTS):
                for room in ROOMS:
                    guests[room].append(await enter(stack, relay, room, number))
            everybody = [guest for room in ROOMS for guest in guests[room]]
            assert [one.address for one in guests["left"]][:TWINS] == [
                one.address for one in guests["right"]
            ][:TWINS]
            for number in range(GUESTS):
                for room, other in zip(ROOMS, reversed(ROOMS), strict=True):
                    one = guests[room][number]
                    one.says(*noise(one, guests[room], mac(other, TWINS + number % TWINS)))
                # One pair after the other, so that nothing is lost however slow the machine is.
                for one in everybody:
                    await until(partial(one.has_heard, number + 1), patience=PATIENCE)
            await names_and_gateway(guests)
            await forwards(relay, guests)
            leaked = [
                (one.room, frame) for one in everybody for frame in one.frames if leaks(one.room, frame)
            ]
            assert leaked == []
            # The gateway speaks to every room by itself; of guests there is nothing.
            assert [frame for frame in seen.frames if Ether(frame).src != GATEWAY_MAC] == []
            relay.signal(signal.SIGUSR1)
            counted = {room: counters_of(relay, room) for room in (*ROOMS, "silent")}
            for room in ROOMS:
                assert counted[room]["switch.drop.flood_rate"] == 0
                assert counted[room]["peer.frames_from_client"] >= GUESTS * NOISE
            assert counted["silent"]["peer.frames_from_client"] == 0
            assert counted["silent"]["switch.flooded"] == counted["silent"]["gateway.received"] == 0
            assert counted["left"]["forward.frames_to_guest"] == 1
            assert counted["right"]["forward.frames_to_guest"] == 0

    asyncio.run(scenario())
    for room in ROOMS:
        assert re.search(rf'registered .*"room": "{room}"', relay.output)
    for line in relay.output.splitlines():
        told = [room for room in ROOMS if any(hardware.hex(":") in line for hardware in OWN_MACS[room])]
        assert len(told) <= 1
        assert not told or not any(f"room {room}" in line for room in set(ROOMS) - set(told))


async def names_and_gateway(guests):
    left, right = guests["left"][1], guests["right"][1]
    number = GUESTS - 2
    assert await left.looks_up(f"left{number}.vm.internal", 1) == [guests["left"][number].address]
    assert await left.looks_up(f"right{number}.vm.internal", 2) == []
    assert await right.looks_up("vault.vm.internal", 3) == [VAULT]
    assert await left.looks_up("vault.vm.internal", 4) == []
    # By way of the router: to the guest that has the address; in the other room nobody has it.
    right.says(right.by_gateway(VAULT, UDP(dport=7) / Raw(b"routed" + TAG["right"])))
    await guests["right"][GUESTS - 1].waits_for(lambda packet: b"routed" in bytes(packet) or None)
    left.says(left.by_gateway(VAULT, UDP(dport=7) / Raw(b"routed" + TAG["left"])))
    await left.waits_for(
        lambda packet: (ICMP in packet and (packet[ICMP].type, packet[ICMP].code) == (3, 1)) or None
    )


async def forwards(relay, guests):
    """A forward of one room leads to its guest, and nobody of the other reaches it through the gateway."""
    web, namesake = guests["left"][0], guests["right"][0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"from outside", ("127.0.0.1", relay.forwarded))
        await web.waits_for(lambda packet: b"from outside" in bytes(packet) or None)
    assert namesake.got(b"from outside") == 0
    right = guests["right"][2]
    for address in ("127.0.0.1", "10.0.2.4", GATEWAY, "0.0.0.0"):
        right.says(
            right.by_gateway(
                address, UDP(sport=7000, dport=relay.forwarded) / Raw(b"from within" + TAG["right"])
            )
        )
    # What one sent before its ping has been dealt with when it returns; what the other had coming is there.
    for guest in (right, web):
        guest.says(guest.by_gateway(GATEWAY, ICMP(id=0x7777) / Raw(b"last")))
        await guest.waits_for(
            lambda packet: (ICMP in packet and (packet[ICMP].type, packet[ICMP].id) == (0, 0x7777)) or None
        )
    assert web.got(b"from within") == 0
