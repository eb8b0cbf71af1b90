"""Commands that tell what there is on a running relay.

Each is a function of the admin API's client and the arguments, and gives a table, or with ``--json`` what the
API answers.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from netstack.forward import MAX_PORT
from relay.admin.arguments import number_of, room_argument
from relay.admin.client import port_of
from relay.admin.tables import amount, duration, milliseconds, percent, table
from relay.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from relay.admin import client

CLOSED, NOT_TOLD = 1, 3
"""Exit statuses of ``vmrelay why``: nothing gets through, and the relay could not be asked."""

WHY_STATUS = f"""\
exit status: 0 it would be let through, {CLOSED} it would not get through, 2 asked for wrongly,
{NOT_TOLD} it could not be told: no relay answers, or it has no such room"""


class Verdict(NamedTuple):
    """What is told, and the exit status that says the same to programs."""

    text: str
    status: int


RATE_SPAN = 1.0
"""Seconds between two looks, from which rates are told."""


def say(args: argparse.Namespace, answer: Any, text: Callable[[Any], str]) -> str:
    """Write an answer as JSON, or as ``text`` makes it."""
    return json.dumps(answer, indent=1) if args.json else text(answer)


def status(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Tell the relay, or a room of it, at a glance, with a line for each session."""
    query = {"room": args.room}
    answer = relay.ask("/v1/status", query)
    before = {peer["port"]: peer for peer in relay.ask("/v1/peers", query)}
    if not args.json and before:
        time.sleep(RATE_SPAN)
    peers = relay.ask("/v1/peers", query)
    answer |= {"peers": peers, "flows": sum(room["flows"] for room in answer["rooms"])}

    def text(told: Any) -> str:
        certificate = told["certificate"]
        lines = [
            f"vmrelay {told['version']} at {told['address']}, up {duration(told['uptime'])}, {told['path']}"
            + (", DRAINING" if told["draining"] else ""),
            f"certificate {certificate['sha256']}, for another {duration(certificate['expires_in'])}",
            "",
            table(
                ("ROOM", "NETWORK", "SESSIONS", "LEASES", "FLOWS", "FORWARDS"),
                [
                    (
                        *(room["name"], room["network"], room["sessions"]),
                        *(f"{room['leases']}/{room['pool']}", room["flows"], room["forwards"]),
                    )
                    for room in told["rooms"]
                ],
            ),
        ]
        if "workers" in told:
            lines += ["", _worker_table(told["workers"])]
        if peers:
            lines += ["", _peer_table(peers, before)]
        if told["drops"]:
            lines += ["", table(("DROPPED", "COUNT"), told["drops"].items())]
        return "\n".join(lines)

    return say(args, answer, text)


def _worker_table(workers: list[dict[str, Any]]) -> str:
    return table(
        ("WORKER", "PID", "STATE", "UP", "SESSIONS"),
        [
            (each["worker"], each["pid"], each["state"], duration(each["age"]), each["sessions"])
            for each in workers
        ],
    )


def _peer_table(peers: list[dict[str, Any]], before: Mapping[int, dict[str, Any]]) -> str:
    rows = []
    for peer in peers:
        earlier = before.get(peer["port"], peer)
        if peer["age"] < earlier["age"]:  # another relay's, with the same number
            earlier = peer
        span = max(peer["age"] - earlier["age"], 1e-9)
        rates = [8 * (peer[way] - earlier[way]) / span for way in ("bytes_in", "bytes_out")]
        drops = sorted(peer["drops"].items(), key=lambda item: -item[1])
        rows.append(
            (
                *(peer["port"], peer["room"], peer["name"], peer["mac"], peer["address"], peer["carrier"]),
                *(milliseconds(peer["round_trip"]), percent(peer["packets_lost"], peer["packets_sent"])),
                *(amount(rate, "bit/s") for rate in rates),
                peer["flows"],
                f"{sum(peer['drops'].values())} ({drops[0][0]})" if drops else "0",
            )
        )
    heads = (
        "PORT",
        "ROOM",
        "NAME",
        "MAC",
        "ADDRESS",
        "CARRIER",
        "RTT",
        "LOSS",
        "FROM",
        "TO",
        "FLOWS",
        "DROPS",
    )
    return table(heads, rows)


def peers(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the sessions."""
    heads = ("PORT", "ROOM", "NAME", "MAC", "ADDRESS", "FROM", "CARRIER", "MTU", "AGE", "SILENT", "IN", "OUT")
    return say(
        args,
        relay.ask("/v1/peers", {"room": args.room}),
        lambda found: table(
            heads,
            [
                (
                    *(peer["port"], peer["room"], peer["name"], peer["mac"], peer["address"], peer["remote"]),
                    *(peer["carrier"], peer["mtu"], duration(peer["age"]), duration(peer["silent"])),
                    *(amount(peer["bytes_in"], "B"), amount(peer["bytes_out"], "B")),
                )
                for peer in found
            ],
        ),
    )


def by_room(found: Mapping[str, Sequence[Any]]) -> list[tuple[str, Any]]:
    """Pair what was found with the names of its rooms."""
    return [(room, item) for room, items in found.items() for item in items]


def flows(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List NAT mappings and connections."""
    port = None if args.peer is None else str(port_of(relay, args.peer, args.room))
    heads = ("ROOM", "PORT", "PROTO", "GUEST", "REMOTE", "STATE", "AGE", "ENDS IN", "OUT", "IN")
    return say(
        args,
        relay.ask("/v1/flows", {"room": args.room, "port": port}),
        lambda found: table(
            heads,
            [
                (
                    *(room, flow["port"], flow["protocol"], flow["guest"], flow["remote"], flow["state"]),
                    *(duration(flow["age"]), duration(flow["ends_in"])),
                    *(
                        None if flow[way] is None else amount(flow[way], "B")
                        for way in ("bytes_out", "bytes_in")
                    ),
                )
                for room, flow in by_room(found)
            ],
        ),
    )


def leases(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List who holds which address."""
    return say(
        args,
        relay.ask("/v1/leases", {"room": args.room}),
        lambda found: table(
            ("ROOM", "ADDRESS", "MAC", "PORT", "NAME", "KIND"),
            [
                (
                    *(room, lease["address"], lease["mac"], lease["port"], lease["name"]),
                    "fixed" if lease["fixed"] else "dynamic",
                )
                for room, lease in by_room(found)
            ],
        ),
    )


def macs(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the MAC tables."""
    return say(
        args,
        relay.ask("/v1/macs", {"room": args.room}),
        lambda found: table(
            ("ROOM", "MAC", "PORT", "KIND", "SILENT"),
            [
                (
                    *(room, entry["mac"], entry["port"]),
                    *("registered" if entry["registered"] else "learned", duration(entry["silent"])),
                )
                for room, entry in by_room(found)
            ],
        ),
    )


def rooms(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the rooms, or tell of one."""
    names = ("name", "network", "gateway", "sessions", "macs", "leases", "pool", "flows", "forwards")
    return say(
        args,
        relay.ask("/v1/rooms", {"room": args.room}),
        lambda found: table(
            [name.upper() for name in names], [[room[name] for name in names] for room in found]
        ),
    )


def drops(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List what was dropped, and why."""
    return say(
        args,
        relay.ask("/v1/drops", {"room": args.room}),
        lambda found: table(("REASON", "COUNT"), found.items()),
    )


def why(relay: client.AdminClient, args: argparse.Namespace) -> Verdict:
    """Tell whether a guest would reach something."""
    query = {"target": args.target, "protocol": args.protocol, "from": args.guest, "room": args.room}
    query["port"] = None if args.to_port is None else str(args.to_port)

    steps = relay.ask("/v1/why", query)
    through = all(step["ok"] for step in steps)

    def text(_: Any) -> str:
        lines = [f"{'yes' if step['ok'] else 'NO '}  {step['question']}  {step['answer']}" for step in steps]
        verdict = "it would be let through" if through else "it would not get through"
        return "\n".join([*lines, f"=> {verdict}"])

    return Verdict(say(args, steps, text), 0 if through else CLOSED)


def why_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay why``."""
    parser.add_argument("target", help="address or name that a guest wants to reach")
    parser.add_argument(
        "--from", dest="guest", metavar="VM", help="the guest: its session's port, name, address or MAC"
    )
    parser.add_argument("--protocol", choices=("tcp", "udp", "icmp"), default="tcp", help="default: tcp")
    parser.add_argument("--to-port", type=number_of(1, MAX_PORT), metavar="N", help="port of the target")
    room_argument(parser)


def events(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Print what has happened lately, or what happens, as it happens, until interrupted."""
    if args.past:
        return "\n".join(
            _event_line(event, args) for event in relay.ask("/v1/events/recent", {"room": args.room})
        )
    for line in relay.lines("/v1/events", {"room": args.room}):
        if line.startswith("data: "):
            print(_event_line(json.loads(line.removeprefix("data: ")), args), flush=True)  # noqa: T201
    return ""


def _event_line(event: dict[str, Any], args: argparse.Namespace) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    times = f" ({event['times']} times)" if "times" in event else ""
    missed = f" ({event['missed']} events before it were missed)" if "missed" in event else ""
    return json.dumps(event) if args.json else printable(f"{clock} {event['message']}{times}{missed}")


def events_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay events``."""
    room_argument(parser)
    parser.add_argument("--past", action="store_true", help="those of late, instead of those to come")


def flows_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vmrelay flows``."""
    room_argument(parser)
    parser.add_argument("--peer", metavar="VM", help="of this session only: its port, name, address or MAC")
