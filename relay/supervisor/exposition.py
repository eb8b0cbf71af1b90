"""Makes one Prometheus exposition of those of several workers: what each counts is added up.

A worker's counters begin anew with its process; what those before it have counted is kept, as it was at their
last scrape, so that the relay's counters never go back. So is what a worker has counted of a room that has
ended there, while others have the room: where nobody has it any more, its series end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from relay.room_labels import OTHER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LARGEST = frozenset(
    {
        *("vmrelay_build_info", "vmrelay_uptime_seconds", "vmrelay_client_round_trip_max_seconds"),
        *("vmrelay_certificate_expiry_timestamp_seconds", "vmrelay_draining"),
        "vmrelay_pool_addresses",
    }
)
"""Samples of which the largest counts: what is the whole relay's, or a room's."""

NOT_ADDED = frozenset({"vmrelay_rooms"})
"""Metrics that :func:`of_relay` has: several workers may serve one room."""

GOES_ON = frozenset({"counter", "histogram"})
"""Types of metrics that never go back."""

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Totals:
    """What the workers have counted, with those that have ended."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str]] = {}
        """Documentation and type of each metric."""
        self._metrics: dict[_Key, str] = {}
        """Which metric each sample is of."""
        self._lives: dict[int, int] = {}
        """Workers' processes at the last scrape."""
        self._last: dict[int, dict[_Key, float]] = {}
        """What never goes back, as each told it last."""
        self._ended: dict[_Key, float] = {}
        """What those have counted that have ended, workers and the rooms of workers that go on."""

    def expose(self, told: Mapping[int, tuple[int, str]], own: Iterable[Metric]) -> bytes:
        """Write one exposition: ``told`` has process and exposition of each worker, ``own`` is besides."""
        sums: dict[_Key, float] = {}
        for worker, (process, text) in told.items():
            if self._lives.get(worker) not in (None, process):
                self._end(worker)
            self._lives[worker] = process
            before, self._last[worker] = self._last.get(worker, {}), self._add(text, sums)
            self._keep(before, self._last[worker])
        self._forget_rooms()
        for key, value in self._of_others(told):
            sums[key] = sums.get(key, 0) + value
        found = {name: Metric(name, *about) for name, about in self._families.items()}
        for key, value in sums.items():
            found[self._metrics[key]].add_sample(key[0], dict(key[1]), value)
        self._metrics = {key: name for key, name in self._metrics.items() if key in sums}
        return generate_latest(_Registry([*found.values(), *own]))

    def _add(self, text: str, sums: dict[_Key, float]) -> dict[_Key, float]:
        """Add a worker's samples; return those that never go back."""
        counted = {}
        for family in text_string_to_metric_families(text):
            if family.name in NOT_ADDED:
                continue
            self._families.setdefault(family.name, (family.documentation, family.type))
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                self._metrics[key] = family.name
                before = sums.get(key, 0.0)
                sums[key] = max(before, sample.value) if sample.name in LARGEST else before + sample.value
                if family.type in GOES_ON:
                    counted[key] = sample.value
        return counted

    def _end(self, worker: int) -> None:
        self._keep(self._last.pop(worker, {}), {})

    def _keep(self, before: Mapping[_Key, float], now: Mapping[_Key, float]) -> None:
        """Keep what counted on its own ``before`` and does not go on from there: it has ended, or is new."""
        for key, value in before.items():
            if now.get(key, 0.0) < value:
                self._ended[key] = self._ended.get(key, 0) + value

    def _forget_rooms(self) -> None:
        """Keep nothing of rooms that no worker tells of: clients name them, and their number has no end."""
        told = {key for counted in self._last.values() for key in counted}
        self._ended = {
            key: value for key, value in self._ended.items() if key in told or _room(key) in {None, "", OTHER}
        }

    def _of_others(self, told: Mapping[int, Any]) -> Iterator[tuple[_Key, float]]:
        """Tell what is counted by those that do not tell it now: they have ended, or are about to be back."""
        yield from self._ended.items()
        for worker, counted in self._last.items():
            if worker not in told:
                yield from counted.items()


def _room(key: _Key) -> str | None:
    """Tell the room of a sample."""
    return dict(key[1]).get("room")


class _Registry(CollectorRegistry):
    """One with these families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def of_relay(*, rooms: int, running: int, wanted: int, restarts: int) -> Iterator[Metric]:
    """Make the metrics that only the supervisor can tell."""
    yield GaugeMetricFamily("vmrelay_rooms", "Rooms at present.", value=rooms)
    yield GaugeMetricFamily("vmrelay_workers", "Workers that run.", value=running)
    yield GaugeMetricFamily("vmrelay_workers_wanted", "Workers that are to run.", value=wanted)
    yield CounterMetricFamily(
        "vmrelay_worker_restarts", "Workers that ended without being told to.", value=restarts
    )
