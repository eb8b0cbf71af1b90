from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from waiting import counting_turns

from netstack.counters import Counters
from relay.admin.metrics import exposition
from relay.admin.service import LoopLag
from relay.lans import Bounds, Lans
from relay.room_labels import MAX_ROOMS
from relay.snapshots import RoomDescription, Snapshots

ROOMS = 3 * MAX_ROOMS
IDLE_TIME = 10.0


class Room:
    """A LAN of which only the counters matter: it dropped one frame."""

    is_alive = True
    is_outdated = False

    def __init__(self, name):
        self.name = name
        self.counters = Counters({"switch.drop.spoofed_source": 1, "switch.flooded": 0})
        self.is_empty = False

    def follow_changes(self):
        pass

    def stop(self):
        pass


class Told(Snapshots):
    """What is told of such rooms."""

    def __init__(self, lans):
        super().__init__(lans)
        self.sessions = []

    async def peers(self, room=None):
        return self.sessions

    async def flows(self, room=None, port=None, at_most=None):
        return {}

    async def rooms(self, room=None):
        about = {"leases": 1, "pool": 245, "flows": 0, "forwards": 0}
        return [RoomDescription(lan.name, "10.0.2.0/24", "10.0.2.2", 0, 0, **about) for lan in self._lans]


class Relay:
    """One with so many rooms, of which one is the default one."""

    def __init__(self, rooms=1):
        self.now = 0.0
        make: Any = Room
        kept = [f"room{n}" for n in range(rooms - 1)]
        bounds = Bounds(total=1000, per_client=0, idle_time=IDLE_TIME)
        self.lans = Lans(make, Counters({"endpoint.drop.rate": 7}), bounds, lambda: self.now, kept)
        self.snapshots = Told(self.lans)

    def make(self, *names):
        for name in names:
            self.now += 1.0  # there may be some each second
            self.lans.get(name, "192.0.2.1")

    def end(self, name):
        room: Any = self.lans.find(name)
        room.is_empty = True
        self.lans.look()
        self.now += IDLE_TIME
        self.lans.look()
        assert self.lans.find(name) is None

    async def exposition(self):
        operations = SimpleNamespace(certificate=lambda: {"expires_in": 60.0}, is_draining=False)
        served: Any = SimpleNamespace(
            facts={"version": "1", "path": "pure"}, started=0.0, lag=LoopLag(), operations=operations
        )
        return await exposition(served, self.snapshots)

    def families(self):
        return list(text_string_to_metric_families(asyncio.run(self.exposition()).decode()))

    def counted(self):
        """Tell what all series of counters show."""
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families()
            if family.type == "counter"
            for sample in family.samples
        }

    def dropped(self):
        """Tell what was dropped in rooms, by their labels."""
        [drops] = [family for family in self.families() if family.name == "vmrelay_drops"]
        return {one.labels["room"]: one.value for one in drops.samples if one.labels["part"] == "switch"}


def families():
    return {family.name: family.samples for family in Relay(ROOMS).families()}


def test_what_is_told_of_rooms_is_written_with_others_served_in_between():
    text, turns = asyncio.run(counting_turns(Relay(ROOMS).exposition()))
    families = list(text_string_to_metric_families(text.decode()))
    assert turns >= len(families) > 10
    assert len({family.name for family in families}) == len(families)


def test_a_room_that_ends_is_not_counted_again():
    relay = Relay()
    relay.make("lab")
    before = relay.counted()
    relay.end("lab")
    grown = {key: value for key, value in relay.counted().items() if value > before.get(key, 0)}
    assert not grown
    assert relay.dropped() == {"default": 1}
    assert relay.lans.totals()["switch.drop.spoofed_source"] == 2


def test_what_the_others_counted_never_shrinks():
    relay = Relay(MAX_ROOMS - 1)
    relay.make("early", "late", "other")
    assert relay.dropped()["early"] == 1
    assert relay.dropped()["other"] == 2
    relay.end("early")
    assert relay.dropped()["other"] == 2, "a room has one label for its life"
    relay.make("later")
    assert (relay.dropped()["later"], relay.dropped()["other"]) == (1, 2)
    for name in ("late", "other"):
        relay.end(name)
        assert relay.dropped()["other"] == 2
    relay.make("last")
    assert relay.dropped()["other"] == 3
    assert len(relay.dropped()) == MAX_ROOMS + 1


def test_labels_stay_bounded_and_nothing_is_lost():
    found = families()
    leases = {sample.labels["room"]: sample.value for sample in found["vmrelay_leases"]}
    assert len(leases) == MAX_ROOMS + 1
    assert leases["other"] == ROOMS - MAX_ROOMS
    drops = [sample for sample in found["vmrelay_drops"] if sample.labels["part"] == "switch"]
    assert sum(sample.value for sample in drops) == ROOMS
    assert len(drops) == MAX_ROOMS + 1


def test_what_is_of_no_room_is_counted_once():
    (sample,) = [one for one in families()["vmrelay_drops"] if one.labels["part"] == "endpoint"]
    assert (sample.labels["room"], sample.labels["reason"], sample.value) == ("", "rate", 7)


def test_bytes_and_packets_are_told_by_room_and_direction():
    relay = Relay()
    for name, count in (
        *(("bytes_from_client", 1000), ("bytes_to_client", 2000), ("packets_sent", 30), ("packets_lost", 4)),
    ):
        relay.lans.default.counters.add(f"peer.{name}", count)
    found = relay.counted()
    room = ("room", "default")
    assert found["vmrelay_bytes_total", ("direction", "in"), room] == 1000
    assert found["vmrelay_bytes_total", ("direction", "out"), room] == 2000
    assert found["vmrelay_client_packets_total", room] == 30
    assert found["vmrelay_client_packets_lost_total", room] == 4
    assert not [key for key in found if key[0] == "vmrelay_events_total"]


def test_what_there_is_nothing_of_is_zero_and_not_absent():
    found = families()
    for name, labels in (
        ("vmrelay_sessions", {"room": "room0", "carrier": "websocket"}),
        ("vmrelay_sessions", {"room": "other", "carrier": "webtransport"}),
        ("vmrelay_flows", {"protocol": "tcp", "state": "established"}),
        ("vmrelay_flows", {"protocol": "udp", "state": "open"}),
        ("vmrelay_flows", {"protocol": "icmp", "state": "open"}),
        ("vmrelay_frames", {"room": "room0", "edge": "guest", "direction": "in"}),
        ("vmrelay_frames", {"room": "other", "edge": "udp", "direction": "out"}),
        ("vmrelay_bytes", {"room": "room0", "direction": "in"}),
        ("vmrelay_client_packets", {"room": "other"}),
        ("vmrelay_client_packets_lost", {"room": "room0"}),
    ):
        assert [sample.value for sample in found[name] if sample.labels == labels] == [0], (name, labels)
    assert len(found["vmrelay_sessions"]) == 2 * (MAX_ROOMS + 1)
