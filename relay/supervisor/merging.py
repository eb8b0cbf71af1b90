"""Makes one answer of what several workers answer. Pure: JSON in, JSON out.

What is a session's has the worker that it is on beside it (``worker``). What all workers of a room know, such
as a lease, is told once, by the one that knows most of it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from relay.admin.events import MAX_RECENT
from relay.admin.overview import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Answers = dict[int, Any]
"""What workers have answered, by their numbers."""

SHARED = {"leases": ("address", "mac"), "macs": ("mac",), "forwards": ("forward",)}
"""What several workers may tell of the same thing, and by which fields that is known."""

MOST_DROPS = 10
"""Reasons at a glance."""


def summed(answers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counters, by their names."""
    total: Counter[str] = Counter()
    for answer in answers:
        total.update(answer)
    return dict(sorted(total.items()))


def drops(answers: Answers) -> dict[str, int]:
    """Add up what was dropped, the most frequent reason first."""
    return dict(sorted(summed(answers.values()).items(), key=lambda item: -item[1]))


def counters(answers: Answers) -> dict[str, int]:
    """Add up counters."""
    return summed(answers.values())


def peers(answers: Answers) -> list[dict[str, Any]]:
    """List sessions by their ports' numbers."""
    found = [{**peer, "worker": worker} for worker, several in answers.items() for peer in several]
    return sorted(found, key=lambda peer: peer["port"])


def flows(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """List flows by room."""
    return {room: [item for _, item in found] for room, found in _by_room(answers).items()}


def shared(kind: str) -> Callable[[Answers], dict[str, list[dict[str, Any]]]]:
    """Make the function that lists by room what several workers may tell of the same thing."""
    fields = SHARED[kind]

    def merge(answers: Answers) -> dict[str, list[dict[str, Any]]]:
        return {room: _once(found, fields) for room, found in _by_room(answers).items()}

    return merge


def _by_room(answers: Answers) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for worker, rooms in answers.items():
        for room, several in rooms.items():
            found.setdefault(room, []).extend((worker, {**item, "worker": worker}) for item in several)
    return found


def _once(found: Sequence[tuple[int, dict[str, Any]]], fields: Sequence[str]) -> list[dict[str, Any]]:
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, item in found:
        key = tuple(item[name] for name in fields)
        if key not in best or _known(item) > _known(best[key]):
            best[key] = item
    return list(best.values())


def _known(item: Mapping[str, Any]) -> int:
    """Count what is known of something: a worker without its guest knows less."""
    return sum(value is not None for value in item.values())


def names(answers: Answers) -> dict[str, dict[str, Any]]:
    """Put the name servers of each room together."""
    found: dict[str, dict[str, Any]] = {}
    for rooms in answers.values():
        for room, server in rooms.items():
            before = found.setdefault(room, {"names": {}, "cached": 0, "in_flight": 0})
            for name, addresses in server["names"].items():
                known = before["names"].setdefault(name, [])
                known += [address for address in addresses if address not in known]
            for field in ("cached", "in_flight"):
                before[field] += server[field]
    return found


def rooms(answers: Answers) -> list[dict[str, Any]]:
    """Describe rooms: of guests each worker tells its own, and of the rest all tell the same."""
    found: dict[str, dict[str, Any]] = {}
    for several in answers.values():
        for room in several:
            before = found.get(room["name"])
            if before is None:
                found[room["name"]] = dict(room)
                continue
            for field in ("sessions", "flows", "macs", "leases"):
                before[field] += room[field]
            for field in ("pool", "forwards"):
                before[field] = max(before[field], room[field])
    return list(found.values())


def overview(answers: Answers) -> dict[str, Any]:
    """Put what the dashboard shows together."""
    seen = {worker: answer["seen"] for worker, answer in answers.items()}
    found = [
        (flow[0], {**flow[1], "worker": worker}) for worker, each in seen.items() for flow in each["flows"]
    ]
    forwards: dict[tuple[str, str], tuple[str, Any]] = {}
    for each in seen.values():
        for room, item in each["forwards"]:
            before = forwards.get((room, item["forward"]))
            if before is None or _known(item) > _known(before[1]):
                forwards[room, item["forward"]] = room, item
    return {
        "rooms": rooms({worker: each["rooms"] for worker, each in seen.items()}),
        "traffic": summed(each["traffic"] for each in seen.values()),
        "peers": peers({worker: each["peers"] for worker, each in seen.items()})[:MAX_ROWS],
        "peers_found": sum(each["peers_found"] for each in seen.values()),
        "flows": sorted(found, key=lambda flow: flow[1]["age"])[:MAX_ROWS],
        "flows_found": sum(each["flows_found"] for each in seen.values()),
        "forwards": list(forwards.values()),
        "drops": drops({worker: each["drops"] for worker, each in seen.items()}),
    }


def recent_events(answers: Answers) -> list[dict[str, Any]]:
    """List the latest events, the oldest first."""
    found = [event for several in answers.values() for event in several]
    return sorted(found, key=lambda event: event["time"])[-MAX_RECENT:]
