"""The switch, held in any order of events against a model of a few lines: which port a frame goes to, which
MACs a port may use, who is heard by whom where guests are isolated, and that each frame is accounted for.

Whose an address is the gateway says (``netstack.source_guard``), and it does not say so here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

import pykka
from fake_loop import FakeLoop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lan_parts import GATEWAY_MAC, mac
from scapy.contrib.igmp import IGMP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Dot3, Ether
from switch_parts import BROADCAST, Lan

from actors.lan.switch import FIRST_QUERY_AFTER, SILENT_AFTER
from actors.messages import (
    AssignAddress,
    ClosePeer,
    FramesFromGateway,
    FramesToGateway,
    FramesToPeer,
    GatewayAttached,
    MacAgedOut,
    PortClosed,
    RegistrationRefused,
)
from actors.port_policy import usual_policy
from actors.runtime import NEVER, Scheduler
from actors.settings import LanSettings
from netstack.counters import Counters
from netstack.mac_table import AGEING_TIME
from netstack.multicast import MEMBERSHIP_TIME, Queries

MAX_MACS = 2
QUERIES = Queries(GATEWAY_MAC, bytes((10, 0, 2, 2)), LanSettings().gateway_link_local)
GROUP, GROUP_MAC = "239.1.2.3", bytes.fromhex("01005e010203")
LINK_CONTROL, NOBODY, GROUP_SOURCE = (
    bytes.fromhex(text) for text in ("0180c2000002", "0200000000ff", "03" * 6)
)

PORTS = st.sampled_from([1, 2, 3])
MACS = [mac(number) for number in range(1, 5)]
SOURCES = st.sampled_from([*MACS * 4, GATEWAY_MAC, GROUP_SOURCE])
DESTINATIONS = st.sampled_from([*MACS * 3, *[GROUP_MAC] * 3, NOBODY, BROADCAST, GATEWAY_MAC, LINK_CONTROL])
TAGS = {"untagged": [], "priority": [0], "VLAN": [5], "priority and VLAN": [0, 5]}
GUARDED = {
    "data": None,
    "report": None,
    "ARP": None,
    "ARP of the gateway": "gateway_arp",
    "DHCP answer": "rogue_dhcp",
    "router": "rogue_router",
    "hidden in SNAP": "hidden_protocol",
}


def ether(source, destination, tags=(), ethertype=None):
    packet = Ether(src=source.hex(":"), dst=destination.hex(":"))
    for vlan in tags:
        packet /= Dot1Q(vlan=vlan)
    if ethertype is not None:
        packet.lastlayer().type = ethertype
    return packet


def behind(kind, destination, number):
    """What a frame of this kind has behind its Ethernet header."""
    to = GROUP if destination == GROUP_MAC else "10.0.2.9"
    if kind == "report":
        return IP(src="10.0.2.8", dst=GROUP) / IGMP(type=0x16, gaddr=GROUP)
    if kind == "router":
        return IPv6(src="fe80::9", dst="ff02::1") / ICMPv6ND_RA()
    if kind.startswith("ARP"):
        return ARP(psrc="10.0.2.2" if "gateway" in kind else "10.0.2.8", pdst="10.0.2.9")
    port = 68 if kind == "DHCP answer" else 7000
    return IP(src="10.0.2.8", dst=to) / UDP(sport=67, dport=port) / (b"%9d" % number)


@dataclass
class Entry:
    port: int
    bound: bool
    seen: float


class Expected:
    """Where the frames of one message go."""

    def __init__(self):
        self.to_port = {}
        self.to_gateway = []
        self.drops = []
        self.flooded = self.multicast = self.unicast = 0

    def give(self, port, frame):
        self.to_port.setdefault(port, []).append(frame)


class SwitchInAnyOrder(RuleBasedStateMachine):
    """Ports open and close, register and send; the gateway sends; time passes."""

    @initialize(isolated=st.sampled_from([False, False, True]), registered=st.integers(0, 3))
    def begin(self, isolated, registered):
        self.loop = FakeLoop()
        self.counters = Counters()
        self.active = Scheduler(self.loop, self.counters).activate()
        self.active.__enter__()
        settings = LanSettings(isolated=isolated, floods_per_second=1e6)
        self.lan = Lan(self.counters, ports=0, settings=settings)
        self.lan.tell(GatewayAttached(self.lan.gateway, None, QUERIES))
        self.isolated = isolated
        self.policy = replace(usual_policy(settings), max_macs=MAX_MACS)
        self.macs, self.members, self.open, self.ask_by = {}, {}, set(), {}
        self.numbers = count()
        for number in range(1, 4):
            self.open_port(number, "192.0.2.1")
            if number <= registered:
                self.register(number, mac(number), explicit=True)

    def teardown(self):
        pykka.ActorRegistry.stop_all(block=False)
        self.loop.run()
        self.active.__exit__(None, None, None)

    @property
    def now(self):
        return self.loop.time()

    # The table of MACs.

    def is_live(self, entry):
        return entry.bound or self.now - entry.seen < AGEING_TIME

    def makes_room(self, port):
        """Whether a port may have one MAC more; those that have aged out make room."""
        behind_it = [mac for mac, entry in self.macs.items() if entry.port == port]
        if len(behind_it) >= MAX_MACS:
            for old in [mac for mac in behind_it if not self.is_live(self.macs[mac])]:
                del self.macs[old]
                self.aged_out.add((port, old))
        return sum(entry.port == port for entry in self.macs.values()) < MAX_MACS

    def refusal(self, source, port):
        """Why a port's frame is dropped for its source, if it is; else the source is known from now on."""
        entry = self.macs.get(source)
        if entry is not None and entry.port == port:
            entry.seen = self.now
            return None
        if entry is not None and self.is_live(entry):
            return "spoofed_source"
        self.macs.pop(source, None)
        if source == GATEWAY_MAC:
            return "gateway_source"
        if source == GROUP_SOURCE:
            return "invalid_source"
        if not self.makes_room(port):
            return "too_many_macs"
        self.macs[source] = Entry(port, bound=False, seen=self.now)
        return None

    # What happens.

    @rule(number=PORTS, host=st.sampled_from(["192.0.2.1", "192.0.2.2"]))
    def open_port(self, number, host):
        if number not in self.open:
            self.lan.open(number, host, self.policy)
            self.lan.heard[number] = self.now
            self.open.add(number)

    @precondition(lambda self: len(self.open) > 1)
    @rule(number=PORTS)
    def close_port(self, number):
        if number in self.open:
            self.lan.tell(PortClosed(number))
            assert self.lan.gateway.take(PortClosed) == [PortClosed(number)]
            self.open.discard(number)
            self.members.pop(number, None)
            self.ask_by.pop(number, None)
            self.macs = {mac: entry for mac, entry in self.macs.items() if entry.port != number}

    @rule(number=PORTS, address=st.sampled_from(MACS), explicit=st.booleans())
    def register(self, number, address, explicit):
        """A MAC moves to a port of the same host, or from one that is silent."""
        if number not in self.open:
            return
        self.aged_out = set()
        entry = self.macs.get(address)
        accepted, displaced = True, None
        if entry is None or entry.port != number:
            other = entry.port if entry is not None and self.is_live(entry) else None
            is_silent = other is not None and self.now - self.lan.heard[other] >= SILENT_AFTER
            is_same = other is not None and self.lan.hosts[other] == self.lan.hosts[number]
            accepted = other is None or is_silent or (explicit and is_same)
            accepted = accepted and self.makes_room(number)
            displaced = entry.port if accepted and entry is not None and entry.bound else None
        if accepted:
            self.macs[address] = Entry(number, bound=True, seen=self.now)
            self.ask_by.setdefault(number, self.now + FIRST_QUERY_AFTER)
        self.lan.register(number, address, explicit)
        assert self.lan.assigned() == [(number, address, self.lan.peers[number])] * accepted
        assert len(self.lan.peers[number].take(RegistrationRefused)) == (not accepted)
        closed = {port for port in self.open if self.lan.peers[port].take(ClosePeer)}
        assert closed == ({displaced} if displaced is not None else set())
        self.compare_aged_out()

    @rule(
        number=PORTS,
        source=SOURCES,
        destination=DESTINATIONS,
        kinds=st.lists(st.sampled_from([*GUARDED, *["data"] * 4]), min_size=1, max_size=4),
        tags=st.sampled_from([*["untagged"] * 4, *TAGS]),
    )
    def send(self, number, source, destination, kinds, tags):
        """A port sends some frames at once, which are alike but for what they carry."""
        before, expected, frames = self.counters.copy(), Expected(), []
        self.aged_out = set()
        for kind in kinds:
            payload = behind(kind, destination, next(self.numbers))
            if kind == "hidden in SNAP":
                head = Dot3(src=source.hex(":"), dst=destination.hex(":"))
                frame, left = head / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x0800) / payload, None
                remaining = []
            else:
                remaining = [vlan for vlan in TAGS[tags] if vlan]
                frame = ether(source, destination, TAGS[tags]) / payload
                left = ether(source, destination, remaining) / payload
            frames.append(bytes(frame))
            self.expect(expected, number, kind, bytes(left or frame), remaining)
        if number in self.open:
            self.lan.heard[number] = self.now
        self.lan.sends(number, *frames)
        self.compare(expected, number, before, len(frames))
        self.compare_aged_out()

    def expect(self, expected, number, kind, frame, tags):
        """Say where one frame goes, as it is without its priority tags."""
        destination, source = frame[:6], frame[6:12]
        drop = "unknown_port" if number not in self.open else self.refusal(source, number) or GUARDED[kind]
        if drop is None and destination == LINK_CONTROL:
            drop = "link_control"
        is_multicast = bool(destination[0] & 1)
        if drop is None and self.isolated and destination != GATEWAY_MAC and not is_multicast:
            drop = "isolated"
        if drop is not None:
            expected.drops.append(drop)
        elif self.isolated and destination != GATEWAY_MAC:
            self.to_some(expected, number, frame, [])
        elif is_multicast:
            self.expect_multicast(expected, number, kind, frame, tags)
        else:
            self.expect_unicast(expected, number, destination, frame)

    def expect_unicast(self, expected, number, destination, frame):
        entry = self.macs.get(destination)
        if destination == GATEWAY_MAC:
            expected.unicast += 1
            expected.to_gateway.append(frame)
        elif entry is None or not self.is_live(entry):
            self.to_all(expected, number, frame)
        elif entry.port == number:
            expected.drops.append("same_port")
        else:
            expected.unicast += 1
            expected.give(entry.port, frame)

    def expect_multicast(self, expected, number, kind, frame, tags):
        """A group goes to who reported it; what is tagged, or no IPv4, to all."""
        if kind == "report" and not tags:
            self.members[number] = self.now + MEMBERSHIP_TIME
            self.to_some(expected, number, frame, [])
            return
        members = [port for port, until in self.members.items() if self.now < until]
        is_of_group = kind == "data" and frame[30:34] == bytes(map(int, GROUP.split("."))) and not tags
        if is_of_group and members:
            self.to_some(expected, number, frame, members)
        else:
            self.to_all(expected, number, frame)

    def to_some(self, expected, number, frame, ports):
        expected.multicast += 1
        expected.to_gateway.append(frame)
        for port in ports:
            if port != number:
                expected.give(port, frame)

    def to_all(self, expected, number, frame):
        expected.flooded += 1
        expected.to_gateway.append(frame)
        for port in self.open - {number}:
            expected.give(port, frame)

    @rule(destination=st.sampled_from([*MACS, BROADCAST, NOBODY]), copies=st.integers(1, 3))
    def gateway_sends(self, destination, copies):
        """What is for one guest goes where it was heard last, however long ago; never to its neighbours."""
        before, expected = self.counters.copy(), Expected()
        frames = [
            bytes(ether(GATEWAY_MAC, destination) / behind("data", destination, next(self.numbers)))
            for _ in range(copies)
        ]
        for frame in frames:
            entry = self.macs.get(destination)
            if destination == BROADCAST:
                self.to_all(expected, None, frame)
            elif entry is None:
                expected.drops.append("unknown_destination")
            else:
                expected.unicast += 1
                expected.give(entry.port, frame)
        expected.to_gateway.clear()
        self.lan.tell(FramesFromGateway(frames))
        self.compare(expected, None, before, copies)

    @rule(seconds=st.sampled_from([0.5, 2, 46, 261, 301]))
    def wait(self, seconds):
        """MACs that were only learned age; new ports are asked for their groups."""
        self.loop.advance(seconds)
        for number, by in list(self.ask_by.items()):
            frames = [frame for m in self.lan.peers[number].take(FramesToPeer) for frame in m.frames]
            assert set(frames) <= set(QUERIES.general)
            if by > self.now:
                assert frames == []
            elif by > self.now - seconds:
                assert set(frames) == set(QUERIES.general)

    # What must hold.

    def compare(self, expected, number, before, sent):
        got = {port: self.lan.got(port) for port in self.open}
        assert got == {port: expected.to_port.get(port, []) for port in self.open}
        to_gateway = self.lan.gateway.take(FramesToGateway)
        assert [frame for message in to_gateway for frame in message.frames] == expected.to_gateway
        assert {message.port for message in to_gateway} <= {number}
        gone = Counters({name: total - before.get(name, 0) for name, total in self.counters.items()})
        counted = [gone[f"switch.{what}"] for what in ("received", "unicast", "multicast", "flooded")]
        assert counted == [sent, expected.unicast, expected.multicast, expected.flooded]
        for reason in set(expected.drops):
            assert gone[f"switch.drop.{reason}"] == expected.drops.count(reason)
        assert gone.total("switch.drop") == len(expected.drops)

    def compare_aged_out(self):
        told = {(message.port, message.mac) for message in self.lan.gateway.take(MacAgedOut)}
        assert told == self.aged_out

    @invariant()
    def every_frame_is_accounted_for(self):
        counted = self.counters
        outcomes = sum(counted[f"switch.{what}"] for what in ("unicast", "multicast", "flooded"))
        assert counted["switch.received"] == outcomes + counted.total("switch.drop")
        assert counted["switch.drop.internal_error"] == 0

    @invariant()
    def the_switch_has_a_timer_for_its_next_question(self):
        """And a nearer one where a port has not been asked yet."""
        switch = self.lan.ref._actor_weakref()
        due = [by for by in self.ask_by.values() if by > self.now]
        assert switch.poll_at < NEVER
        assert switch.poll_at <= min(due, default=NEVER)
        assert min(self.loop.pending()) <= switch.poll_at

    @invariant()
    def it_knows_whom_the_model_knows(self):
        switch = self.lan.ref._actor_weakref()
        assert len(switch._table) == len(self.macs)
        assert self.lan.gateway.take(AssignAddress) == []


TestSwitch = SwitchInAnyOrder.TestCase
TestSwitch.settings = settings(max_examples=100, stateful_step_count=50)
