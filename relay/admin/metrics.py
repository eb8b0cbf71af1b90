"""Metrics in Prometheus's text format, made of the counters and of a snapshot at each scrape.

Names follow Prometheus's habits: base units, ``_total`` for counters. Labels are bounded: how rooms get
theirs tells ``relay.room_labels``.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from transport.turns import sockets_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from actors.descriptions import FlowDescription, PeerDescription
    from relay.admin.service import Served
    from relay.snapshots import RoomDescription, Snapshots

CONTENT_TYPE = CONTENT_TYPE_LATEST

_FRAMES = {
    "peer.frames_from_client": ("guest", "in"),
    "peer.frames_to_client": ("guest", "out"),
    "udp.frames_to_net": ("udp", "out"),
    "udp.frames_from_net": ("udp", "in"),
    "icmp.frames_to_net": ("icmp", "out"),
    "icmp.frames_from_net": ("icmp", "in"),
}
"""Counters of frames, with the edge and the direction that they stand for."""

_OF_ROOMS: tuple[tuple[tuple[str, str, tuple[str, ...]], Mapping[str, tuple[str, ...]]], ...] = (
    (("vmrelay_frames", "Frames, by the edge that they passed.", ("room", "edge", "direction")), _FRAMES),
    (
        ("vmrelay_bytes", "Bytes of the frames from guests (in) and to them (out).", ("room", "direction")),
        {"peer.bytes_from_client": ("in",), "peer.bytes_to_client": ("out",)},
    ),
    (
        ("vmrelay_client_packets", "QUIC packets that were sent to clients.", ("room",)),
        {"peer.packets_sent": ()},
    ),
    (
        ("vmrelay_client_packets_lost", "Those of them that were lost on the way.", ("room",)),
        {"peer.packets_lost": ()},
    ),
)
"""Name, text and labels of families that each room has from its start, and the counters that they show, with
the values of the labels behind the room's. Sessions bring those of bytes and packets up to date when they are
described."""

_SHOWN = frozenset(name for _, shown in _OF_ROOMS for name in shown)

CARRIERS = ("webtransport", "websocket")

_USUAL_FLOWS = (("udp", "open"), ("icmp", "open"), ("tcp", "established"))
"""Protocol and state of flows that are told where there are none, too."""


@dataclass(eq=False)
class _Collected:
    """What a registry, which knows it by its identity, asks for its metrics."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        return self.metrics


async def exposition(served: Served, snapshots: Snapshots) -> bytes:
    """Write all metrics as they are now."""
    peers = await snapshots.peers()
    rooms = await snapshots.rooms()
    flows = [flow for found in (await snapshots.flows()).values() for flow in found]
    metrics = [
        *_of_process(served),
        *_of_what_there_is(peers, flows, rooms, snapshots.label),
        *_of_rooms(rooms, snapshots.label),
        *_of_paths(peers),
    ]
    written = []
    # One a turn: fifty rooms have thousands of samples, and each takes some 10 µs.
    for metric in chain(metrics, _of_counters(snapshots.counters_by_label())):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected([metric]))
        written.append(generate_latest(registry))
        await sockets_first()
    return b"".join(written)


def _of_process(served: Served) -> Iterator[Metric]:
    """Tell of the relay as a whole: version, age, the event loop's lag, certificate."""
    yield InfoMetricFamily(
        "vmrelay_build",
        "Version, and the form of the datagram path.",
        value={"version": str(served.facts["version"]), "path": str(served.facts["path"])},
    )
    yield GaugeMetricFamily(
        "vmrelay_uptime_seconds", "Time since the start.", value=time.monotonic() - served.started
    )
    yield HistogramMetricFamily(
        "vmrelay_event_loop_lag_seconds",
        "How much later than asked the event loop came to a timer.",
        buckets=served.lag.buckets(),
        sum_value=served.lag.total,
    )
    yield GaugeMetricFamily(
        "vmrelay_certificate_expiry_timestamp_seconds",
        "When the certificate of new sessions ends, in unix time.",
        value=time.time() + served.operations.certificate()["expires_in"],
    )
    yield GaugeMetricFamily(
        "vmrelay_draining", "1 while new sessions are refused.", value=float(served.operations.is_draining)
    )


def _of_what_there_is(
    peers: Iterable[PeerDescription],
    flows: Iterable[FlowDescription],
    rooms: Iterable[RoomDescription],
    label: Callable[[str], str],
) -> Iterator[Metric]:
    """Count sessions and flows; where there are none it is 0, and not unknown."""
    sessions = Counter(dict.fromkeys(product({label(room.name) for room in rooms}, CARRIERS), 0))
    sessions.update((label(peer.room), peer.carrier) for peer in peers)
    mapped = Counter(dict.fromkeys(_USUAL_FLOWS, 0))
    mapped.update((flow.protocol, flow.state) for flow in flows)
    yield _by_labels(
        GaugeMetricFamily,
        ("vmrelay_sessions", "Sessions at present.", ("room", "carrier")),
        sessions,
    )
    yield _by_labels(
        GaugeMetricFamily,
        ("vmrelay_flows", "NAT mappings and connections at present.", ("protocol", "state")),
        mapped,
    )


def _of_rooms(rooms: Sequence[RoomDescription], label: Callable[[str], str]) -> Iterator[Metric]:
    """Count the rooms, and what is in their tables."""
    for field, name, text in (
        ("leases", "vmrelay_leases", "Addresses that guests hold."),
        ("pool", "vmrelay_pool_addresses", "Addresses that there are for guests."),
        ("macs", "vmrelay_mac_addresses", "MAC addresses that the switch knows."),
    ):
        totals: Counter[tuple[str, ...]] = Counter()
        for room in rooms:
            totals[label(room.name),] += getattr(room, field)
        yield _by_labels(GaugeMetricFamily, (name, text, ("room",)), totals)
    yield GaugeMetricFamily("vmrelay_rooms", "Rooms at present.", value=len(rooms))


def _by_labels(kind: Any, named: tuple[str, str, tuple[str, ...]], values: Mapping[Any, int]) -> Any:
    """Make a family of one kind from its name, text and labels; ``values`` are by the labels' values."""
    name, text, labels = named
    family = kind(name, text, labels=labels)
    for labelled, value in sorted(values.items()):
        family.add_metric(labelled, value)
    return family


def _of_paths(peers: Sequence[PeerDescription]) -> Iterator[Metric]:
    """Round trips to the clients at present, and what waits for them."""
    trips = [peer.round_trip for peer in peers if peer.round_trip is not None]
    yield SummaryMetricFamily(
        "vmrelay_client_round_trip_seconds",
        "Smoothed round trips of the sessions at present.",
        count_value=len(trips),
        sum_value=sum(trips),
    )
    yield GaugeMetricFamily(
        "vmrelay_client_round_trip_max_seconds", "The longest of them.", value=max(trips, default=0.0)
    )
    yield GaugeMetricFamily(
        "vmrelay_queued_bytes",
        "Bytes that wait to be sent to clients.",
        value=sum(peer.queued for peer in peers),
    )


def _of_counters(by_label: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
    """Everything that is counted: frames, bytes and drops by name, all else as events."""
    drops: Counter[tuple[str, ...]] = Counter()
    others: Counter[tuple[str, ...]] = Counter()
    for room, counters in by_label.items():
        for name, count in counters.items():
            if not count:
                continue
            part, _, reason = name.partition(".drop.")
            if reason:
                drops[room, part, reason] += count
            elif name not in _SHOWN:
                others[room, name] += count
    for named, shown in _OF_ROOMS:
        totals = {
            (room, *values): counters.get(name, 0)
            for room, counters in by_label.items()
            for name, values in shown.items()
            if room or name in counters
        }
        yield _by_labels(CounterMetricFamily, named, totals)
    yield _by_labels(
        CounterMetricFamily,
        ("vmrelay_drops", "Frames, packets and requests that were dropped.", ("room", "part", "reason")),
        drops,
    )
    yield _by_labels(
        CounterMetricFamily,
        ("vmrelay_events", "All else that is counted, by the name in docs/.", ("room", "name")),
        others,
    )
