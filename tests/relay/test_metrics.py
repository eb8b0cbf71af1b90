from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from relay.admin.metrics import MAX_ROOMS, exposition
from relay.admin.service import LoopLag
from relay.snapshots import RoomDescription

ROOMS = 3 * MAX_ROOMS


class Snapshots:
    """Those of a relay with many rooms, each of which dropped one frame."""

    async def peers(self):
        return []

    async def flows(self):
        return {}

    async def rooms(self):
        return [
            RoomDescription(
                f"room{n}", "10.0.2.0/24", "10.0.2.2", 0, 0, leases=1, pool=245, flows=0, forwards=0
            )
            for n in range(ROOMS)
        ]

    def counters_by_room(self):
        of_each = {"switch.drop.spoofed_source": 1, "switch.flooded": 0}
        return {"": {"endpoint.drop.rate": 7}, **{f"room{n}": of_each for n in range(ROOMS)}}


def families():
    operations = SimpleNamespace(certificate=lambda: {"expires_in": 60.0}, is_draining=False)
    served: Any = SimpleNamespace(
        facts={"version": "1", "path": "pure"}, started=0.0, lag=LoopLag(), operations=operations
    )
    snapshots: Any = Snapshots()
    text = asyncio.run(exposition(served, snapshots)).decode()
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


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
    ):
        assert [sample.value for sample in found[name] if sample.labels == labels] == [0], (name, labels)
    assert len(found["vmrelay_sessions"]) == 2 * (MAX_ROOMS + 1)
