"""Commands that ask a running relay: what there is, and what an operator may do about it.

Each is a function of the admin API's client and the arguments, and prints a table, or with ``--json`` what
the API answers.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.admin import client
from relay.admin.bridge import dashboard, dashboard_arguments
from relay.admin.capture_command import (
    capture,
    capture_arguments,
    duration_of,
    trace,
    trace_arguments,
)
from relay.admin.tables import amount, duration, milliseconds, percent, table
from relay.admin.top_command import top, top_arguments

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

RATE_SPAN = 1.0
"""Seconds between two looks, from which rates are told."""


class Command(NamedTuple):
    """A command that asks a running relay; ``relay.main`` has what it is for."""

    name: str
    ask: Callable[[client.AdminClient, argparse.Namespace], str]
    own_arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments, and those that all have."""
        self.own_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        client.add_arguments(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Ask, and print what is answered; return the exit status."""
        try:
            said = self.ask(client.connect(args), args)
        except client.AskError as error:
            print(f"vmrelay {self.name}: {error}", file=sys.stderr)  # noqa: T201
            return 1
        if said:
            print(said)  # noqa: T201
        return 0


def _say(args: argparse.Namespace, answer: Any, text: Callable[[Any], str]) -> str:
    return json.dumps(answer, indent=1) if args.json else text(answer)


def _room(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", metavar="NAME", help="of this room only")


# -- what there is ------------------------------------------------------------------------------------


def status(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Tell the relay at a glance, with a line for each session."""
    answer = relay.ask("/v1/status")
    before = {peer["port"]: peer for peer in relay.ask("/v1/peers")}
    if not args.json and before:
        time.sleep(RATE_SPAN)
    peers = relay.ask("/v1/peers")
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

    return _say(args, answer, text)


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
    return _say(
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


def _by_room(found: Mapping[str, Sequence[Any]]) -> list[tuple[str, Any]]:
    return [(room, item) for room, items in found.items() for item in items]


def flows(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List NAT mappings and connections."""
    port = None if args.peer is None else str(args.peer)
    heads = ("ROOM", "PORT", "PROTO", "GUEST", "REMOTE", "STATE", "AGE", "ENDS IN", "OUT", "IN")
    return _say(
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
                for room, flow in _by_room(found)
            ],
        ),
    )


def leases(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List who holds which address."""
    return _say(
        args,
        relay.ask("/v1/leases", {"room": args.room}),
        lambda found: table(
            ("ROOM", "ADDRESS", "MAC", "PORT", "NAME", "KIND"),
            [
                (
                    *(room, lease["address"], lease["mac"], lease["port"], lease["name"]),
                    "fixed" if lease["fixed"] else "dynamic",
                )
                for room, lease in _by_room(found)
            ],
        ),
    )


def macs(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the MAC tables."""
    return _say(
        args,
        relay.ask("/v1/macs", {"room": args.room}),
        lambda found: table(
            ("ROOM", "MAC", "PORT", "KIND", "SILENT"),
            [
                (
                    *(room, entry["mac"], entry["port"]),
                    *("registered" if entry["registered"] else "learned", duration(entry["silent"])),
                )
                for room, entry in _by_room(found)
            ],
        ),
    )


def rooms(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the rooms."""
    names = ("name", "network", "gateway", "sessions", "macs", "leases", "pool", "flows", "forwards")
    return _say(
        args,
        relay.ask("/v1/rooms"),
        lambda found: table(
            [name.upper() for name in names], [[room[name] for name in names] for room in found]
        ),
    )


def drops(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List what was dropped, and why."""
    return _say(
        args,
        relay.ask("/v1/drops", {"room": args.room}),
        lambda found: table(("REASON", "COUNT"), found.items()),
    )


def why(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Tell whether a guest would reach something."""
    query = {"target": args.target, "protocol": args.protocol, "from": args.guest, "room": args.room}
    query["port"] = None if args.to_port is None else str(args.to_port)

    def text(steps: list[dict[str, Any]]) -> str:
        lines = [f"{'yes' if step['ok'] else 'NO '}  {step['question']}  {step['answer']}" for step in steps]
        verdict = (
            "it would be let through" if all(step["ok"] for step in steps) else "it would not get through"
        )
        return "\n".join([*lines, f"=> {verdict}"])

    return _say(args, relay.ask("/v1/why", query), text)


def _why_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="address or name that a guest wants to reach")
    parser.add_argument("--from", dest="guest", metavar="VM", help="name, MAC or address of the guest")
    parser.add_argument("--protocol", choices=("tcp", "udp", "icmp"), default="tcp", help="default: tcp")
    parser.add_argument("--to-port", type=int, metavar="N", help="port of the target")
    _room(parser)


# -- what is done -------------------------------------------------------------------------------------


def forwards(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List the forwards, add one or remove one."""
    room = args.room or "default"
    if args.add:
        added = relay.post("/v1/forwards", {"room": room, "forward": args.add})
        return _say(args, added, lambda done: f"added {done['forward']} to room {done['room']}")
    if args.remove:
        removed = relay.delete("/v1/forwards", {"room": room, "forward": args.remove})
        return _say(args, removed, lambda done: f"removed {done['removed']}")
    return _say(
        args,
        relay.ask("/v1/forwards", {"room": args.room}),
        lambda found: table(
            ("ROOM", "FORWARD", "GUEST", "CLIENTS"),
            [(where, item["forward"], item["guest"], item["clients"]) for where, item in _by_room(found)],
        ),
    )


def _forwards_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", metavar="NAME", help="of this room (to change something: default)")
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--add", metavar="FORWARD", help="tcp:HOSTIP:PORT:VM:PORT or udp:..., as for the relay"
    )
    change.add_argument("--remove", metavar="FORWARD", help="as it is listed, or its first three parts")


def disconnect(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """End a session."""
    answer = relay.delete(f"/v1/peers/{args.peer}", {"reason": args.reason})
    return _say(args, answer, lambda done: f"session {done['disconnected']} has been ended")


def _disconnect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "peer", type=int, metavar="PORT", help="number of the session, as vmrelay peers lists it"
    )
    parser.add_argument("--reason", metavar="TEXT", help="told to its client")


def ban(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """List who is kept out, keep somebody out, or let somebody in again."""
    if args.lift:
        return _say(
            args, relay.delete(f"/v1/bans/{args.lift}"), lambda done: f"{done['lifted']} may come again"
        )
    whom = f"token={args.token}" if args.token else args.what
    if whom:
        kind, mark, what = whom.partition("=")
        if not mark:
            raise client.AskError("whom? address=192.0.2.0/24, mac=52:54:00:12:34:56 or token=ID")
        fields = {"kind": kind, "what": what, "reason": args.reason or ""}
        if args.time is not None:
            fields |= {"seconds": args.time}
        answer = relay.post("/v1/bans", fields)
        return _say(args, answer, lambda done: f"{done['id']} is banned; {done['ended']} sessions were ended")
    return _say(
        args,
        relay.ask("/v1/bans"),
        lambda found: table(
            ("ID", "ENDS IN", "REASON"),
            [(item["id"], duration(item["ends_in"]) or "never", item["reason"] or None) for item in found],
        ),
    )


def _ban_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="KIND=WHOM", help="address=NETWORK, mac=MAC or token=ID")
    parser.add_argument(
        "--time", type=duration_of, metavar="TIME", help="for how long, such as 30m (default: for ever)"
    )
    parser.add_argument("--token", metavar="ID", help="the same as token=ID")
    parser.add_argument("--reason", metavar="TEXT", help="told to the clients")
    parser.add_argument("--lift", metavar="ID", help="let in again what is listed by this id")


def reload(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Have the relay read its configuration, certificate and keys again."""

    def text(told: Any) -> str:
        lines = [f"in force: {', '.join(told['changed']) or 'nothing new'}"]
        if told["needs_restart"]:
            lines.append(f"needs a restart: {', '.join(told['needs_restart'])}")
        lines += [f"error: {error}" for error in told["errors"]]
        lines.append(f"certificate: {'new' if told['certificate'] else 'as before'}")
        return "\n".join(lines)

    return _say(args, relay.post("/v1/reload"), text)


def drain(relay: client.AdminClient, args: argparse.Namespace) -> str:
    """Have the relay take no new sessions, or take them again."""
    fields = None if args.time is None else {"seconds": args.time}
    answer = relay.delete("/v1/drain") if args.end else relay.post("/v1/drain", fields)
    return _say(
        args,
        answer,
        lambda told: "no new sessions are taken" if told["draining"] else "new sessions are taken",
    )


def _drain_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--end", action="store_true", help="take new sessions again")
    how.add_argument(
        "--time",
        type=duration_of,
        metavar="TIME",
        help="close the sessions that stand after this time, such as 10m",
    )


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
    return json.dumps(event) if args.json else f"{clock} {event['message']}{times}"


def _events_arguments(parser: argparse.ArgumentParser) -> None:
    _room(parser)
    parser.add_argument("--past", action="store_true", help="those of late, instead of those to come")


def _flows_arguments(parser: argparse.ArgumentParser) -> None:
    _room(parser)
    parser.add_argument("--peer", type=int, metavar="PORT", help="of this session only")


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("status", status),
        Command("top", top, top_arguments),
        Command("dashboard", dashboard, dashboard_arguments),
        Command("rooms", rooms),
        Command("peers", peers, _room),
        Command("flows", flows, _flows_arguments),
        Command("leases", leases, _room),
        Command("macs", macs, _room),
        Command("drops", drops, _room),
        Command("events", events, _events_arguments),
        Command("why", why, _why_arguments),
        Command("capture", capture, capture_arguments),
        Command("trace", trace, trace_arguments),
        Command("forwards", forwards, _forwards_arguments),
        Command("disconnect", disconnect, _disconnect_arguments),
        Command("ban", ban, _ban_arguments),
        Command("reload", reload),
        Command("drain", drain, _drain_arguments),
    )
}
