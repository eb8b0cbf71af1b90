"""Looking on while actors work, and leaving no trace of it."""

from __future__ import annotations

import asyncio
import io
from types import SimpleNamespace
from typing import Any

import pytest
from lan_parts import mac
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import RawPcapNgReader
from test_snapshots import join, on_lans

from actors.lan.peer import PeerActor
from actors.lan.switch import SwitchActor
from actors.messages import DatagramsFromClient, FlowOpened, FramesFromPeer
from actors.runtime import run_ready
from relay.capture import MAX_NEW_FLOWS, MAX_WAITING, Capture
from relay.observation import Handled
from relay.trace import MAX_LINES, Trace, describe, ends_of


class Seen(list):
    def see(self, lan, handled):
        self.append((lan.name, handled))


def frame(number=1):
    return b"\xff" * 6 + mac(number) + b"\x88\xb5" + b"x" * 50


def test_an_observer_sees_messages_of_those_who_are_there_and_who_come_and_what_they_counted():
    async def scenario(lans, _):
        lan, seen = lans.default, Seen()
        one, peer = join(lan, 1)
        lan.observation.add(seen)
        two, later = join(lan, 2)
        peer.tell(DatagramsFromClient([b"\1" + frame()]))
        run_ready()
        lan.observation.remove(seen)
        before = len(seen)
        peer.tell(DatagramsFromClient([b"\1" + frame()]))
        run_ready()
        return seen, before, (one, two, later)

    seen, before, _ = on_lans(scenario)
    assert len(seen) == before
    (switch,) = [handled for _, handled in seen if isinstance(handled.message, FramesFromPeer)]
    assert isinstance(switch.actor, SwitchActor)
    assert switch.counted["switch.flooded"] == 1
    assert {handled.actor.port for _, handled in seen if isinstance(handled.actor, PeerActor)} == {1, 2}


def test_rooms_are_looked_at_one_by_one():
    async def scenario(lans, _):
        lab, seen = lans.get("lab", "c"), Seen()
        lab.observation.add(seen)
        kept = [join(lans.default, 1), join(lab, 1)]
        lab.observation.remove(seen)
        return {name for name, _ in seen}, len(kept)

    assert on_lans(scenario)[0] == {"lab"}


def test_nothing_is_left_of_it_in_the_actors():
    async def scenario(lans, _):
        lan = lans.default
        kept = join(lan, 1)
        first, second = Seen(), Seen()
        lan.observation.add(first)
        lan.observation.add(second)
        lan.observation.remove(first)
        wrapped = "on_receive" in vars(kept[1]._actor_weakref())
        lan.observation.remove(second)
        return wrapped, "on_receive" in vars(kept[1]._actor_weakref())

    assert on_lans(scenario) == (True, False)


def test_a_capture_that_nobody_reads_stays_bounded_and_says_so():
    async def scenario(lans, _):
        lan, capture = lans.default, Capture()
        kept, peer = join(lan, 1)
        lan.observation.add(capture)
        big = b"\1" + b"\xff" * 6 + mac(1) + b"\x88\xb5" + b"x" * 1400
        while not capture.missed:
            peer.tell(DatagramsFromClient([big] * 100))
            run_ready()
        lan.observation.remove(capture)
        stream = capture.stream()
        return len(await anext(stream)), kept

    size, _ = on_lans(scenario)
    assert MAX_WAITING < size < MAX_WAITING + 2000


def test_a_trace_that_nobody_reads_stays_bounded():
    async def scenario(lans, _):
        lan = lans.default
        kept, peer = join(lan, 1)
        trace = Trace(mac(1), frozenset({bytes((10, 0, 2, 2))}))
        lan.observation.add(trace)
        asked = b"\xff" * 6 + mac(1) + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac(1)
        asked += bytes((10, 0, 2, 10)) + bytes(6) + bytes((10, 0, 2, 2))
        while not trace.missed:
            peer.tell(DatagramsFromClient([b"\1" + asked] * 64))
            run_ready()
            await asyncio.sleep(0)
        lan.observation.remove(trace)
        first = await anext(trace.lines())
        return first["frame"], trace._lines.qsize(), kept

    text, left, _ = on_lans(scenario)
    assert (text, left) == ("ARP who has 10.0.2.2", MAX_LINES - 1)


CUT = [b"", b"x", bytes(14), bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd\x60", bytes(12) + b"\x08\x06"]


@pytest.mark.parametrize("data", CUT)
def test_frames_that_are_cut_are_described_too(data):
    assert describe(data).startswith("Ethernet ")
    assert ends_of(data) == ()


@pytest.mark.parametrize("transport", [UDP(sport=5, dport=6), TCP(sport=5, dport=6, flags="S")])
def test_later_fragments_are_told_without_the_ports_that_their_data_seem_to_be(transport):
    whole = Ether() / IP(src="10.0.2.15", dst="192.0.2.1") / transport / Raw(bytes(range(200)))
    first, later, _ = (bytes(frame) for frame in fragment(whole, 80))
    name = transport.name
    assert describe(first).startswith(f"{name} 10.0.2.15:5 > 192.0.2.1:6, ")
    assert describe(later) == f"{name} 10.0.2.15 > 192.0.2.1, {len(later)} bytes"


def test_who_looks_on_and_fails_ends_nobody():
    class Broken:
        def see(self, lan, handled):
            raise ValueError("a bug")

    async def scenario(lans, _):
        lan, seen, broken = lans.default, Seen(), Broken()
        for observer in (broken, seen):
            lan.observation.add(observer)
        session, _ = join(lan, 1)
        for observer in (broken, seen):
            lan.observation.remove(observer)
        return lan.is_alive, session.controls()[-1]["type"], bool(seen)

    assert on_lans(scenario) == (True, "Assigned", True)


def test_a_capture_knows_the_latest_interfaces_and_begins_older_ones_again(monkeypatch):
    monkeypatch.setattr("relay.capture.MAX_INTERFACES", 3)
    ports = [*range(1, 11), 1]

    async def scenario():
        capture = Capture()
        lan: Any = SimpleNamespace(name="default")
        for port in ports:
            capture.see(lan, Handled(None, FramesFromPeer(port, [frame()]), {}))
        assert len(capture._interfaces) == 3
        return await anext(capture.stream())

    told = [about.ifname for _, about in RawPcapNgReader(io.BytesIO(asyncio.run(scenario())))]
    assert told == [b"default/peer%d" % port for port in ports]


@pytest.mark.parametrize("direction", ["out", "in"])
def test_of_flows_that_begin_and_say_nothing_a_capture_keeps_the_latest(direction):
    async def scenario(lans, _):
        capture = Capture()
        lans.default.observation.add(capture)
        for number in range(MAX_NEW_FLOWS + 10):
            opened = FlowOpened(1, mac(1), "udp", f"10.0.2.10:{number}", "192.0.2.1:53", 7, direction)
            lans.default.observation.see_flow(opened)
        return capture._new_flows

    kept = on_lans(scenario)
    assert len(kept) == MAX_NEW_FLOWS
    text = kept["default", "udp", f"10.0.2.10:{MAX_NEW_FLOWS + 9}"]
    assert ("by port 7 of this machine" in text) == (direction == "out")
    assert ("by a forward" in text) == (direction == "in")
